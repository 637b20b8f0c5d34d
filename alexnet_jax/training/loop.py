"""Training: the loop around the step."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import experiment, optimizer
from alexnet_jax.checkpoints import checkpoint, pretrained, workdir
from alexnet_jax.data import augment, dataset
from alexnet_jax.evaluation import evaluate, metrics
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.parallel import memory, multihost
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.training import resume
from alexnet_jax.training import step as step_lib
from alexnet_jax.training.profiler import Profiler
from alexnet_jax.utils import files
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import Stopped, UserError
from alexnet_jax.utils.signals import Signals

Array = jax.Array


class NotFiniteError(UserError):
  """The loss, or a parameter, is not a finite number."""


def _shuffled(split: dataset.Split) -> str:
  whole = split.block_size >= split.num_examples
  return 'whole' if whole else f'in blocks of {split.block_size:,} images'


def train_and_evaluate(config: ConfigDict, workdir_path: str | os.PathLike[str]) -> dict[str, Any]:
  """Trains, or goes on training, what a config says; see the README for what it leaves.

  Args:
    config: as `configs/imagenet.py` describes it.
    workdir_path: the run's folder, made if need be; where it has checkpoints, the run goes on.

  Returns:
    The last validation's record of metrics.jsonl, with 'best_step' and 'best_error'.

  Raises:
    UserError: the config, the data, the devices or the workdir do not fit.
    NotFiniteError: the loss is no number any more.
    Stopped: SIGINT or SIGTERM came; the run has saved.
  """
  path = Path(workdir_path)
  experiment.check(config)
  mesh = experiment.make_mesh(config)
  experiment.check_microbatches(config, mesh)
  started = bool(checkpoint.steps(files.inside(path, 'checkpoints')))
  first = multihost.is_first()
  with Display(quiet=not first) as display:
    source = None
    if config.train.init_from and not started:  # before data are prepared, which may take hours
      source = pretrained.read(config.train.init_from, tell=display.line)
    config, builder = multihost.first_then_others(
      functools.partial(experiment.open_data, config, display), 'data'
    )
    net = experiment.make_network(config)
    train_split = experiment.load_split(config, builder, config.data.train_split)
    validation_split = experiment.load_split(config, builder, config.data.validation_split)
    stored = experiment.stored_statistics(config, builder)
    with (
      workdir.alone(path) if first else contextlib.nullcontext(),
      Signals('stopping after this step' if first else None) as signals,
      contextlib.ExitStack() as closing,
      multihost.watched(),
    ):
      if first:
        workdir.prepare(path, experiment.resolved(config), started)
      run = Run(
        config, path, net, mesh, train_split, validation_split, stored, source, signals, display
      )
      closing.callback(run.close)
      return run.run()


class Run:
  """One run: the loop of `train_and_evaluate` and what it keeps in hand."""

  def __init__(
    self,
    config: ConfigDict,
    path: Path,
    net: AlexNet,
    mesh: Mesh,
    train_split: dataset.Split,
    validation_split: dataset.Split,
    stored: dict[str, np.ndarray] | None,
    source: pretrained.Trained | None,
    signals: Signals,
    display: Display,
  ):
    self.config, self.path, self.net, self.mesh = config, path, net, mesh
    self.train_split, self.validation_split = train_split, validation_split
    self.signals, self.display = signals, display
    self.batch_size = config.train.batch_size
    self.total_steps = -(-config.train.num_epochs * train_split.num_examples // self.batch_size)
    if config.train.num_steps is not None:
      self.total_steps = min(self.total_steps, config.train.num_steps)
    self.profiler = Profiler(path, config.train.profile_steps, self.total_steps, display)
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
    self.evaluation_step = evaluate.make_evaluation_step(net, mesh, options, **computing)

    directory = path / 'checkpoints'
    multihost.first_alone(functools.partial(checkpoint.put_back, directory), 'put back')
    restored = resume.restore(directory, net, tx, mesh, train_split, display)
    if restored:
      self.state, self.statistics, self.progress = restored
    else:
      if stored is None:
        stored = multihost.first_then_others(
          functools.partial(resume.compute_statistics, train_split, path, display, signals),
          'statistics',
        )
      single = {name: jnp.asarray(array, jnp.float32) for name, array in stored.items()}
      self.statistics = mesh_lib.replicate(mesh, augment.Statistics(**single))
      self.state = step_lib.init_state(net, tx, mesh, config.train.seed)
      if source is not None:
        params = resume.start_from(source, self.state.params, net.num_columns, display)
        self.state = self.state._replace(params=params)
      self.progress = resume.Progress()
    self.step = int(self.state.step)
    # What the newest checkpoint has.
    self.saved = (self.step, dataclasses.replace(self.progress)) if restored else None
    self.unchecked: tuple[int, Array] | None = None  # a step, and its loss not yet looked at
    self.unwritten: tuple[int, dict[str, Array]] | None = None  # a step, and the sums of its line
    self.glimpse: dict[str, Array] | None = None  # sums that the progress bar shows next
    self.rates_epoch: int | None = None  # for which epoch the state has its learning rates
    self.shown = ''  # the words behind the progress bar
    self.clock: tuple[float, int] | None = None  # when, and at which step, it was last read
    self.log = workdir.MetricsLog(path, self.progress.metrics_lines, multihost.is_first())
    self.writer = checkpoint.Writer(directory, config.checkpoint.keep)
    self.first_step = self.step + 1

    rate = experiment.describe_learning_rate(config)
    devices, per_device = mesh.devices.size, net.num_columns // mesh.shape[mesh_lib.COLUMN]
    display.line(
      f'{config.data.name}: {train_split.num_examples} training and'
      f' {validation_split.num_examples} validation images; {devices}'
      f' {mesh.devices.flat[0].platform} device{"s" * (devices > 1)} with {per_device} of'
      f' {net.num_columns} column{"s" * (net.num_columns > 1)} each;'
      f' {"going on at" if restored else "from"} step {self.step} to {self.total_steps};'
      f' shuffled {_shuffled(train_split)};{rate and f" {rate};"} workdir {path}'
    )

  def close(self) -> None:
    """Waits for what is being written."""
    with contextlib.ExitStack() as closing:
      if 'tensorboard' in self.__dict__:
        closing.callback(self.tensorboard.close)
      closing.callback(self.log.close)
      closing.callback(self.writer.close)
      self.profiler.stop(self.step)

  @functools.cached_property
  def tensorboard(self) -> workdir.Events:
    """TensorBoard's events, opened for the first of them."""
    return workdir.Events(self.path, self.first_step)

  def run(self) -> dict[str, Any]:
    """Trains to the end; returns what `train_and_evaluate` returns."""
    for _ in self.steps():
      pass
    seen = self.progress
    assert seen.last_validation is not None
    return {**seen.last_validation, 'best_step': seen.best_step, 'best_error': seen.best_error}

  def steps(self) -> Generator[int]:
    """The loop, which yields after each step its number.

    At a step's end, in this order: look, log, validate, save, stop, go on.
    """
    config = self.config
    if self.step < self.total_steps:
      self.check_memory()
    move = self.display.task('training', self.total_steps, self.step)
    batches = dataset.prefetch(
      evaluate.put_batches(
        dataset.train_batches(
          self.train_split,
          seed=config.train.seed,
          batch_size=self.batch_size,
          first_step=self.step,
          crop_size=self.net.input_size,
          crop_offsets=config.augment.crop_offsets,
          images_per_draw=config.augment.images_per_draw,
          rows=mesh_lib.local_rows(self.mesh, self.batch_size),
        ),
        self.mesh,
      )
    )
    with contextlib.closing(batches):
      while True:
        finished = self.step >= self.total_steps
        last = self.progress.last_validation
        validation_due = self.epochs_done(self.step) > self.progress.validated_epochs or (
          finished and (last is None or last['step'] != self.step)
        )
        every = config.checkpoint.every_steps
        if validation_due or self.step % config.train.log_every_steps == 0:
          self.end_line()
        if validation_due:
          self.write_line()
          self.validate()
        # Asked once: what stops the run saves it.
        signum = multihost.agreed_stop(self.step, self.signals.signum)
        if validation_due or signum or (every and self.step % every == 0):
          self.write_line()
          self.save()
        if signum:
          raise Stopped(signum)
        if finished:
          return
        self.profiler.before_step(self.step + 1, self.state.params)
        with jax.profiler.StepTraceAnnotation('train', step_num=self.step + 1):
          self.advance(next(batches))
        self.profiler.after_step(self.step, self.state.params)
        move(1, status=self.status() if self.display.live else None)
        yield self.step

  def epochs_done(self, step: int) -> int:
    """Whole epochs behind a number of steps."""
    return step * self.batch_size // self.train_split.num_examples

  def advance(self, batch: dataset.Batch) -> None:
    """One step of training, on a batch that is on the devices."""
    epoch = self.epochs_done(self.step)
    if self.rates_epoch != epoch:
      self.set_learning_rates(epoch)
    std = optimizer.at_epoch(self.config.augment.lighting.std, epoch, 0.0)
    self.state, loss = self.train_step(
      self.state, batch, self.statistics, jnp.asarray(std, jnp.float32)
    )
    self.step += 1
    # The step before has ended by now, so looking at its loss does not hold this one up.
    self.check_loss()
    self.write_line()
    self.unchecked = (self.step, loss)
    if self.clock is None:  # the first step compiles; it is not counted
      loss.block_until_ready()
      self.clock = (time.perf_counter(), self.step)

  def check_memory(self) -> None:
    """Raises UserError where training takes more memory than there is, naming a batch that fits."""
    spread = mesh_lib.shardings(self.mesh, mesh_lib.BATCH)
    side = self.net.input_size

    def of_batch(batch_size: int) -> int | None:
      shapes = {'image': ((side, side, 3), jnp.uint8), 'offset': ((2,), jnp.int32)}
      batch = {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=spread)
        for name, (shape, dtype) in {**shapes, 'label': ((), jnp.int32)}.items()
      }
      lighting_std = jax.ShapeDtypeStruct((), jnp.float32)
      arguments = self.state, batch, self.statistics, lighting_std
      return memory.needed(self.train_step, arguments, self.mesh)

    needed, free = of_batch(self.batch_size), memory.free(self.mesh)
    if needed is None or free is None or needed <= free:
      return
    message = (
      f'training with train.batch_size={self.batch_size} needs {needed / 1e6:,.0f} MB more memory,'
      f' and {free / 1e6:,.0f} MB are free; '
    )
    other = (
      'The same batch needs less with more --config.train.gradient_accumulation_steps (now'
      f' {self.accumulation_steps}), or on more devices with memory of their own.'
    )
    if jax.process_count() > 1 and self.mesh.devices.flat[0].platform == 'gpu':
      # What they try out as they compile they share: one that compiles alone waits for the others.
      raise UserError(f'{message}set a smaller --config.train.batch_size\n{other}')
    multiple = self.mesh.shape[mesh_lib.DATA] * self.accumulation_steps
    # A tenth remains for what else there is when the command is given again.
    fits = memory.batch_that_fits(of_batch, self.batch_size, needed, multiple, int(0.9 * free))
    if not fits:
      other = 'It takes more devices, with memory of their own, or a smaller network.'
      raise UserError(f'{message}no batch fits\n{other}')
    raise UserError(f'{message}--config.train.batch_size={fits} fits\n{other}')

  def check_loss(self) -> None:
    """Looks at the loss that is waiting; raises NotFiniteError where it is no number."""
    if self.unchecked is None:
      return
    step, loss = self.unchecked
    self.unchecked = None
    if not np.isfinite(float(loss)):
      raise self.not_finite(f'the loss is {float(loss)}', step)

  def check_finite(self) -> None:
    """Raises NotFiniteError where the last loss or a parameter is no number."""
    self.check_loss()
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(self.state.params)):
      raise self.not_finite('a parameter is not a finite number', self.step)

  def not_finite(self, what: str, step: int) -> NotFiniteError:
    """The error that ends a run whose numbers have gone."""
    good = self.path / 'checkpoints' / str(self.saved[0]) if self.saved else 'none'
    return NotFiniteError(
      f'{what} at step {step}, learning rate {self.learning_rate(step):.3g}; last good checkpoint:'
      f' {good}\nA lower --config.optimizer.learning_rate, in a new --workdir, usually helps.'
    )

  def cut(self, epoch: int) -> float:
    """What the cuts leave of the learning rate in an epoch."""
    config = self.config.optimizer
    if config.cut_epochs:
      cuts = sum(start <= epoch for start in config.cut_epochs)
    else:
      cuts = self.progress.plateau.cuts
    return float(config.cut_factor**-cuts)

  def learning_rate(self, step: int) -> float:
    """The rate of weights by which a step was made (from 1), before any layer's multiplier."""
    return experiment.learning_rate(self.config) * self.cut(self.epochs_done(step - 1))

  def set_learning_rates(self, epoch: int) -> None:
    """Puts the rates of an epoch into the state."""
    config = self.config.optimizer
    rates = optimizer.parameter_rates(
      self.state.params,
      learning_rate=experiment.learning_rate(self.config),
      cut=self.cut(epoch),
      epoch=epoch,
      multipliers=config.rate_multipliers,
      bias_multiplier=config.bias_multiplier,
      cut_biases=config.cut_biases,
    )
    self.state = self.state._replace(
      opt_state=self.state.opt_state._replace(learning_rates=mesh_lib.replicate(self.mesh, rates))
    )
    self.rates_epoch = epoch

  def status(self) -> str:
    """What stands behind the progress bar."""
    if not self.step % 10:
      # Sums of ten steps ago, which are there: those of this step would have to be waited for.
      if self.glimpse is not None and int(self.glimpse['count']):
        values = metrics.compute(self.glimpse)
        self.shown = f'loss {values["loss"]:.3f}, error {values["top1_error"]:.1%}'
        now, (start, since) = time.perf_counter(), self.clock or (0.0, self.step)
        if self.step > since:
          self.shown += f', {(self.step - since) * self.batch_size / (now - start):.0f} images/s'
      self.glimpse = jax.tree.map(jnp.copy, self.state.sums)
    return self.shown

  def record(self, split: str, step: int, values: Mapping[str, float]) -> dict[str, Any]:
    """Writes a line of metrics.jsonl, TensorBoard's scalars, and a line for the user."""
    epoch = step * self.batch_size / self.train_split.num_examples
    record = {'step': step, 'epoch': round(epoch, 4), 'split': split, **values}
    self.log.write(record)
    self.progress.metrics_lines = self.log.lines
    if multihost.is_first():
      self.tensorboard.write(step, {f'{split}/{name}': value for name, value in values.items()})
    text = f'step {step}  epoch {epoch:.2f}  {split:10}  loss {values["loss"]:.4f}'
    text += f'  top-1 error {values["top1_error"]:.2%}  top-5 error {values["top5_error"]:.2%}'
    if 'images_per_second' in values:
      text += f'  {values["images_per_second"]:.1f} images/s  rate {values["learning_rate"]:.3g}'
    self.display.line(text)
    return record

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
    self.check_loss()  # no line for a loss that is no number
    self.writer.check()
    values = metrics.compute(sums)
    now = time.perf_counter()
    start, since = self.clock or (now, step)
    images = (step - since) * self.batch_size
    values['images_per_second'] = images / (now - start) if images else 0.0
    values['learning_rate'] = self.learning_rate(step)
    self.clock = (now, step)
    self.record('train', step, values)

  def validate(self) -> None:
    """Validates; where a signal comes first, leaves that to the run that goes on."""
    self.check_finite()
    move = self.display.task('validation', self.validation_split.num_examples)

    def progress(images: int) -> None:
      if jax.process_count() == 1:  # several stop together, at a step
        self.signals.check()
      move(images)

    try:
      values = evaluate.evaluate(
        self.evaluation_step,
        self.state.params,
        self.statistics,
        self.validation_split,
        batch_size=self.batch_size // self.accumulation_steps,  # as much as fits into memory
        crop_size=self.net.input_size,
        mesh=self.mesh,
        progress=progress,
      )
    except Stopped:
      return
    finally:
      move(done=True)
    seen, error = self.progress, values['top1_error']
    if not np.isfinite(values['loss']):
      raise self.not_finite(f'the validation loss is {values["loss"]}', self.step)
    if seen.best_error is None or error < seen.best_error:
      seen.best_error, seen.best_step = error, self.step
    if (epochs := self.epochs_done(self.step)) > seen.validated_epochs:
      config = self.config.optimizer
      seen.validated_epochs = epochs
      seen.plateau = seen.plateau.update(error, config.patience, config.max_cuts)
    seen.last_validation = self.record('validation', self.step, values)
    self.rates_epoch = None  # the plateau rule may have cut them
    self.clock = (time.perf_counter(), self.step)

  def save(self) -> None:
    """Starts to write a checkpoint of the current step, unless there is the same one."""
    if self.step == 0 or self.saved == (self.step, self.progress):
      return
    self.check_finite()
    self.writer.save(
      self.step,
      {
        'params': self.state.params,
        'training': resume.training_tree(self.state),
        'statistics': self.statistics._asdict(),
      },
      {
        'step': self.step,
        'progress': dataclasses.asdict(self.progress),
        'config': experiment.resolved(self.config),
        'class_names': list(self.train_split.class_names),
        'train_examples': self.train_split.num_examples,
      },
      self.progress.best_step,
    )
    self.saved = (self.step, dataclasses.replace(self.progress))
