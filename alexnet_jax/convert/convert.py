"""Trained networks into this project's files and out again: Caffe's, TensorFlow's, PyTorch's.

What others write is parameters and no more: the network's constants come from a config, the class
names and the mean from files, or else they are numbers and the colour that the format's users
subtract. The axes of the colours' covariance, which training with lighting would need, nobody
writes down; they are set to zero.
"""

import dataclasses
import functools
import importlib.util
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained
from alexnet_jax.checkpoints.pretrained import Trained
from alexnet_jax.convert import foreign
from alexnet_jax.data import augment
from alexnet_jax.evaluation import inference
from alexnet_jax.models.alexnet import AlexNet, parameter_shapes
from alexnet_jax.models.options import LAYERS
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line


@dataclasses.dataclass(frozen=True)
class Layout:
  """How others name and order the parameters of a network with conv1 to conv5 and fc6 to fc8.

  Attributes:
    names: of each layer's weights and biases.
    channels_first: True: kernels are [O, I, H, W] and matrices [outputs, inputs], and fc6 reads
      maps flattened in the order C, H, W. False: [H, W, I, O], [inputs, outputs], and H, W, C.
    bgr: whether images have blue first.
    mean_color: red, green and blue, 0 to 255, that are subtracted from images.
    config: of the network that is published in this layout.
  """

  names: Mapping[str, tuple[str, str]]
  channels_first: bool
  bgr: bool
  mean_color: tuple[float, float, float]
  config: str


# A state dict's metadata in .torch.safetensors.
_STATE_DICT_DESCRIPTION = 'alexnet_jax_state_dict'
_MEAN_COLOR = 'mean_color'

_LAYERS = tuple(name for name in LAYERS if name not in ('conv6', 'bottleneck'))

CAFFE = Layout(
  names={layer: (f'{layer}[0]', f'{layer}[1]') for layer in _LAYERS},
  channels_first=True,
  bgr=True,
  mean_color=(122.67891434, 116.66876762, 104.00698793),  # of Caffe's ImageNet mean image
  config='configs/imagenet_caffe.py',
)

TENSORFLOW = dataclasses.replace(CAFFE, channels_first=False)
"""Caffe's weights in a .npy, as caffe-tensorflow converts them."""

TORCHVISION = Layout(
  names={
    layer: (f'{module}.weight', f'{module}.bias')
    for layer, module in {
      'conv1': 'features.0',
      'conv2': 'features.3',
      'conv3': 'features.6',
      'conv4': 'features.8',
      'conv5': 'features.10',
      'fc6': 'classifier.1',
      'fc7': 'classifier.4',
      'fc8': 'classifier.6',
    }.items()
  },
  channels_first=True,
  bgr=False,
  mean_color=(255 * 0.485, 255 * 0.456, 255 * 0.406),
  config='configs/imagenet_torchvision.py',
)


def encode(params: Any, net: AlexNet, layout: Layout) -> dict[str, Any]:
  """A network's parameters in a layout; numpy arrays stay numpy arrays.

  Args:
    params: {layer: {'kernel', 'bias'}} of global shapes.
    net: the network, which `check_network` has passed.
    layout: the layout.
  """
  arrays = {}
  for layer, (weights, biases) in layout.names.items():
    kernel = params[layer]['kernel']
    if layer == 'conv1' and layout.bgr:
      kernel = kernel[:, :, ::-1]
    if layer == 'fc6':
      rows, order = _fc6(net, kernel.shape, layout)
      kernel = kernel.reshape(rows).transpose(order).reshape(kernel.shape)
    arrays[weights] = kernel.transpose(_axes(kernel.ndim)) if layout.channels_first else kernel
    arrays[biases] = params[layer]['bias']
  return arrays


def decode(arrays: Mapping[str, np.ndarray], net: AlexNet, layout: Layout) -> Any:
  """The parameters that `encode` made into these arrays."""
  params = {}
  for layer, (weights, biases) in layout.names.items():
    kernel = arrays[weights]
    if layout.channels_first:
      kernel = kernel.transpose(np.argsort(_axes(kernel.ndim)))
    if layer == 'fc6':
      rows, order = _fc6(net, kernel.shape, layout)
      theirs = [rows[axis] for axis in order]
      kernel = kernel.reshape(theirs).transpose(np.argsort(order)).reshape(kernel.shape)
    if layer == 'conv1' and layout.bgr:
      kernel = kernel[:, :, ::-1]
    params[layer] = {'kernel': kernel, 'bias': arrays[biases]}
  return params


def _axes(dimensions: int) -> tuple[int, ...]:
  """From [H, W, I, O] to [O, I, H, W], or from [inputs, outputs] to [outputs, inputs]."""
  return (3, 2, 0, 1) if dimensions == 4 else (1, 0)


