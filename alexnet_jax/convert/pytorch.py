"""Reads PyTorch checkpoints without PyTorch, and writes state dicts with it."""

import functools
import io
import math
import pickletools
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from alexnet_jax.convert import untrusted
from alexnet_jax.utils import shell
from alexnet_jax.utils.errors import UserError, first_line

# Where programs keep a network within a checkpoint; of several alike the first is taken.
_PLACES = ('state_dict', 'model_state_dict', 'model', 'net')
_DEEPEST = 3  # dictionaries within each other

_ON_CPU = "map_location='cpu'"  # of what may have been saved from a GPU

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before PyTorch 1.6


def read_checkpoint(
  path: epath.Path, log: Callable[[str], None] = lambda text: None
) -> dict[str, np.ndarray]:
  """Reads the state dict of a file that `torch.save` has written, in its present or its old form.

  It may be the file's only content, or lie in a dictionary beside an optimizer's state, counters and
  arguments, as programs for training keep it.

  Args:
    path: the file.
    log: called with a line where the state dict is a part of the file, which says what is not used.

  Returns:
    Arrays by name, in the order of the file, of any dtype but complex numbers.

  Raises:
    UserError: it is not such a file, is incomplete, asks for code, or holds no weights.
  """
  with (
    untrusted.described(path, 'a state dict from torch.save(model.state_dict(), ...)'),
    path.open('rb') as file,
  ):
    if zipfile.is_zipfile(file):
      with zipfile.ZipFile(file) as archive:
        return _read_zip(path, archive, log)
    file.seek(0)
    if tarfile.is_tarfile(file):
      raise UserError(
        f'{path} is a tar file, as PyTorch saved before 0.2; save it again where PyTorch is, if you'
        f' trust it:\n{_command(path, "c")}'
      )
    file.seek(0)
    return _read_legacy(path, file.read(), log)


def _command(path: epath.Path, weights: str) -> str:
  """A command that keeps a file's weights alone.

  Args:
    path: the file, which PyTorch reads as `c`, running code in it.
    weights: a Python expression of the state dict in `c`.
  """
  return _program(path, f'c = torch.load({_quoted(path)}, {_ON_CPU}, weights_only=False)', weights)


def _program(path: epath.Path, load: str, weights: str) -> str:
  new = path.with_name(f'{path.name.split(".")[0]}_weights.pth')
  program = f'import torch; {load}; torch.save({weights}, {_quoted(new)})'
  return f'python -c {shell.quote(program)}'


def _quoted(path: epath.Path) -> str:
  return repr(first_line(path))


def _read_zip(
  path: epath.Path, archive: zipfile.ZipFile, log: Callable[[str], None]
) -> dict[str, np.ndarray]:
  names = archive.namelist()
  folders = [name.removesuffix('data.pkl') for name in names if name.endswith('/data.pkl')]
  if len(folders) != 1:
    what = "Keras's, which is not read" if 'model.weights.h5' in names else 'not written by PyTorch'
    raise UserError(
      f'{path} is a zip file, {what}; give a file that is in it, or {untrusted.SAVE_ARRAYS}'
    )
  [folder] = folders
  if f'{folder}constants.pkl' in names:
    load = f'c = torch.jit.load({_quoted(path)}, {_ON_CPU})'
    raise UserError(
      f'{path} is a program of TorchScript, none of which was run; save its weights where PyTorch is,'
      f' if you trust it:\n{_program(path, load, "dict(c.state_dict())")}'
    )
  if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
    raise ValueError('it is compressed')  # a small file could fill the memory
  if f'{folder}byteorder' in names:
    order = archive.read(f'{folder}byteorder')
    if order != b'little':
      raise ValueError(f'its byte order is {order!r}')
  unpickler = _Unpickler(path, archive.read(f'{folder}data.pkl'))
  tensors = _state_dict(path, unpickler.load(), log)
  # Cached, for tensors may share a storage.
  content = functools.cache(lambda key: archive.read(f'{folder}data/{key}'))
  return {name: tensor.numpy(content(tensor.storage.key)) for name, tensor in tensors.items()}


