"""Seconds from the command to the first training step dispatched, without and with a warm cache.

  python benchmarks/startup.py
  python benchmarks/startup.py --config=configs/imagenet.py --config.data.data_dir=TFDS_FOLDER

Each run is a process of its own with a new workdir, on data that have been prepared; the first has
an empty compilation cache, the others find it filled. Other arguments go to launch.py as they are.
"""

import argparse
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIRST_STEP = '--first-step'  # as the first argument: run launch.py up to there
SINCE = 'STARTUP_BENCHMARK_SINCE'


def _first_step(arguments: list[str]) -> None:
  """launch.py, but for printing when the first step has been dispatched, and ending there."""
  from alexnet_jax.utils import host

  host.prepare_process()
  sys.path.insert(0, str(ROOT))
  sys.argv = [str(ROOT / 'launch.py'), *arguments]
  from alexnet_jax.training import step as step_lib

  make = step_lib.make_train_step

  def make_first(*args: Any, **options: Any) -> Callable[..., None]:
    step = make(*args, **options)

    def first(*arguments: Any) -> None:
      step(*arguments)
      print(f'{time.time() - float(os.environ[SINCE]):.2f}', flush=True)
      os._exit(0)

    first.lower = step.lower  # type: ignore[attr-defined]  # what the loop asks for its memory
    return first

  step_lib.make_train_step = make_first
  runpy.run_path(sys.argv[0], run_name='__main__')


def main() -> None:
  """Prints the seconds of a cold run, and of warm ones."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/digits.py')
  parser.add_argument('--runs', type=int, default=5, help='with a warm cache')
  args, others = parser.parse_known_args()
  command = [sys.executable, __file__, FIRST_STEP, f'--config={args.config}']
  # Without a cache of the user's, so that the first run finds none.
  environment = {k: v for k, v in os.environ.items() if not k.startswith('JAX_COMPILATION_CACHE')}
  seconds = []
  with tempfile.TemporaryDirectory() as cache:
    for number in range(args.runs + 1):
      with tempfile.TemporaryDirectory() as workdir:
        done = subprocess.run(
          [*command, *others, f'--workdir={workdir}'],
          cwd=ROOT,
          env={**environment, 'XDG_CACHE_HOME': cache, SINCE: repr(time.time())},
          stdout=subprocess.PIPE,
          text=True,
          check=True,
        )
      seconds.append(float(done.stdout.splitlines()[-1]))
      print(f'run {number}: {seconds[-1]:.2f} s', file=sys.stderr)
  warm = seconds[1:]
  print(
    f'{args.config}: {seconds[0]:.1f} s with an empty cache, {statistics.median(warm):.1f} s'
    f' ({min(warm):.1f} - {max(warm):.1f}, n={len(warm)}) with a warm one'
  )


if __name__ == '__main__':
  if sys.argv[1:2] == [FIRST_STEP]:
    _first_step(sys.argv[2:])
  else:
    main()
