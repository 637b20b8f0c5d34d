"""Writes a network's `torch.nn.Module` as Python that needs PyTorch alone.

PyTorch users publish weights as a state dict and, beside it, the code of the module that loads it:
torchvision's alexnet.py, or the modeling file of a repository on Hugging Face. So does this project,
with the numbers of one network written out: the module can be read, changed, and trained further.
Of the formats that need no code TorchScript is deprecated, and a program of `torch.export` has no
layers to change and no dropout to train with.
"""

import ast
from collections.abc import Sequence
from pathlib import Path

from alexnet_jax.convert.layouts import TORCHVISION
from alexnet_jax.data import augment
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.layers import output_size
from alexnet_jax.models.options import CONVOLUTIONS, DENSE, ResponseNorm, WithinNorm
from alexnet_jax.utils.errors import number_of

MEAN_IMAGE = 'mean_image'
"""Name of the mean image [3, S, S] in a state dict."""

FIRST_LINE = '"""AlexNet in PyTorch, written by alexnet_jax; it needs nothing but PyTorch.'
"""The first line of every file that is written."""

_ACTIVATIONS = {'relu': 'nn.ReLU()', 'tanh': 'nn.Tanh()', 'logistic': 'nn.Sigmoid()'}

_FILE = '''{first_line}

  model = AlexNet()
  model.load_state_dict(torch.load('FILE.pth'))  # or safetensors.torch.load_file(FILE)
  model.eval()
  logits = model(crops)

The weights are in the file of the same name. The numbers in their names are those of torchvision's
AlexNet, which has other steps between the layers.
"""

from collections import OrderedDict

import torch
from torch import nn

CLASS_NAMES = [{class_names}
]

{classes}
class AlexNet(nn.Module):
  """{columns}; the groups of a convolution are its columns."""

  def __init__(self) -> None:
    super().__init__()
    {mean_buffer}
    self.register_buffer('pixel_scale', torch.tensor({scale}).view(-1, 1, 1), persistent=False)
    self.features = nn.Sequential(OrderedDict([{features}
    ]))
    self.classifier = nn.Sequential(OrderedDict([{classifier}
    ]))

  def forward(self, crops: torch.Tensor) -> torch.Tensor:
    """Computes logits.

    Args:
      crops: [N, 3, {input_size}, {input_size}] RGB, 0 to 255, uint8 or float: the center of images
        whose shorter side is {image_size} pixels.

    Returns:
      [N, {num_classes}], in the order of CLASS_NAMES.
    """
    mean = {mean}
    pixels = self.pixel_scale * (crops.to(mean.dtype) - mean)
    return self.classifier(torch.flatten(self.features(pixels), 1))
'''


def source(
  net: AlexNet,
  options: augment.Options,
  image_size: int,
  class_names: Sequence[str],
  mean_color: Sequence[float] | None,
) -> str:
  """Writes the module.

  Args:
    net: the network.
    options: how pixels are prepared.
    image_size: side in pixels of the mean image.
    class_names: in the order of the labels.
    mean_color: red, green and blue of a mean image that is one color and not in the state dict;
      None where the state dict has the mean image.

  Returns:
    Python. It defines `AlexNet`, whose state dict has the names and shapes of `layouts.TORCHVISION`
    and perhaps MEAN_IMAGE, and CLASS_NAMES.
  """
  features, units = _features(net)
  classifier = _classifier(net, units)
  used = {name: text for name, text in _classes().items() if f'{name}(' in features + classifier}
  scale = options.pixel_scale
  return _FILE.format(
    first_line=FIRST_LINE,
    class_names=''.join(f'\n  {name!r},' for name in class_names),
    classes=''.join(f'\n{text}\n\n' for text in used.values()),
    columns=f'AlexNet of {number_of(net.num_columns, "column")}',
    mean_buffer=_mean_buffer(image_size, mean_color),
    scale=[*scale] if isinstance(scale, tuple) else [scale],
    features=features,
    classifier=classifier,
    input_size=net.input_size,
    image_size=image_size,
    num_classes=net.num_classes,
    mean=_mean(net.input_size, image_size, options.mean, mean_color is not None),
  )


def _mean_buffer(image_size: int, mean_color: Sequence[float] | None) -> str:
  """The statement that makes the mean image."""
  if mean_color is None:
    return f"self.register_buffer('{MEAN_IMAGE}', torch.zeros(3, {image_size}, {image_size}))"
  color = f'torch.tensor({[*mean_color]}).view(3, 1, 1)'
  return f"self.register_buffer('{MEAN_IMAGE}', {color}, persistent=False)"


def _mean(input_size: int, image_size: int, mean: str, is_color: bool) -> str:
  """The expression of what is subtracted from crops, as `augment.subtract_mean` has it."""
  if is_color:
    return f'self.{MEAN_IMAGE}'
  if mean == 'channel':
    return f'self.{MEAN_IMAGE}.mean((1, 2), keepdim=True)'
  border = (image_size - input_size) // 2
  center = f'{border}:{border + input_size}'
  return f'self.{MEAN_IMAGE}[:, {center}, {center}]'


