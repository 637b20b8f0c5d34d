"""Draws docs/overview.png: figure 2, from the network itself, above the kernels that it learned.

python docs/draw_overview.py
"""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from alexnet_jax import AlexNet
from alexnet_jax.models import drawing
from alexnet_jax.reports.figures import color_selectivity

DOCS = Path(__file__).parent
KERNELS = DOCS / 'results' / 'imagenette_start' / 'kernels.npz'


def main() -> None:
  """Writes docs/overview.png."""
  network = drawing.draw(AlexNet(), 'Figure 2: the columns meet where the lines cross')
  width, height = network.get_size_inches()
  drawn = io.BytesIO()
  network.savefig(drawn, format='png', dpi=120)
  drawn.seek(0)

  figure = Figure(figsize=(width, height + 1.75))
  above = figure.add_axes((0, 1.75 / (height + 1.75), 1, height / (height + 1.75)))
  above.imshow(imread(drawn), aspect='auto')
  above.axis('off')
  kernels = np.load(KERNELS)['paper_0_60']  # [11, 11, 3, 96]
  figure.text(
    0.5,
    1.6 / (height + 1.75),
    "Figure 3: conv1's kernels, trained here on Imagenette",
    ha='center',
    fontsize=9,
  )
  for column, part in enumerate(np.split(kernels, 2, axis=-1)):
    axes = figure.add_axes((0.02 + 0.49 * column, 0.02, 0.47, 1.3 / (height + 1.75)))
    axes.imshow(tiled(part, 16))
    axes.set_title(
      f'column {column + 1}: color selectivity {color_selectivity(part).mean():.2f}', fontsize=8
    )
    axes.axis('off')
  figure.savefig(DOCS / 'overview.png', dpi=120)


def tiled(kernels: np.ndarray, across: int) -> np.ndarray:
  """Kernels [h, w, 3, F] side by side on black; gray is zero, each one's largest weight is full."""
  scaled = 0.5 + 0.5 * kernels / np.abs(kernels).max(axis=(0, 1, 2))
  scaled = np.pad(scaled, ((0, 1), (0, 1), (0, 0), (0, 0)))
  rows = [
    np.concatenate(list(np.moveaxis(scaled[..., i : i + across], -1, 0)), axis=1)
    for i in range(0, scaled.shape[-1], across)
  ]
  return np.concatenate(rows)


if __name__ == '__main__':
  main()
