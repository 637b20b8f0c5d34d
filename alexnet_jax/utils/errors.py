"""What the program raises for its user."""

import signal


class UserError(ValueError):
  """A mistake of the user's; the message says in a line or two what is wrong and what to do."""


EXIT_AGAIN = 75
"""The exit code for 'start me again', sysexits.h's EX_TEMPFAIL."""


def first_line(error: object) -> str:
  """What a library's exception, or a stranger's file, says, in one printable line."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  text = lines[0][:300]
  return ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in text)


class Stopped(Exception):  # noqa: N818  (not an error)
  """The run was asked to stop, and has saved what there was.

  Attributes:
    signum: the signal that asked.
  """

  def __init__(self, signum: int):
    super().__init__(f'stopped by {signal.Signals(signum).name}')
    self.signum = signum
