"""Trained networks into this project's files and out again: Caffe's, TensorFlow's, PyTorch's.

What others write is parameters and no more: the network's constants come from a config, the class
names and the mean from files, or else they are numbers and the colour that the format's users
subtract. The axes of the colours' covariance, which training with lighting would need, nobody
writes down; they are set to zero.
"""

import dataclasses
import functools
import importlib.util
import json
import os
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained, safetensors_file
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.convert import caffe, export, pytorch, tensorflow
from alexnet_jax.convert.layouts import (
  CAFFE,
  TENSORFLOW,
  TORCHVISION,
  Layout,
  check_network,
  decode,
  encode,
)
from alexnet_jax.data import augment
from alexnet_jax.models.alexnet import parameter_shapes
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

# A state dict's metadata in .torch.safetensors.
_STATE_DICT_DESCRIPTION = 'alexnet_jax_state_dict'
_MEAN_COLOR = 'mean_color'


def convert(
  source: str | os.PathLike[str],
  target: str | os.PathLike[str],
  config: ConfigDict | None = None,
  *,
  mean: str | os.PathLike[str] | None = None,
  class_names: str | os.PathLike[str] | None = None,
  log: Callable[[str], None] = lambda text: None,
) -> PretrainedNetwork:
  """Reads a network, from whatever holds it, and writes it.

  Args:
    source: see `read`.
    target: see `write`.
    config: see `read`.
    mean: a Caffe mean image (.binaryproto), in place of the mean that the source has.
    class_names: a file with a name a line, in the order of the labels, in place of the source's.
    log: called with a line where a damaged checkpoint is passed over.

  Returns:
    The network.

  Raises:
    UserError: something is not there, not whole, or does not fit.
  """
  check_target(target)
  network = read(source, config, log)
  if mean is not None:
    image = read_mean(mean, network.config.data.image_size)
    statistics = network.statistics._replace(mean_image=jnp.asarray(image))
    network = dataclasses.replace(network, statistics=statistics)
  if class_names is not None:
    names = read_class_names(class_names, network.config.model.num_classes)
    network = dataclasses.replace(network, class_names=names)
  write(target, network)
  return network


def read(
  path: str | os.PathLike[str],
  config: ConfigDict | None = None,
  log: Callable[[str], None] = lambda text: None,
) -> PretrainedNetwork:
  """Reads a network from whatever holds it.

  Args:
    path: what `pretrained.read` takes, or a .caffemodel, a .npy as TensorFlow's users have it
      ({'conv1': [weights, biases], ...}), or a PyTorch state dict with torchvision's names (.pth,
      .pt or .safetensors).
    config: the network's; only for a source that brings none, and then needed.
    log: see `pretrained.read`.

  Raises:
    UserError: there is nothing there, it is not whole, or it is not the config's network.
  """
  at = epath.Path(os.path.expanduser(os.fspath(path)))
  if not at.exists():
    raise UserError(f'there is no {at}')
  network = _read_described(at, log)
  if network is None:
    layout, arrays = _read_arrays(at)
    if config is None:
      raise UserError(f"{at} brings no config; give its network's, as --config={layout.config}")
    experiment.check(config)
    return _network(at, arrays, layout, config, layout.mean_color)
  if config is not None:
    raise UserError(f'{at} brings its own config; leave --config out')
  return network


def _read_described(path: epath.Path, log: Callable[[str], None]) -> PretrainedNetwork | None:
  """The network of a file or folder that brings its config along; None for another."""
  if path.is_dir():
    return pretrained.read(path, log=log)
  if path.suffix not in ('.safetensors', '.jaxexport'):
    return None
  metadata = safetensors_file.read_metadata(path)
  if pretrained.DESCRIPTION in metadata:
    return pretrained.read(path)
  if _STATE_DICT_DESCRIPTION not in metadata:
    return None
  description = metadata[_STATE_DICT_DESCRIPTION]
  config, class_names, step = pretrained.read_description(str(path), description)
  try:
    red, green, blue = map(float, files.parse_json(metadata[_MEAN_COLOR]))
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} has a {_MEAN_COLOR} that cannot be read: {first_line(error)}'
    ) from error
  arrays = safetensors_file.read_arrays(path)
  network = _network(path, arrays, TORCHVISION, config, (red, green, blue))
  return dataclasses.replace(network, class_names=class_names, step=step)


def _read_arrays(path: epath.Path) -> tuple[Layout, Mapping[str, np.ndarray]]:
  match path.suffix:
    case '.caffemodel':
      return CAFFE, caffe.read_caffemodel(path)
    case '.npy':
      return TENSORFLOW, tensorflow.read_npy(path)
    case '.pth' | '.pt':
      return TORCHVISION, pytorch.read_state_dict(path)
    case '.safetensors':
      return TORCHVISION, safetensors_file.read_arrays(path)
  raise UserError(
    f'{path} is of no kind known here, which are workdirs, checkpoints, .safetensors, .caffemodel,'
    ' .npy and .pth'
  )


