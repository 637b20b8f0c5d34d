"""Signals that ask a run to stop: SIGINT (Ctrl-C), and those of schedulers and closing terminals."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from alexnet_jax.utils import host
from alexnet_jax.utils.errors import Stopped

PREEMPTION = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that schedulers send before they end a job, and SIGHUP, which a closing terminal sends."""


def preemption() -> tuple[signal.Signals, ...]:
  """PREEMPTION, without SIGHUP where it is ignored, as under nohup; so it stays."""
  hangups_are_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  return tuple(
    signum for signum in PREEMPTION if not (signum == signal.SIGHUP and hangups_are_ignored)
  )


class Signals:
  """Records SIGINT and those of PREEMPTION for `check`; use it in a `with`.

  A second signal ends the process at once; in a process that is not the program's own, as a
  notebook's kernel, a second SIGINT raises KeyboardInterrupt instead. A second SIGHUP does neither:
  as a terminal closes, both the shell and the system send one.

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
      for signum in (signal.SIGINT, *preemption()):
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
    if signal.SIGHUP in self._previous:
      signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if not host.owns_process():
      signal.signal(signal.SIGINT, signal.default_int_handler)
    if self._answer is not None:
      with contextlib.suppress(OSError):  # the terminal has closed
        os.write(2, f'\n{self._answer}; once more to stop at once\n'.encode())

  def check(self, *, saved: bool) -> None:
    """Raises Stopped if a signal was received; `saved` is its attribute."""
    if self.signum is not None:
      raise Stopped(self.signum, saved=saved)
