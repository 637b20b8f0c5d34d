"""The network as a picture: figure 2 of the paper, drawn for whatever network there is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from alexnet_jax.models.alexnet import AlexNet, array_shapes
from alexnet_jax.models.options import CONVOLUTIONS, LAYERS, Convolution
from alexnet_jax.utils.errors import number_of
from alexnet_jax.utils.picture import Figure

_COLORS = ('#c8553d', '#5b7f95')  # of the columns
_GRAY, _CROSSING = '#8d8d8d', '#b8860b'
_SLANT_X, _SLANT_Y = 0.45, 0.3  # where a map's width points, for a side of 1
# On paper, in inches.
_IMAGE, _LARGEST_MAP, _WIDEST_MAP, _TALLEST_BAR, _BAR = 2.6, 0.95, 0.75, 1.1, 0.13
_GAP, _LINE, _LETTER = 0.42, 0.125, 0.055

Point = tuple[float, float]


class _Box(NamedTuple):
  """What one column has of a layer, on paper.

  Attributes:
    x: of its left end.
    y: of its middle.
    side: of its maps, which is how high and how deep it is; of a fully connected layer, how high.
    width: of all its channels side by side.
    is_map: whether it has any depth.
  """

  x: float
  y: float
  side: float
  width: float
  is_map: bool = True

  @property
  def height(self) -> float:
    return self.side * (1 + _SLANT_Y * self.is_map)

  @property
  def right(self) -> float:
    return self.x + self.width + self.side * _SLANT_X * self.is_map

  def corner(self, across: float, up: float, deep: float) -> Point:
    """A point of the box, each share from 0 to 1: along the channels, the height and the depth."""
    depth = deep * self.side * self.is_map
    x = self.x + across * self.width + depth * _SLANT_X
    return x, self.y - self.height / 2 + up * self.side + depth * _SLANT_Y

  def faces(self) -> list[list[Point]]:
    """The corners of its front and, where it has depth, of its top and its right side."""
    front = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
    top = [(0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1)]
    right = [(1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0)]
    faces = [front, top, right] if self.is_map else [front]
    return [[self.corner(*corner) for corner in face] for face in faces]

  def window(self, share: float) -> list[Point]:
    """The corners of a window in the middle of its right side, which has a share of its side."""
    low, high = 0.5 - share / 2, 0.5 + share / 2
    return [
      self.corner(1, up, deep) for up, deep in ((low, low), (low, high), (high, high), (high, low))
    ]


class _Scale(NamedTuple):
  """Inches on paper for a pixel, a channel and a unit of a fully connected layer."""

  pixel: float
  channel: float
  unit: float

  def box(self, x: float, y: float, shape: Sequence[int], columns: int) -> _Box:
    """A column's share of an output of all columns, [H, W, C] or [units]."""
    mine = shape[-1] / columns
    if len(shape) == 3:
      return _Box(x, y, shape[0] * self.pixel, max(0.03, mine * self.channel))
    return _Box(x, y, max(0.12, mine * self.unit), _BAR, is_map=False)


