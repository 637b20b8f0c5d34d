"""Caffe's binary files, written from its schema (`caffe.proto`) byte by byte, without protobuf."""

import struct

import numpy as np


def varint(number):
  """Seven bits a byte, the lowest first, all but the last with the high bit set."""
  encoded = b''
  while number > 127:
    encoded += bytes([number & 127 | 128])
    number >>= 7
  return encoded + bytes([number])


def integer(field, value):
  """A number, as a varint."""
  return varint(field << 3) + varint(value)


def counted(field, content):
  """A string, a message, or numbers packed."""
  return varint(field << 3 | 2) + varint(len(content)) + content


def old_blob(array):
  """Four dimensions, leading ones added: num, channels, height and width are fields 1 to 4."""
  shape = (1,) * (4 - array.ndim) + array.shape
  sides = b''.join(integer(field + 1, side) for field, side in enumerate(shape))
  return sides + counted(5, array.astype('<f4').tobytes())


def blob(array):
  """An array, its axes in a message of their own, its numbers packed."""
  return counted(7, _shape(array)) + counted(5, array.astype('<f4').tobytes())


def unpacked_blob(array):
  """Each number with a tag of its own, as protobuf 1 wrote."""
  numbers = b''.join(struct.pack('<Bf', 5 << 3 | 5, value) for value in array.ravel())
  return counted(7, _shape(array)) + numbers


def double_blob(array):
  """The same in float64."""
  return counted(7, _shape(array)) + counted(8, array.astype('<f8').tobytes())


def _shape(array):
  return counted(1, b''.join(map(varint, array.shape)))


def old_caffemodel(blobs):
  """{layer: [arrays]} as NetParameter.layers, with layers without weights and other fields."""
  data = counted(4, b'data') + integer(5, 5)
  layers = [
    counted(2, b'input')
    + counted(4, name.encode())
    + b''.join(counted(6, old_blob(a)) for a in parts)
    for name, parts in blobs.items()
  ]
  return counted(1, b'AlexNet') + b''.join(counted(2, layer) for layer in (data, *layers))


_TYPES = {'Convolution': 4, 'InnerProduct': 14, 'LRN': 15, 'Pooling': 17, 'ReLU': 18}


def layers_in_order(blobs, order=('ReLU', 'LRN', 'Pooling')):
  """The layers of AlexNet with their types, as (name, type, arrays), and what follows conv1 and conv2.

  Caffe's bvlc_alexnet has the default order, its CaffeNet pools before it normalizes.
  """
  after = {'conv1': order, 'conv2': order, 'conv5': ('ReLU', 'Pooling')}
  for name, arrays in blobs.items():
    yield name, 'Convolution' if name.startswith('conv') else 'InnerProduct', arrays
    for step in after.get(name, () if name.startswith('fc8') else ('ReLU',)):
      yield f'{step.lower()}_{name}', step, ()


def typed_caffemodel(layers, old=False):
  """Layers as (name, type, arrays), as NetParameter.layer or, old, as NetParameter.layers."""
  if old:
    parts = [
      counted(4, name.encode())
      + integer(5, _TYPES[kind])
      + b''.join(counted(6, old_blob(a)) for a in arrays)
      for name, kind, arrays in layers
    ]
  else:
    parts = [
      counted(1, name.encode())
      + counted(2, kind.encode())
      + b''.join(counted(7, blob(a)) for a in arrays)
      for name, kind, arrays in layers
    ]
  return counted(1, b'AlexNet') + b''.join(counted(2 if old else 100, part) for part in parts)


def caffemodel(blobs, encode=blob):
  """{layer: [arrays]} as NetParameter.layer."""
  layers = [
    counted(1, name.encode())
    + counted(2, b'Convolution')
    + b''.join(counted(7, encode(a)) for a in parts)
    for name, parts in blobs.items()
  ]
  data = counted(1, b'data') + counted(2, b'Data')
  return counted(1, b'AlexNet') + b''.join(counted(100, layer) for layer in (data, *layers))


def binaryproto(array):
  """A BlobProto such as compute_image_mean writes; array is [channels, height, width]."""
  return old_blob(np.asarray(array))
