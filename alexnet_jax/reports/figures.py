"""Pictures: arrays in, matplotlib figures out, readable in black and white.

Figures 1, 3 and 4 of the paper, the latter as the 2012 source's `shownet.py` draws them, learning
curves, activations and the bars of a sweep. Names and titles are drawn as they are, '$' included.
"""

import collections
import contextlib
import dataclasses
import io
import itertools
import math
import os
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps, figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from alexnet_jax.reports import fonts, tiles
from alexnet_jax.utils import files

_RIGHT, _WRONG = '#d9534f', '#a9a9c9'  # bars
_MARKERS = 'osD^vP'
# The kinds of files, with what keeps the date out of each.
_KINDS: Mapping[str, dict[str, None]] = {
  'png': {},
  'pdf': {'CreationDate': None},
  'svg': {'Date': None},
}


class Figure(figure.Figure):
  """A matplotlib figure that shows itself in a notebook, though nothing has imported pyplot."""

  def _repr_png_(self) -> bytes:
    file = io.BytesIO()
    self.savefig(file, format='png', dpi=100)
    return file.getvalue()


def save(picture: figure.Figure, path: str | os.PathLike[str]) -> list[Path]:
  """Writes a figure as PNG, PDF and SVG, each in one move; the folder is made if need be.

  The same figure gives the same bytes: no file has a date. A PDF has the outlines of its letters as
  TrueType fonts (Type 42), which journals ask for, and which programs that draw can edit.

  Characters that matplotlib's font lacks are drawn with another one that is installed;
  `fonts.missing` says which ones none has.

  Args:
    picture: the figure.
    path: without an ending.

  Returns:
    The files' paths, the SVG's last.

  Raises:
    OSError: nothing can be written there.
  """
  path = Path(path)
  written = []
  fonts.use(picture)
  # Else matplotlib names an SVG's parts at random, and draws a PDF's letters as Type 3.
  settings = matplotlib.rc_context({'svg.hashsalt': path.name, 'pdf.fonttype': 42})
  with settings, fonts.substitutes_allowed(), _laid_out(picture):
    for kind, metadata in _KINDS.items():
      target = path.with_name(f'{path.name}.{kind}')
      with files.atomic_write(target) as temporary:
        picture.savefig(temporary, format=kind, dpi=150, metadata=metadata)
      written.append(target)
  return written


@contextlib.contextmanager
def _laid_out(picture: figure.Figure) -> Iterator[None]:
  """Lays a figure out once, where matplotlib would again for every file: most of its time."""
  engine = picture.get_layout_engine()
  picture.draw_without_rendering()
  picture.set_layout_engine('none')
  try:
    yield
  finally:
    picture.set_layout_engine(engine)


def _plain(text: str) -> str:
  return text.replace('$', r'\$')  # else matplotlib would set it as a formula


def short_names(
  class_names: Sequence[str], length: int, labels: Sequence[int] | None = None
) -> list[str]:
  """Names of classes for a picture: short, and all different where the classes' names are.

  Each is the first of the class's names ('tench' of 'tench, Tinca tinca') where no other class has
  the same one, else all of it; what is too long is cut at its end or, where that makes it like
  another, in its middle, up to its end or up to where it differs. Where nothing else tells two apart,
  the label is put behind.

  Args:
    class_names: of all classes that are shown together.
    length: how long a name may be, in Latin letters; a Chinese character is as wide as two.
    labels: the classes' labels; None: they are all classes, in the order of their labels.
  """
  alike = _common_beginnings(class_names)
  ways = (
    lambda name: _cut(name.split(',')[0].strip() or name, length),
    lambda name: _cut(name, length),
    lambda name: _cut_middle(name, length),
    lambda name: _cut_before(name, alike[name], length),
  )
  short: dict[int, str] = {}
  taken: set[str] = set()
  for way in ways:
    tried = [way(name) for name in class_names]
    count = collections.Counter(tried)
    for i, name in enumerate(tried):
      if i not in short and count[name] == 1 and name not in taken:
        short[i] = name
        taken.add(name)
  for i, name in enumerate(class_names):
    if i not in short:
      number = f' [{i if labels is None else labels[i]}]'
      short[i] = _cut(name, length - len(number)) + number
  return [_plain(short[i]) for i in range(len(class_names))]