def draw(net: AlexNet, title: str | None = None) -> Figure:
  """Draws a network, from the image on the left to the classes on the right.

  Each column is a row of boxes, drawn to scale: the sides of maps and, in them, the windows that the
  next layer's kernels read; the channels; the units of fully connected layers. Paler boxes are maps
  after their pool. What a layer reads of the other column is drawn in another color, and a layer of
  the paper that the network leaves out is dashed.

  Args:
    net: the network.
    title: put above it; None: its columns and parameters.
  """
  shapes, params = array_shapes(net)
  scale = _scale(net, shapes)
  columns = net.num_columns
  tallest = max(_TALLEST_BAR, max(s[0] for s in shapes.values() if len(s) == 3) * scale.pixel * 1.3)
  apart = tallest + 0.6
  rows = [apart * ((columns - 1) / 2 - column) for column in range(columns)]
  bottom = rows[-1] - tallest / 2 - 0.1  # where the text below begins

  figure = Figure()
  axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
  axes.axis('off')
  image = scale.box(0.15, 0.0, (net.input_size, net.input_size, 3), 1)
  _draw_box(axes, image, _GRAY)
  _write(axes, image.x, image.y + image.height / 2 + 0.05, [_shape((net.input_size,) * 2 + (3,))])
  before, x, lines = [image], image.right + _GAP, 2
  for name in LAYERS[:-1]:
    shape, pooled = shapes.get(name), shapes.get(f'{name}_pool')
    if shape is None and pooled is None:
      if name not in ('conv6', 'bottleneck'):  # the paper has neither
        _draw_gap(axes, name, x, rows, bottom)
        x += 0.7
      continue
    start = x
    if shape is not None:
      boxes = [scale.box(x, row, shape, columns) for row in rows]
      _draw_reading(axes, net, name, before, boxes, scale.pixel)
      for box, color in zip(boxes, _COLORS, strict=False):
        _draw_box(axes, box, color)
      before, x = boxes, boxes[0].right + 0.06
    if pooled is not None:
      before = [scale.box(x, row, pooled, columns) for row in rows]
      for box, color in zip(before, _COLORS, strict=False):
        _draw_box(axes, box, color, opacity=0.4)
      x = before[0].right
    text = _description(net, name, params)
    lines = max(lines, 1 + len(text))
    _write(axes, start, bottom, [name, *text], below=True)
    above = [
      f'{word}{_shape([*each[:-1], each[-1] // columns])}'
      for word, each in (('', shape), ('pooled ', pooled))
      if each
    ]
    for row in rows:
      _write(axes, start, row + tallest / 2 + 0.03, above[::-1])
    x = max(x + _GAP, start + _LETTER * max(map(len, [*text, *above])) + 0.12)
  output = scale.box(x, 0.0, (net.num_classes,), 1)
  _draw_box(axes, output, _GRAY)
  for box in before:
    _draw_arrow(axes, box, output, '#444444')
  classes = f'{net.num_classes:,} classes'
  _write(axes, x, bottom, ['fc8', classes], below=True)
  top = max(rows[0] + tallest / 2 + 0.35, image.height / 2 + 0.25)
  low, right = (
    min(bottom - (lines + 0.5) * _LINE, -image.height / 2 - 0.1),
    x + max(0.8, _LETTER * len(classes) + 0.15),
  )
  if columns > 1:
    for row, color, number in zip(rows, _COLORS, (1, 2), strict=True):
      x = image.right + _GAP
      axes.text(x, row + tallest / 2 + 3 * _LINE, f'column {number}', color=color, fontsize=8)
  count = sum(layer[part].size for layer in params.values() for part in layer)
  title = title or f'{number_of(columns, "column")}, {count:,} parameters'
  axes.text(right / 2, top + 0.25, title, ha='center', va='top', fontsize=9)
  axes.set(xlim=(0.0, right), ylim=(low, top + 0.35))
  figure.set_size_inches(right, top + 0.35 - low)
  return figure


def _scale(net: AlexNet, shapes: Mapping[str, Sequence[int]]) -> _Scale:
  maps = [shape for shape in shapes.values() if len(shape) == 3]
  units = [shape[0] for name, shape in shapes.items() if len(shape) == 1 and name != 'fc8']
  return _Scale(
    min(_IMAGE / net.input_size, _LARGEST_MAP / max(shape[0] for shape in maps)),
    net.num_columns * _WIDEST_MAP / max(shape[-1] for shape in maps),
    net.num_columns * _TALLEST_BAR / max([*units, net.num_classes]),
  )


def _draw_box(axes: Axes, box: _Box, color: str, opacity: float = 0.9) -> None:
  for face, light in zip(box.faces(), (0.0, 0.35, 0.2), strict=False):
    axes.add_patch(
      Polygon(face, facecolor=_lighter(color, light), edgecolor='white', lw=0.4, alpha=opacity)
    )