def _features(net: AlexNet) -> tuple[str, int]:
  """The convolutional layers, as entries of an OrderedDict; and how many units they end in."""
  parts: list[str] = []
  side, maps = net.input_size, 3
  for name in CONVOLUTIONS:
    layer, number = getattr(net, name), name[-1]
    if net.features(name):
      convolution, side = _convolution(net, name, maps, side)
      parts += convolution
      maps = net.features(name)
    for step in layer.steps:
      if step == 'pool' and name in net.pool.layers:
        pool, side = _pool(net, name, side)
        parts += pool
      elif step == 'activation' and net.features(name):
        parts.append(_entry(f'{net.activation}{number}', _ACTIVATIONS[net.activation]))
      elif step == 'norm' and net.features(name):
        parts += _norms(net, name)
    if net.features(name):
      parts += _dropout(net, name)
  return ''.join(parts), maps * side**2


def _classifier(net: AlexNet, units: int) -> str:
  """The dense layers, as entries of an OrderedDict."""
  parts: list[str] = []
  for name in DENSE:
    features = net.features(name)
    if not features:
      continue
    columns = 1 if name == 'fc8' else _columns(net, name)
    linear = (
      _call('ColumnLinear', columns, units, features)
      if columns > 1
      else _call('nn.Linear', units, features)
    )
    parts.append(_entry(_own_name(name), linear))
    if name in ('fc6', 'fc7'):
      parts.append(_entry(f'{net.activation}{name[-1]}', _ACTIVATIONS[net.activation]))
    if name != 'fc8':
      parts += _dropout(net, name)
    units = features
  return ''.join(parts)


def _columns(net: AlexNet, name: str) -> int:
  """How many columns a layer reads apart."""
  return 1 if name == 'conv1' or name in net.cross_column else net.num_columns


def _convolution(net: AlexNet, name: str, maps: int, side: int) -> tuple[list[str], int]:
  """A convolution, and the side of its output; zeros beyond both edges, more at the far ones."""
  layer, features, columns = getattr(net, name), net.features(name), _columns(net, name)
  window, stride, padding = layer.kernel_size, layer.stride, net.padding(name)
  outputs = output_size(side, window, stride, padding, layer.rounding)
  parts = []
  far = (outputs - 1) * stride + window - side - padding
  if far > padding:  # else the last pixels are read by no kernel, as PyTorch has it
    parts.append(_entry(f'pad{name[-1]}', _call('nn.ZeroPad2d', (padding, far, padding, far))))
    padding = 0
  if name in net.locally_connected:
    convolution = _call('LocallyConnected', maps, features, window, outputs, padding, columns)
  else:
    convolution = _call(
      'nn.Conv2d', maps, features, window, stride=stride, padding=padding, groups=columns
    )
  return [*parts, _entry(_own_name(name), convolution)], outputs


def _pool(net: AlexNet, name: str, side: int) -> tuple[list[str], int]:
  """A pool, and the side of its output; a mean counts zeros beyond the edge."""
  window, stride, number = net.pool.window, net.pool.stride, name[-1]
  outputs = output_size(side, window, stride, 0)
  if name not in net.pool.average:  # PyTorch refuses windows larger than the map
    pool = _call('nn.MaxPool2d', min(window, side), stride, ceil_mode=True)
    return [_entry(f'pool{number}', pool)], outputs
  far = (outputs - 1) * stride + window - side
  pad = [_entry(f'pool{number}_pad', _call('nn.ZeroPad2d', (0, far, 0, far)))] if far else []
  return [*pad, _entry(f'pool{number}', _call('nn.AvgPool2d', window, stride))], outputs


def _norms(net: AlexNet, name: str) -> list[str]:
  parts = []
  if name in net.response_norm.layers:
    columns = net.num_columns if net.response_norm.over == 'column' else 1
    constants = _norm_constants(net.response_norm, 1)
    norm = (
      _call('ColumnNorm', columns, **constants)
      if columns > 1
      else _call('nn.LocalResponseNorm', **constants)
    )
    parts.append(_entry(f'norm{name[-1]}', norm))
  if name in net.within_norm.layers:
    norm = _call('PixelNorm', **_norm_constants(net.within_norm, 2))
    parts.append(_entry(f'within_norm{name[-1]}', norm))
  return parts


def _norm_constants(norm: ResponseNorm | WithinNorm, axes: int) -> dict[str, float]:
  """The constants as PyTorch counts them: alpha multiplies a mean."""
  alpha = norm.alpha if norm.divide_alpha else norm.alpha * norm.size**axes
  return {'size': norm.size, 'alpha': alpha, 'beta': norm.beta, 'k': norm.k}


def _dropout(net: AlexNet, name: str) -> list[str]:
  if name not in net.dropout.layers or not net.dropout.rate:
    return []
  kind = 'nn.Dropout' if net.dropout.inverted else 'PaperDropout'
  number = name[-1] if name[-1].isdigit() else f'_{name}'
  return [_entry(f'dropout{number}', _call(kind, net.dropout.rate))]


def _own_name(layer: str) -> str:
  """A layer's name within `features` or `classifier`."""
  return TORCHVISION.names[layer][0].split('.')[1]


def _entry(name: str, expression: str) -> str:
  return f'\n      ({name!r}, {expression}),'


def _call(function: str, *arguments: object, **named: object) -> str:
  listed = [*map(repr, arguments), *(f'{name}={value!r}' for name, value in named.items())]
  return f'{function}({", ".join(listed)})'


def _classes() -> dict[str, str]:
  """The classes of `pytorch_layers`, as text by name."""
  text = Path(__file__).with_name('pytorch_layers.py').read_text(encoding='utf-8')
  return {
    node.name: ast.get_source_segment(text, node) or ''
    for node in ast.parse(text).body
    if isinstance(node, ast.ClassDef)
  }
