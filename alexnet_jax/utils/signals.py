"""Signals that ask a run to stop: SIGINT (Ctrl-C), SIGTERM, and SIGUSR1 of schedulers."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from alexnet_jax.utils.errors import Stopped

PREEMPTION = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that schedulers send before they end a job."""


class Signals:
  """Records SIGINT, SIGTERM and SIGUSR1 for `check`; use it in a `with`.

  A second signal ends the process at once.

  Attributes:
    signum: the signal that was received; None for none.
  """

  def __init__(self, answer: str | None):
    """Prints `answer` to stderr at a signal; nothing for None, as in all processes but the first."""
    self.signum: int | None = None
    self._answer = answer
    self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

  def __enter__(self) -> 'Signals':
    if threading.current_thread() is threading.main_thread():
      for signum in (signal.SIGINT, *PREEMPTION):
        self._previous[signum] = signal.signal(signum, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    for signum, previous in self._previous.items():
      signal.signal(signum, previous)

  def _note(self, signum: int, frame: FrameType | None) -> None:
    del frame
    self.signum = signum
    for second in self._previous:  # the system ends the process, whatever it does
      signal.signal(second, signal.SIG_DFL)
    if self._answer is not None:
      os.write(2, f'\n{self._answer}; once more to stop at once\n'.encode())

  def check(self) -> None:
    """Raises Stopped if a signal was received."""
    if self.signum is not None:
      raise Stopped(self.signum)
