"""Images/s of training and prediction under several versions of JAX, in turns on one machine.

  python benchmarks/versions.py --python=jax072/bin/python,jax0102/bin/python,jax012/bin/python

Each interpreter is of an environment with a version of JAX and the project's other dependencies; the
project itself is this checkout. The contestants are those of `train_step.py` and `predict.py`: of
one mode, all versions take turns.

With `--flags` every version also runs with these XLA_FLAGS in place of the options that
`alexnet_jax/parallel/xla.py` chooses; several values are separated by semicolons:

  python benchmarks/versions.py --python=jax012/bin/python --mode=train \
    --flags='--xla_cpu_experimental_ynn_fusion_type=;--xla_cpu_use_fusion_emitters=false'
"""

import argparse
import datetime
import os
import statistics
import sys
from typing import Any

import contest


def _rates(args: argparse.Namespace, mode: str) -> list[contest.Contestant]:
  """The contestants of a mode, one a version, their turns done."""
  contestants = [
    contest.start(
      f'{python}, {mode}, {flags}'.removesuffix(', '),
      args.batch_size,
      contest.command(
        args.config, mode, args.batch_size, without=['library_fusions'] * bool(args.plain or flags)
      ),
      {**os.environ, 'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip()},
      python,
    )
    for python in args.python
    for flags in ('', *args.flags)
  ]
  contest.take_turns(contestants, args.rounds, args.steps)
  return contestants


def _cell(contestant: contest.Contestant) -> str:
  rates = [contestant.images / seconds for seconds in contestant.seconds]
  return f'{statistics.median(rates):,.1f} ({min(rates):,.1f} - {max(rates):,.1f})'


def _options(ready: dict[str, Any]) -> str:
  """XLA's options, without what their values have in common."""
  values = [f'{name}={value}' for name, value in ready['options'].items()]
  return ' '.join(values).replace('LIBRARY_FUSION_TYPE_', '') or 'none'


def main() -> None:
  """Runs the contest, and prints what came of it."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--python', type=lambda text: text.split(','), required=True, help='interpreters, as a,b'
  )
  parser.add_argument('--config', default='configs/imagenet.py', help='any config')
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--rounds', type=int, default=5, help='turns of each version')
  parser.add_argument('--steps', type=int, default=2, help='steps that count in a turn')
  parser.add_argument('--mode', type=lambda text: text.split(','), default=['train', 'predict'])
  parser.add_argument(
    '--flags', type=lambda text: text.split(';'), default=[], help='XLA_FLAGS to try, as a;b'
  )
  parser.add_argument(
    '--plain', action='store_true', help="without XLA's options, as its CPU backend comes"
  )
  args = parser.parse_args()
  rates = {mode: _rates(args, mode) for mode in args.mode}
  sys.path.insert(0, str(contest.ROOT))
  from alexnet_jax.utils import provenance
  from alexnet_jax.utils.display import print_table

  print_table(
    f'{args.config}, batch {args.batch_size}, images/s: medians of {args.rounds} turns, lowest -'
    f' highest; {provenance.processor()}, on {len(os.sched_getaffinity(0))} of them, {datetime.date.today()}',
    ('JAX', 'Python', 'flax', *args.mode, "XLA's options"),
    [
      (
        same[0].ready['versions']['jax'],
        same[0].ready['python'],
        same[0].ready['versions']['flax'],
        *map(_cell, same),
        same[0].name.partition('--')[2] or _options(same[0].ready),
      )
      for same in zip(*rates.values(), strict=True)
    ],
  )


if __name__ == '__main__':
  main()
