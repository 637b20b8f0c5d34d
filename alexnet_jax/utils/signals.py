"""Being asked to stop: SIGINT (Ctrl-C), SIGTERM, and SIGUSR1 of schedulers."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from alexnet_jax.utils.errors import Stopped

PREEMPTION = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send before they end a job."""


class Signals:
  """Notes SIGINT, SIGTERM and SIGUSR1 for `check`; a second one ends the process at once. Use it in a `with`.

  Attributes:
    signum: the signal that came; None for none.
  """

  def __init__(self, answer: str | None):
    """Says `answer` on stderr when a signal comes; None: nothing, as one of several processes."""
    self.signum: int | None = None
    self._answer = answer
    self._previous: dict[int, Any] = {}

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
    for again in self._previous:  # the system ends the process, whatever it is busy with
      signal.signal(again, signal.SIG_DFL)
    if self._answer is not None:
      os.write(2, f'\n{self._answer}; once more to stop at once\n'.encode())

  def check(self) -> None:
    """Raises Stopped if a signal has come."""
    if self.signum is not None:
      raise Stopped(self.signum)
