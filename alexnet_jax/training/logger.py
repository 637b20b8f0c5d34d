"""The record of a run: metrics.jsonl, TensorBoard's events, lines and a progress bar for the user."""

import contextlib
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_jax.checkpoints import workdir
from alexnet_jax.evaluation import metrics
from alexnet_jax.parallel import multihost
from alexnet_jax.utils.display import Display

STATUS_EVERY = 10  # steps


class Logger:
  """Writes what is measured, and measures the speed of training.

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
    batch_size: int,
    train_examples: int,
  ):
    """Opens metrics.jsonl.

    Args:
      path: the workdir.
      display: for lines to the user.
      keep_lines: lines of metrics.jsonl to keep; what a later checkpoint wrote is dropped.
      first_step: the step that TensorBoard's events start with.
      batch_size: images a step.
      train_examples: images an epoch.
    """
    self._path, self._display, self._first_step = path, display, first_step
    self._batch_size, self._train_examples = batch_size, train_examples
    self._metrics = workdir.MetricsLog(path, keep_lines, multihost.is_first())
    self._clock: tuple[float, int] | None = None  # when it was last read, and at which step
    self._sums: dict[str, jax.Array] | None = None  # for the next status
    self._status = ''

  @property
  def lines(self) -> int:
    """Lines of metrics.jsonl so far."""
    return self._metrics.lines

  @functools.cached_property
  def _tensorboard(self) -> workdir.Events:
    """TensorBoard's events, opened for the first of them."""
    return workdir.Events(self._path, self._first_step)

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
    values['images_per_second'] = self._images_per_second(step)
    values['learning_rate'] = learning_rate
    self.start_clock(step)
    self._record('train', step, values)

  def validation(self, step: int, values: Mapping[str, float]) -> dict[str, Any]:
    """Records a validation; returns the record in metrics.jsonl."""
    record = self._record('validation', step, values)
    self.start_clock(step)
    return record

  def status(self, step: int, sums: Mapping[str, jax.Array]) -> str | None:
    """The words behind the progress bar; None where nobody sees it.

    Args:
      step: the last one that was started.
      sums: `metrics.batch_sums` as of that step.
    """
    if not self._display.live:
      return None
    if not step % STATUS_EVERY:
      # The sums of ten steps ago are computed by now; those of this step would be waited for.
      if self._sums is not None and int(self._sums['count']):
        values = metrics.compute(self._sums)
        self._status = f'loss {values["loss"]:.3f}, error {values["top1_error"]:.1%}'
        if speed := self._images_per_second(step):
          self._status += f', {speed:.0f} images/s'
      self._sums = jax.tree.map(jnp.copy, dict(sums))
    return self._status

  def close(self) -> None:
    """Closes the files."""
    with contextlib.ExitStack() as closing:
      if '_tensorboard' in self.__dict__:
        closing.callback(self._tensorboard.close)
      closing.callback(self._metrics.close)

  def _images_per_second(self, step: int) -> float:
    start, since = self._clock or (0.0, step)
    return (step - since) * self._batch_size / (time.perf_counter() - start)

  def _record(self, split: str, step: int, values: Mapping[str, float]) -> dict[str, Any]:
    epoch = step * self._batch_size / self._train_examples
    record = {'step': step, 'epoch': round(epoch, 4), 'split': split, **values}
    self._metrics.write(record)
    if multihost.is_first():
      self._tensorboard.write(step, {f'{split}/{name}': value for name, value in values.items()})
    text = f'step {step}  epoch {epoch:.2f}  {split:10}  loss {values["loss"]:.4f}'
    text += f'  top-1 error {values["top1_error"]:.2%}  top-5 error {values["top5_error"]:.2%}'
    if 'images_per_second' in values:
      text += f'  {values["images_per_second"]:.1f} images/s  rate {values["learning_rate"]:.3g}'
    self._display.line(text)
    return record
