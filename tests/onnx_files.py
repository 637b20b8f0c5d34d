"""ONNX files, written from its schema (`onnx.proto`) byte by byte, without onnx."""

import numpy as np

from benchmarks.caffe_files import counted, integer

_TYPES = {np.dtype('f4'): 1, np.dtype('i1'): 3, np.dtype('f2'): 10}


def tensor(name, array, content=None):
  """An initializer; `content` are its fields of numbers, as raw bytes unless given."""
  shape = b''.join(integer(1, side) for side in array.shape)
  numbers = counted(9, array.tobytes()) if content is None else content
  return shape + integer(2, _TYPES[array.dtype]) + counted(8, name.encode()) + numbers


def elsewhere(file, offset, length):
  """The fields of a tensor whose numbers are in another file."""
  where = {'location': file, 'offset': f'{offset}', 'length': f'{length}'}
  pairs = (counted(1, k.encode()) + counted(2, v.encode()) for k, v in where.items())
  return b''.join(counted(13, pair) for pair in pairs) + integer(14, 1)


def node(kind, *inputs):
  """A step of the program."""
  return b''.join(counted(1, name.encode()) for name in inputs) + counted(4, kind.encode())


def model(tensors, nodes=()):
  """A whole file, as PyTorch begins it."""
  graph = b''.join(counted(1, n) for n in nodes) + b''.join(counted(5, t) for t in tensors)
  return integer(1, 10) + counted(2, b'pytorch') + counted(7, graph)


def of_caffe2(blobs, order):
  """{layer: [weights, biases]} as the ONNX model zoo has Caffe's networks."""
  after = {'conv1': order, 'conv2': order, 'conv5': ('Relu', 'MaxPool')}
  nodes = []
  for layer in blobs:
    kind = 'Conv' if layer.startswith('conv') else 'Gemm'
    nodes.append(node(kind, 'before', f'{layer}_w_0', f'{layer}_b_0'))
    nodes += [node(step, 'before') for step in after.get(layer, ('Relu',))]
  tensors = [
    tensor(f'{layer}_{kind}_0', array)
    for layer, arrays in blobs.items()
    for kind, array in zip('wb', arrays, strict=True)
  ]
  return model(tensors, nodes)
