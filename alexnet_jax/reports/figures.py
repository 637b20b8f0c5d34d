"""Pictures: arrays in, matplotlib figures out, readable in black and white.

Figures 3 and 4 of the paper, as the 2012 code's `shownet.py` draws them, activations, and where a
network's evidence lies. Names and titles are drawn as they are, '$' included.
"""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine

from alexnet_jax.reports import canvas, tiles
from alexnet_jax.reports.short_names import short_names, short_names_of
from alexnet_jax.utils.errors import UserError
from alexnet_jax.utils.picture import Figure

_RIGHT, _WRONG = '#d9534f', '#a9a9c9'  # bars


def color_selectivity(kernels: np.ndarray) -> np.ndarray:
  """Which share of each kernel's energy is not gray.

  At each place a kernel has three weights, of red, green and blue, and their mean m is its gray
  part: sum((w - m)^2) / sum(w^2), over places and colors. 0 for a kernel that looks only at
  brightness, 2/3 on average for random weights, 1 for one that is blind to gray.

  Args:
    kernels: [height, width, 3, F].

  Returns:
    [F] float64; 0 for a kernel that is all zeros.
  """
  kernels = np.asarray(kernels, np.float64)
  colored = kernels - kernels.mean(axis=2, keepdims=True)
  energy = np.square(kernels).sum(axis=(0, 1, 2))
  return np.square(colored).sum(axis=(0, 1, 2)) / np.where(energy > 0, energy, 1)


def kernels(kernels: np.ndarray, columns: int, title: str, gray: bool = False) -> Figure:
  """The first layer's kernels, a column above the other: the paper's figure 3.

  16 in a row, a black pixel between them, and each column's weights scaled from their minimum to
  their maximum, as in the 2012 code. Above each column stands the mean of its kernels'
  `color_selectivity`.

  Args:
    kernels: [height, width, 3, F], the columns' side by side in the last axis.
    columns: how many.
    title: what stands above.
    gray: whether all images that the network saw were gray: of a kernel's three weights at a place
      only the sum then matters, and it is drawn in their place.

  Returns:
    A figure with a panel for each column.
  """
  parts = np.split(np.asarray(kernels, np.float64), columns, axis=-1)
  drawn, names = [], []
  for i, part in enumerate(parts):
    drawn.append(tiles.kernels(part, 16, gray))
    mean = color_selectivity(part).mean()
    said = f'mean color selectivity {mean:.2f} (0 gray, 2/3 random, 1 color only)'
    if gray:
      said = 'sums of red, green and blue, for its images are gray'
    names.append(f'column {i + 1}: {part.shape[-1]} kernels, {said}')
  return _panels(drawn, names, title)


def kernels_before_and_after(
  before: np.ndarray, after: np.ndarray, columns: int, title: str, gray: bool = False
) -> Figure:
  """The first layer's kernels as training began, to the left, and as they are now.

  Args:
    before: [height, width, 3, F], the columns' side by side in the last axis.
    after: the same, now.
    columns: how many.
    title: what stands above.
    gray: as in `kernels`.

  Returns:
    A figure with two panels for each column, each scaled from its minimum to its maximum.
  """
  picture = Figure(figsize=(10, 1), layout='constrained')
  canvas.set_title(picture, title)
  panels = picture.subplots(columns, 2, squeeze=False)
  height = 0.7
  before_parts, after_parts = (
    np.split(np.asarray(one), columns, axis=-1) for one in (before, after)
  )
  for i, of_column in enumerate(panels):
    pair = (before_parts[i], after_parts[i])
    for panel, part, when in zip(of_column, pair, ('at the start', 'now'), strict=True):
      shown = tiles.kernels(part, 8, gray)
      panel.imshow(shown, cmap='gray', vmin=0, vmax=1, interpolation='none')
      said = f'column {i + 1} {when}: weights from {part.min():.2g} to {part.max():.2g}'
      panel.set_title(said, fontsize='medium')
      panel.set_axis_off()
    height += 0.4 + 4.8 * shown.shape[0] / shown.shape[1]
  picture.set_figheight(height)
  return picture


