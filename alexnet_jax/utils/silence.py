"""Keeping other libraries' chatter from the user's terminal."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
  """Within it nothing reaches stderr, whatever writes it: Python, C++ or another thread.

  Nor do exceptions that nobody can catch, such as those of coroutines that are thrown away.
  """
  hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
  kept = os.dup(2)
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)
    sys.unraisablehook = hook


def pass_over_broken_writes() -> None:
  """Has this process, from now on, say nothing of what is left of a checkpoint's writing that failed.

  Orbax raises the failure, which is told, and gives up the rest: closes its event loop, of which
  tensorstore complains for every other file, and drops coroutines that were never begun.
  """
  tell = sys.unraisablehook

  def tell_all_else(unraisable: 'sys.UnraisableHookArgs') -> None:
    if str(unraisable.exc_value) != 'Event loop is closed':
      tell(unraisable)

  sys.unraisablehook = tell_all_else
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
