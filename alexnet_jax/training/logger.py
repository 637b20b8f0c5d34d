"""The record of a run: metrics.jsonl, TensorBoard's events, lines and a progress bar for the user."""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.checkpoints import tensorboard, workdir
from alexnet_jax.evaluation import metrics
from alexnet_jax.parallel import multihost
from alexnet_jax.reports import tiles
from alexnet_jax.training import progress_text
from alexnet_jax.utils.display import Display

OnRecord = Callable[[Mapping[str, Any]], None]
"""Called with each record of metrics.jsonl, in the order of the file."""

STATUS_EVERY = 10  # steps
_SECONDS_BETWEEN_LINES = 60  # where there is no bar
_FRACTION = 3  # characters of '.37'


class Logger:
  """Writes what is measured, and measures the speed of training.

  The user gets a line for each validation, with the means of training since the one before, or
  since the run was resumed. Where there is no bar, a minute without a line has one in between.

  Attributes:
    lines: lines of metrics.jsonl so far.
  """

  def __init__(
    self,
    path: Path,
    display: Display,
    *,
    keep_lines: int,
    first_step: int,
    length: progress_text.Length,
    config: Mapping[str, Any],
    num_classes: int,
    on_record: OnRecord | None = None,
  ):
    """Opens metrics.jsonl.

    Args:
      path: the workdir.
      display: for lines to the user.
      keep_lines: lines of metrics.jsonl to keep; what a later checkpoint wrote is dropped.
      first_step: the step that TensorBoard's events start with.
      length: of the run.
      config: the run's, as values for JSON.
      num_classes: of the data.
      on_record: called with the lines that are kept, then with each as it is written; by the first of
        several processes.
    """
    self._path, self._display, self._first_step = path, display, first_step
    self._length, self._config = length, config
    self._scalars = ['loss', 'top1_error', 'images_per_second', 'learning_rate']
    if metrics.has_top5(num_classes):
      self._scalars.append('top5_error')
    self._metrics = workdir.MetricsLog(path, keep_lines, multihost.is_first())
    if self._metrics.lines < keep_lines:
      display.line(
        f'metrics.jsonl has lost {keep_lines - self._metrics.lines:,} of the {keep_lines:,} lines that it had:'
        ' the curves of what was trained before are not complete'
      )
    self._on_record = on_record
    if on_record is not None and multihost.is_first():
      for record in workdir.read_metrics(path):
        on_record(record)
    self._clock: tuple[float, int] | None = None  # when it was last read, and at which step
    self._sums: dict[str, jax.Array] | None = None  # for the next status
    self._status = ''
    self._trained = dict[str, float]()  # sums of what is recorded since the last validation
    self._images, self._seconds = 0, 0.0  # of which the speed was measured, since then
    self._last_line = time.monotonic()

  @property
  def lines(self) -> int:
    """Lines of metrics.jsonl so far."""
    return self._metrics.lines

  @functools.cached_property
  def _tensorboard(self) -> tensorboard.Events:
    """TensorBoard's events, opened for the first of them, by the first of several processes."""
    events = tensorboard.Events(self._path, self._first_step)
    events.config(self._first_step - 1, self._config)
    return events

  @property
  def status_text(self) -> str:
    """The words behind the progress bar, as of the last record or status."""
    return self._status

  @property
  def clock_runs(self) -> bool:
    """Whether the speed is being measured."""
    return self._clock is not None

  def start_clock(self, step: int) -> None:
    """Measures the speed from the end of this step on."""
    self._clock = time.perf_counter(), step

  def train(self, step: int, sums: Mapping[str, jax.Array], learning_rate: float) -> None:
    """Records training since the last record, from its `metrics.batch_sums`, waiting for them."""
    values = metrics.compute(sums)
    images, seconds = self._measured(step)
    values['images_per_second'] = images / seconds if images else 0.0
    values['learning_rate'] = learning_rate
    self.start_clock(step)
    self._images, self._seconds = self._images + images, self._seconds + seconds
    self._trained = self._with(sums)
    self._sums = None  # they are in those
    self._record('train', step, values)
    trained, speed = metrics.compute(self._trained), self._speed(0, 0.0)
    self._status = self._describe(trained, speed)
    silent = time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES
    if silent and not self._display.live and not self._length.is_epoch_end(step):
      self._line(step, trained, None, is_best=False)

  def new_learning_rate(self, step: int, rate: float) -> None:
    """Shows the rate in force from a step on, aligned with the lines of the epochs."""
    place = self._length.current(step, self._extra_width)
    self._display.line(f'{place}  learning rate {rate:.3g}')

  def validation(self, step: int, values: Mapping[str, float], is_best: bool) -> dict[str, Any]:
    """Records a validation; returns the record in metrics.jsonl.

    Args:
      step: the last one.
      values: loss and errors.
      is_best: whether it is the best so far.
    """
    record = self._record('validation', step, values)
    trained = metrics.compute(self._trained) if self._trained else None
    self._line(step, trained, values, is_best=is_best)
    self._trained, self._images, self._seconds = {}, 0, 0.0
    self.start_clock(step)
    return record

  def status(self, step: int, sums: Mapping[str, jax.Array]) -> str | None:
    """The words behind the progress bar, of training since the last validation.

    Args:
      step: the last one that was started.
      sums: `metrics.batch_sums` as of that step, since the last record.

    Returns:
      The words; None where nobody sees them.
    """
    if not self._display.live:
      return None
    if not step % STATUS_EVERY:
      # The sums of ten steps ago are computed by now; those of this step would be waited for.
      if self._sums is not None and int(self._sums['count']):
        speed = self._speed(*self._measured(step))
        self._status = self._describe(metrics.compute(self._with(self._sums)), speed)
      self._sums = jax.tree.map(jnp.copy, dict(sums))
    return self._status

  def best(self, step: int, error: float, kernels: Sequence[np.ndarray]) -> None:
    """Shows in TensorBoard the lowest validation error so far, and the first layer's kernels.

    Args:
      step: the last one.
      error: the lowest top-1 error.
      kernels: of the step, [height, width, 3, F] for each column.
    """
    if not multihost.is_first():
      return
    self._tensorboard.scalars('', step, {'best_top1_error': error})
    for i, part in enumerate(kernels):
      picture = np.round(255 * tiles.kernels(part)).astype(np.uint8)
      self._tensorboard.picture(step, f'conv1/column_{i + 1}', picture)

  def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
    """Shows a picture [H, W, 3] uint8 in TensorBoard, by the first of several processes."""
    if multihost.is_first():
      self._tensorboard.picture(step, name, pixels)

  def finish(self, step: int) -> None:
    """Marks the run as finished in TensorBoard, if anything was recorded since the start."""
    if '_tensorboard' in self.__dict__:
      self._tensorboard.finished(step)

  def close(self) -> None:
    """Closes the files."""
    with contextlib.ExitStack() as closing:
      if '_tensorboard' in self.__dict__:
        closing.callback(self._tensorboard.close)
      closing.callback(self._metrics.close)

  def _measured(self, step: int) -> tuple[int, float]:
    """The images since the clock was last read, and the seconds."""
    if self._clock is None:
      return 0, 0.0
    start, since = self._clock
    return (step - since) * self._length.batch_size, time.perf_counter() - start

  @property
  def _extra_width(self) -> int:
    """Where there are no bars, lines within an epoch have fractions of it."""
    return 0 if self._display.live else _FRACTION

  def _speed(self, images: int, seconds: float) -> float:
    """Images a second since the last validation, with these not yet recorded; 0 if not known."""
    images += self._images
    return images / (self._seconds + seconds) if images else 0.0

  def _with(self, sums: Mapping[str, jax.Array]) -> dict[str, float]:
    """The sums of what is recorded since the last validation, and these."""
    return {name: self._trained.get(name, 0.0) + float(value) for name, value in sums.items()}

  def _describe(self, trained: Mapping[str, float], speed: float) -> str:
    text = f'train {progress_text.percent(trained["top1_error"])} loss {trained["loss"]:.3f}'
    return f'{text} {progress_text.speed(speed)}' if speed else text

  def _line(
    self,
    step: int,
    trained: Mapping[str, float] | None,
    validated: Mapping[str, float] | None,
    *,
    is_best: bool,
  ) -> None:
    place = self._length.done(step, self._extra_width)
    speed = self._speed(0, 0.0)
    self._display.line(
      progress_text.line(place, trained, validated, is_best=is_best, images_per_second=speed)
    )
    self._last_line = time.monotonic()

  def _record(self, split: str, step: int, values: Mapping[str, float]) -> dict[str, Any]:
    epoch = round(self._length.epoch(step), 4)
    record = {'step': step, 'epoch': epoch, 'split': split, **values}
    self._metrics.write(record)
    if multihost.is_first():
      shown = {name: values[name] for name in self._scalars if name in values}
      self._tensorboard.scalars(split, step, shown)
      if self._on_record is not None:
        self._on_record(record)
    return record
