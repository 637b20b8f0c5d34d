"""The start of a run that resumes, from its newest checkpoint, and the statistics of a new one's images."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import experiment, optimizer
from alexnet_jax.checkpoints import checkpoint, pretrained, workdir
from alexnet_jax.data import augment, datasets, pipeline, splits, statistics
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.parallel import multihost
from alexnet_jax.training import step as step_lib
from alexnet_jax.utils import files, shell
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError, first_line, listed
from alexnet_jax.utils.signals import Signals


@dataclasses.dataclass
class Progress:
  """The loop's own state, saved with every checkpoint.

  Attributes:
    plateau: the state of the learning-rate rule.
    validated_epochs: epochs that have been validated.
    last_validation: its record in metrics.jsonl.
    best_step, best_error, best_loss: of the checkpoint with the lowest validation top-1 error, and
      of several the lowest validation loss; the loss is None in checkpoints from before it was kept.
    metrics_lines: lines of metrics.jsonl.
  """

  plateau: optimizer.Plateau = dataclasses.field(default_factory=optimizer.Plateau)
  validated_epochs: int = 0
  last_validation: dict[str, Any] | None = None
  best_step: int | None = None
  best_error: float | None = None
  best_loss: float | None = None
  metrics_lines: int = 0

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> 'Progress':
    """From the value of `dataclasses.asdict`."""
    return cls(**{**value, 'plateau': optimizer.Plateau(**value['plateau'])})

  def is_best(self, error: float, loss: float) -> bool:
    """Whether a validation is better than the best so far: by its error, of equal ones by its loss.

    A best loss that is not known loses a tie.
    """
    if self.best_error is None or error != self.best_error:
      return self.best_error is None or error < self.best_error
    return self.best_loss is None or loss < self.best_loss


def compute_statistics(
  split: splits.Split, path: Path, display: Display, signals: Signals
) -> dict[str, np.ndarray]:
  """Computes the training images' statistics, and writes them to the workdir.

  Where they are there, another process of the same new run has computed them, and they are read:
  `workdir.prepare` removes older ones.
  """
  kept = files.inside(path, statistics.FILE_NAME)
  if kept.exists():
    try:
      return statistics.load(kept, split.image_size)
    except UserError as error:
      display.line(f'{error}; computing it again')
  update_progress = display.task('mean image', split.num_examples)

  def count(images: int) -> None:
    if jax.process_count() == 1:  # several stop together, at a step
      signals.check(saved=False)
    update_progress(images)

  computed = pipeline.statistics(split, count)
  update_progress(done=True)
  statistics.save(kept, computed)
  return computed


def restore(
  directory: Path,
  config: ConfigDict,
  net: AlexNet,
  tx: optax.GradientTransformation,
  mesh: Mesh,
  split: splits.Split,
  data_set: datasets.DataSet,
  display: Display,
) -> tuple[step_lib.TrainState, augment.Statistics, Progress] | None:
  """Reads the newest complete checkpoint, if there is one; moves newer, damaged ones aside.

  Args:
    directory: the checkpoints.
    config: the run's.
    net: the global network.
    tx: its update rule.
    mesh: where the state is placed.
    split: the images that are trained on.
    data_set: that they are of.
    display: for lines to the user.

  Returns:
    The state, the training images' statistics and the progress; None without checkpoints.

  Raises:
    UserError: there are checkpoints, but none that can be read, or they are of another experiment
      or of other images.
  """
  shapes, specs = step_lib.state_specs(net, tx)
  abstract = jax.tree.map(
    lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
    shapes,
    mesh_lib.shardings(mesh, specs),
  )
  trees = {
    'params': abstract.params,
    'training': training_tree(abstract),
    'statistics': pretrained.abstract(net, split.image_size, mesh)['statistics'],
  }
  damaged: dict[int, str] = {}
  for step in reversed(checkpoint.steps(directory)):
    try:
      # The checkpoint's own config, for config.json may have been removed; before anything is moved.
      _, description = checkpoint.read(directory, step, {})
      if isinstance(stored := description.get('config'), dict):
        workdir.check_same(directory / str(step), experiment.resolved(config), stored)
      restored, description = checkpoint.read(directory, step, trees)
    except checkpoint.DamagedError as error:
      damaged[step] = str(error)
      continue
    for newer, reason in damaged.items():
      moved = multihost.first_alone(functools.partial(checkpoint.set_aside, directory, newer))
      display.line(f'checkpoint {newer} is damaged ({reason}); moved to {moved}')
    try:
      trained_on = description['train_examples'], description['class_names']
      progress = Progress.from_json(description['progress'])
    except (KeyError, TypeError) as error:
      raise UserError(
        f'{directory / str(step)} is not of a training run ({first_line(error)}); give another'
        ' --workdir'
      ) from error
    fingerprint = description.get('fingerprint')
    if fingerprint is None and data_set.held_out:  # once they were drawn at random
      raise UserError(
        f'{directory} was written by an older version, which held out other images for validation:'
        ' resumed here, the run would be validated on images that it was trained on\nStart from scratch'
        ' in another --workdir, or finish this run with that version.'
      )
    if trained_on != (split.num_examples, list(split.class_names)):
      raise _other_data(directory, *trained_on, split)
    if fingerprint not in (None, data_set.fingerprint):
      changed = f'the files of {config.data.data_dir or config.data.name} have changed since checkpoint {step}'
      parts = [config.data[field].split('[')[0] for field in ('train_split', 'validation_split')]
      if data_set.held_out or parts[0] == parts[1]:  # train[:90%], train[90%:]
        raise UserError(
          f'{changed}, and other images may be held out for validation now: if it resumed, the run could'
          ' be validated on images that it was trained on\nGive the folder as it was, or start from scratch'
          ' in another --workdir.'
        )
      display.line(f'{changed}, but not the number of training images; resuming')
    training = restored['training']
    opt_state = optimizer.PaperSGDState(**training['optimizer'])
    return (
      step_lib.TrainState(training['step'], restored['params'], opt_state, training['sums']),
      augment.Statistics(**restored['statistics']),
      progress,
    )
  if damaged:
    step, reason = max(damaged.items())
    raise UserError(
      f'none of the checkpoints in {directory} can be read; the newest, {step}: {reason}\n'
      'Repair that, or start from scratch in another --workdir.'
    )
  return None


def _other_data(
  directory: Path, images: int, class_names: Sequence[str], split: splits.Split
) -> UserError:
  """Says how a training split differs from what checkpoints were trained on, and what to do."""
  changes = []
  if images != split.num_examples:
    changes.append(f'{images:,} training images then, {split.num_examples:,} now')
  gone, new = set(class_names) - set(split.class_names), set(split.class_names) - set(class_names)
  if gone:
    changes.append(f'classes that are gone: {listed(sorted(gone))}')
  if new:
    changes.append(f'new classes: {listed(sorted(new))}')
  message = (
    f'{directory} was trained on other data: {"; ".join(changes) or "classes in another order"}\n'
    'Give the data it had, or another --workdir'
  )
  if not gone and images < split.num_examples:  # what is held out of the others is the same
    start = shell.quote(f'--config.train.init_from={directory.parent}')
    message += f'; if images were only added, its weights are a start there: {start}'
  return UserError(message)


def training_tree(state: step_lib.TrainState) -> dict[str, Any]:
  """The part of a state, beside the parameters, that a checkpoint holds."""
  return {'step': state.step, 'optimizer': state.opt_state._asdict(), 'sums': state.sums}
