"""Learning curves of runs, readable in black and white."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from alexnet_jax.reports import canvas
from alexnet_jax.utils.picture import Figure

_MARKERS = 'osD^vP'


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
  canvas.set_title(picture, title)
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
    use_log_scale(panel)
    panel.grid(color='0.9')
    panel.spines[['top', 'right']].set_visible(False)
  if many:
    of_runs = [
      Line2D([], [], color=colors[i], marker=_MARKERS[i % len(_MARKERS)], label=canvas.plain(name))
      for i, name in enumerate(runs)
    ]
    of_splits = [Line2D([], [], **{**look, 'color': 'black'}) for look in (train, validation)]
    picture.legend(handles=of_runs + of_splits, loc='outside lower center', ncols=2, frameon=False)
  else:
    panels[0].legend(frameon=False)
  return picture


def use_log_scale(*panels: Any) -> None:
  """Makes panels' y axes logarithmic, the same for all, so that 1% and 50% can both be read.

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
  for digits in ((1,), (1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) >= 5:
      return ticks
  return [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
