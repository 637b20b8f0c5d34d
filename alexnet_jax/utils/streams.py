"""Standard output and error of the program: no character, and no closed terminal, ends a run."""

import errno
import io
import os
import sys
from typing import Any, TextIO


class _Terminal(io.FileIO):
  """A terminal; once its window has been closed, what is written to it is dropped."""

  def write(self, content: Any) -> int:
    try:
      return super().write(content)
    except OSError as error:
      if error.errno != errno.EIO:
        raise
      return len(content)


def lasting(stream: TextIO, number: int) -> TextIO:
  r"""A stream that writes what another writes, and does not raise where that one would.

  Characters that the encoding does not have, as in a locale that is not UTF-8, become escapes
  (`\xe9`). What is written to a terminal that has closed is dropped.

  Args:
    stream: sys.stdout or sys.stderr.
    number: its file descriptor.
  """
  if os.isatty(number):
    raw = _Terminal(number, 'wb', closefd=False)
    return io.TextIOWrapper(
      io.BufferedWriter(raw), stream.encoding, 'backslashreplace', line_buffering=True
    )
  if isinstance(stream, io.TextIOWrapper):
    stream.reconfigure(errors='backslashreplace')
  return stream


def make_last() -> None:
  """Makes stdout and stderr of this process `lasting`; for the program's own process alone."""
  for name, number in (('stdout', 1), ('stderr', 2)):
    if (stream := getattr(sys, name)) is not None:  # None: it was closed at the start
      stream.flush()
      setattr(sys, name, lasting(stream, number))