def _short_names_of(
  labels: Sequence[int] | np.ndarray, class_names: Sequence[str], length: int
) -> dict[int, str]:
  """`short_names` of those classes that are shown, by label."""
  shown = sorted(set(labels))
  names = short_names([class_names[label] for label in shown], length, shown)
  return dict(zip(shown, names, strict=True))


def _common_beginnings(names: Sequence[str]) -> dict[str, int]:
  """How many letters each name has in common with the one that begins most like it."""
  ordered = sorted(set(names))
  common = [
    sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], zip(*pair, strict=False)))
    for pair in itertools.pairwise(ordered)
  ]
  return dict(zip(ordered, map(max, [0, *common], [*common, 0]), strict=True))


def _width(text: str) -> int:
  """How wide a text is drawn, in Latin letters."""
  return sum(2 if unicodedata.east_asian_width(letter) in 'WF' else 1 for letter in text)


def _cut(text: str, length: int) -> str:
  """A text's beginning, up to a width."""
  if _width(text) <= length:
    return text
  while text and _width(text) > length - 1:
    text = text[:-1]
  return text + '…'


def _cut_middle(text: str, length: int) -> str:
  """A text's beginning and end, up to a width."""
  if _width(text) <= length:
    return text
  end = text
  while end and _width(end) > length // 2:
    end = end[1:]
  return _cut(text, length - _width(end)) + end


