"""Reads networks from the files of Caffe, TensorFlow and PyTorch, whatever they are called."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained, safetensors_file
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.convert import caffe, names, pytorch, tensorflow, untrusted
from alexnet_jax.convert.layouts import (
  CAFFE,
  TENSORFLOW,
  TORCHVISION,
  Layout,
  check_network,
  decode,
  encode,
)
from alexnet_jax.data import augment, imagenet_classes
from alexnet_jax.models.alexnet import parameter_shapes
from alexnet_jax.utils.errors import UserError, first_line

Log = Callable[[str], None]

_PYTORCH_ENDINGS = ('.pth', '.pt', '.bin', '.pkl', '.ckpt', '.tar')

# Files that are often called weights, by their first bytes.
_NOT_READ = {
  b'\x89HDF\r\n\x1a\n': 'HDF5',
  b'MATLAB 5.0': "MATLAB's",
  b'\x1f\x8b': 'compressed by gzip',
}


class _Weights(NamedTuple):
  """The arrays of a file, by name, and their layout."""

  layout: Layout
  arrays: Mapping[str, np.ndarray]


def read(path: epath.Path, config: ConfigDict | None, log: Log) -> PretrainedNetwork:
  """Reads a network from another project's file, whose kind its content says.

  One of 1,000 classes whose last layer has the published network's name has ImageNet's classes, by
  their synsets; those of others are numbers.

  Args:
    path: a .caffemodel; a .npy or .npz as caffe-tensorflow and MMdnn write it, or of arrays named by
      layer; a checkpoint of PyTorch, whatever its ending; or a .safetensors file of a state dict.
    config: the network's; model.num_classes may be None, for as many as the file has.
    log: called with a line for what is not as published, as `names.find` and
      `pytorch.read_checkpoint` say.

  Raises:
    UserError: it is damaged, of another kind, or not the network of the config.
  """
  layout, arrays = _read(path, log)
  if config is None:
    raise UserError(f'{path} has no config; pass one, such as --config={layout.config}')
  experiment.check(config)
  shapes = {name: array.shape for name, array in arrays.items()}
  found = names.find(str(path), shapes, layout, log)
  last = shapes.get(found.names[layout.names['fc8'][1]])
  if config.model.num_classes is None and last:
    config = config.copy_and_resolve_references()
    config.model.num_classes = last[0]
  converted = network(path, arrays, found.names, layout, config, layout.mean_color)
  if found.has_own_last_layer and config.model.num_classes == len(imagenet_classes.words()):
    synsets = list(imagenet_classes.words())  # whose order all layouts have
    converted = dataclasses.replace(converted, class_names=synsets)
  return converted


def _read(path: epath.Path, log: Log) -> _Weights:
  """Reads the arrays of a file by what its first bytes are, or else its ending."""
  with untrusted.described(path, 'a file of weights'), path.open('rb') as file:
    head = file.read(512)
  is_zip = head.startswith(b'PK\x03\x04')
  if head.startswith(b'\x93NUMPY'):
    return _Weights(TENSORFLOW, tensorflow.read_npy(path))
  if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 2**30:
    arrays = safetensors_file.read_arrays(path)
    return _Weights(TORCHVISION, dict(sorted(arrays.items(), key=_natural_order)))
  if is_zip or head.startswith(b'\x80\x02') or head[257:262] == b'ustar':
    return _Weights(TORCHVISION, pytorch.read_checkpoint(path, log))
  for magic, kind in _NOT_READ.items():
    if head.startswith(magic):
      raise UserError(
        f'{path} is {kind}, which is not read; save its arrays with numpy.savez under the names'
        ' conv1.weight, conv1.bias to fc8.bias, in the axes of PyTorch'
      )
  match path.suffix:
    case '.caffemodel':
      return _Weights(CAFFE, caffe.read_caffemodel(path))
    case '.npy':
      return _Weights(TENSORFLOW, tensorflow.read_npy(path))
    case '.safetensors':
      return _Weights(TORCHVISION, safetensors_file.read_arrays(path))
    case ending if ending in _PYTORCH_ENDINGS:
      return _Weights(TORCHVISION, pytorch.read_checkpoint(path, log))
  raise UserError(
    f'{path} is of an unknown kind; it must be a workdir, a checkpoint, or a .safetensors,'
    ' .caffemodel, .npy, .npz or .pth file'
  )


def _natural_order(item: tuple[str, np.ndarray]) -> list[tuple[int, str]]:
  """Sorts 'features.3' before 'features.10', as PyTorch has them; safetensors sorts by letters."""
  parts = re.split(r'(\d+)', item[0])
  return [(int(part) if part.isdecimal() else -1, part) for part in parts]


def network(
  path: epath.Path,
  arrays: Mapping[str, np.ndarray],
  of_layout: Mapping[str, str],
  layout: Layout,
  config: ConfigDict,
  mean_color: tuple[float, float, float],
) -> PretrainedNetwork:
  """Makes a network of arrays in a layout.

  Args:
    path: of the file, for messages.
    arrays: by their names in the file.
    of_layout: these names by the layout's.
    layout: the layout.
    config: the network's.
    mean_color: red, green and blue, 0 to 255, that is subtracted from images.

  Raises:
    UserError: they are not the arrays of the config's network.
  """
  net = experiment.make_network(config)
  check_network(net)
  params = parameter_shapes(net)
  shapes = jax.eval_shape(functools.partial(encode, net=net, layout=layout), params)
  expected = {of_layout[name]: shapes[name] for pair in layout.names.values() for name in pair}
  try:
    used = {name: _as_float32(name, arrays[name]) for name in expected if name in arrays}
    pretrained.check_arrays(str(path), used, expected)
  except UserError as error:
    raise UserError(f'{error}, and is not the network of the config') from error
  size = config.data.image_size
  statistics = augment.Statistics(
    mean_image=jnp.broadcast_to(jnp.array(mean_color, jnp.float32), (size, size, 3)),
    eigenvalues=jnp.zeros(3, jnp.float32),
    eigenvectors=jnp.eye(3, dtype=jnp.float32),
  )
  class_names = [str(label) for label in range(net.num_classes)]
  in_layout = {name: used[file] for name, file in of_layout.items()}
  params = jax.tree.map(jnp.asarray, decode(in_layout, net, layout))
  return PretrainedNetwork(params, config, statistics, class_names, None, str(path))


def _as_float32(name: str, array: np.ndarray) -> np.ndarray:
  if array.dtype.kind in 'biuc':
    raise UserError(f'{first_line(name)} is of {array.dtype}, not of floating-point numbers')
  with np.errstate(over='ignore'):
    return array.astype(np.float32, copy=False)
