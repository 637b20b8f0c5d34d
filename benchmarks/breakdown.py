"""Where a step's time goes: each layer, with the norm and pool that follow it, forward and backward.

  python benchmarks/breakdown.py
  python benchmarks/breakdown.py --config=configs/cifar10.py --batch_size=128 --rounds=9

A layer's forward time is that of the network up to it, less that of the network up to the layer
before; the same with gradients, less the forward, is its backward. The prefixes take turns. What
XLA fuses across a layer's end is counted where it falls, so small layers may come out as nothing.
"""

import argparse
import runpy
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from alexnet_jax import host

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

  import jax
  import jax.numpy as jnp

  from alexnet_jax import compilation, experiment, summary
  from alexnet_jax.display import print_table

  config = runpy.run_path(args.config)['get_config']()
  net = experiment.make_network(config)
  shape = (args.batch_size, net.input_size, net.input_size, 3)
  images = jax.random.normal(jax.random.key(1), shape).astype(args.precision)
  params = net.init(jax.random.key(0), images[:1])['params']
  positions = jnp.arange(args.batch_size)
  options = compilation.options(jax.devices()[0].platform)
  rows = summary.rows(net)
  names = [row.layer for row in rows]
  ends = {
    name: [
      key
      for key in jax.eval_shape(net.apply, {'params': params}, images)[1]
      if key.startswith(name)
    ][-1]
    for name in names
  }

  def prefix(name: str, backward: bool) -> Any:
    used = {layer: params[layer] for layer in names[: names.index(name) + 1]}
    rest = {layer: params[layer] for layer in names[names.index(name) + 1 :]}

    def total(used: Any, images: Any) -> Any:
      variables = {'params': {**used, **rest}}
      _, outputs = net.apply(variables, images, jax.random.key(2), positions)
      return jnp.sum(outputs[ends[name]].astype(jnp.float32) ** 2)

    function = jax.grad(total) if backward else total
    compiled = jax.jit(function, compiler_options=options).lower(used, images).compile()
    return lambda: jax.block_until_ready(compiled(used, images))

  runs = {(name, backward): prefix(name, backward) for name in names for backward in (False, True)}
  seconds: dict[tuple[str, bool], list[float]] = {key: [] for key in runs}
  for run in runs.values():
    run()
  for number in range(args.rounds):
    print(f'round {number + 1} of {args.rounds}', file=sys.stderr)
    for key, run in runs.items():
      start = time.perf_counter()
      run()
      seconds[key].append(time.perf_counter() - start)
  medians = {key: statistics.median(values) for key, values in seconds.items()}

  cells, before, before_both = [], 0.0, 0.0
  for i, row in enumerate(rows):
    forward = medians[row.layer, False] - before
    both = medians[row.layer, True] - before_both
    before, before_both = medians[row.layer, False], medians[row.layer, True]
    flop = 2 * row.multiply_adds * args.batch_size
    flop_backward = flop * (1 if i == 0 else 2)
    cells.append(
      (
        row.layer,
        f'{forward * 1e3:,.1f}',
        f'{flop / forward / 1e9:,.0f}' if forward > 0 else '',
        f'{(both - forward) * 1e3:,.1f}',
        f'{flop_backward / (both - forward) / 1e9:,.0f}' if both > forward else '',
        f'{both / medians[names[-1], True]:.1%}',
      )
    )
  device = jax.devices()[0].device_kind
  print_table(
    f'{args.config}, batch {args.batch_size}, {args.precision}, one device ({device}),'
    f' medians of {args.rounds} rounds',
    ('layer', 'forward ms', 'GFLOP/s', 'backward ms', 'GFLOP/s', 'share'),
    cells,
    ('all', f'{before * 1e3:,.1f}', '', f'{(before_both - before) * 1e3:,.1f}', '', '100.0%'),
  )


if __name__ == '__main__':
  main()
