"""Draws docs/overview.png: figure 2, from the network itself, beside the kernels that it learned.

python docs/draw_overview.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use('agg')
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from alexnet_jax import AlexNet

DOCS = Path(__file__).parent
COLORS = ('#c8553d', '#5b7f95')


def draw_network(axes: plt.Axes, net: AlexNet) -> None:
  """Draws a box for each column's share of each layer; an arrow for each reading of maps."""
  image = jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), jnp.float32)
  _, outputs = jax.eval_shape(net.init_with_output, jax.random.key(0), image)[0]
  names = ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7']
  rows = (1.25, -1.25)  # of the two columns
  axes.text(0, 0.62, '224x224x3', ha='center', fontsize=7)
  axes.add_patch(Rectangle((-0.3, -0.5), 0.6, 1, color='#9a9a9a'))
  before = None
  for place, name in enumerate(names, 1):
    *sides, features = outputs[name].shape[1:]
    height = 0.5 + 1.1 * np.sqrt(sides[0] / 55) if sides else 1.2
    shape = 'x'.join(map(str, [*sides, features // net.num_columns]))
    pooled = outputs.get(f'{name}_pool')
    if pooled is not None:
      shape += f'\npool {pooled.shape[1]}x{pooled.shape[2]}'
    for row, color in zip(rows, COLORS, strict=True):
      width = 0.5 if sides else 0.2
      axes.add_patch(Rectangle((place - width / 2, row - height / 2), width, height, color=color))
      axes.text(place, row, name, ha='center', va='center', fontsize=7, color='white',
                rotation=0 if sides else 90)  # fmt: skip
      sources = rows if name in net.cross_column else (row,)
      for source in (0,) if before is None else sources:
        start = place - 0.68 if before is None else place - 0.72
        axes.annotate('', (place - 0.27, row), (start, source), arrowprops={
          'arrowstyle': '->', 'lw': 0.8, 'color': '#c79a2b' if before and source != row else '#333333'})  # fmt: skip
    axes.text(place, rows[0] + 0.95, shape, ha='center', va='bottom', fontsize=6.5)
    before = name
  last = len(names) + 1
  axes.add_patch(Rectangle((last - 0.1, -0.6), 0.2, 1.2, color='#9a9a9a'))
  axes.text(last, 0.72, f'fc8\n{net.num_classes:,}', ha='center', fontsize=7)
  for row in rows:
    axes.annotate('', (last - 0.12, 0), (last - 0.72, row), arrowprops={
      'arrowstyle': '->', 'lw': 0.8, 'color': '#333333'})  # fmt: skip
  for row, label in zip(rows, ('device 1', 'device 2'), strict=True):
    axes.text(-0.45, row, label, ha='right', va='center', fontsize=8)
  axes.set(xlim=(-1.2, last + 0.4), ylim=(-2.3, 2.9))
  axes.set_title(
    f'Figure 2: {sum(leaf.size for leaf in jax.tree.leaves(_shapes(net))):,} parameters; the columns'
    ' meet where the arrows cross',
    fontsize=9,
  )
  axes.axis('off')


def _shapes(net: AlexNet) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
  from alexnet_jax.models.alexnet import parameter_shapes

  shapes: dict[str, dict[str, jax.ShapeDtypeStruct]] = parameter_shapes(net)
  return shapes


def main() -> None:
  """Writes docs/overview.png."""
  figure, (left, right) = plt.subplots(
    1, 2, figsize=(12, 3.9), width_ratios=(1.45, 1), layout='constrained'
  )
  draw_network(left, AlexNet())
  right.imshow(plt.imread(DOCS / 'results' / 'imagenette_start' / 'kernels_paper.png'))
  right.set_title("Figure 3: conv1's kernels, trained here on Imagenette", fontsize=9)
  right.axis('off')
  figure.savefig(DOCS / 'overview.png', dpi=110)


if __name__ == '__main__':
  main()