def _network(
  path: epath.Path,
  arrays: Mapping[str, np.ndarray],
  layout: Layout,
  config: ConfigDict,
  mean_color: tuple[float, float, float],
) -> PretrainedNetwork:
  net = experiment.make_network(config)
  check_network(net)
  params = parameter_shapes(net)
  shapes = jax.eval_shape(functools.partial(encode, net=net, layout=layout), params)
  wanted = {name: shapes[name] for pair in layout.names.values() for name in pair}  # conv1 first
  try:
    if more := sorted(arrays.keys() - wanted.keys()):
      raise UserError(f'{path} has {first_line(more[0])}')
    with np.errstate(over='ignore'):
      arrays = {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}
    pretrained.check_arrays(str(path), arrays, wanted)
  except UserError as error:
    raise UserError(f'{error}, and is not the network of the config') from error
  size = config.data.image_size
  statistics = augment.Statistics(
    mean_image=jnp.broadcast_to(jnp.array(mean_color, jnp.float32), (size, size, 3)),
    eigenvalues=jnp.zeros(3, jnp.float32),
    eigenvectors=jnp.eye(3, dtype=jnp.float32),
  )
  class_names = [str(label) for label in range(net.num_classes)]
  params = jax.tree.map(jnp.asarray, decode(arrays, net, layout))
  return PretrainedNetwork(params, config, statistics, class_names, None, str(path))


def read_mean(path: str | os.PathLike[str], size: int) -> np.ndarray:
  """A mean image from a .binaryproto of Caffe's, which has [blue, green, red] planes.

  Args:
    path: the file.
    size: side in pixels that it must have.

  Returns:
    [size, size, 3] float32, red, green and blue.

  Raises:
    UserError: it is not there, not whole, or has another size.
  """
  at = epath.Path(os.path.expanduser(os.fspath(path)))
  if not at.exists():
    raise UserError(f'there is no {at} (--mean)')
  planes = caffe.read_binaryproto(at)
  if planes.shape != (3, size, size):
    raise UserError(
      f'{at} is {" x ".join(map(str, planes.shape))}, but data.image_size wants 3 x {size} x {size}'
    )
  return planes[::-1].transpose(1, 2, 0)


def read_class_names(path: str | os.PathLike[str], num_classes: int) -> list[str]:
  """Class names from a text file, a name a line, in the order of the labels.

  Raises:
    UserError: it is not there, no text, or does not have so many names.
  """
  at = epath.Path(os.path.expanduser(os.fspath(path)))
  if not at.exists():
    raise UserError(f'there is no {at} (--class_names)')
  files.check_kind(at)
  try:
    names = at.read_text().splitlines()
  except UnicodeDecodeError as error:
    raise UserError(f'{at} is no text in UTF-8: {first_line(error)}') from error
  if len(names) != num_classes:
    raise UserError(f'{at} has {len(names):,} lines, but the network has {num_classes:,} classes')
  return names


def check_target(path: str | os.PathLike[str]) -> None:
  """Raises UserError where `write` does not know what to write, or could not."""
  suffix = epath.Path(path).suffix
  if suffix not in ('.safetensors', '.jaxexport', '.pth'):
    raise UserError(
      f'{path} is of no kind that is written here: .safetensors, with its program .jaxexport, or'
      ' with a PyTorch state dict .torch.safetensors or .pth'
    )
  if suffix == '.pth' and importlib.util.find_spec('torch') is None:
    raise UserError(
      f'PyTorch, which writes {path}, is not installed; pip install torch, or write a'
      ' .torch.safetensors, which does not need it'
    )


def write(path: str | os.PathLike[str], network: PretrainedNetwork) -> None:
  """Writes a network into a file, in one move, as its name says.

  Args:
    path: ends in '.torch.safetensors': a PyTorch state dict with torchvision's names, readable by
      `safetensors.torch.load_file`, with the config, class names, step and mean colour as metadata;
      '.safetensors': what `pretrained.write` writes; '.jaxexport': what `export.export` writes;
      '.pth': a bare state dict, which needs PyTorch.
    network: the network.

  Raises:
    UserError: the file cannot be written, or a state dict cannot hold the network.
  """
  check_target(path)
  name = os.fspath(path)
  if name.endswith('.safetensors') and not name.endswith('.torch.safetensors'):
    pretrained.write(path, network)
    return
  if name.endswith('.jaxexport'):
    export.export(network, path)
    return
  net = experiment.make_network(network.config)
  check_network(net)
  arrays = encode(jax.tree.map(np.asarray, network.params), net, TORCHVISION)
  if name.endswith('.pth'):
    files.write(path, pytorch.serialize(arrays))
    return
  mean_color = np.asarray(network.statistics.mean_image, np.float64).mean(axis=(0, 1))
  metadata = {
    'format': 'pt',
    _STATE_DICT_DESCRIPTION: pretrained.describe(network),
    _MEAN_COLOR: json.dumps(mean_color.tolist()),
  }
  safetensors_file.write(path, arrays, metadata)
