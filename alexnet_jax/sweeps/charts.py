"""Charts of a sweep: the variants' differences, and their curves beside the base's.

Readable in black and white. Names and titles are drawn as they are, '$' included.
"""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from alexnet_jax.reports import canvas, curves
from alexnet_jax.sweeps import spec
from alexnet_jax.utils.picture import Figure


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
  """How much worse each variant is than the base, beside what the paper and the 2012 logs report.

  A bar is the mean over the seeds, each of which is a dot, and a line its 95% confidence interval.

  Args:
    bars: from top to bottom.
    title: what stands above.

  Returns:
    A figure of one panel.
  """
  names = [textwrap.fill(bar.name, 36) for bar in bars]
  height = 2.0 + sum(max(0.36, 0.2 * len(name.split('\n'))) for name in names)
  picture = Figure(figsize=(8.5, height), layout='constrained')
  canvas.set_title(picture, title)
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
    axes.set_xticks([x for x in (-60, -20, -5, -2, 0, 2, 5, 20, 60) if abs(x) <= largest])
  axes.errorbar(values, places, xerr=intervals, fmt='none', ecolor='black', capsize=2, lw=1)
  dots: dict[str, Any] = {'marker': 'o', 'linestyle': 'none', 'color': 'black', 'markersize': 4}
  axes.plot(*np.reshape(seeds, (-1, 2)).T, **dots, markerfacecolor='white', zorder=4)
  handles: list[Any] = [
    Patch(facecolor='0.45', edgecolor='0.45', label='mean, significant (p < 0.05)'),
    Patch(facecolor='0.85', edgecolor='0.45', label='mean, not significant or too few seeds'),
    Line2D([], [], color='black', linewidth=1, label='95% interval of the mean'),
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
      handles.append(Line2D([], [], **look, label=f'the {spec.REPORTERS[by]}'))
  axes.axvline(0, color='black', linewidth=0.8)
  axes.set_yticks(places, [canvas.plain(name) for name in names])
  scale = ', logarithmic beyond 5' if axes.get_xscale() != 'linear' else ''
  xlabel = f'top-1 error minus that of the base, points{scale}'
  axes.set(ylim=(len(bars) - 0.4, -0.6), xlabel=xlabel)
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
  canvas.set_title(picture, title)
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
    panel.set_title(canvas.plain(textwrap.fill(name, 34)), fontsize='small')
    panel.grid(color='0.92')
    panel.spines[['top', 'right']].set_visible(False)
  curves.use_log_scale(*panels.flat)
  for panel in panels.flat[len(variants) :]:
    panel.set_axis_off()
  for panel in panels[:, 0]:
    panel.set_ylabel('top-1 error, %')
  lowest = slice(max(0, len(variants) - per_row), len(variants))  # of each column
  for panel in panels.flat[lowest]:
    panel.set_xlabel('epochs')
    panel.xaxis.set_tick_params(labelbottom=True)
  return picture
