"""Keeping other libraries' chatter from the user's terminal."""

import contextlib
import os
import sys
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
