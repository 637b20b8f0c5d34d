"""Reads Caffe's .caffemodel and .binaryproto files, without Caffe."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from alexnet_jax.convert import names, protobuf, untrusted
from alexnet_jax.utils.errors import first_line

# The parts of `src/caffe/proto/caffe.proto` that hold weights. In files from before 2015, such as
# bvlc_alexnet, NetParameter has `layers`.
_MESSAGES = protobuf.message_classes(
  'caffe',
  {
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
    'V1LayerParameter': {
      'name': (4, 'optional bytes'),
      'type': (5, 'optional int32'),  # an enumeration
      'blobs': (6, 'repeated BlobProto'),
    },
    'LayerParameter': {
      'name': (1, 'optional bytes'),
      'type': (2, 'optional bytes'),
      'blobs': (7, 'repeated BlobProto'),
    },
    'NetParameter': {
      'layers': (2, 'repeated V1LayerParameter'),
      'layer': (100, 'repeated LayerParameter'),
    },
  },
)

# What may follow a convolution, by its type in new and old files, as `order` of `models/options.py`.
_STEPS: Mapping[bytes | int, str] = {
  **{b'ReLU': 'activation', b'LRN': 'norm', b'Pooling': 'pool'},
  **{18: 'activation', 15: 'norm', 17: 'pool'},
}
_CONVOLUTIONS = (b'Convolution', 4)


class Caffemodel(NamedTuple):
  """What a .caffemodel says of its network.

  Attributes:
    arrays: {'conv1[0]': weights, 'conv1[1]': biases, ...} by the layers' names, float32. Arrays in
      old files have four axes; leading axes of size 1 are removed.
    orders: of what follows each convolution, as {'conv1': 'activation-norm-pool'}; without those of
      which the file has no types of layers.
  """

  arrays: dict[str, np.ndarray]
  orders: dict[str, str]


def read_caffemodel(path: epath.Path) -> Caffemodel:
  """Reads a .caffemodel, in its old or new form.

  Raises:
    UserError: it is not a .caffemodel, or is incomplete.
  """
  with untrusted.described(path, 'a caffemodel'):
    net = _MESSAGES['NetParameter'].FromString(path.read_bytes())
    arrays = {
      f'{_name(layer)}[{i}]': _blob(blob)
      for layer in net.layer or net.layers
      for i, blob in enumerate(layer.blobs)
    }
    if not arrays:
      raise ValueError('it has no layers with weights')
    return Caffemodel(arrays, _orders(net.layer or net.layers))


def _orders(layers: Sequence[Any]) -> dict[str, str]:
  return names.orders(
    (_STEPS.get(layer.type), _name(layer) if layer.type in _CONVOLUTIONS else None)
    for layer in layers  # in the order in which Caffe runs them
    if layer.type in _STEPS or layer.blobs
  )


def _name(layer: Any) -> str:
  return first_line(layer.name.decode())


def read_binaryproto(path: epath.Path) -> np.ndarray:
  """Reads the array of a .binaryproto, such as Caffe's mean image [3, H, W], as float32.

  Raises:
    UserError: it is not a .binaryproto, or is incomplete.
  """
  with untrusted.described(path, 'a binaryproto'):
    return _blob(_MESSAGES['BlobProto'].FromString(path.read_bytes()))


def _blob(blob: Any) -> np.ndarray:
  values = blob.data or blob.double_data
  if blob.HasField('shape'):
    shape = list(blob.shape.dim)
  else:
    shape = [blob.num, blob.channels, blob.height, blob.width]
    while len(shape) > 1 and shape[0] == 1:
      del shape[0]
  with np.errstate(over='ignore'):  # where doubles become float32
    return untrusted.shaped(np.fromiter(values, np.float32, len(values)), shape)