def _cut_before(text: str, start: int, length: int) -> str:
  """A text's beginning, and what follows from a letter on, up to a width."""
  beginning = _cut(text, length // 3)
  return beginning + _cut(text[start:], length - _width(beginning))


def learning_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> Figure:
  """Loss and top-1 error of runs over their epochs, on logarithmic scales.

  Args:
    runs: lines of metrics.jsonl, by the name of the run. Of one run the name is not drawn.
    title: what stands above.

  Returns:
    A figure of two panels.
  """
  many = len(runs) > 1
  picture = Figure(figsize=(9, 3.6 + many * (0.4 + 0.1 * len(runs))), layout='constrained')
  picture.suptitle(_plain(title))
  panels = picture.subplots(1, 2)
  train: dict[str, Any] = {'color': '0.55', 'linestyle': '-', 'label': 'training'}
  validation: dict[str, Any] = {'color': 'black', 'linestyle': '--', 'label': 'validation'}
  colors = colormaps['viridis'](np.linspace(0, 0.8, len(runs)))  # from dark to light
  for panel, field, label, factor in (
    (panels[0], 'loss', 'cross-entropy loss', 1),
    (panels[1], 'top1_error', 'top-1 error, %', 100),
  ):
    for i, records in enumerate(runs.values()):
      style: dict[str, Any] = {'color': colors[i]} if many else {}
      marker = {'marker': _MARKERS[i % len(_MARKERS)], 'markersize': 4 if many else 3}
      for split, look in (('train', train), ('validation', validation | marker)):
        of_split = [record for record in records if record['split'] == split]
        panel.plot(
          [record['epoch'] for record in of_split],
          [factor * record[field] for record in of_split],
          **{**look, **style},
        )
    panel.set(xlabel='epochs', ylabel=label)
    _use_log_scale(panel)
    panel.grid(color='0.9')
    panel.spines[['top', 'right']].set_visible(False)
  if many:
    of_runs = [
      Line2D([], [], color=colors[i], marker=_MARKERS[i % len(_MARKERS)], label=_plain(name))
      for i, name in enumerate(runs)
    ]
    of_splits = [Line2D([], [], **{**look, 'color': 'black'}) for look in (train, validation)]
    picture.legend(handles=of_runs + of_splits, loc='outside lower center', ncols=2, frameon=False)
  else:
    panels[0].legend(frameon=False)
  return picture


def _use_log_scale(*panels: Any) -> None:
  """Makes panels' y axes logarithmic, the same for all, so that 1 % and 50 % can both be read.

  What is 0 lies below the lower edge. Where nothing is above 0, the scale stays linear.
  """
  lines = [line for axes in panels for line in axes.lines]
  values = np.array(list(itertools.chain.from_iterable(line.get_ydata() for line in lines)), float)
  values = values[np.isfinite(values) & (values > 0)]
  if not len(values):
    return
  low, high = values.min() / 1.2, values.max() * 1.2
  for axes in panels:
    axes.set_yscale('log')
    axes.set_ylim(low, high)
    axes.set_yticks(_log_ticks(low, high))
    axes.yaxis.set_major_formatter('{x:g}')
    axes.yaxis.set_minor_locator(NullLocator())


def _log_ticks(low: float, high: float) -> list[float]:
  """Round numbers between two others, at like distances on a logarithmic scale."""
  decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) >= 5:
      return ticks
  return [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]


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
  their maximum, as in the source. Above each column stands the mean of its kernels'
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
    said = f'color selectivity {color_selectivity(part).mean():.2f}'
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
  picture.suptitle(_plain(title))
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

  Of what covering does, mid-gray is nothing; white and black are the largest loss or gain there is,
  or one point of probability where all are smaller. A gradient is black at 0 and white at its maximum.

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
  picture = Figure(figsize=(1.5 * len(images) + 0.6, 6.2), layout='constrained')
  picture.suptitle(_plain(title))
  picture.supxlabel(
    "covered: mid-gray where a square's cover changes nothing, white where the class loses, black"
    ' where it gains;\ngradient: the whiter, the more the score changes with the pixel',
    fontsize='small',
  )
  panels = picture.subplots(3, len(images), squeeze=False)
  names = _short_names_of(labels, class_names, 14)
  for i, label in enumerate(labels):
    image, covered, gradient = panels[:, i]
    _show(image, images[i])
    image.set_xlabel(f'{names[label]}: {100 * probabilities[i]:.1f} %', fontsize='small')
    largest = max(np.abs(drops[i]).max(), 0.01)
    _show(covered, drops[i], -largest, largest)
    gain, loss = (100 * max(0.0, value) for value in (-drops[i].min(), drops[i].max()))
    said = f'loses up to {loss:.1f},\ngains up to {gain:.1f} points'
    covered.set_xlabel(said, fontsize='small')
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
  """For some maps of each layer, the patches of images that they answer to most.

  Args:
    patches: by layer, for each map [K, h, w, 3] uint8, the strongest first.
    units: by layer, the maps' numbers.
    title: what stands above.

  Returns:
    A figure with a row for each layer and an axes for each map, nine patches in a square.
  """
  most = max(len(of_layer) for of_layer in patches.values())
  picture = Figure(figsize=(1.3 * most + 0.6, 1.6 * len(patches) + 0.7), layout='constrained')
  picture.suptitle(_plain(title))
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
  """
  maps = np.asarray(maps, np.float64)
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
  whole.suptitle(_plain(title))
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
  per_row: int = 4,
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
    per_row: images in a row.

  Returns:
    A figure with two axes for each image, its own and the bars' from 0 to 1.
  """
  rows = -(-len(images) // per_row)
  apart = ConstrainedLayoutEngine(w_pad=0.1)  # inches: a percentage is no part of the next name
  picture = Figure(figsize=(2.6 * per_row, 4.1 * rows + 0.5), layout=apart)
  picture.suptitle(_plain(title))
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
      bars.text(0, j - 0.22, names[number], va='bottom', fontsize='small')
      percent = f'{100 * each[number]:.1f} %'
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
  picture.suptitle(_plain(title))
  explained = "below a neighbor: its class, red where it is another, and its features' distance"
  picture.supxlabel(explained, fontsize='small')
  grid = picture.add_gridspec(len(images), count + 2, width_ratios=[1, 0.1] + [1] * count)
  shown = [*labels, *itertools.chain.from_iterable(neighbor_labels)]
  short = _short_names_of(shown, class_names, 16)
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


def training_errors(
  records: Sequence[Mapping[str, Any]], window: int
) -> tuple[list[float], list[float]]:
  """The training error over the epochs, each the mean of as many steps.

  A window ends where a line's step is a multiple of its length, and takes in the lines before it: an
  epoch's end, which cuts a line in two, changes nothing. Steps of no whole window are left out.

  Args:
    records: lines of metrics.jsonl; a training line is the mean since the one before.
    window: steps of each; the run's `train.log_every_steps`, or a multiple.

  Returns:
    Epochs, and the error (a fraction) of the `window` steps up to there.
  """
  epochs, errors = [], []
  before = start = 0  # steps of the line before, and of the last window
  wrong = 0.0
  for record in records:
    if record['split'] == 'train':
      wrong += (record['step'] - before) * record['top1_error']
      before = record['step']
      if before % window == 0:
        if before - start == window:
          epochs.append(float(record['epoch']))
          errors.append(wrong / window)
        start, wrong = before, 0.0
  return epochs, errors


def epochs_to(records: Sequence[Mapping[str, Any]], error: float, window: int) -> float | None:
  """After how many epochs the training error first was at most so much; None where it never was.

  Args:
    records: lines of metrics.jsonl, taken as `training_errors` does.
    error: a fraction.
    window: steps over which the error is taken.
  """
  for epoch, reached in zip(*training_errors(records, window), strict=True):
    if reached <= error:
      return epoch
  return None


def figure1(
  relu: Sequence[Mapping[str, Any]], tanh: Sequence[Mapping[str, Any]], window: int, title: str
) -> tuple[Figure, str]:
  """Training error against epochs, ReLU solid and tanh dashed: the paper's figure 1.

  Args:
    relu: lines of metrics.jsonl.
    tanh: the same.
    window: steps over which the error is taken, as in `training_errors`.
    title: what stands above.

  Returns:
    The figure, and its caption: after how many epochs each reached 25 %, and the ratio.
  """
  threshold = 0.25
  picture = Figure(figsize=(6, 4.6), layout='constrained')
  picture.suptitle(_plain(title))
  axes = picture.add_subplot()
  reached = {}
  for name, records, line, color in (
    ('ReLU', relu, '-', 'black'), ('tanh', tanh, '--', 'tab:blue')
  ):  # fmt: skip
    axes.plot(*training_errors(records, window), line, color=color, label=name)
    reached[name] = at = epochs_to(records, threshold, window)
    if at is not None:
      axes.plot([at], [threshold], 'o', color=color, markersize=5)
  axes.axhline(threshold, color='0.6', linewidth=0.8, linestyle=':')
  beside = axes.get_yaxis_transform()  # the curves cross the line within the axes
  axes.text(1.01, threshold, '25 %', transform=beside, ha='left', va='center')
  axes.set(xlabel='epochs', ylabel='training error', xlim=(0, None), ylim=(0, None))
  axes.grid(color='0.92')
  axes.spines[['top', 'right']].set_visible(False)
  axes.legend(frameon=False)

  def said(name: str, records: Sequence[Mapping[str, Any]]) -> str:
    at = reached[name]
    if at is None:
      return f'{name} does not in {records[-1]["epoch"]:.1f} epochs'
    return f'{name} after {at:.1f} epochs'

  caption = f'25 % training error over {window} steps: {said("ReLU", relu)}, {said("tanh", tanh)}'
  if reached['ReLU'] is not None:
    if reached['tanh'] is not None:
      caption += f', {reached["tanh"] / reached["ReLU"]:.1f} times as many'
    else:
      caption += f', more than {tanh[-1]["epoch"] / reached["ReLU"]:.1f} times as many'
  return picture, caption + '. In the paper: six times.'


@dataclasses.dataclass(frozen=True)
class Bar:
  """A bar of `differences`: numbers in percentage points, NaN where there is none.

  Attributes:
    name: its label, in words.
    difference: its length.
    of_seeds: each seed's difference, drawn as a dot.
    low, high: ends of the difference's confidence interval, drawn as a line.
    paper, source: reported differences, drawn as marks.
    significant: whether the difference is; other bars are drawn pale.
  """

  name: str
  difference: float
  of_seeds: Sequence[float]
  low: float
  high: float
  paper: float
  source: float
  significant: bool


def differences(bars: Sequence[Bar], title: str) -> Figure:
  """How much worse each variant is than the base, beside the paper's and the source's differences.

  A bar is the mean over the seeds, each of which is a dot, and a line its 95 % confidence interval.

  Args:
    bars: from top to bottom.
    title: what stands above.

  Returns:
    A figure of one panel.
  """
  names = [textwrap.fill(bar.name, 36) for bar in bars]
  height = 2.0 + sum(max(0.36, 0.2 * len(name.split('\n'))) for name in names)
  picture = Figure(figsize=(8.5, height), layout='constrained')
  picture.suptitle(_plain(title))
  axes = picture.add_subplot()
  places = np.arange(len(bars))
  values = np.array([bar.difference for bar in bars])
  intervals = np.array([[bar.difference - bar.low, bar.high - bar.difference] for bar in bars]).T
  colors = ['0.45' if bar.significant else '0.85' for bar in bars]
  axes.barh(places, values, color=colors, edgecolor='0.45', height=0.7)
  # A symmetric logarithm where one variant fails altogether: the others stay readable.
  seeds = [(of_seed, place) for place, bar in enumerate(bars) for of_seed in bar.of_seeds]
  largest = np.nanmax(np.abs([*values, *(of_seed for of_seed, _ in seeds)]), initial=0.0)
  if largest > 20:
    axes.set_xscale('symlog', linthresh=5.0, linscale=2.0)
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set_xticks([x for x in (-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50) if abs(x) <= largest])
  axes.errorbar(values, places, xerr=intervals, fmt='none', ecolor='black', capsize=2, lw=1)
  dots: dict[str, Any] = {'marker': 'o', 'linestyle': 'none', 'color': 'black', 'markersize': 4}
  axes.plot(*np.reshape(seeds, (-1, 2)).T, **dots, markerfacecolor='white', zorder=4)
  handles: list[Any] = [
    Patch(facecolor='0.45', edgecolor='0.45', label='mean, significant (p < 0.05)'),
    Patch(facecolor='0.85', edgecolor='0.45', label='mean, not significant or too few seeds'),
    Line2D([], [], color='black', linewidth=1, label='95 % interval of the mean'),
    Line2D([], [], **dots, markerfacecolor='white', label='a seed'),
  ]
  # One above the other, for they often agree.
  for by, marker, color, above in (
    ('paper', 'D', 'tab:red', 0.2),
    ('source', 'X', 'tab:blue', -0.2),
  ):
    marks = np.array([getattr(bar, by) for bar in bars])
    if not np.isnan(marks).all():
      look: dict[str, Any] = {
        'marker': marker,
        'linestyle': 'none',
        'color': color,
        'markersize': 6,
      }
      axes.plot(marks, places - above, **look, zorder=3)
      handles.append(Line2D([], [], **look, label=f'the {by}'))
  axes.axvline(0, color='black', linewidth=0.8)
  axes.set_yticks(places, [_plain(name) for name in names])
  axes.set(ylim=(len(bars) - 0.4, -0.6), xlabel='top-1 error minus that of the base, points')
  axes.grid(axis='x', color='0.9')
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)
  picture.legend(handles=handles, loc='outside lower center', ncols=2, frameon=False)
  return picture


