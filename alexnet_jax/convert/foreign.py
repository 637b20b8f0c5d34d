"""The arrays in files of other projects: Caffe's, pickled numpy dictionaries, PyTorch's.

A file may come from anywhere, so none is trusted. Pickles, which can hold code, may only ask for
what makes up arrays, and even those are made here; sizes that a file declares are believed only
as far as the file has so many bytes.
"""

import contextlib
import functools
import io
import math
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

# The parts of `src/caffe/proto/caffe.proto` that hold weights. NetParameter has `layers` in files
# of before 2015, bvlc_alexnet's too.
_CAFFE = {
  'BlobShape': {'dim': (1, 'repeated int64')},
  'BlobProto': {
    'num': (1, 'optional int64'),
    'channels': (2, 'optional int64'),
    'height': (3, 'optional int64'),
    'width': (4, 'optional int64'),
    'data': (5, 'repeated float'),
    'shape': (7, 'optional BlobShape'),
    'double_data': (8, 'repeated double'),
  },
  'V1LayerParameter': {'name': (4, 'optional bytes'), 'blobs': (6, 'repeated BlobProto')},
  'LayerParameter': {'name': (1, 'optional bytes'), 'blobs': (7, 'repeated BlobProto')},
  'NetParameter': {
    'layers': (2, 'repeated V1LayerParameter'),
    'layer': (100, 'repeated LayerParameter'),
  },
}


_MOST_AXES = 8


def read_caffemodel(path: epath.Path) -> dict[str, np.ndarray]:
  """The weights of a .caffemodel, in its old form or its new one.

  Returns:
    {'conv1[0]': weights, 'conv1[1]': biases, ...} float32, after the layers' names. Old files have
    four dimensions throughout; leading ones are left out.

  Raises:
    UserError: it is no such file, or not a whole one.
  """
  with _described(path, 'caffemodel'):
    net = _parse('NetParameter', path.read_bytes())
    arrays = {
      f'{first_line(layer.name.decode())}[{i}]': _blob(blob)
      for layer in net.layer or net.layers
      for i, blob in enumerate(layer.blobs)
    }
    if not arrays:
      raise ValueError('it has no layers with weights')
  return arrays


def read_binaryproto(path: epath.Path) -> np.ndarray:
  """The array of a .binaryproto, such as Caffe's mean image [3, H, W], float32.

  Raises:
    UserError: it is no such file, or not a whole one.
  """
  with _described(path, 'binaryproto'):
    return _blob(_parse('BlobProto', path.read_bytes()))


@functools.cache
def _caffe_messages() -> Mapping[str, Any]:
  """Classes of the messages in _CAFFE."""
  file = descriptor_pb2.FileDescriptorProto(name='weights.proto', package='caffe')
  for name, fields in _CAFFE.items():
    message = file.message_type.add(name=name)
    for field_name, (number, declared) in fields.items():
      label, kind = declared.split()
      field = message.field.add(name=field_name, number=number)
      field.label = field.Label.Value(f'LABEL_{label.upper()}')
      if kind in _CAFFE:
        field.type, field.type_name = field.TYPE_MESSAGE, f'.caffe.{kind}'
      else:
        field.type = field.Type.Value(f'TYPE_{kind.upper()}')
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return {
    name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f'caffe.{name}'))
    for name in _CAFFE
  }


def _parse(message: str, content: bytes) -> Any:
  return _caffe_messages()[message].FromString(content)


def _blob(blob: Any) -> np.ndarray:
  values = blob.data or blob.double_data
  if blob.HasField('shape'):
    shape = list(blob.shape.dim)
  else:
    shape = [blob.num, blob.channels, blob.height, blob.width]
    while len(shape) > 1 and shape[0] == 1:
      del shape[0]
  if len(shape) > _MOST_AXES:  # their product could take forever
    raise ValueError(f'an array is to have {len(shape):,} axes')
  if min(shape, default=0) < 0 or math.prod(shape) != len(values):
    raise ValueError(f'{len(values):,} numbers are to have the shape {shape}')
  with np.errstate(over='ignore'):  # of doubles
    return np.fromiter(values, np.float32, len(values)).reshape(shape)


def read_npy(path: epath.Path) -> dict[str, np.ndarray]:
  """The arrays of a .npy that holds a dictionary such as {'conv1': [weights, biases], ...}.

  Returns:
    {'conv1[0]': weights, 'conv1[1]': biases, ...}.

  Raises:
    UserError: it is no such file, not a whole one, or asks for anything but arrays.
  """
  with _described(path, '.npy of a dictionary of lists of arrays'), path.open('rb') as file:
    with warnings.catch_warnings(action='ignore'):  # a header is Python, of which Python may warn
      version = np.lib.format.read_magic(file)
      read_header = getattr(np.lib.format, f'read_array_header_{version[0]}_{version[1]}')
      shape, _, dtype = read_header(file)
    if shape != () or not dtype.hasobject:
      raise ValueError(f'it is an array, {dtype}{list(shape)}')
    content = file.read()
    [layers] = _unpickle(path, content, _NUMPY).objects
    pickled = {
      f'{first_line(layer)}[{i}]': array
      for layer, pair in layers.items()
      for i, array in enumerate(pair)
    }
    for name, array in pickled.items():
      if not isinstance(array, _PickledArray):
        raise ValueError(f'{name!r} is no array')
    # The same bytes may be there under many names.
    if sum(len(array.content) for array in pickled.values()) > len(content):
      raise ValueError('its arrays are larger than it is')
    return {name: array.numpy() for name, array in pickled.items()}


