"""Networks and files as Caffe, TensorFlow and PyTorch users have them."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained, safetensors_file
from alexnet_jax.data import augment
from alexnet_jax.models.alexnet import parameter_shapes
from configs import imagenet_caffe, imagenet_torchvision

CLASSES = 7


# Small, but with maps of 2x2 before fc6, so that their order matters.
NARROW = {
  'model.num_classes': CLASSES,
  'model.conv1.features': 8,
  'model.conv2.features': 12,
  'model.conv3.features': 16,
  'model.conv4.features': 12,
  'model.conv5.features': 8,
  'model.fc6.features': 20,
  'model.fc7.features': 16,
  'augment.crop_offsets': 1,
  'data.image_size': 98,
}


def caffe_config():
  """95 pixels: conv1 makes 22, whose pool overhangs."""
  config = imagenet_caffe.get_config()
  # The norm is to matter.
  config.update_from_flattened_dict(
    {**NARROW, 'model.input_size': 95, 'model.response_norm.alpha': 0.5}
  )
  return config


def torchvision_config():
  """98 pixels: conv1 makes 23 where it rounds down, 24 where it rounds up."""
  config = imagenet_torchvision.get_config()
  config.update_from_flattened_dict({**NARROW, 'model.input_size': 98})
  return config


def random_arrays(shapes):
  """Random arrays scaled to keep the signal's size from layer to layer; weights before biases."""
  rng = np.random.default_rng(2)
  scales = [np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2 for shape in shapes]
  return [
    (scale * rng.standard_normal(shape)).astype(np.float32)
    for scale, shape in zip(scales, shapes, strict=True)
  ]


def caffe_blobs():
  """{layer: [weights, biases]} in Caffe's shapes, of two groups in conv2, conv4 and conv5."""
  shapes = {
    'conv1': (8, 3, 11, 11),
    'conv2': (12, 4, 5, 5),
    'conv3': (16, 12, 3, 3),
    'conv4': (12, 8, 3, 3),
    'conv5': (8, 6, 3, 3),
    'fc6': (20, 8 * 2 * 2),
    'fc7': (16, 20),
    'fc8': (CLASSES, 16),
  }
  arrays = random_arrays([part for shape in shapes.values() for part in (shape, shape[:1])])
  blobs = {layer: arrays[2 * i : 2 * i + 2] for i, layer in enumerate(shapes)}
  blobs['conv1'][0] /= 64  # pixels go up to 255
  return blobs


def state_dict():
  """As torchvision's AlexNet has it."""
  shapes = {
    'features.0': (8, 3, 11, 11),
    'features.3': (12, 8, 5, 5),
    'features.6': (16, 12, 3, 3),
    'features.8': (12, 16, 3, 3),
    'features.10': (8, 12, 3, 3),
    'classifier.1': (20, 8 * 2 * 2),
    'classifier.4': (16, 20),
    'classifier.6': (CLASSES, 16),
  }
  arrays = random_arrays([part for shape in shapes.values() for part in (shape, shape[:1])])
  names = [f'{module}.{kind}' for module in shapes for kind in ('weight', 'bias')]
  return dict(zip(names, arrays, strict=True))


def tensorflow_layers():
  """Caffe's weights in caffe-tensorflow's layout: HWIO, and fc6 reads maps in the order HWC."""
  layers = {}
  for layer, (weights, biases) in caffe_blobs().items():
    if layer == 'fc6':
      weights = weights.reshape(-1, 8, 2, 2).transpose(0, 2, 3, 1).reshape(weights.shape)
    axes = (2, 3, 1, 0) if weights.ndim == 4 else (1, 0)
    layers[layer] = [weights.transpose(axes), biases]
  return layers


def as_npy(pickled):
  """A .npy of an array without axes that holds one object."""
  file = io.BytesIO()
  header = {'descr': '|O', 'fortran_order': False, 'shape': ()}
  np.lib.format.write_array_header_1_0(file, header)
  return file.getvalue() + pickled


def pickled_by_python_2(layers):
  """The pickle of Python 2 and its numpy, where bytes are strings."""

  def tuple_(*parts):
    return b'(' + b''.join(parts) + b't'

  def integer(number):
    return b'J' + struct.pack('<i', number)

  def string(content):
    return b'T' + struct.pack('<i', len(content)) + content

  def array(shape, code, order, content, flags=0):
    dtype = b'cnumpy\ndtype\n' + tuple_(string(code), integer(0), integer(1)) + b'R'
    dtype += (
      tuple_(integer(3), string(order), b'NNN', integer(-1), integer(-1), integer(flags)) + b'b'
    )
    empty = tuple_(b'cnumpy\nndarray\n', tuple_(integer(0)), string(b'b'))
    state = tuple_(integer(1), tuple_(*map(integer, shape)), dtype, b'\x89', content)
    return b'cnumpy.core.multiarray\n_reconstruct\n' + empty + b'R' + state + b'b'

  def floats(values):
    return array(values.shape, b'f4', b'<', string(values.astype('<f4').tobytes()))

  pairs = b''.join(
    string(layer.encode()) + b'](' + b''.join(map(floats, pair)) + b'e'
    for layer, pair in layers.items()
  )
  return b'\x80\x02' + array((), b'O8', b'|', b'](}(' + pairs + b'ue', 63) + b'.'