def _lighter(color: str, share: float) -> str:
  """A color '#rrggbb' mixed with a share of white."""
  parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
  return '#' + ''.join(f'{round(part + (255 - part) * share):02x}' for part in parts)


def _draw_gap(axes: Axes, name: str, x: float, rows: Sequence[float], bottom: float) -> None:
  """Marks a layer that is left out."""
  for row in rows:
    [front] = _Box(x, row, 0.4, 0.25, is_map=False).faces()
    axes.add_patch(Polygon(front, fill=False, edgecolor=_GRAY, ls='--', lw=0.6))
  _write(axes, x, bottom, [name, 'left out'], below=True)


def _draw_reading(
  axes: Axes, net: AlexNet, name: str, before: Sequence[_Box], boxes: Sequence[_Box], pixel: float
) -> None:
  """Draws what a layer reads: windows of the maps before it, or all of them."""
  for column, box in enumerate(boxes):
    for other, source in enumerate(before):
      crossing = len(before) > 1 and other != column
      if crossing and name not in net.cross_column:
        continue
      color = _CROSSING if crossing else '#444444'
      if name not in CONVOLUTIONS or not source.is_map:
        _draw_arrow(axes, source, box, color)
        continue
      options: Convolution = getattr(net, name)
      window = source.window(min(1.0, options.kernel_size * pixel / source.side))
      axes.add_patch(Polygon(window, fill=False, edgecolor=color, lw=0.7))
      for corner in window:
        axes.plot(*zip(corner, box.corner(0, 0.5, 0), strict=True), color=color, lw=0.5)


def _draw_arrow(axes: Axes, source: _Box, target: _Box, color: str) -> None:
  start, end = source.corner(1, 0.5, 0.5), target.corner(0, 0.5, 0)
  arrow = {'arrowstyle': '->', 'lw': 0.7, 'color': color, 'shrinkA': 1, 'shrinkB': 1}
  axes.annotate('', end, start, arrowprops=arrow)


def _write(axes: Axes, x: float, y: float, lines: Sequence[str], below: bool = False) -> None:
  """Writes lines of text, below a point or above it; the first of those below is bold."""
  for number, line in enumerate(lines):
    place = y - (number + 1) * _LINE if below else y + number * _LINE
    weight = 'bold' if below and not number else 'normal'
    axes.text(x, place, line, fontsize=6.5, fontweight=weight, va='bottom')


def _shape(sizes: Sequence[int]) -> str:
  return 'x'.join(map(str, sizes))


def _description(
  net: AlexNet, name: str, params: Mapping[str, Mapping[str, jax.ShapeDtypeStruct]]
) -> list[str]:
  """What a layer has, and what follows it."""
  pool = f'{"average" if name in net.pool.average else "max"} pool {net.pool.window}, stride {net.pool.stride}'
  if name not in params:
    return ['left out', pool]
  lines = []
  if name in CONVOLUTIONS:
    options: Convolution = getattr(net, name)
    side, _, inputs, _ = params[name]['kernel'].shape[-4:]
    lines.append(f'{net.features(name)} kernels {side}x{side}x{inputs}')
    if options.stride > 1:
      lines.append(f'stride {options.stride}')
    if name in net.locally_connected:
      lines.append('not shared')
  else:
    lines.append(f'{net.features(name):,} units')
  for step in getattr(net, name).steps:
    if step == 'activation':
      lines.append({'relu': 'ReLU'}.get(net.activation, net.activation))
    elif step == 'norm':
      if name in net.response_norm.layers:
        over_both = net.response_norm.over == 'all_channels' and net.num_columns > 1
        lines.append('response norm over both' if over_both else 'response norm')
      if name in net.within_norm.layers:
        lines.append('norm within maps')
    elif step == 'pool' and name in net.pool.layers:
      lines.append(pool)
  if name in net.dropout.layers and net.dropout.rate:
    lines.append(f'dropout {net.dropout.rate:g}')
  return lines
