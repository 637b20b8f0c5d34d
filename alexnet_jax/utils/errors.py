"""The program's exceptions and exit codes for its user."""

import os
import signal
import traceback
from collections.abc import Sequence


class UserError(ValueError):
  """A mistake of the user; the message says in one or two lines what is wrong and what to do."""

  def _render_traceback_(self) -> list[str]:
    """What IPython shows in place of a traceback, in a notebook too."""
    return str(self).splitlines()


EXIT_AGAIN = 75
"""The exit code of a run that should be started again: EX_TEMPFAIL of sysexits.h."""


def first_line(error: object) -> str:
  """Returns the message of an exception, or text of an untrusted file, as one printable line."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  text = lines[0][:300]
  return ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in text)


def of_file(path: str | os.PathLike[str], error: Exception) -> str:
  """What a user's Python file raises, with its line: "mine.py, line 8: KeyError: 'b'"."""
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == str(path)]
  reason = str(error)
  if isinstance(error, SyntaxError) and error.filename == str(path):
    lines, reason = [error.lineno], error.msg
  where = f'{path}, line {lines[-1]}' if lines else f'{path}'
  kind = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
  return ' '.join(f'{where}: {kind}{reason}'.split())


def listed(names: Sequence[str]) -> str:
  """The first few of some names, quoted, for a message: "'a', 'b', 'c' and 7 more"."""
  some = ', '.join(map(repr, names[:5]))
  return some + (f' and {len(names) - 5:,} more' if len(names) > 5 else '')


def number_of(count: int, noun: str) -> str:
  """A number of things, for a message: '1 file', '1,000 files'."""
  return f'{count:,} {noun}{"" if count == 1 else "s"}'


class Stopped(Exception):  # noqa: N818  (not an error)
  """Raised when a signal has asked the run to stop, and it has saved what there was to save.

  Attributes:
    signum: the signal.
    saved: whether there was anything.
  """

  def __init__(self, signum: int, *, saved: bool):
    super().__init__(f'stopped by {signal.Signals(signum).name}')
    self.signum, self.saved = signum, saved
