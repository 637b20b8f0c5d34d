"""Where a step's time goes: each layer, with the norm and pool that follow it, forward and backward.

  python benchmarks/breakdown.py
  python benchmarks/breakdown.py --config=configs/cifar10.py --batch_size=128 --rounds=9

Each layer runs alone, compiled as in a training step, on what the layer before gave it: forward,
and forward with gradients of its parameters and inputs (of conv1's parameters alone), of which the
forward is taken off. They take turns. What XLA fuses across layers' ends is missing, so the sum is
set beside the time of the whole network.
"""

import argparse
import dataclasses
import runpy
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from alexnet_jax.utils import host

ROOT = Path(__file__).parents[1]


def main() -> None:
  """Prints the table."""
  host.prepare_process()
  sys.path.insert(0, str(ROOT))
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/imagenet.py')
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--precision', default='float32')
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()

  import flax.linen as nn
  import jax
  import jax.numpy as jnp

  from alexnet_jax import experiment
  from alexnet_jax.models import layers, summary
  from alexnet_jax.models.alexnet import AlexNet
  from alexnet_jax.models.options import ACTIVATIONS
  from alexnet_jax.parallel import xla
  from alexnet_jax.utils.display import print_table

  config = runpy.run_path(args.config)['get_config']()
  net = experiment.make_network(config)
  shape = (args.batch_size, net.input_size, net.input_size, 3)
  images = jax.random.normal(jax.random.key(1), shape).astype(args.precision)
  params = net.init(jax.random.key(0), images[:1])['params']
  positions = jnp.arange(args.batch_size)
  options = xla.options(jax.devices()[0].platform)
  rows = summary.rows(net)
  names = [row.layer for row in rows]
  dropout_key = jax.random.key(2)
  outputs = net.apply({'params': params}, images, dropout_key, positions)[1]

  class OneLayer(AlexNet):  # type: ignore[misc]
    """The network, of which one layer is run."""

    @nn.compact
    def __call__(self, name: str, columns: Any) -> Any:
      x = self._linear(name, self._both(columns) if name in self.cross_column else columns)
      for step in getattr(self, name).steps:
        if step == 'activation':
          x = [ACTIVATIONS[self.activation](column) for column in x]
        elif step == 'norm':
          x = self._response_norm(name, x) or x
          x = self._within_norm(name, x) or x
        else:
          x = self._pool(name, x) or x
      return self._dropout(name, x, dropout_key, positions) or x

  fields = (field.name for field in dataclasses.fields(net) if field.name not in ('parent', 'name'))
  one_layer = OneLayer(**{name: getattr(net, name) for name in fields})

  def inputs(i: int) -> list[Any]:
    """What a layer reads: the image, or the columns of the last step of the layer before."""
    if i == 0:
      return [images]
    last = [key for key in outputs if key.startswith(names[i - 1])][-1]
    columns = jnp.split(outputs[last], net.num_columns, axis=-1)
    flat = names[i].startswith('fc')
    return [x.reshape(len(x), -1) for x in columns] if flat else columns

  def layer(i: int, backward: bool) -> Any:
    def forward(used: Any, columns: list[Any]) -> Any:
      if names[i] == 'fc8':
        output = layers.Output(net.num_classes, None)
        return output.apply({'params': used}, columns)
      return one_layer.apply({'params': {names[i]: used}}, names[i], columns)

    def gradients(used: Any, columns: list[Any], cotangents: Any) -> Any:
      if i == 0:
        return jax.vjp(lambda used: forward(used, columns), used)[1](cotangents)
      return jax.vjp(forward, used, columns)[1](cotangents)

    arguments: list[Any] = [params[names[i]], inputs(i)]
    if backward:
      given = jax.eval_shape(forward, *arguments)
      arguments.append(jax.tree.map(lambda y: jnp.ones(y.shape, y.dtype), given))
    compiled = jax.jit(gradients if backward else forward, compiler_options=options)
    return lambda: jax.block_until_ready(compiled(*arguments))

  def whole(backward: bool) -> Any:
    def total(params: Any) -> Any:
      return net.apply({'params': params}, images, dropout_key, positions)[0].sum()

    compiled = jax.jit(jax.grad(total) if backward else total, compiler_options=options)
    return lambda: jax.block_until_ready(compiled(params))

  runs = {
    (i, backward): layer(i, backward) for i in range(len(names)) for backward in (False, True)
  }
  runs |= {(-1, backward): whole(backward) for backward in (False, True)}
  seconds: dict[tuple[int, bool], list[float]] = {key: [] for key in runs}
  for run in runs.values():
    run()
  for number in range(args.rounds):
    print(f'round {number + 1} of {args.rounds}', file=sys.stderr)
    for key, run in runs.items():
      run()  # takes back the memory that others used
      start = time.perf_counter()
      run()
      seconds[key].append(time.perf_counter() - start)
  medians = {key: statistics.median(values) for key, values in seconds.items()}

  cells = []
  all_forward = all_backward = 0.0
  for i, row in enumerate(rows):
    forward = medians[i, False]
    backward = medians[i, True] - forward
    all_forward, all_backward = all_forward + forward, all_backward + backward
    flop = 2 * row.multiply_adds * args.batch_size
    cells.append(
      (
        row.layer,
        f'{forward * 1e3:,.1f}',
        f'{flop / forward / 1e9:,.0f}',
        f'{backward * 1e3:,.1f}',
        f'{flop * (1 if i == 0 else 2) / backward / 1e9:,.0f}' if backward > 0 else '',
        f'{medians[i, True] / medians[-1, True]:.1%}',
      )
    )
  cells.append(
    ('sum', f'{all_forward * 1e3:,.1f}', '', f'{all_backward * 1e3:,.1f}', '',
     f'{(all_forward + all_backward) / medians[-1, True]:.1%}')
  )  # fmt: skip
  device = jax.devices()[0].device_kind
  print_table(
    f'{args.config}, batch {args.batch_size}, {args.precision}, one device ({device}),'
    f' medians of {args.rounds} rounds',
    ('layer', 'forward ms', 'GFLOP/s', 'backward ms', 'GFLOP/s', 'share'),
    cells,
    (
      'whole network',
      f'{medians[-1, False] * 1e3:,.1f}',
      '',
      f'{(medians[-1, True] - medians[-1, False]) * 1e3:,.1f}',
      '',
      '100.0%',
    ),
  )


if __name__ == '__main__':
  main()