def _read_legacy(
  path: epath.Path, content: bytes, log: Callable[[str], None]
) -> dict[str, np.ndarray]:
  """Reads what `torch.save` wrote before PyTorch 1.6: five pickles, then each storage's numbers."""
  if content[:1] == b'\x80' and _LEGACY_MAGIC.to_bytes(10, 'little') not in content[:32]:
    raise UserError(
      f"{path} is another program's pickle, none of which was run; {untrusted.SAVE_ARRAYS}"
    )
  magic, _, system, described, keys = pickles = list(_pickles(content))
  if untrusted.Unpickler(path, magic).load() != _LEGACY_MAGIC:
    raise ValueError('it is a pickle of another program')
  if untrusted.Unpickler(path, system).load()['little_endian'] is not True:
    raise ValueError('its byte order is not little-endian')
  unpickler = _Unpickler(path, described)
  tensors = _state_dict(path, unpickler.load(), log)
  rest, contents = memoryview(content)[sum(map(len, pickles)) :], dict[str, memoryview]()
  for key in untrusted.Unpickler(path, keys).load():
    (count,) = struct.unpack('<q', rest[:8])
    end = 8 + count * unpickler.dtypes[key].itemsize
    if not 8 <= end <= len(rest):
      raise ValueError('a storage reaches beyond the file')
    contents[key], rest = rest[8:end], rest[end:]
  return {name: tensor.numpy(contents[tensor.storage.key]) for name, tensor in tensors.items()}


def _pickles(content: bytes) -> Iterator[bytes]:
  """The five pickles that a file of `_read_legacy` begins with."""
  file = io.BytesIO(content)
  for _ in range(5):
    start = file.tell()
    for _ in pickletools.genops(file):
      pass
    yield content[start : file.tell()]


class _Storage(NamedTuple):
  """Where the numbers of tensors lie: their type, and the name of the part of the file."""

  dtype: np.dtype
  key: str


class _Tensor(NamedTuple):
  """A tensor as its pickle describes it; `numpy` makes an array."""

  storage: _Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  def numpy(self, content: bytes | memoryview) -> np.ndarray:
    """The array, a view of the storage's content; raises ValueError where that is too short."""
    numbers = np.frombuffer(content, self.storage.dtype)
    last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
    fewest = min((self.offset, *self.size, *self.stride))
    if fewest < 0 or max(last + 1, math.prod(self.size)) > len(numbers):
      raise ValueError('a tensor reaches beyond its storage')
    strides = [step * numbers.itemsize for step in self.stride]
    return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, strides)


def _state_dict(path: epath.Path, loaded: object, log: Callable[[str], None]) -> dict[str, _Tensor]:
  """The tensors of the dictionary with most weights.

  Of several with as many, the outermost is taken, then the first in _PLACES.
  """
  found: dict[tuple[object, ...], Mapping[Any, object]] = {}
  seen: set[int] = set()

  def search(value: object, place: tuple[object, ...]) -> None:
    if isinstance(value, dict) and id(value) not in seen and len(place) <= _DEEPEST:
      seen.add(id(value))
      found[place] = value
      for key, inner in value.items():
        search(inner, (*place, key))

  def weights(place: tuple[object, ...]) -> tuple[int, int]:
    tensors = [value for value in found[place].values() if isinstance(value, _Tensor)]
    return sum(len(tensor.size) >= 2 for tensor in tensors), len(tensors)

  search(loaded, ())
  most = max(map(weights, found), default=(0, 0))
  if most == (0, 0):
    what = (
      ', '.join(first_line(key) for key in list(loaded)[:5]) if isinstance(loaded, dict) else ''
    )
    raise ValueError(f'it holds no tensors, but {what or type(loaded).__name__}')
  alike = [place for place in found if weights(place) == most]
  usual: list[tuple[object, ...]] = [(), *((name,) for name in _PLACES)]
  place = min(alike, key=lambda place: usual.index(place) if place in usual else len(usual))
  if place:
    others = [
      first_line('.'.join(map(str, (*place[:depth], key))))
      for depth in range(len(place))
      for key in found[place[:depth]]
      if key != place[depth]
    ]
    more = ' and more' if len(others) > 8 else ''
    not_used = f'; not used: {", ".join(others[:8])}{more}' if others else ''
    log(f'{path}: the weights are those of {first_line(".".join(map(str, place)))!r}{not_used}')
  return {
    first_line(name): tensor for name, tensor in found[place].items() if isinstance(tensor, _Tensor)
  }


def _rebuild_tensor(
  storage: _Storage,
  offset: int,
  size: Sequence[int],
  stride: Sequence[int],
  requires_grad: object = False,
  hooks: object = None,
  metadata: object = None,
) -> _Tensor:
  del requires_grad, hooks
  if metadata:
    raise ValueError('a tensor is to be negated or conjugated; save its .resolve_neg()')
  if not isinstance(storage, _Storage):
    raise ValueError('a tensor has no storage')
  if not all(isinstance(number, int) for number in (offset, *size, *stride)):
    raise ValueError('the shape of a tensor is not of integers')
  return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(tensor: _Tensor, *_: object) -> _Tensor:
  if not isinstance(tensor, _Tensor):
    raise ValueError('a parameter is not a tensor')
  return tensor


class _StateDict(dict[str, Any]):
  """Stands for an OrderedDict, which is pickled empty; its items follow, then its attributes."""

  def __init__(self) -> None:  # with arguments, names could be other than strings
    super().__init__()

  def __setstate__(self, state: object) -> None:
    """Leaves out the attributes: PyTorch's `_metadata` has the versions of modules."""


