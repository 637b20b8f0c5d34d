"""Reading files that may come from anywhere, none of which is trusted.

Pickles, which can hold code, may only ask for what makes up arrays, and even those are made here;
sizes that a file declares are believed only as far as the file has so many bytes.
"""

import contextlib
import io
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

# What the pickles of arrays are made of. Among the rest are sets and what makes room for as many
# objects as a file declares.
_OPCODES = {
  'PROTO', 'FRAME', 'STOP', 'MARK', 'NONE', 'NEWTRUE', 'NEWFALSE', 'BININT', 'BININT1', 'BININT2',
  'LONG1', 'SHORT_BINSTRING', 'BINSTRING', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8',
  'SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8', 'BINFLOAT', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2',
  'TUPLE3', 'EMPTY_LIST', 'APPEND', 'APPENDS', 'EMPTY_DICT', 'SETITEM', 'SETITEMS', 'GLOBAL',
  'STACK_GLOBAL', 'REDUCE', 'BUILD', 'BINPERSID', 'BINPUT', 'LONG_BINPUT', 'BINGET', 'LONG_BINGET',
  'MEMOIZE',
}  # fmt: skip


# pickle.Unpickler, but one whose steps can be chosen.
_PythonUnpickler: Any = pickle._Unpickler


class Names(dict[str, Any]):
  """A dictionary by strings; what pickles are made of otherwise can take forever to hash."""

  def __setitem__(self, name: str, value: Any) -> None:
    if not isinstance(name, str):
      raise ValueError('it has names that are not strings')
    super().__setitem__(name, value)


def _no_storage(_: Any) -> Any:
  raise ValueError('it refers to what is outside itself')


def unpickle(
  path: epath.Path,
  content: bytes,
  known: Mapping[tuple[str, str], Any],
  load_persistent: Callable[[Any], Any] = _no_storage,
  with_state: tuple[type, ...] = (),
) -> Any:
  """What a pickle holds, where it asks for nothing but what is `known`, by (module, name)."""

  class Unpickler(_PythonUnpickler):
    def find_class(self, module: str, name: str) -> Any:
      if (module, name) not in known:
        raise UserError(
          f'{path} asks for {first_line(f"{module}.{name}")}, which may be code; nothing of it was'
          ' run. Only files of plain arrays are read'
        )
      return known[module, name]

    def persistent_load(self, pid: Any) -> Any:
      return load_persistent(pid)

    def load_empty_dictionary(self) -> None:
      self.append(Names())

    def load_build(self) -> None:
      if isinstance(self.stack[-2], with_state):
        super().load_build()
      else:  # attributes, such as PyTorch gives a state dict
        self.stack.pop()

    def refuse(self) -> None:
      raise ValueError('it holds more than arrays')

    dispatch = (
      dict.fromkeys(range(256), refuse)
      | {
        ord(getattr(pickle, name)): _PythonUnpickler.dispatch[ord(getattr(pickle, name))]
        for name in _OPCODES
      }
      | {ord(pickle.EMPTY_DICT): load_empty_dictionary, ord(pickle.BUILD): load_build}
    )

  return Unpickler(io.BytesIO(content), encoding='latin1').load()


@contextlib.contextmanager
def described(path: epath.Path, kind: str) -> Iterator[None]:
  """Names the file and what it should be where it cannot be read."""
  files.check_kind(path)
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # a damaged file fails in many ways
    raise UserError(f'{path} is no {kind}, or not a whole one: {first_line(error)}') from error
