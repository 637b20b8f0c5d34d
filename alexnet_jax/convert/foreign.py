"""Reads networks from the files of Caffe, TensorFlow, PyTorch and ONNX, whatever they are called."""

import contextlib
import dataclasses
import functools
import re
import types
import zipfile
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
from alexnet_jax.configs import imagenet_caffe, imagenet_caffenet, imagenet_torchvision
from alexnet_jax.convert import (
  caffe,
  names,
  onnx_file,
  pytorch,
  pytorch_module,
  tensorflow,
  untrusted,
)
from alexnet_jax.convert.layouts import (
  CAFFE,
  PUBLISHED,
  TENSORFLOW,
  TORCHVISION,
  Layout,
  decode,
  encode,
)
from alexnet_jax.data import augment, imagenet_classes
from alexnet_jax.models.alexnet import parameter_shapes
from alexnet_jax.models.options import CONVOLUTIONS, LAYERS
from alexnet_jax.utils import files, host
from alexnet_jax.utils.errors import UserError, first_line, listed

Log = Callable[[str], None]

_CONFIGS_OF_CAFFE = (imagenet_caffe.get_config, imagenet_caffenet.get_config)

_PYTORCH_ENDINGS = ('.pth', '.pt', '.bin', '.pkl', '.ckpt', '.tar')

# Files that are often called weights but are not read, by their first bytes, and what to do.
_NOT_READ = {
  b'\x89HDF\r\n\x1a\n': f'HDF5, which is not read; {untrusted.SAVE_ARRAYS}',
  b'MATLAB 5.0': f"MATLAB's, which is not read; {untrusted.SAVE_ARRAYS}",
  b'\x1f\x8b': 'compressed by gzip; unpack it with gunzip, or tar -xzf where it is a tar file',
}


class _Weights(NamedTuple):
  """The arrays of a file, by name, their layout, and what follows convolutions, where it says so."""

  layout: Layout
  arrays: Mapping[str, np.ndarray]
  orders: Mapping[str, str] = types.MappingProxyType({})


def read(
  path: epath.Path, config: ConfigDict | None, log: Log, *, assume_mean: bool = True
) -> PretrainedNetwork:
  """Reads a network from another project's file, whose kind its content says.

  One of 1,000 classes whose last layer has the published network's name has ImageNet's classes, by
  their synsets; those of others are numbers, as are those of a state dict with a mean image, which only
  `convert.write` puts there, of a network with classes of its own.

  Args:
    path: a .caffemodel; a .npy or .npz as caffe-tensorflow and MMdnn write it, or of arrays named by
      layer; a checkpoint of PyTorch, whatever its ending; a .safetensors file of a state dict; or an
      .onnx as PyTorch writes it, or as the ONNX model zoo has Caffe's.
    config: the network's; model.num_classes may be None, for as many as the file has. None: of a
      published network, whose shapes and layers the file has.
    log: called with a line for what is not as published, as `names.find` and
      `pytorch.read_checkpoint` say, and for a mean color that is assumed.
    assume_mean: False: the caller has another mean, so nothing is said of the one that is assumed.

  Raises:
    UserError: it is damaged, of another kind, or not the network of the config.
  """
  if config is not None:
    experiment.check(config)
  whole, arrays, orders = _read(path, log)
  arrays = _with_mean_image(arrays)
  is_ours = pytorch_module.MEAN_IMAGE in arrays
  if config is None and is_ours:  # whose steps and pixels may be any
    raise UserError(
      f'{path} was written by alexnet_jax, without the config of its network; pass that config (in'
      ' Python: load(path, config)), or read a .torch.safetensors of the network, which contains it'
    )
  layout = whole.of_layers(PUBLISHED if config is None else _layers(config))
  of_layers = {name: each for name, each in arrays.items() if name != pytorch_module.MEAN_IMAGE}
  shapes = {name: array.shape for name, array in of_layers.items()}
  found = names.find(str(path), shapes, layout, log)
  if config is None:
    config = published(path, shapes, found, whole, orders)
  _check_orders(path, orders, config)
  last = shapes.get(found.names[layout.names['fc8'][1]])
  if config.model.num_classes is None:
    config = config.copy_and_resolve_references()
    config.model.num_classes = last[0] if last else 1  # `network` says that the layer is missing
  converted = network(path, arrays, found.names, layout, config, layout.mean_color)
  synsets = list(imagenet_classes.words())  # whose order all layouts have
  if is_ours:
    return converted
  if found.has_own_last_layer and config.model.num_classes == len(synsets):
    return dataclasses.replace(converted, class_names=synsets)
  if assume_mean:
    color = ', '.join(f'{value:.2f}' for value in layout.mean_color)
    log(
      f"{path}: it has no mean image; ImageNet's mean color ({color}), which users of the published"
      ' network subtract, is subtracted from images'
    )
  return converted