_STORAGES: Mapping[str, np.dtype] = {
  'HalfStorage': np.dtype('<f2'),
  'BFloat16Storage': np.dtype(jnp.bfloat16),
  'FloatStorage': np.dtype('<f4'),
  'DoubleStorage': np.dtype('<f8'),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
  'ShortStorage': np.dtype('<i2'),
  'CharStorage': np.dtype('i1'),
  'ByteStorage': np.dtype('u1'),
  'BoolStorage': np.dtype('?'),
}

# What programs keep beside a network: arguments, counters, errors so far, random states, paths.
_IGNORED = (
  ('argparse', 'Namespace'),
  ('types', 'SimpleNamespace'),
  ('collections', 'Counter'),
  ('collections', 'defaultdict'),
  ('collections', 'deque'),
  ('datetime', 'datetime'),
  ('datetime', 'timedelta'),
  *(
    (module, name)
    for module in ('pathlib', 'pathlib._local')  # the latter in Python 3.13
    for name in ('PosixPath', 'PurePosixPath', 'WindowsPath', 'PureWindowsPath')
  ),
  *((module, name) for module in ('__builtin__', 'builtins') for name in ('set', 'list', 'dict')),
  ('_codecs', 'encode'),
  ('numpy', 'dtype'),
  ('numpy', 'ndarray'),
  *(
    (f'numpy.{core}.multiarray', name)
    for core in ('core', '_core')
    for name in ('scalar', '_reconstruct')
  ),
  ('torch', 'device'),
  ('torch', 'Size'),
  *(('torch', name) for name in ('float16', 'bfloat16', 'float32', 'float64', 'int32', 'int64')),
  # Lightning's, for the arguments of a network
  ('pytorch_lightning.utilities.parsing', 'AttributeDict'),
  ('lightning.pytorch.utilities.parsing', 'AttributeDict'),
  ('lightning_fabric.utilities.data', 'AttributeDict'),
  ('lightning.fabric.utilities.data', 'AttributeDict'),
)


class _Unpickler(untrusted.Unpickler):
  """Loads what `torch.save` was given, its tensors as _Tensor.

  Attributes:
    dtypes: of the storages' numbers, by the storages' keys.
  """

  allowed: ClassVar = {
    **dict.fromkeys(_IGNORED, untrusted.Ignored),
    ('collections', 'OrderedDict'): _StateDict,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    **{('torch', name): name for name in _STORAGES},
  }

  def __init__(self, path: epath.Path, content: bytes):
    self.dtypes: dict[str, np.dtype] = {}
    first = untrusted.first_class(content)
    if first and tuple(first.rsplit('.', 1)) not in self.allowed:
      raise _whole_network(path, first)
    super().__init__(path, content)

  def find_class(self, module: str, name: str) -> Any:
    """As the base class; the UserError says how to keep the file's weights alone."""
    try:
      return super().find_class(module, name)
    except untrusted.NotAllowedError as error:
      found = f'(w := next((c[k] for k in {_PLACES} if k in c), c))'
      weights = f"getattr({found}, 'state_dict', lambda: w)()"
      raise UserError(
        f'{error}. Keep its weights alone where PyTorch is, if you trust it:\n'
        + _command(self._path, weights)
      ) from error

  def persistent_load(self, pid: Any) -> _Storage:
    """The storage that is ('storage', class, key, device, size)."""
    _, storage_class, key, _, _, *view = pid
    if any(view):  # of very old files
      raise ValueError('a storage is a part of another')
    if not isinstance(storage_class, str) or not isinstance(key, str):
      raise ValueError('a storage has no class or no name')
    if self.dtypes.setdefault(key, _STORAGES[storage_class]) != _STORAGES[storage_class]:
      raise ValueError('a storage is of two types')
    return _Storage(_STORAGES[storage_class], key)


def _whole_network(path: epath.Path, name: str) -> UserError:
  """Says what to do with the pickle of an object of a class."""
  whole = f'{path} is a network pickled whole, of {first_line(name)}, which may be code; none of it was run'
  if name.startswith('__main__.'):
    return UserError(
      f'{whole}. In the program that has this class: torch.save(model.state_dict(), "weights.pth")'
    )
  return UserError(
    f'{whole}. Save its weights where PyTorch is, if you trust it:\n'
    + _command(path, 'c.state_dict()')
  )


def serialize(arrays: Mapping[str, np.ndarray]) -> bytes:
  """The bytes of a state dict as `torch.save` writes it; needs PyTorch."""
  import torch  # here, for nothing else needs it

  file = io.BytesIO()
  torch.save({name: torch.tensor(array) for name, array in arrays.items()}, file)
  return file.getvalue()
