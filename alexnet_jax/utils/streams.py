"""Standard output and error of the program: no character, closed terminal or closed pipe ends a run."""

import errno
import io
import os
import stat
import sys
from typing import Any, TextIO


class _Reader(io.FileIO):
  """A terminal or a pipe; once nobody reads it any more, what is written to it is dropped."""

  def write(self, content: Any) -> int:
    try:
      return super().write(content)
    except OSError as error:
      if error.errno not in (errno.EIO, errno.EPIPE):
        raise
      return len(content)


def lasting(stream: TextIO, number: int) -> TextIO:
  r"""A stream that writes what another writes, and does not raise where that one would.

  Characters that the encoding does not have, as in a locale that is not UTF-8, become escapes
  (`\xe9`). What is written to a terminal that has closed, or to a pipe whose reader has ended, as in
  `| head`, is dropped.

  Args:
    stream: sys.stdout or sys.stderr.
    number: its file descriptor.
  """
  if os.isatty(number) or stat.S_ISFIFO(os.fstat(number).st_mode):
    raw = _Reader(number, 'wb', closefd=False)
    by_line = os.isatty(number) or number == 2  # as Python has them
    return io.TextIOWrapper(
      io.BufferedWriter(raw), stream.encoding, 'backslashreplace', line_buffering=by_line
    )
  if isinstance(stream, io.TextIOWrapper):
    stream.reconfigure(errors='backslashreplace')
  return stream


def make_last() -> None:
  """Makes stdout and stderr of this process `lasting`; for the program's own process alone.

  Where one of the standard streams was closed at the start, as by `2>&-`, its descriptor is os.devnull:
  else the next file to be opened would have it.
  """
  for name, number in (('stdin', 0), ('stdout', 1), ('stderr', 2)):
    if (stream := getattr(sys, name)) is None:
      while os.open(os.devnull, os.O_RDWR) < number:
        pass
    elif number:
      stream.flush()
      setattr(sys, name, lasting(stream, number))