def evidence(
  images: np.ndarray,
  drops: np.ndarray,
  gradients: np.ndarray,
  probabilities: Sequence[float] | np.ndarray,
  labels: Sequence[int] | np.ndarray,
  class_names: Sequence[str],
  title: str,
) -> Figure:
  """Images, and below each where its class's evidence lies: by covering, and by gradient.

  In the row for covering, mid-gray means no change, white the largest loss of log-odds and black the
  largest gain (at least 0.1). A gradient is black at 0 and white at its maximum.

  Args:
    images: [N, S, S, 3] uint8, as the network sees them.
    drops: [N, S, S], from `evidence.occlusion`.
    gradients: [N, S, S], from `evidence.saliency`.
    probabilities: [N], of each image's class.
    labels: [N] int, the classes.
    class_names: of all classes.
    title: what stands above.

  Returns:
    A figure with three rows of N axes.
  """
  width = 1.5 * len(images) + 0.6  # inches, each as wide as 15 small letters
  explained = [
    'covered: a square covers a part of the image; mid-gray where that changes nothing, white where the'
    ' class loses, black where it gains, in log-odds, log(p / (1 - p)) of its probability p;',
    'gradient: the whiter, the more the score changes with the pixel',
  ]
  characters = round(15 * width)
  explained = [textwrap.fill(text, characters, break_on_hyphens=False) for text in explained]
  picture = Figure(figsize=(width, 6.2), layout='constrained')
  canvas.set_title(picture, title)
  picture.supxlabel('\n'.join(explained), fontsize='small')
  panels = picture.subplots(3, len(images), squeeze=False)
  names = short_names_of(labels, class_names, 14)
  for i, label in enumerate(labels):
    image, covered, gradient = panels[:, i]
    _show(image, images[i])
    image.set_xlabel(f'{names[label]}: {100 * probabilities[i]:.1f}%', fontsize='small')
    largest = max(np.abs(drops[i]).max(), 0.1)
    _show(covered, drops[i], -largest, largest)
    gain, loss = (max(0.0, value) for value in (-drops[i].min(), drops[i].max()))
    covered.set_xlabel(f'loses up to {loss:.1f},\ngains up to {gain:.1f}', fontsize='small')
    _show(gradient, gradients[i], 0.0, gradients[i].max() or 1.0)
    gradient.set_xlabel(f'up to {gradients[i].max():.2g}', fontsize='small')
  for panel, what in zip(panels[:, 0], ('image', 'covered', 'gradient'), strict=True):
    panel.set_ylabel(what)
  return picture


def best_patches(
  patches: Mapping[str, Sequence[np.ndarray]],
  units: Mapping[str, Sequence[int] | np.ndarray],
  title: str,
) -> Figure:
  """For some maps of each layer, the patches of images that they respond to most.

  Args:
    patches: by layer, for each map [K, h, w, 3] uint8, the strongest first.
    units: by layer, the maps' numbers.
    title: what stands above.

  Returns:
    A figure with a row for each layer and an axes for each map, nine patches in a square.
  """
  most = max(len(of_layer) for of_layer in patches.values())
  picture = Figure(figsize=(1.3 * most + 0.6, 1.6 * len(patches) + 0.7), layout='constrained')
  canvas.set_title(picture, title)
  panels = picture.subplots(len(patches), most, squeeze=False)
  for row, (layer, of_layer) in zip(panels, patches.items(), strict=True):
    for panel, nine, unit in zip(row, of_layer, units[layer], strict=False):
      per_row = math.ceil(math.sqrt(len(nine)))
      panel.imshow(tiles.tiled(nine / 255, per_row, 1.0), interpolation='none')
      panel.set_title(f'map {unit}', fontsize='small')
    for panel in row:
      panel.set(xticks=[], yticks=[])
      panel.spines[:].set_visible(False)
    height, width = of_layer[0].shape[1:3]
    row[0].set_ylabel(f'{layer}\n{height}x{width} pixels', fontsize='small')
  return picture


