"""Reads Caffe's .caffemodel and .binaryproto files, without Caffe."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from alexnet_jax.convert import untrusted
from alexnet_jax.utils.errors import first_line

# The parts of `src/caffe/proto/caffe.proto` that hold weights. In files from before 2015, such as
# bvlc_alexnet, NetParameter has `layers`.
_MESSAGES = {
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

_MAX_AXES = 8


def read_caffemodel(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads the weights of a .caffemodel, in its old or new form.

  Returns:
    {'conv1[0]': weights, 'conv1[1]': biases, ...} by the layers' names, float32. Arrays in old
    files have four axes; leading axes of size 1 are removed.

  Raises:
    UserError: it is not a .caffemodel, or is incomplete.
  """
  with untrusted.described(path, 'a caffemodel'):
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
  """Reads the array of a .binaryproto, such as Caffe's mean image [3, H, W], as float32.

  Raises:
    UserError: it is not a .binaryproto, or is incomplete.
  """
  with untrusted.described(path, 'a binaryproto'):
    return _blob(_parse('BlobProto', path.read_bytes()))


@functools.cache
def _message_classes() -> Mapping[str, Any]:
  """The protobuf classes of _MESSAGES, by name."""
  file = descriptor_pb2.FileDescriptorProto(name='weights.proto', package='caffe')
  for name, fields in _MESSAGES.items():
    message = file.message_type.add(name=name)
    for field_name, (number, declared) in fields.items():
      label, kind = declared.split()
      field = message.field.add(name=field_name, number=number)
      field.label = field.Label.Value(f'LABEL_{label.upper()}')
      if kind in _MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f'.caffe.{kind}'
      else:
        field.type = field.Type.Value(f'TYPE_{kind.upper()}')
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return {
    name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f'caffe.{name}'))
    for name in _MESSAGES
  }


def _parse(message: str, content: bytes) -> Any:
  return _message_classes()[message].FromString(content)


def _blob(blob: Any) -> np.ndarray:
  values = blob.data or blob.double_data
  if blob.HasField('shape'):
    shape = list(blob.shape.dim)
  else:
    shape = [blob.num, blob.channels, blob.height, blob.width]
    while len(shape) > 1 and shape[0] == 1:
      del shape[0]
  if len(shape) > _MAX_AXES:  # computing their product could take forever
    raise ValueError(f'an array has {len(shape):,} axes')
  if min(shape, default=0) < 0 or math.prod(shape) != len(values):
    raise ValueError(f'an array of the shape {shape} has {len(values):,} numbers')
  with np.errstate(over='ignore'):  # where doubles become float32
    return np.fromiter(values, np.float32, len(values)).reshape(shape)