class _PickledDtype:
  """What a pickle says of a numpy dtype."""

  def __init__(self, code: Any, *_: object):
    self.code, self.order = code, '='

  def __setstate__(self, state: Sequence[Any]) -> None:
    self.order = state[1]


class _PickledArray:
  """What a pickle says of a numpy array; nothing is made of it yet."""

  def __setstate__(self, state: Sequence[Any]) -> None:
    _, self.shape, self.dtype, self.is_fortran, self.content = state

  @property
  def objects(self) -> Sequence[Any]:
    """What an array of objects holds."""
    if not isinstance(self.content, list):
      raise ValueError('it is an array of numbers')
    return self.content

  def numpy(self) -> np.ndarray:
    """The array."""
    code, order = self.dtype.code, self.dtype.order
    if code not in ('f2', 'f4', 'f8') or order not in ('<', '>', '='):
      raise ValueError('its arrays are not all of floats')
    # Strings are Python 2's bytes, and those of Python 3's protocol 2.
    content = self.content.encode('latin1') if isinstance(self.content, str) else self.content
    flat = np.frombuffer(content, f'{order}{code}')
    return flat.reshape(self.shape, order='F' if self.is_fortran else 'C')


_NUMPY: Mapping[tuple[str, str], Any] = {
  ('numpy', 'ndarray'): None,
  ('numpy', 'dtype'): _PickledDtype,
  ('_codecs', 'encode'): lambda text, _: text,
  ('numpy.core.multiarray', '_reconstruct'): lambda *_: _PickledArray(),
  ('numpy._core.multiarray', '_reconstruct'): lambda *_: _PickledArray(),
}


def read_state_dict(path: epath.Path) -> dict[str, np.ndarray]:
  """The arrays of a PyTorch state dict, as `torch.save` writes it into a zip file; without PyTorch.

  Raises:
    UserError: it is no such file, not a whole one, or asks for anything but tensors.
  """
  with (
    _described(path, 'state dict as torch.save(model.state_dict()) makes it'),
    path.open('rb') as file,
  ):
    if not zipfile.is_zipfile(file):
      raise UserError(
        f'{path} is no zip file, which PyTorch saves since 1.6; where PyTorch is, save it anew:\n'
        f"python -c \"import torch; torch.save(torch.load('{path.name}'), 'new.pth')\""
      )
    with zipfile.ZipFile(file) as archive:
      if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError('it is compressed')  # a small file could fill any memory
      [pickled] = (name for name in archive.namelist() if name.endswith('/data.pkl'))
      folder = pickled.removesuffix('data.pkl')
      if f'{folder}byteorder' in archive.namelist():
        order = archive.read(f'{folder}byteorder')
        if order != b'little':
          raise ValueError(f'its byte order is {order!r}')

      @functools.cache  # tensors may share one
      def content(key: str) -> bytes:
        return archive.read(f'{folder}data/{key}')

      def storage(identity: Sequence[Any]) -> np.ndarray:
        _, dtype, key, *_ = identity  # 'storage', its class, its file's name, where it was, size
        if not isinstance(key, str):
          raise ValueError('a storage has no name')
        return np.frombuffer(content(key), dtype())

      arrays = {
        first_line(name): array
        for name, array in _unpickle(path, archive.read(pickled), _PYTORCH, storage).items()
      }
    for name, array in arrays.items():
      if not isinstance(array, np.ndarray):
        raise ValueError(f'{name!r} is no array')
  return arrays


def _rebuild_tensor(
  storage: np.ndarray, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
) -> np.ndarray:
  if not all(isinstance(number, int) for number in (offset, *size, *stride)):
    raise ValueError('a tensor has a shape that is not of numbers')
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if min(offset, *size, *stride) < 0 or max(last + 1, math.prod(size)) > len(storage):
    raise ValueError('a tensor reaches beyond its storage')
  strides = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), strides)


_PYTORCH: Mapping[tuple[str, str], Any] = {
  ('collections', 'OrderedDict'): lambda: _Names(),
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
  ('torch', 'HalfStorage'): lambda: np.dtype('<f2'),
  ('torch', 'BFloat16Storage'): lambda: np.dtype(jnp.bfloat16),
  ('torch', 'FloatStorage'): lambda: np.dtype('<f4'),
  ('torch', 'DoubleStorage'): lambda: np.dtype('<f8'),
}

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


class _Names(dict[str, Any]):
  """A dictionary by strings; what pickles are made of otherwise can take forever to hash."""

  def __setitem__(self, name: str, value: Any) -> None:
    if not isinstance(name, str):
      raise ValueError('it has names that are not strings')
    super().__setitem__(name, value)


def _no_storage(_: Any) -> Any:
  raise ValueError('it refers to what is outside itself')


def _unpickle(
  path: epath.Path,
  content: bytes,
  known: Mapping[tuple[str, str], Any],
  load_persistent: Callable[[Any], Any] = _no_storage,
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
      self.append(_Names())

    def load_build(self) -> None:
      if isinstance(self.stack[-2], _PickledArray | _PickledDtype):
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
def _described(path: epath.Path, kind: str) -> Iterator[None]:
  """Names the file and what it should be where it cannot be read."""
  files.check_kind(path)
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # a damaged file fails in many ways
    raise UserError(f'{path} is no {kind}, or not a whole one: {first_line(error)}') from error
