"""Pictures: arrays in, matplotlib figures out."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure


def learning_curves(records: Sequence[Mapping[str, Any]], title: str) -> Figure:
  """Loss and top-1 error of a run over its epochs, readable in black and white.

  Args:
    records: lines of metrics.jsonl.
    title: what stands above.

  Returns:
    A figure of two panels.
  """
  figure = Figure(figsize=(9, 3.6), layout='constrained')
  figure.suptitle(title)
  panels = figure.subplots(1, 2)
  styles: dict[str, dict[str, Any]] = {
    'train': {'color': '0.55', 'linestyle': '-', 'label': 'training'},
    'validation': {'color': 'black', 'linestyle': '--', 'marker': 'o', 'markersize': 3},
  }
  for panel, field, label, factor in (
    (panels[0], 'loss', 'cross-entropy loss', 1),
    (panels[1], 'top1_error', 'top-1 error, %', 100),
  ):
    for split, style in styles.items():
      of_split = [record for record in records if record['split'] == split]
      panel.plot(
        [record['epoch'] for record in of_split],
        [factor * record[field] for record in of_split],
        **{'label': split, **style},
      )
    panel.set(xlabel='epochs', ylabel=label, ylim=(0, None))
    panel.grid(color='0.9')
    panel.spines[['top', 'right']].set_visible(False)
  panels[0].legend(frameon=False)
  return figure