def activations(
  maps: np.ndarray, columns: int, title: str, image: np.ndarray | None = None
) -> Figure:
  """What a layer makes of an image, a column above the other.

  Each map has a scale of its own, black at 0 or its minimum, whichever is less, and white at its
  maximum: a weak map shows its pattern too. Above each column stands how far the maxima go. The
  units of a fully connected layer share one scale, which stands there too.

  Args:
    maps: [H, W, C], or [D] of a fully connected layer; the columns' side by side in the last axis.
    columns: how many.
    title: what stands above.
    image: [S, S, 3] uint8, drawn beside them; None for none.

  Returns:
    A figure with a panel for each column, after that of the image.

  Raises:
    UserError: the maps are of several images.
  """
  maps = np.asarray(maps, np.float64)
  if maps.ndim not in (1, 3):
    raise UserError(f"maps are of shape {list(maps.shape)}; pass one image's, as features[0]")
  maps = maps[None, None] if maps.ndim == 1 else maps
  are_units = maps.shape[:2] == (1, 1)
  axis = None if are_units else (0, 1)
  low, high = np.minimum(maps.min(axis=axis), 0.0), maps.max(axis=axis)
  scaled = (maps - low) / np.where(high > low, high - low, 1)
  drawn, names = [], []
  parts = zip(*(np.split(array, columns, axis=-1) for array in (maps, scaled)), strict=True)
  for i, (part, shown) in enumerate(parts):
    count = part.shape[-1]
    per_row = 2 ** math.ceil(math.log2(3 * count) / 2)  # three to twelve times as wide as high
    drawn.append(tiles.tiled(np.moveaxis(shown, -1, 0)[..., None], per_row, 1.0))
    if are_units:
      said = f'{count} units, black {low:.3g}, white {high:.3g}'
    else:
      most = part.max(axis=(0, 1))
      said = f'{count} maps of {part.shape[0]}x{part.shape[1]}'
      said += f", white: each map's maximum, {most.min():.3g} to {most.max():.3g}"
      if silent := int((part == 0).all(axis=(0, 1)).sum()):
        said += f', {silent} all 0'
    names.append(f'column {i + 1}: {said}')
  return _panels(drawn, names, title, image)


def _panels(
  drawn: Sequence[np.ndarray], names: Sequence[str], title: str, image: np.ndarray | None = None
) -> Figure:
  """Pictures [H, W, 1 or 3] from 0 to 1, one below the other, an image to their left."""
  width, left = 8.0, 1.6  # inches
  heights = [width * picture.shape[0] / picture.shape[1] for picture in drawn]
  beside = image is not None
  names_and_title = 0.3 * len(drawn) + 0.6
  size = (width + beside * left, max(sum(heights), beside * left) + names_and_title)
  whole = Figure(figsize=size, layout='constrained')
  canvas.set_title(whole, title)
  grid = whole.add_gridspec(
    len(drawn), 1 + beside, width_ratios=[left, width] if beside else None, height_ratios=heights
  )
  if image is not None:
    _show(whole.add_subplot(grid[:, 0]), image)
  for i, (picture, name) in enumerate(zip(drawn, names, strict=True)):
    panel = whole.add_subplot(grid[i, -1])
    # As they are, not resampled: each pixel is a weight or an activation.
    panel.imshow(picture, cmap='gray', vmin=0, vmax=1, interpolation='none')
    panel.set_title(name, fontsize='medium', loc='left')
    panel.set_axis_off()
  return whole


def _show(
  axes: Any, image: np.ndarray, low: float | None = None, high: float | None = None
) -> None:
  axes.imshow(image, cmap='gray', vmin=low, vmax=high)
  axes.set(xticks=[], yticks=[])