def _with_mean_image(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
  """Arrays in which the mean image has its own name again, as where DataParallel has put one before."""
  mean = pytorch_module.MEAN_IMAGE
  within = [name for name in arrays if name.endswith(f'.{mean}')]
  if mean in arrays or len(within) != 1:
    return arrays
  return {mean if name in within else name: array for name, array in arrays.items()}


def check_is_weights(path: epath.Path) -> None:
  """Raises UserError, with what to do, for a file of a kind that cannot be read, whatever its ending."""
  with untrusted.described(path, 'a file of weights'), path.open('rb') as file:
    head = file.read(64)
  if not head:
    raise UserError(f'{path} is empty')
  if _begins_as_safetensors(head):  # whose first bytes, a length, may be those of gzip
    return
  for kind in (files.stand_in(head), *(_NOT_READ[m] for m in _NOT_READ if head.startswith(m))):
    if kind:
      raise UserError(f'{path} is {kind}')


def _layers(config: ConfigDict) -> list[str]:
  """The layers that a config's network has, whatever its number of classes."""
  net = experiment.network_of_any_classes(config)
  return [layer for layer in LAYERS if net.features(layer)]


def published(
  path: epath.Path,
  shapes: names.Shapes,
  found: names.Found,
  layout: Layout,
  orders: Mapping[str, str],
) -> ConfigDict:
  """The config of the published network that a file has; raises UserError where it is not certain.

  Args:
    path: the file.
    shapes: of its arrays.
    found: which of them are which layers'.
    layout: its layout.
    orders: of what follows its convolutions.
  """
  fitting = []
  published = (imagenet_torchvision.get_config,) if layout is TORCHVISION else _CONFIGS_OF_CAFFE
  for config in (get_config() for get_config in published):
    config.model.num_classes = None
    net = experiment.network_of_any_classes(config)
    full = jax.eval_shape(functools.partial(encode, net=net, layout=layout), parameter_shapes(net))
    alike = all(
      shapes.get(found.names[name]) == full[name].shape
      for layer in PUBLISHED[:-1]  # classes may be others
      for name in layout.names[layer]
    )
    if alike and found.by_name and not _other_orders(orders, config):
      fitting.append(config)
  if len(fitting) != 1:  # Caffe's two differ in their orders alone, which not all files say
    raise UserError(
      f'{path} has no config; convert it with that of its network (in Python: load(path, config)), such as\n'
      + host.command(
        '--mode=convert',
        f'--config={layout.config}',
        f'--source={path}',
        '--target=net.safetensors',
      )
    )
  return fitting[0]


def _other_orders(orders: Mapping[str, str], config: ConfigDict) -> dict[str, str]:
  """The convolutions after which a file has other steps, or in another order, and a config's there."""
  model = config.model
  layers = {'norm': model.response_norm.layers, 'pool': model.pool.layers, 'activation': LAYERS}
  own = {
    layer: '-'.join(step for step in model[layer].order.split('-') if layer in layers[step])
    for layer in CONVOLUTIONS
  }
  return {layer: own[layer] for layer, order in orders.items() if own.get(layer, order) != order}


def _check_orders(path: epath.Path, orders: Mapping[str, str], config: ConfigDict) -> None:
  """Raises UserError where a file has other steps after a convolution than a config."""
  for layer, order in _other_orders(orders, config).items():
    own = next((of for of in _CONFIGS_OF_CAFFE if not _other_orders(orders, of())), None)
    advice = f'pass --config=configs/{own.__module__.rsplit(".", 1)[-1]}.py' if own else ''
    raise UserError(
      f'{path} has {orders[layer]} after {layer}, but the config has {order};'
      f' {advice or f"set --config.model.{layer}.order"}'
    )


def _read(path: epath.Path, log: Log) -> _Weights:
  """Reads the arrays of a file by what its first bytes are, or else its ending."""
  with untrusted.described(path, 'a file of weights'), path.open('rb') as file:
    head = file.read(512)
  is_zip = head.startswith(b'PK\x03\x04')
  if head.startswith(b'\x93NUMPY'):
    return _Weights(TENSORFLOW, tensorflow.read_npy(path))
  if is_zip and _is_npz(path):
    return _read_npz(path, log)
  if is_safetensors(path):
    arrays = safetensors_file.read_arrays(path)
    return _Weights(TORCHVISION, dict(sorted(arrays.items(), key=_natural_order)))
  if onnx_file.is_onnx(path):
    arrays, orders, is_caffe, others = onnx_file.read(path)
    if others:
      log(
        f'{path}: its program has steps that are not read ({listed(others)}); between the layers the network'
        ' does what the config says'
      )
    return _Weights(CAFFE if is_caffe else TORCHVISION, arrays, orders)
  if is_zip or head[:1] == b'\x80' or head[257:262] == b'ustar':
    return _Weights(TORCHVISION, pytorch.read_checkpoint(path, log))
  match path.suffix:
    case '.caffemodel':
      return _Weights(CAFFE, *caffe.read_caffemodel(path))
    case '.npy':
      return _Weights(TENSORFLOW, tensorflow.read_npy(path))
    case ending if ending in _PYTORCH_ENDINGS:
      return _Weights(TORCHVISION, pytorch.read_checkpoint(path, log))
  raise UserError(
    f'{path} is of an unknown kind; it must be a workdir, a checkpoint, or a .safetensors,'
    ' .jaxexport, .caffemodel, .npy, .npz, .pth or .onnx file'
  )


def _is_npz(path: epath.Path) -> bool:
  """Whether a zip file holds arrays of numpy's, where it can be read."""
  with contextlib.suppress(Exception), path.open('rb') as file, zipfile.ZipFile(file) as archive:
    return any(name.endswith('.npy') for name in archive.namelist())
  return path.suffix == '.npz'


def _read_npz(path: epath.Path, log: Log) -> _Weights:
  """Reads a .npz, whose layout its names and the axes of its first kernel tell."""
  arrays = tensorflow.read_npz(path)
  if any(re.search(r'\.(weight|bias)$', name) for name in arrays):
    log(
      f"{path}: its colors are taken to be in the order red, green, blue, and its axes to be PyTorch's"
    )
    return _Weights(TORCHVISION, arrays)
  first = next((array.shape for array in arrays.values() if array.ndim == 4), ())
  layout = CAFFE if first[1:2] == (3,) else TENSORFLOW
  log(f'{path}: its channels are taken for blue, green and red, as Caffe has them')
  return _Weights(layout, arrays)


def is_safetensors(path: epath.Path) -> bool:
  """Whether a file begins as safetensors do, or is called so."""
  files.check_kind(path)
  with path.open('rb') as file:
    head = file.read(9)
  return _begins_as_safetensors(head) or path.suffix in ('.safetensors', '.jaxexport')


def _begins_as_safetensors(head: bytes) -> bool:
  """Whether these are the length of a header, and the first letter of one, which is JSON."""
  return head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 2**32


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
    mean_color: red, green and blue, 0 to 255, that is subtracted from images where there is no mean
      image among the arrays, as `convert.write` leaves it in a state dict.

  Raises:
    UserError: they are not the arrays of the config's network.
  """
  net, size = experiment.make_network(config), config.data.image_size
  params = parameter_shapes(net)
  shapes = jax.eval_shape(functools.partial(encode, net=net, layout=layout), params)
  in_order = (name for pair in layout.names.values() for name in pair)  # conv1 first
  expected = {of_layout[name]: shapes[name] for name in in_order if name in shapes}
  mean = pytorch_module.MEAN_IMAGE
  if mean in arrays:
    expected[mean] = jax.ShapeDtypeStruct((3, size, size), jnp.float32)
  try:
    used = {name: _as_float32(name, arrays[name]) for name in expected if name in arrays}
    pretrained.check_arrays(str(path), used, expected)
  except UserError as error:
    raise UserError(f'{error}; pass the config of the network in this file') from error
  pretrained.check_finite(str(path), used)
  color = np.array(mean_color, np.float32).reshape(3, 1, 1)
  mean_image = used.get(mean, np.broadcast_to(color, (3, size, size)))
  statistics = augment.Statistics(
    mean_image=jnp.asarray(mean_image.transpose(1, 2, 0)),
    eigenvalues=jnp.zeros(3, jnp.float32),
    eigenvectors=jnp.eye(3, dtype=jnp.float32),
  )
  class_names = [str(label) for label in range(net.num_classes)]
  in_layout = {name: used[file] for name, file in of_layout.items() if file in used}
  params = jax.tree.map(jnp.asarray, decode(in_layout, net, layout))
  return PretrainedNetwork(params, config, statistics, class_names, None, str(path))


def _as_float32(name: str, array: np.ndarray) -> np.ndarray:
  if array.dtype.kind != 'f' and array.dtype != jnp.bfloat16:
    raise UserError(f'{first_line(name)} is of {array.dtype}, not of floating-point numbers')
  with np.errstate(over='ignore'):
    return array.astype(np.float32, copy=False)
