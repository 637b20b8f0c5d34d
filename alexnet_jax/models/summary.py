"""The network as a table: what each layer has, and what it costs."""

import dataclasses
import math
from collections.abc import Sequence

from alexnet_jax.models.alexnet import AlexNet, array_shapes
from alexnet_jax.models.options import CONVOLUTIONS, LAYERS
from alexnet_jax.utils.display import short_number


@dataclasses.dataclass(frozen=True)
class Row:
  """One layer.

  Attributes:
    layer: its name.
    output: shape of its output for one image, over all columns, before any pooling.
    pooled: the same after pooling; None where there is none.
    kernels: a description such as '256 of 5x5x48'.
    reads: the 'image', maps of its 'own' column or of 'both', or 'all' where there is one.
    parameters: weights and biases.
    neurons: size of `output`.
    multiply_adds: multiplications of weights with inputs for one image.
  """

  layer: str
  output: tuple[int, ...]
  pooled: tuple[int, ...] | None
  kernels: str
  reads: str
  parameters: int
  neurons: int
  multiply_adds: int


def rows(net: AlexNet) -> list[Row]:
  """A row for each layer that the network has, without computing anything."""
  outputs, params = array_shapes(net)
  table = []
  for name in LAYERS:
    if name not in outputs:
      continue
    kernel, bias = params[name]['kernel'], params[name]['bias']
    output = outputs[name]
    if name in CONVOLUTIONS:
      side, inputs = 'x'.join(map(str, kernel.shape[-4:-2])), kernel.shape[-2]
      kind = ' a place' if name in net.locally_connected else ''
      kernels = f'{kernel.shape[-1]}{kind} of {side}x{inputs}'
      shared = name not in net.locally_connected
      multiply_adds = kernel.size * (output[0] * output[1] if shared else 1)
    else:
      kernels, multiply_adds = f'{kernel.shape[-1]} of {kernel.shape[0]}', kernel.size
    reads = 'both' if name in net.cross_column or name == 'fc8' else 'own'
    if net.num_columns == 1:
      reads = 'all'
    pooled = outputs.get(f'{name}_pool')
    table.append(
      Row(
        name,
        output,
        pooled,
        kernels,
        'image' if name == 'conv1' else reads,
        kernel.size + bias.size,
        math.prod(output),
        multiply_adds,
      )
    )
  return table


HEADINGS = (
  'layer', 'output', 'pooled', 'kernels', 'reads', 'parameters', 'neurons', 'MACs',
)  # fmt: skip
"""Of the cells that `cells` and `total` give; MACs are multiply-adds."""


def cells(row: Row) -> tuple[str, ...]:
  """A layer as text."""
  return (
    row.layer, _shape(row.output), _shape(row.pooled), row.kernels, row.reads, *_counts([row]),
  )  # fmt: skip


def total(rows: Sequence[Row]) -> tuple[str, ...]:
  """The sums over all layers as text."""
  return ('total', '', '', '', '', *_counts(rows))


def _shape(sizes: Sequence[int] | None) -> str:
  return 'x'.join(map(str, sizes)) if sizes else ''


def _counts(rows: Sequence[Row]) -> tuple[str, str, str]:
  return (
    f'{sum(row.parameters for row in rows):,}',
    f'{sum(row.neurons for row in rows):,}',
    short_number(sum(row.multiply_adds for row in rows)),
  )
