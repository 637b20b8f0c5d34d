"""The arrays in files of other projects: Caffe's, pickled numpy dictionaries, PyTorch's.

A file may come from anywhere, so none is trusted. Pickles, which can hold code, may only ask for
what makes up arrays, and even those are made here; sizes that a file declares are believed only
as far as the file has so many bytes.
"""

import collections
import contextlib
import functools
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np
from etils import epath
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from alexnet_jax.errors import UserError

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
      f'{layer.name.decode()}[{i}]': _blob(blob)
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
  if min(shape, default=0) < 0 or math.prod(shape) != len(values):
    raise ValueError(f'{len(values):,} numbers are to have the shape {shape}')
  return np.fromiter(values, np.float32, len(values)).reshape(shape)


def read_npy(path: epath.Path) -> dict[str, np.ndarray]:
  """The arrays of a .npy that holds a dictionary such as {'conv1': [weights, biases], ...}.

  Returns:
    {'conv1[0]': weights, 'conv1[1]': biases, ...}.

  Raises:
    UserError: it is no such file, not a whole one, or asks for anything but arrays.
  """
  with _described(path, '.npy of a dictionary of lists of arrays'), path.open('rb') as file:
    version = np.lib.format.read_magic(file)
    read_header = getattr(np.lib.format, f'read_array_header_{version[0]}_{version[1]}')
    shape, _, dtype = read_header(file)
    if shape != () or not dtype.hasobject:
      raise ValueError(f'it is an array, {dtype}{list(shape)}')
    [layers] = _unpickle(path, file, _NUMPY).content
    arrays = {
      f'{layer}[{i}]': array.content
      for layer, pair in layers.items()
      for i, array in enumerate(pair)
    }
    _check_all_arrays(arrays)
  return arrays


def _check_all_arrays(arrays: Mapping[Any, Any]) -> None:
  for name, array in arrays.items():
    if not isinstance(array, np.ndarray):
      raise ValueError(f'{name!r} is no array')


class _PickledDtype:
  """What a pickle says of a numpy dtype."""

  def __init__(self, code: str, *_: object):
    self.code, self.order = code, '='

  def __setstate__(self, state: Sequence[Any]) -> None:
    self.order = state[1]


class _PickledArray:
  """What a pickle says of a numpy array; `content` is the array, or the list of its objects."""

  def __setstate__(self, state: Sequence[Any]) -> None:
    _, shape, dtype, is_fortran, content = state
    if dtype.code[0] != 'O':
      if dtype.code not in ('f2', 'f4', 'f8') or dtype.order not in ('<', '>', '='):
        raise ValueError(f'{dtype.order}{dtype.code} arrays are not floats')
      content = content.encode('latin1') if isinstance(content, str) else content  # Python 2's
      content = np.frombuffer(content, f'{dtype.order}{dtype.code}')
      content = content.reshape(shape, order='F' if is_fortran else 'C')
    self.content = content


_NUMPY: Mapping[tuple[str, str], Any] = {
  ('numpy', 'ndarray'): None,
  ('numpy', 'dtype'): _PickledDtype,
  ('_codecs', 'encode'): lambda text, _: text.encode('latin1'),  # bytes, in Python 3's protocol 2
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
        return np.frombuffer(content(key), dtype)

      arrays: dict[str, np.ndarray] = _unpickle(
        path, io.BytesIO(archive.read(pickled)), _PYTORCH, storage
      )
      _check_all_arrays(arrays)
  return arrays


def _rebuild_tensor(
  storage: np.ndarray, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
) -> np.ndarray:
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if min(offset, *size, *stride) < 0 or max(last + 1, math.prod(size)) > len(storage):
    raise ValueError('a tensor reaches beyond its storage')
  strides = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), strides)


_PYTORCH: Mapping[tuple[str, str], Any] = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
  ('torch', 'HalfStorage'): np.dtype('<f2'),
  ('torch', 'BFloat16Storage'): np.dtype(jnp.bfloat16),
  ('torch', 'FloatStorage'): np.dtype('<f4'),
  ('torch', 'DoubleStorage'): np.dtype('<f8'),
}


def _no_storage(identity: Any) -> Any:
  raise ValueError(f'it refers to {identity!r}, outside itself')


def _unpickle(
  path: epath.Path,
  file: BinaryIO,
  known: Mapping[tuple[str, str], Any],
  load_persistent: Callable[[Any], Any] = _no_storage,
) -> Any:
  """What a pickle holds, where it asks for nothing but what is `known`, by (module, name)."""

  class Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
      if (module, name) not in known:
        raise UserError(
          f'{path} asks for {module}.{name}, which may be code; nothing of it was run. Only files of'
          ' plain arrays are read'
        )
      return known[module, name]

    def persistent_load(self, pid: Any) -> Any:
      return load_persistent(pid)

  content = file.read()
  # Python's unpickler makes room for any size and any number of objects that a file declares;
  # genops reads no more than there is.
  for opcode, argument, _ in pickletools.genops(content):
    if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT') and int(argument or 0) > len(content):
      raise ValueError(f'it declares {argument:,} objects')
  return Unpickler(io.BytesIO(content), encoding='latin1').load()


@contextlib.contextmanager
def _described(path: epath.Path, kind: str) -> Iterator[None]:
  """Names the file and what it should be where it cannot be read."""
  try:
    yield
  except (OSError, UserError):
    raise
  except Exception as error:  # a damaged file fails in many ways
    raise UserError(f'{path} is no {kind}, or not a whole one: {error}') from error