def predictions(
  images: np.ndarray,
  probabilities: np.ndarray,
  labels: Sequence[int] | np.ndarray,
  class_names: Sequence[str],
  title: str,
  headings: Sequence[str] = (),
) -> Figure:
  """Images with the five classes held most probable: the paper's figure 4, left.

  The true class stands below its image; its bar, if it is among the five, is red and outlined.
  Above each bar stand its class and, at the right, the probability in percent.

  Args:
    images: [N, S, S, 3] uint8.
    probabilities: [N, classes].
    labels: [N] int.
    class_names: of all classes.
    title: what stands above.
    headings: what stands above each image; () for nothing.

  Returns:
    A figure with two axes for each image, its own and the bars' from 0 to 1.
  """
  per_row = 4
  rows = -(-len(images) // per_row)
  apart = ConstrainedLayoutEngine(w_pad=0.1)  # inches: a percentage is no part of the next name
  picture = Figure(figsize=(2.6 * per_row, 4.1 * rows + 0.5), layout=apart)
  canvas.set_title(picture, title)
  grid = picture.add_gridspec(2 * rows, per_row, height_ratios=[3, 2.4] * rows)
  names = short_names(class_names, 24)
  for i, (image, each, label) in enumerate(zip(images, probabilities, labels, strict=True)):
    row, place = divmod(i, per_row)
    above = picture.add_subplot(grid[2 * row, place])
    _show(above, image)
    above.set_xlabel(names[label], weight='bold')
    if headings:
      above.set_title(headings[i], fontsize='medium')
    best = np.argsort(-np.asarray(each), kind='stable')[:5]
    right = best == label
    bars = picture.add_subplot(grid[2 * row + 1, place])
    bars.barh(
      range(len(best)),
      each[best],
      height=0.35,
      color=np.where(right, _RIGHT, _WRONG),
      edgecolor=np.where(right, 'black', 'none'),
      linewidth=1.2,
      clip_on=False,
    )
    for j, number in enumerate(best):
      bars.text(0.01, j - 0.22, names[number], va='bottom', fontsize='small')
      percent = f'{100 * each[number]:.1f}%'
      bars.text(1, j - 0.22, percent, va='bottom', ha='right', fontsize='small')
    bars.set(xlim=(0, 1), ylim=(4.3, -0.8), xticks=[], yticks=[])
    bars.spines[['top', 'right', 'bottom']].set_visible(False)
  return picture


def retrieval(
  images: np.ndarray,
  labels: Sequence[int] | np.ndarray,
  neighbors: Sequence[np.ndarray],
  neighbor_labels: Sequence[Sequence[int] | np.ndarray],
  distances: Sequence[np.ndarray],
  class_names: Sequence[str],
  title: str,
) -> Figure:
  """Test images, and to the right of each the training images nearest: the paper's figure 4, right.

  Args:
    images: [Q, S, S, 3] uint8, the test images.
    labels: [Q] int, their classes.
    neighbors: for each of them [K, S, S, 3] uint8, the nearest first.
    neighbor_labels: for each of them [K] int, the neighbors' classes; one of another class than the
      test image's is red and slanted.
    distances: for each of them [K], the neighbors' distances, drawn below their classes.
    class_names: of all classes.
    title: what stands above.

  Returns:
    A figure with an axes for each image, row by row.
  """
  count = len(neighbors[0])
  picture = Figure(figsize=(1.25 * (count + 1.2), 1.55 * len(images) + 0.9), layout='constrained')
  canvas.set_title(picture, title)
  explained = "below a neighbor: its class, red where it is another, and its features' distance"
  picture.supxlabel(explained, fontsize='small')
  grid = picture.add_gridspec(len(images), count + 2, width_ratios=[1, 0.1] + [1] * count)
  shown = [*labels, *itertools.chain.from_iterable(neighbor_labels)]
  short = short_names_of(shown, class_names, 16)
  for row, (image, label) in enumerate(zip(images, labels, strict=True)):
    axes = picture.add_subplot(grid[row, 0])
    _show(axes, image)
    axes.set_xlabel(short[label], weight='bold', fontsize='small')
    for i, other in enumerate(neighbor_labels[row]):
      axes = picture.add_subplot(grid[row, 2 + i])
      _show(axes, neighbors[row][i])
      style: Any = {} if other == label else {'color': 'firebrick', 'style': 'italic'}
      axes.set_xlabel(f'{short[other]}\n{distances[row][i]:.3g}', fontsize='small', **style)
  return picture
