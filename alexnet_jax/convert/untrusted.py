"""Reads untrusted files: a pickle runs no code, and a small file takes little time and memory."""

import contextlib
import io
import pickle
import pickletools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from etils import epath

from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

_STRINGS = {'SHORT_BINSTRING', 'BINSTRING', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8'}

# What pickles of arrays consist of.
_OPCODES = _STRINGS | {
  'PROTO', 'FRAME', 'STOP', 'MARK', 'NONE', 'NEWTRUE', 'NEWFALSE', 'BININT', 'BININT1', 'BININT2',
  'LONG1', 'SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8', 'BINFLOAT', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1',
  'TUPLE2', 'TUPLE3', 'EMPTY_LIST', 'APPEND', 'APPENDS', 'EMPTY_DICT', 'SETITEM', 'SETITEMS',
  'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'BUILD', 'BINPERSID', 'BINPUT', 'LONG_BINPUT', 'BINGET',
  'LONG_BINGET', 'MEMOIZE',
}  # fmt: skip

_CHANGES = {'APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'BUILD'}  # their first operand


class Unpickler(pickle.Unpickler):
  """Loads a pickle of arrays; refuses one that asks for anything but what is `allowed`.

  Attributes:
    allowed: by (module, name), the object that takes the place of the one of that name.
  """

  allowed: ClassVar[Mapping[tuple[str, str], Any]] = {}

  def __init__(self, path: epath.Path, content: bytes):
    """Checks the pickle in `content`, of the file at `path`.

    Raises:
      ValueError: it is no pickle of arrays.
      UserError: it asks for something that is not allowed.
    """
    self._path = path
    self._check(content)
    super().__init__(io.BytesIO(content), encoding='latin1')  # Python 2's strings are bytes

  def find_class(self, module: str, name: str) -> Any:
    """The allowed object of a name; raises UserError for any other."""
    if (module, name) not in self.allowed:
      raise UserError(
        f'{self._path} asks for {first_line(f"{module}.{name}")}, which may be code; nothing of it'
        ' was run. Only files of plain arrays are read'
      )
    return self.allowed[module, name]

  def _check(self, content: bytes) -> None:
    """Follows the stack of a pickle, without its objects, and raises where loading is unsafe.

    `find_class` alone leaves a few bytes these attacks: a size (of bytes, of the memo) for which
    memory is taken before the content is read; a dictionary's key, or a set's element, of tuples
    within tuples, whose hash takes forever or overflows the C stack; and BUILD, which changes
    attributes of whatever it is applied to, an allowed function too.
    """
    stack: list[str] = []  # of each object the opcode that made it
    memo: dict[int, str] = {}
    marks: list[int] = []
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):  # checks sizes
      name, operands = opcode.name, opcode.stack_before
      if name == 'GLOBAL':  # refused by name rather than for an opcode that it comes with
        self.find_class(*argument.split(' ', 1))
      if name not in _OPCODES:
        raise ValueError('it holds more than arrays')
      if name == 'MARK':
        marks.append(len(stack))
      elif name in ('BINPUT', 'LONG_BINPUT', 'MEMOIZE'):
        index = len(memo) if name == 'MEMOIZE' else argument
        if index > count:
          raise ValueError(f'it refers to object {index:,} of {count:,}')
        memo[index] = stack[-1]
      elif name in ('BINGET', 'LONG_BINGET'):
        stack.append(memo.get(argument, ''))
      else:
        if pickletools.markobject in operands:
          first = marks.pop() - operands.index(pickletools.markobject)
        else:
          first = len(stack) - len(operands)
        if name in ('SETITEM', 'SETITEMS') and not _STRINGS.issuperset(stack[first + 1 :: 2]):
          raise ValueError('it has names that are not strings')
        if name == 'BUILD' and stack[first] != 'REDUCE':
          raise ValueError('it changes what it has not made')
        made = stack[first] if name in _CHANGES else name
        stack[first:] = [made] * len(opcode.stack_after)


@contextlib.contextmanager
def described(path: epath.Path, kind: str) -> Iterator[None]:
  """Raises UserError, naming the file and what it should be, where reading it fails.

  Args:
    path: the file.
    kind: what it should be, for the message.
  """
  files.check_kind(path)
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # a damaged file fails in many ways
    raise UserError(f'{path} is no {kind}, or not a whole one: {first_line(error)}') from error
