"""Commands in messages and tables, quoted for a shell to read as they were meant."""

import shlex
from collections.abc import Iterable

_OF_DOUBLE_QUOTES = set('"$`\\!')  # what has a meaning within them


def quote(argument: str) -> str:
  """Quotes an argument where it needs to be, in the quotes that are easier to read.

  shlex writes `'('"'"'conv1'"'"',)'` for what is `"('conv1',)"` here.
  """
  if "'" in argument and not _OF_DOUBLE_QUOTES & set(argument):
    return f'"{argument}"'
  return shlex.quote(argument)


def join(arguments: Iterable[str]) -> str:
  """A command line of arguments, each quoted as by `quote`."""
  return ' '.join(map(quote, arguments))
