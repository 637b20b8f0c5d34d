"""Names and axes of AlexNet's parameters in Caffe, TensorFlow (caffe-tensorflow) and torchvision."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import numpy as np

from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.options import LAYERS
from alexnet_jax.models.params import Params
from alexnet_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
  """Another project's layout of the parameters of a network with conv1 to conv5 and fc6 to fc8.

  Attributes:
    names: by layer, the names of its weights and of its biases.
    channels_first: True: kernels are [O, I, H, W] and matrices [outputs, inputs], and fc6 reads
      maps flattened in the order C, H, W. False: [H, W, I, O], [inputs, outputs], and H, W, C.
    bgr: whether the channels of images are blue, green, red.
    mean_color: red, green and blue, 0 to 255, that users of the layout subtract from images.
    config: path of the config for a network that was published in this layout.
  """

  names: Mapping[str, tuple[str, str]]
  channels_first: bool
  bgr: bool
  mean_color: tuple[float, float, float]
  config: str


_LAYERS = tuple(name for name in LAYERS if name not in ('conv6', 'bottleneck'))

CAFFE = Layout(
  names={layer: (f'{layer}[0]', f'{layer}[1]') for layer in _LAYERS},
  channels_first=True,
  bgr=True,
  mean_color=(122.67891434, 116.66876762, 104.00698793),  # of Caffe's ImageNet mean image
  config='configs/imagenet_caffe.py',
)

TENSORFLOW = dataclasses.replace(CAFFE, channels_first=False)
"""Caffe's networks in a .npy, as caffe-tensorflow converts them."""

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


def encode(params: Params, net: AlexNet, layout: Layout) -> dict[str, jax.Array | np.ndarray]:
  """Converts a network's parameters to a layout; numpy arrays stay numpy arrays.

  Args:
    params: the parameters.
    net: the network, which `check_network` has accepted.
    layout: the layout.

  Returns:
    The arrays by the layout's names, of unchanged dtypes.
  """
  arrays: dict[str, jax.Array | np.ndarray] = {}
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


def decode(arrays: Mapping[str, np.ndarray], net: AlexNet, layout: Layout) -> Params:
  """Converts arrays of a layout to a network's parameters; the inverse of `encode`."""
  params = {}
  for layer, (weights, biases) in layout.names.items():
    kernel = arrays[weights]
    if layout.channels_first:
      kernel = kernel.transpose(np.argsort(_axes(kernel.ndim)))
    if layer == 'fc6':
      rows, order = _fc6(net, kernel.shape, layout)
      ordered_rows = [rows[axis] for axis in order]
      kernel = kernel.reshape(ordered_rows).transpose(np.argsort(order)).reshape(kernel.shape)
    if layer == 'conv1' and layout.bgr:
      kernel = kernel[:, :, ::-1]
    params[layer] = {'kernel': kernel, 'bias': arrays[biases]}
  return params


def _axes(dimensions: int) -> tuple[int, ...]:
  """Axes that transpose [H, W, I, O] to [O, I, H, W], or [inputs, outputs] to the reverse."""
  return (3, 2, 0, 1) if dimensions == 4 else (1, 0)


def _fc6(
  net: AlexNet, shape: tuple[int, ...], layout: Layout
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """The shape [columns, H, W, C, outputs] of fc6's kernel, and the order of its axes in a layout."""
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
    raise UserError(f'{own[0]} reads its own column only, which no other format can express')