def curves_beside_base(
  base: Sequence[Sequence[Mapping[str, Any]]],
  variants: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
  title: str,
) -> Figure:
  """Each variant's validation error over its epochs, a panel each, the base's in gray behind.

  Args:
    base: lines of metrics.jsonl, for each seed.
    variants: the same, by name.
    title: what stands above.

  Returns:
    A figure with a panel for each variant.
  """
  per_row = min(4, max(1, len(variants)))
  rows = -(-len(variants) // per_row)
  picture = Figure(figsize=(2.4 * per_row + 0.6, 2.0 * rows + 0.8), layout='constrained')
  picture.suptitle(_plain(title))
  panels = picture.subplots(rows, per_row, sharex=True, sharey=True, squeeze=False)
  for i, (name, runs) in enumerate(variants.items()):
    panel = panels.flat[i]
    for several, look in (
      (base, {'color': '0.7', 'linewidth': 2}), (runs, {'color': 'black', 'linewidth': 1})
    ):  # fmt: skip
      for records in several:
        of_split = [record for record in records if record['split'] == 'validation']
        panel.plot(
          [record['epoch'] for record in of_split],
          [100 * record['top1_error'] for record in of_split],
          **look,
        )
    panel.set_title(_plain(textwrap.fill(name, 34)), fontsize='small')
    panel.grid(color='0.92')
    panel.spines[['top', 'right']].set_visible(False)
  _use_log_scale(*panels.flat)
  for panel in panels.flat[len(variants) :]:
    panel.set_axis_off()
  for panel in panels[:, 0]:
    panel.set_ylabel('top-1 error, %')
  for panel in panels[-1]:
    panel.set_xlabel('epochs')
  return picture
