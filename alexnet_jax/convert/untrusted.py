"""Reads untrusted files: pickles run no code, and a small file takes little time and memory."""

import contextlib
import io
import math
import pickle
import pickletools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from etils import epath

from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

SAVE_ARRAYS = (
  'save its arrays with numpy.savez under the names conv1.weight, conv1.bias to fc8.bias, in the axes of'
  ' PyTorch: kernels [out, in, height, width] with red first, fc6 reading channel, row, column (Keras has'
  ' row, column, channel: transpose its inputs)'
)
"""What to do with a file that is not read."""

_MAX_AXES = 8

_STRINGS = {'SHORT_BINSTRING', 'BINSTRING', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8'}

_INTEGERS = {'BININT', 'BININT1', 'BININT2', 'LONG1'}

# All that pickles of arrays, and of numbers and texts beside them, consist of.
_OPCODES = _STRINGS | _INTEGERS | {
  'PROTO', 'FRAME', 'STOP', 'MARK', 'NONE', 'NEWTRUE', 'NEWFALSE', 'NEWOBJ', 'SHORT_BINBYTES',
  'BINBYTES', 'BINBYTES8', 'BINFLOAT', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3',
  'EMPTY_LIST', 'APPEND', 'APPENDS', 'EMPTY_DICT', 'SETITEM', 'SETITEMS', 'GLOBAL', 'STACK_GLOBAL',
  'REDUCE', 'BUILD', 'BINPERSID', 'BINPUT', 'LONG_BINPUT', 'BINGET', 'LONG_BINGET', 'MEMOIZE',
}  # fmt: skip

# Those that leave their first operand on the stack, changed.
_MUTATIONS = {'APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'BUILD'}

_KEYS = _STRINGS | _INTEGERS  # whose hashes take no time


def shaped(numbers: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """The numbers [n] of a file in the shape that it says; raises ValueError where they do not fit it."""
  if len(shape) > _MAX_AXES:  # computing their product could take forever
    raise ValueError(f'an array has {len(shape):,} axes')
  if min(shape, default=0) < 0 or math.prod(shape) != len(numbers):
    raise ValueError(f'an array of the shape {[*shape]} has {len(numbers):,} numbers')
  return numbers.reshape(shape)


class NotAllowedError(UserError):
  """A pickle asks for something that is not allowed, which may be code."""


class Ignored:
  """Stands for an object that is not needed: it takes what a pickle gives it, and keeps nothing."""

  def __new__(cls, *_: object) -> 'Ignored':
    """Makes one, whatever the arguments."""
    return super().__new__(cls)

  def __init__(self, *_: object): ...

  def __setstate__(self, _: object) -> None: ...

  def __setitem__(self, _: object, __: object) -> None: ...

  def append(self, _: object) -> None:
    """Takes an element."""

  def extend(self, _: object) -> None:
    """Takes elements."""


class Unpickler(pickle.Unpickler):
  """Loads a pickle of arrays, and refuses one that asks for anything that is not `allowed`.

  Numbers, texts, lists and dictionaries may be beside the arrays.

  Attributes:
    allowed: by (module, name), the object to use in place of the one with that name.
  """

  allowed: ClassVar[Mapping[tuple[str, str], Any]] = {}

  def __init__(self, path: epath.Path, content: bytes):
    """Checks a pickle before it is loaded.

    Args:
      path: the file that holds it, for messages.
      content: the pickle.

    Raises:
      ValueError: it is damaged, or holds more than arrays.
      UserError: it asks for something that is not allowed.
    """
    self._path = path
    self._check(content)
    super().__init__(io.BytesIO(content), encoding='latin1')  # for Python 2's strings of bytes

  def find_class(self, module: str, name: str) -> Any:
    """The object allowed under this name; raises UserError where there is none."""
    if (module, name) not in self.allowed:
      raise NotAllowedError(
        f'{self._path} asks for {first_line(f"{module}.{name}")}, which may be code; none of it was'
        ' run. Only files of plain arrays are read'
      )
    return self.allowed[module, name]

  def _check(self, content: bytes) -> None:
    """Follows a pickle's opcodes without making its objects; raises where loading is not safe.

    `find_class` alone does not stop these attacks of a few bytes:
    - sizes, of bytes or of the memo, for which memory is taken before anything is read;
    - a dictionary key or set element of tuples within tuples, whose hash never ends, or overflows
      the C stack;
    - BUILD, which changes the attributes of any object, an allowed function too.
    """
    stack: list[str] = []  # for each object, the opcode that made it
    memo: dict[int, str] = {}
    marks: list[int] = []
    argument: Any
    # genops raises ValueError for a size larger than what is left of the content.
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
      name, operands = opcode.name, opcode.stack_before
      if name == 'GLOBAL':  # so that the message names it, not an opcode that follows
        self.find_class(*argument.split(' ', 1))
      if name not in _OPCODES:
        raise ValueError('it holds more than arrays')
      if name == 'MARK':
        marks.append(len(stack))
      elif name in ('BINPUT', 'LONG_BINPUT', 'MEMOIZE'):
        index = len(memo) if name == 'MEMOIZE' else argument
        if index > count:
          raise ValueError(f'object {index:,} is stored after {count:,} opcodes')
        memo[index] = stack[-1]
      elif name in ('BINGET', 'LONG_BINGET'):
        stack.append(memo.get(argument, ''))
      else:
        if pickletools.markobject in operands:
          first = marks.pop() - operands.index(pickletools.markobject)
        else:
          first = len(stack) - len(operands)
        if name in ('SETITEM', 'SETITEMS') and not _KEYS.issuperset(stack[first + 1 :: 2]):
          raise ValueError('a dictionary has keys that are neither strings nor integers')
        if name == 'BUILD' and stack[first] not in ('REDUCE', 'NEWOBJ'):
          raise ValueError('it changes an object that it did not make')
        result = stack[first] if name in _MUTATIONS else name
        stack[first:] = [result] * len(opcode.stack_after)


def first_class(content: bytes) -> str | None:
  """The class of the object that a pickle begins with, as 'torch.nn.Linear'; None for other values."""
  texts: list[str] = []
  for opcode, argument, _ in pickletools.genops(content):
    if opcode.name == 'GLOBAL':
      return str(argument).replace(' ', '.')
    if opcode.name == 'STACK_GLOBAL':
      return '.'.join(texts[-2:])
    if opcode.name in _STRINGS:
      texts.append(str(argument))
    elif opcode.name not in ('PROTO', 'FRAME', 'MARK', 'MEMOIZE', 'BINPUT'):
      break
  return None


@contextlib.contextmanager
def described(path: epath.Path, kind: str) -> Iterator[None]:
  """Turns any error of reading a file into a UserError that names it.

  Args:
    path: the file.
    kind: what it should be, with its article, for the message.
  """
  files.check_kind(path)
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # a damaged file fails in many ways
    raise UserError(f'{path} is not {kind}, or is incomplete: {first_line(error)}') from error
