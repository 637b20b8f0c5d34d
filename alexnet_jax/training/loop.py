"""Training: the loop around the step.

`Run.steps` is the loop; what it uses has a module each: the step (step.py), what a run resumes from
(resume.py, fine_tuning.py), the record (logger.py), traces (profiler.py).
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import experiment, optimizer
from alexnet_jax.checkpoints import checkpoint, pretrained, workdir
from alexnet_jax.convert import convert
from alexnet_jax.data import augment, datasets, pipeline, splits
from alexnet_jax.evaluation import inference, metrics
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.parallel import compat, multihost
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.training import fine_tuning, progress_text, resume
from alexnet_jax.training import step as step_lib
from alexnet_jax.training.logger import Logger, OnRecord
from alexnet_jax.training.memory_check import check_memory
from alexnet_jax.training.profiler import Profiler
from alexnet_jax.utils import files, host, provenance, silence
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import Stopped, UserError, number_of
from alexnet_jax.utils.signals import Signals

Array = jax.Array


class NotFiniteError(UserError):
  """The loss or a parameter is not a finite number."""


@compat.default_settings()
def train_and_evaluate(
  config: ConfigDict,
  workdir_path: str | os.PathLike[str],
  on_record: OnRecord | None = None,
  shows_predictions: bool = False,
) -> dict[str, Any]:
  """Trains what a config says, or resumes; docs/configs.md lists what it writes.

  Args:
    config: as `configs/imagenet.py` describes it.
    workdir_path: the run's folder, made if need be; where it has checkpoints, the run resumes.
    on_record: called with each record of metrics.jsonl, those of a run that resumes first;
      `live.train_and_evaluate` draws them.
    shows_predictions: whether the run ends with a picture of predictions for validation images in
      TensorBoard, which takes a second or two.

  Returns:
    The last validation's record of metrics.jsonl, with 'best_step', 'best_error' and 'best_loss'.

  Raises:
    UserError: the config, the data, the devices or the workdir do not fit, or the run is past its end
      already.
    NotFiniteError: the loss is not finite.
    Stopped: SIGINT, or one of `signals.PREEMPTION`, came; the run has saved, if it had begun.
  """
  path = files.local(workdir_path, '--workdir')
  experiment.check(config)
  mesh = experiment.make_mesh(config)
  experiment.check_microbatches(config, mesh)
  started = checkpoint.exists(files.inside(path, 'checkpoints'))
  if not started:
    experiment.check_new(config)
  first = multihost.is_first()
  kept = contextlib.nullcontext() if host.owns_process() else silence.process_state_restored()
  with kept, Display(quiet=not first) as display:
    source = None
    # Before data are prepared, which may take hours.
    usable = functools.partial(workdir.check_usable, path, experiment.resolved(config), started)
    multihost.first_alone(usable)
    if config.train.init_from and not started:
      source = convert.read(config.train.init_from, log=display.line)
    config, data_set = multihost.first_then_others(
      functools.partial(experiment.open_data, config, display)
    )
    net = experiment.make_network(config)
    train_split = data_set.load_split(config.data.train_split)
    validation_split = data_set.load_split(config.data.validation_split)
    stored = data_set.stored_statistics(config.data.train_split)
    with (
      workdir.lock(path, display.line) if first else contextlib.nullcontext(),
      Signals('stopping after this step' if first else None) as signals,
      contextlib.ExitStack() as closing,
      multihost.watched(),
    ):
      if first:
        workdir.prepare(path, experiment.resolved(config), started)
      run = Run(
        config,
        path,
        net,
        mesh,
        train_split,
        validation_split,
        stored,
        data_set,
        source,
        signals,
        display,
        on_record,
      )
      closing.callback(run.close)
      if first:
        if started:  # now that its checkpoints are known to be of this experiment
          workdir.write_config(path, experiment.resolved(config))
        started_here = provenance.describe(list(mesh.devices.flat))
        workdir.record_start(path, {'step': run.step, **started_here})
      return run.run(shows_predictions)


@jax.jit
def _all_finite(tree: Any) -> Array:
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


class Run:
  """One run, in the course of its training.

  Attributes:
    state: of the last step that was started.
    step: its number.
    statistics: of the training images.
    progress: of the run.
  """

  def __init__(
    self,
    config: ConfigDict,
    path: Path,
    net: AlexNet,
    mesh: Mesh,
    train_split: splits.Split,
    validation_split: splits.Split,
    stored: dict[str, np.ndarray] | None,
    data_set: datasets.DataSet,
    source: pretrained.PretrainedNetwork | None,
    signals: Signals,
    display: Display,
    on_record: OnRecord | None = None,
  ):
    """Compiles nothing yet; reads the newest checkpoint, or initializes from scratch.

    Args:
      config: the run's.
      path: the workdir.
      net: the global network.
      mesh: on which it is trained.
      train_split: the images that are trained on.
      validation_split: those that are validated on.
      stored: the training images' statistics; None: computed if there is no checkpoint.
      data_set: that both are of.
      source: a trained network whose layers a new run starts from.
      signals: that may stop the run.
      display: for the user.
      on_record: see `train_and_evaluate`.
    """
    self.config, self.path, self.net, self.mesh = config, path, net, mesh
    self.train_split, self.validation_split = train_split, validation_split
    self.signals, self.display = signals, display
    self.batch_size = config.train.batch_size
    num_epochs: int | None = config.train.num_epochs
    self.total_steps = -(-config.train.num_epochs * train_split.num_examples // self.batch_size)
    if config.train.num_steps is not None and config.train.num_steps < self.total_steps:
      self.total_steps, num_epochs = config.train.num_steps, None
    self.length = progress_text.Length(
      self.total_steps, num_epochs, self.batch_size, train_split.num_examples
    )
    self.profiler = Profiler(path, config.train.profile_steps, self.total_steps, display)
    self.schedule = experiment.make_schedule(config)
    options = experiment.augment_options(config)
    tx = experiment.make_optimizer(config, net)
    computing = {
      'precision': config.train.precision,
      'library_fusions': config.train.library_fusions,
    }
    self.accumulation_steps = config.train.gradient_accumulation_steps
    self.train_step = step_lib.make_train_step(
      net,
      tx,
      mesh,
      options,
      config.train.seed,
      accumulation_steps=self.accumulation_steps,
      **computing,
    )
    self.evaluation_step = inference.make_evaluation_step(net, mesh, options, **computing)

    directory = path / 'checkpoints'
    multihost.first_alone(functools.partial(checkpoint.restore_replaced, directory))
    restored = resume.restore(directory, config, net, tx, mesh, train_split, data_set, display)
    self.state, self.statistics, self.progress = restored or self._from_scratch(tx, stored, source)
    self.step = int(self.state.step)
    if self.step > self.total_steps:
      raise self._too_short()
    if 0 < self.profiler.last <= self.step:
      display.line(
        f'train.profile_steps {config.train.profile_steps} are past: the run is at step {self.step},'
        ' and nothing is traced now'
      )
    # For which epoch the state has its learning rates, and lighting_std its value.
    self.rates_epoch: int | None = None
    self.unchecked: tuple[int, Array] | None = None  # a step, and its loss not yet looked at
    self.unwritten: tuple[int, dict[str, Array]] | None = None  # a step, and the sums of its line
    self.logger = Logger(
      path,
      display,
      keep_lines=self.progress.metrics_lines,
      first_step=self.step + 1,
      length=self.length,
      config=experiment.resolved(config),
      num_classes=len(train_split.class_names),
      on_record=on_record,
    )
    self.checkpoints = checkpoint.Writer(directory, config.checkpoint.keep)
    self.checkpoints.delete_old(self.progress.best_step)
    self.description = {  # part of every checkpoint
      'config': experiment.resolved(config),
      'class_names': list(train_split.class_names),
      'fingerprint': data_set.fingerprint,
      'train_examples': train_split.num_examples,
    }
    # Of the newest checkpoint, resumed from or begun to be written.
    self.saved = (self.step, dataclasses.replace(self.progress)) if restored else None
    self.rate = self.learning_rate(min(self.step + 1, self.total_steps))
    display.line('\n'.join(self._first_lines(resumed=restored is not None)))
    if self.batch_size > train_split.num_examples:
      display.line(
        f'a batch of {self.batch_size:,} images is larger than the training set: some images are in it several'
        f' times; to avoid it, set train.batch_size to at most {train_split.num_examples:,}'
      )

  def _from_scratch(
    self,
    tx: optax.GradientTransformation,
    stored: Mapping[str, np.ndarray] | None,
    source: pretrained.PretrainedNetwork | None,
  ) -> tuple[step_lib.TrainState, augment.Statistics, resume.Progress]:
    """What a run begins with that has no checkpoint; arguments as `__init__`'s."""
    net, mesh, split = self.net, self.mesh, self.train_split
    if stored is None:
      compute = functools.partial(
        resume.compute_statistics, split, self.path, self.display, self.signals
      )
      stored = multihost.first_then_others(compute)
    single = {name: jnp.asarray(array, jnp.float32) for name, array in stored.items()}
    statistics = mesh_lib.replicate(mesh, augment.Statistics(**single))
    state = step_lib.init_state(net, tx, mesh, self.config.train.seed)
    if source is not None:
      params = fine_tuning.start_from(
        source,
        state.params,
        self.config,
        split.class_names,
        stored['mean_image'],
        self.display,
      )
      state = state._replace(params=params)
    return state, statistics, resume.Progress()

  def _too_short(self) -> UserError:
    """The error where the config ends before the checkpoint."""
    length = self.length
    if length.num_epochs is None:
      place, asked = f'step {self.step}', f'train.num_steps is {length.total_steps}'
      advice = f'train.num_steps=None, or at least {self.step}'
    else:
      place = f'epoch {length.epoch(self.step):.3g}'
      asked = f'train.num_epochs is {length.num_epochs}'
      advice = f'train.num_epochs={length.epochs_done(self.step - 1) + 1}, or more'
    return UserError(
      f'{self.path} has been trained to {place}, but {asked}; give {advice}, or another --workdir'
    )

  def _first_lines(self, resumed: bool) -> list[str]:
    """What is trained on, with what, and from where to where, in lines for a narrow terminal."""
    split, columns = self.train_split, self.net.num_columns
    devices = self.mesh.devices.size
    per_device = columns // self.mesh.shape[mesh_lib.COLUMN]
    whole = split.block_size >= split.num_examples
    rate = experiment.describe_learning_rate(self.config)
    if not rate or self.rate != self.schedule.learning_rate:
      rate = f'learning rate {self.rate:.3g}'
    clauses = (
      f'{datasets.title(self.config.data)}: {split.num_examples:,} training and'
      f' {self.validation_split.num_examples:,} validation images',
      f'shuffled {"whole" if whole else f"in blocks of {split.block_size:,} images"}',
      f'{number_of(devices, f"{self.mesh.devices.flat[0].platform} device")} with {per_device} of'
      f' {number_of(columns, "column")} each',
      rate,
      f'finished at step {self.step}'
      if resumed and self.step == self.total_steps
      else f'{"resuming at" if resumed else "from"} step {self.step} to {self.total_steps}',
      f'workdir {self.path}',
    )
    lines = [clauses[0]]
    for clause in clauses[1:]:
      longer = f'{lines[-1]}; {clause}'
      if len(longer) <= 79:
        lines[-1] = longer
      else:
        lines.append(clause)
    return lines

  def close(self) -> None:
    """Waits for what is being written."""
    with contextlib.ExitStack() as closing:
      closing.callback(self.logger.close)
      closing.callback(self.checkpoints.close)
      self.profiler.stop(self.step)

  def run(self, shows_predictions: bool = False) -> dict[str, Any]:
    """Trains to the end; `shows_predictions` and the result are those of `train_and_evaluate`."""
    first_step = self.step
    for _ in self.steps():
      pass
    if shows_predictions and self.step > first_step:
      self.show_predictions()
    self.logger.finish(self.step)
    progress = self.progress
    assert progress.last_validation is not None
    return {
      **progress.last_validation,
      'best_step': progress.best_step,
      'best_error': progress.best_error,
      'best_loss': progress.best_loss,
    }

  def steps(self) -> Generator[int]:
    """The loop, which yields after each step its number.

    Between two steps, in this order: log, validate, save, stop. The loss of a step is looked at during
    the next one.
    """
    config = self.config
    if self.step < self.total_steps:
      check_memory(
        self.train_step,
        self.state,
        self.statistics,
        self.mesh,
        input_size=self.net.input_size,
        batch_size=self.batch_size,
        accumulation_steps=self.accumulation_steps,
      )
    update_progress = self.display.task(self.length.current(self.step), self.total_steps, self.step)
    with contextlib.closing(self.batches()) as batches:
      while True:
        finished = self.step >= self.total_steps
        validation_due = self.validation_due(finished)
        if validation_due or self.step % config.train.log_every_steps == 0:
          self.end_line()
        if validation_due:
          self.write_line()
          update_progress(status=self.logger.status_text)
          self.validate()
        # Asked once: what stops the run saves it.
        signum = multihost.agreed_stop(self.step, self.signals.signum)
        every = config.checkpoint.every_steps
        if validation_due or signum or (every and self.step % every == 0):
          self.write_line()
          self.save()
        if validation_due:
          self.logger.start_clock(self.step)  # saving is no training
        if signum:
          raise Stopped(signum, saved=self.saved is not None)
        if finished:
          return
        self.profiler.before_step(self.step + 1, self.state.params)
        with jax.profiler.StepTraceAnnotation('train', step_num=self.step + 1):
          self.advance(next(batches))
        self.profiler.after_step(self.step, self.state.params)
        status = self.logger.status(self.step, self.state.sums)
        update_progress(1, status=status, description=self.length.before_bar(self.step))
        yield self.step

  def batches(self) -> Generator[dict[str, Array]]:
    """The batches from the next step on, on the devices, some of them ahead."""
    batches = pipeline.train_batches(
      self.train_split,
      seed=self.config.train.seed,
      batch_size=self.batch_size,
      first_step=self.step,
      crop_size=self.net.input_size,
      crop_offsets=self.config.augment.crop_offsets,
      images_per_draw=self.config.augment.images_per_draw,
      rows=mesh_lib.local_rows(self.mesh, self.batch_size),
    )
    return pipeline.prefetch(pipeline.put_batches(batches, self.mesh))

  def validation_due(self, finished: bool) -> bool:
    """Whether an epoch has ended, or the run, since the last validation."""
    last = self.progress.last_validation
    return self.length.epochs_done(self.step) > self.progress.validated_epochs or (
      finished and (last is None or last['step'] != self.step)
    )

  def advance(self, batch: dict[str, Array]) -> None:
    """One step of training, on a batch that is on the devices."""
    epoch = self.length.epochs_done(self.step)
    if self.rates_epoch != epoch:
      rates = self.schedule.parameter_rates(self.state.params, epoch, self.progress.plateau)
      opt_state = self.state.opt_state._replace(learning_rates=mesh_lib.replicate(self.mesh, rates))
      self.state, self.rates_epoch = self.state._replace(opt_state=opt_state), epoch
      if (rate := self.learning_rate(self.step + 1)) != self.rate:
        self.logger.new_learning_rate(self.step + 1, rate)
        self.rate = rate
      std = optimizer.piecewise_constant(self.config.augment.lighting.std, epoch, 0.0)
      self.lighting_std = mesh_lib.replicate(self.mesh, jnp.asarray(std, jnp.float32))
    self.state, loss = self.train_step(self.state, batch, self.statistics, self.lighting_std)
    self.step += 1
    # The step before has ended by now, so looking at its loss does not hold this one up.
    self.check_loss()
    self.write_line()
    self.unchecked = self.step, loss
    if not self.logger.clock_runs:  # the first step compiles; it is not counted
      loss.block_until_ready()
      self.logger.start_clock(self.step)

  def check_loss(self) -> None:
    """Looks at the loss that is waiting; raises NotFiniteError where it is not finite."""
    if self.unchecked is None:
      return
    step, loss = self.unchecked
    self.unchecked = None
    if not np.isfinite(float(loss)):
      raise self.not_finite(f'the loss is {float(loss)}', step)

  def check_finite(self) -> None:
    """Raises NotFiniteError where the last loss or a parameter is not finite."""
    self.check_loss()
    if not _all_finite(self.state.params):
      raise self.not_finite('a parameter is not a finite number', self.step)

  def not_finite(self, what: str, step: int) -> NotFiniteError:
    """The error that ends a run whose numbers are lost."""
    good = self.path / 'checkpoints' / str(self.saved[0]) if self.saved else 'none'
    return NotFiniteError(
      f'{what} at step {step}, learning rate {self.learning_rate(step):.3g}; last good checkpoint:'
      f' {good}\nA lower --config.optimizer.learning_rate, in a new --workdir, usually helps.'
    )

  def learning_rate(self, step: int) -> float:
    """The rate of weights by which a step was made (from 1), before any layer's multiplier."""
    return self.schedule.rate(self.length.epochs_done(step - 1), self.progress.plateau)

  def end_line(self) -> None:
    """Ends a line of what was trained since the last one; the next step begins another."""
    if self.unwritten is None:
      self.unwritten = self.step, self.state.sums
      self.state = self.state._replace(sums=mesh_lib.replicate(self.mesh, metrics.empty()))

  def write_line(self) -> None:
    """Writes the line that was ended, if anything was trained; by now its step has been too.

    The loop does so once the next step is on its way, so that the devices do not wait for the host.
    """
    if self.unwritten is None:
      return
    step, sums = self.unwritten
    self.unwritten = None
    if not int(sums['count']):
      return
    self.check_loss()  # no line for a loss that is not finite
    self.checkpoints.check()
    self.logger.train(step, sums, self.learning_rate(step))
    self.progress.metrics_lines = self.logger.lines

  def validate(self) -> None:
    """Validates; where a signal comes first, leaves that to the run that resumes."""
    self.check_finite()
    update_progress = self.display.task('validation', self.validation_split.num_examples)

    def count(images: int) -> None:
      if jax.process_count() == 1:  # several stop together, at a step
        self.signals.check(saved=self.saved is not None)
      update_progress(images)

    try:
      values = inference.evaluate(
        self.evaluation_step,
        self.state.params,
        self.statistics,
        self.validation_split,
        batch_size=self.batch_size // self.accumulation_steps,  # as much as fits into memory
        crop_size=self.net.input_size,
        mesh=self.mesh,
        progress=count,
      )
    except Stopped:
      return
    finally:
      update_progress(done=True)
    progress, error = self.progress, values['top1_error']
    if not np.isfinite(values['loss']):
      raise self.not_finite(f'the validation loss is {values["loss"]}', self.step)
    if is_best := progress.is_best(error, values['loss']):
      progress.best_error, progress.best_loss = error, values['loss']
      progress.best_step = self.step
    if (epochs := self.length.epochs_done(self.step)) > progress.validated_epochs:
      progress.validated_epochs = epochs
      progress.plateau = self.schedule.after_validation(progress.plateau, error)
      self.rates_epoch = None  # the plateau rule may have cut them
    progress.last_validation = self.logger.validation(self.step, values, is_best)
    progress.metrics_lines = self.logger.lines
    assert progress.best_error is not None
    kernels = multihost.whole(self.state.params['conv1']['kernel'])
    shared = kernels.ndim == 4  # not by places of their own, each with kernels of its own
    columns = np.split(kernels, self.net.num_columns, axis=-1) if shared else []
    self.logger.best(self.step, progress.best_error, columns)

  def show_predictions(self) -> None:
    """Shows predictions for some validation images in TensorBoard."""
    params, statistics = jax.tree.map(multihost.whole, (self.state.params, self.statistics))
    if not multihost.is_first():
      return
    from alexnet_jax.reports import fonts, plot_run  # matplotlib, which nothing else here needs

    split, title = self.validation_split, f'{datasets.title(self.config.data)}, step {self.step}'
    if missing := fonts.missing([title, *split.class_names]):
      self.display.line(missing)
    picture = plot_run.predictions_picture(self.config, params, statistics, split, title)
    self.logger.picture(self.step, 'predictions', picture)

  def save(self) -> None:
    """Starts to write a checkpoint of the current step, unless there is the same one.

    The writing goes on behind the steps that follow.
    """
    if self.step == 0 or self.saved == (self.step, self.progress):
      return
    self.check_finite()
    trees = {
      'params': self.state.params,
      'training': resume.training_tree(self.state),
      'statistics': self.statistics._asdict(),
    }
    progress = dataclasses.asdict(self.progress)
    description = {'step': self.step, 'progress': progress, **self.description}
    self.checkpoints.save(self.step, trees, description, self.progress.best_step)
    self.saved = self.step, dataclasses.replace(self.progress)