def _fc6(
  net: AlexNet, shape: tuple[int, ...], layout: Layout
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """What fc6's rows are here, [columns, H, W, C, outputs], and the order of these in a layout."""
  side = math.isqrt(shape[0] // net.features('conv5'))
  rows = (net.num_columns, side, side, net.features('conv5') // net.num_columns, shape[1])
  return rows, (0, 3, 1, 2, 4) if layout.channels_first else (1, 2, 0, 3, 4)


def check_network(net: AlexNet) -> None:
  """Raises UserError for a network that these layouts cannot hold."""
  layers = [name for name in LAYERS if net.features(name)]
  if layers != list(_LAYERS) or net.locally_connected:
    raise UserError(
      'only networks of conv1 to conv5 and fc6 to fc8, none locally connected, are converted; this'
      f' one has {", ".join(layers)}'
    )
  own = [name for name in ('fc6', 'fc7') if name not in net.cross_column]
  if net.num_columns > 1 and own:
    raise UserError(f'{own[0]} reads its own column only, which no other format can say')


def convert(
  source: str | os.PathLike[str],
  target: str | os.PathLike[str],
  config: ConfigDict | None = None,
  *,
  mean: str | os.PathLike[str] | None = None,
  class_names: str | os.PathLike[str] | None = None,
  tell: Callable[[str], None] = lambda text: None,
) -> Trained:
  """Reads a network, from whatever holds it, and writes it.

  Args:
    source: see `read`.
    target: see `write`.
    config: see `read`.
    mean: a Caffe mean image (.binaryproto), in place of the mean that the source has.
    class_names: a file with a name a line, in the order of the labels, in place of the source's.
    tell: called with a line where a damaged checkpoint is passed over.

  Returns:
    The network.

  Raises:
    UserError: something is not there, not whole, or does not fit.
  """
  check_target(target)
  network = read(source, config, tell)
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
  tell: Callable[[str], None] = lambda text: None,
) -> Trained:
  """Reads a network from whatever holds it.

  Args:
    path: what `pretrained.read` takes, or a .caffemodel, a .npy as TensorFlow's users have it
      ({'conv1': [weights, biases], ...}), or a PyTorch state dict with torchvision's names (.pth,
      .pt or .safetensors).
    config: the network's; only for a source that brings none, and then needed.
    tell: see `pretrained.read`.

  Raises:
    UserError: there is nothing there, it is not whole, or it is not the config's network.
  """
  at = epath.Path(os.path.expanduser(os.fspath(path)))
  if not at.exists():
    raise UserError(f'there is no {at}')
  network = _read_described(at, tell)
  if network is None:
    layout, arrays = _read_arrays(at)
    if config is None:
      raise UserError(f"{at} brings no config; give its network's, as --config={layout.config}")
    experiment.check(config)
    return _network(at, arrays, layout, config, layout.mean_color)
  if config is not None:
    raise UserError(f'{at} brings its own config; leave --config out')
  return network


def _read_described(path: epath.Path, tell: Callable[[str], None]) -> Trained | None:
  """The network of a file or folder that brings its config along; None for another."""
  if path.is_dir():
    return pretrained.read(path, tell=tell)
  if path.suffix not in ('.safetensors', '.jaxexport'):
    return None
  metadata = pretrained.read_metadata(path)
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
  arrays = pretrained.read_arrays(path)
  network = _network(path, arrays, TORCHVISION, config, (red, green, blue))
  return dataclasses.replace(network, class_names=class_names, step=step)


def _read_arrays(path: epath.Path) -> tuple[Layout, Mapping[str, np.ndarray]]:
  match path.suffix:
    case '.caffemodel':
      return CAFFE, foreign.read_caffemodel(path)
    case '.npy':
      return TENSORFLOW, foreign.read_npy(path)
    case '.pth' | '.pt':
      return TORCHVISION, foreign.read_state_dict(path)
    case '.safetensors':
      return TORCHVISION, pretrained.read_arrays(path)
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
) -> Trained:
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
  return Trained(params, config, statistics, class_names, None, str(path))


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
  planes = foreign.read_binaryproto(at)
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


def write(path: str | os.PathLike[str], network: Trained) -> None:
  """Writes a network into a file, in one move, as its name says.

  Args:
    path: ends in '.torch.safetensors': a PyTorch state dict with torchvision's names, readable by
      `safetensors.torch.load_file`, with the config, class names, step and mean colour as metadata;
      '.safetensors': what `pretrained.write` writes; '.jaxexport': what `inference.export` writes;
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
    inference.export(network, path)
    return
  net = experiment.make_network(network.config)
  check_network(net)
  arrays = encode(jax.tree.map(np.asarray, network.params), net, TORCHVISION)
  if name.endswith('.pth'):
    pretrained.write_file(path, _torch_save(arrays))
    return
  mean_color = np.asarray(network.statistics.mean_image, np.float64).mean(axis=(0, 1))
  metadata = {
    'format': 'pt',
    _STATE_DICT_DESCRIPTION: pretrained.describe(network),
    _MEAN_COLOR: json.dumps(mean_color.tolist()),
  }
  pretrained.write_arrays(path, arrays, metadata)


def _torch_save(arrays: Mapping[str, np.ndarray]) -> bytes:
  import torch  # which only this needs

  file = io.BytesIO()
  torch.save({name: torch.tensor(array) for name, array in arrays.items()}, file)
  return file.getvalue()
