"""Traces of some steps of a run."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError


@contextlib.contextmanager
def _tensorflow_restored() -> Iterator[None]:
  """Repairs what jaxlib below 0.9 does as a trace starts or stops: TensorFlow's `enabled` is a bool then.

  TensorFlow calls it as a function, in the threads that read data.
  """
  module = sys.modules.get('tensorflow.python.profiler.trace')
  enabled = getattr(module, 'enabled', None)
  yield
  if module is not None:
    vars(module)['enabled'] = enabled


class Profiler:
  """Takes one trace of the steps that `train.profile_steps` names, in the workdir's 'profile'."""

  def __init__(
    self, path: Path, steps: tuple[int, int] | tuple[()], total_steps: int, display: Display
  ):
    """Prepares the trace.

    Args:
      path: the workdir.
      steps: the first and the last step to trace, from 1; () for no trace.
      total_steps: the run's last step.
      display: for the line that says where the trace is.

    Raises:
      UserError: the run ends before the first of the steps.
    """
    self.directory, self.display = path / 'profile', display
    self.first, self.last = steps or (0, 0)
    self.started_at: int | None = None  # the first step of the trace that is being taken
    if self.first > total_steps:
      raise UserError(
        f'train.profile_steps is {steps}, but the run ends with step'
        f' {total_steps}; choose earlier ones'
      )

  def before_step(self, step: int, params: Any) -> None:
    """Starts the trace where it begins with this step, once earlier work on params is done."""
    if self.started_at is None and self.first <= step <= self.last:
      jax.block_until_ready(params)
      with _tensorflow_restored():
        jax.profiler.start_trace(str(self.directory), create_perfetto_trace=True)
      self.started_at = step

  def after_step(self, step: int, params: Any) -> None:
    """Ends the trace where this step is its last, once its work on params is done."""
    if self.started_at is not None and step == self.last:
      jax.block_until_ready(params)
      self.stop(step)

  def stop(self, step: int) -> None:
    """Writes the trace if one has been started, to end with this step, and says where it is."""
    if self.started_at is None:
      return
    first, self.started_at = self.started_at, None
    with _tensorflow_restored():
      jax.profiler.stop_trace()
    *_, newest = sorted(self.directory.glob('plugins/profile/*'))
    self.display.line(
      f'trace of steps {first} to {step} in {newest}: open perfetto_trace.json.gz at'
      f' https://ui.perfetto.dev, or all of it with `xprof --logdir={self.directory}`'
    )