def pickled(layers, protocol=4):
  return pickle.dumps(np.array(layers, dtype=object), protocol=protocol)


def write_state_dict(path, arrays=None):
  safetensors_file.write(path, state_dict() if arrays is None else arrays, {'format': 'pt'})
  return path


def _pickled_by_torch(arrays, monkeypatch, dtype, wrap, **changes):
  """What torch.save pickles, by Python's pickle under torch's names; the storages' keys are numbers.

  Args:
    arrays: a state dict, of this dtype.
    wrap: makes what is saved of the state dict.
    changes: of each tensor's description.
  """

  class Storage:
    def __init__(self, key):
      self.key = key

  class Tensor:
    def __init__(self, key, array):
      self.key, self.array = key, array

    def __reduce__(self):
      strides = tuple(step // self.array.itemsize for step in self.array.strides)
      arguments = {'offset': 0, 'size': self.array.shape, 'stride': strides, **changes}
      return rebuild, (Storage(self.key), *arguments.values(), False, collections.OrderedDict())

  def rebuild():
    pass

  rebuild.__module__, rebuild.__qualname__ = 'torch._utils', '_rebuild_tensor_v2'
  names = {
    np.float16: 'HalfStorage',
    np.float32: 'FloatStorage',
    np.float64: 'DoubleStorage',
    np.int64: 'LongStorage',
    jnp.bfloat16: 'BFloat16Storage',
  }
  storage_class = type(names[dtype], (), {'__module__': 'torch'})
  torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
  setattr(torch, names[dtype], storage_class)
  utils._rebuild_tensor_v2 = rebuild

  class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
      return (
        ('storage', storage_class, obj.key, 'cpu', 0, None) if isinstance(obj, Storage) else None
      )

  tensors = {name: Tensor(str(i), array) for i, (name, array) in enumerate(arrays.items())}
  file = io.BytesIO()
  with monkeypatch.context() as patch:
    patch.setitem(sys.modules, 'torch', torch)
    patch.setitem(sys.modules, 'torch._utils', utils)
    state_dict = collections.OrderedDict(tensors)
    state_dict._metadata = collections.OrderedDict({'': {'version': 1}})  # PyTorch's, for modules
    Pickler(file, protocol=2).dump(wrap(state_dict))
  return file.getvalue()


def write_pth(path, arrays, monkeypatch, dtype=np.float32, wrap=lambda state: state, **changes):
  """A state dict as torch.save writes it, or what `wrap` makes of one."""
  arrays = {name: array.astype(dtype) for name, array in arrays.items()}
  pickled = _pickled_by_torch(arrays, monkeypatch, dtype, wrap, **changes)
  parts = {f'data/{i}': array.tobytes() for i, array in enumerate(arrays.values())}
  return write_zip(path, {'data.pkl': pickled, 'byteorder': b'little', **parts})


def write_legacy_pth(path, arrays, monkeypatch):
  """A state dict as torch.save wrote it before PyTorch 1.6."""
  system = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'int': 4}}
  parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system)]
  parts.append(_pickled_by_torch(arrays, monkeypatch, np.float32, lambda state: state))
  parts.append(pickle.dumps([str(i) for i in range(len(arrays))], 2))
  for array in arrays.values():
    parts += [struct.pack('<q', array.size), array.tobytes()]
  path.write_bytes(b''.join(parts))
  return path


def write_zip(path, parts, compression=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name, content in parts.items():
      archive.writestr(f'alexnet/{name}', content)
  return path


def random_statistics(size):
  """A mean image that differs from pixel to pixel, and axes of the colors."""
  rng = np.random.default_rng(7)
  return augment.Statistics(
    mean_image=rng.uniform(0, 255, (size, size, 3)).astype(np.float32),
    eigenvalues=rng.uniform(size=3).astype(np.float32),
    eigenvectors=rng.standard_normal((3, 3)).astype(np.float32),
  )


def random_network(config, mean_image=None):
  """A network with random parameters."""
  shapes = parameter_shapes(experiment.make_network(config))
  rng = np.random.default_rng(4)
  draw = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)
  size = config.data.image_size
  if mean_image is None:
    mean_image = np.broadcast_to(np.float32([120.3, 110.2, 100.1]), (size, size, 3))
  statistics = augment.Statistics(
    mean_image=mean_image,
    eigenvalues=np.zeros(3, np.float32),
    eigenvectors=np.eye(3, dtype=np.float32),
  )
  names = [f'class {label}' for label in range(config.model.num_classes)]
  return pretrained.PretrainedNetwork(draw, config, statistics, names, 12, 'nowhere')
