"""Names and axes of AlexNet's parameters in Caffe, TensorFlow (caffe-tensorflow) and torchvision.

Layers that the published networks do not have, such as a sixth convolution, are named and laid out
as theirs are.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.options import CONVOLUTIONS, DENSE, LAYERS
from alexnet_jax.models.params import Params


@dataclasses.dataclass(frozen=True)
class Layout:
  """Another project's layout of a network's parameters.

  Attributes:
    names: by layer, the names of its weights and of its biases.
    channels_first: True: kernels are [O, I, H, W], those of a locally connected layer
      [O, I, H, W, rows, columns], matrices are [outputs, inputs], and fc6 reads maps flattened in
      the order C, H, W. False: [H, W, I, O], [rows, columns, H, W, I, O], [inputs, outputs], and
      H, W, C.
    bgr: whether the channels of images are blue, green, red.
    mean_color: red, green and blue, 0 to 255, that users of the layout subtract from images.
    config: path of the config for a network that was published in this layout.
  """

  names: Mapping[str, tuple[str, str]]
  channels_first: bool
  bgr: bool
  mean_color: tuple[float, float, float]
  config: str

  def of_layers(self, layers: Sequence[str]) -> 'Layout':
    """The same layout of a network that has these layers."""
    return dataclasses.replace(self, names={layer: self.names[layer] for layer in layers})


PUBLISHED = tuple(layer for layer in LAYERS if layer not in ('conv6', 'bottleneck'))
"""The layers of the published networks."""

CAFFE = Layout(
  names={layer: (f'{layer}[0]', f'{layer}[1]') for layer in LAYERS},
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
      'conv6': 'features.conv6',
      'fc6': 'classifier.1',
      'fc7': 'classifier.4',
      'bottleneck': 'classifier.bottleneck',
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
    net: the network.
    layout: the layout.

  Returns:
    The arrays by the layout's names, of unchanged dtypes.
  """
  arrays: dict[str, jax.Array | np.ndarray] = {}
  first_dense = next(name for name in DENSE if name in params)  # it reads maps
  for layer, (weights, biases) in layout.names.items():
    if layer not in params:
      continue
    kernel, bias = params[layer]['kernel'], params[layer]['bias']
    if layer == 'conv1' and layout.bgr:
      kernel = kernel[..., ::-1, :]
    if layer == first_dense:
      rows, order = _map_rows(layer, net, kernel.shape, layout)
      kernel = kernel.reshape(rows).transpose(order).reshape(kernel.shape)
    if layout.channels_first:
      kernel, bias = (array.transpose(_axes(array.ndim)) for array in (kernel, bias))
    arrays |= {weights: kernel, biases: bias}
  return arrays


def decode(arrays: Mapping[str, np.ndarray], net: AlexNet, layout: Layout) -> Params:
  """Converts arrays of a layout to a network's parameters; the inverse of `encode`."""
  params = {}
  first_dense = next(name for name in DENSE if net.features(name))
  for layer, (weights, biases) in layout.names.items():
    if not net.features(layer):
      continue
    kernel, bias = arrays[weights], arrays[biases]
    if layout.channels_first:
      kernel, bias = (array.transpose(np.argsort(_axes(array.ndim))) for array in (kernel, bias))
    if layer == first_dense:
      rows, order = _map_rows(layer, net, kernel.shape, layout)
      ordered_rows = [rows[axis] for axis in order]
      kernel = kernel.reshape(ordered_rows).transpose(np.argsort(order)).reshape(kernel.shape)
    if layer == 'conv1' and layout.bgr:
      kernel = kernel[..., ::-1, :]
    params[layer] = {'kernel': kernel, 'bias': bias}
  return params


def _axes(dimensions: int) -> tuple[int, ...]:
  """Axes that put the outputs first: of biases, matrices, kernels, and those of each place."""
  return {1: (0,), 2: (1, 0), 3: (2, 0, 1), 4: (3, 2, 0, 1), 6: (5, 4, 2, 3, 0, 1)}[dimensions]


def _map_rows(
  layer: str, net: AlexNet, shape: tuple[int, ...], layout: Layout
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """How the first dense layer's kernel reads the maps before it.

  Returns:
    The shape [columns, H, W, C, outputs] of the kernel, and the order of its axes in a layout.
  """
  maps = next(net.features(name) for name in reversed(CONVOLUTIONS) if net.features(name))
  maps //= net.num_columns
  columns = net.num_columns if layer == 'fc8' or layer in net.cross_column else 1
  side = math.isqrt(shape[0] // (columns * maps))
  rows = (columns, side, side, maps, shape[1])
  return rows, (0, 3, 1, 2, 4) if layout.channels_first else (1, 2, 0, 3, 4)
