"""Seconds from `import alexnet_jax` to the first answer in a new process, and of the next answers.

  python benchmarks/inference.py
  python benchmarks/inference.py --config=configs/digits.py --runs=7

A network of random parameters is written as a safetensors file, as a checkpoint, and exported. Each
run is a process that imports, loads and classifies the same 500x375 pixels again and again: with
jax as it comes, and with a cache of compiled programs (JAX_COMPILATION_CACHE_DIR) that is filled.
"""

import argparse
import itertools
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLASSIFY = '--classify'  # as the first argument: one run
NEXT = 20  # answers after the first


def _classify(path: str) -> None:
  """Prints the seconds to import, to load, and of every answer."""
  laps = [time.perf_counter()]
  import alexnet_jax

  load = alexnet_jax.load
  laps.append(time.perf_counter())
  classifier = load(path)
  laps.append(time.perf_counter())
  import numpy as np

  image = np.random.default_rng(0).integers(0, 256, (375, 500, 3)).astype(np.uint8)
  for _ in range(1 + NEXT):
    classifier.predict(image)
    laps.append(time.perf_counter())
  print(json.dumps([b - a for a, b in itertools.pairwise(laps)]))


def _write(config_file: str, folder: Path) -> list[Path]:
  """Writes a random network in every form that `load` takes."""
  import jax
  import numpy as np

  from alexnet_jax import experiment
  from alexnet_jax.checkpoints import checkpoint, pretrained
  from alexnet_jax.convert.export import export
  from alexnet_jax.data import augment
  from alexnet_jax.models.alexnet import parameter_shapes

  config = runpy.run_path(config_file)['get_config']()
  net = experiment.make_network(config)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: 0.01 * rng.standard_normal(leaf.shape, np.float32), parameter_shapes(net)
  )
  mean = np.full((config.data.image_size, config.data.image_size, 3), 120, np.float32)
  found = augment.Statistics(mean, np.ones(3, np.float32), np.eye(3, dtype=np.float32))
  names = [f'class {i}' for i in range(net.num_classes)]
  network = pretrained.PretrainedNetwork(params, config, found, names, 1, '')
  pretrained.write(folder / 'alexnet.safetensors', network)
  start = time.perf_counter()
  export(network, folder / 'alexnet.jaxexport')
  print(f'exported in {time.perf_counter() - start:.1f} s', file=sys.stderr)
  writer = checkpoint.Writer(folder / 'checkpoints', 1)
  description = {
    'config': experiment.resolved(config), 'class_names': names, 'step': 1,
    'progress': {'best_step': 1},
  }  # fmt: skip
  writer.save(1, {'params': params, 'statistics': found._asdict()}, description, 1)
  writer.close()
  return [folder / name for name in ('alexnet.safetensors', 'checkpoints', 'alexnet.jaxexport')]


def main() -> None:
  """Prints the table."""
  sys.path.insert(0, str(ROOT))
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/imagenet.py')
  parser.add_argument('--runs', type=int, default=5, help='processes of each kind')
  args = parser.parse_args()

  from alexnet_jax.utils.display import print_table

  rows = []
  with tempfile.TemporaryDirectory() as folder:
    for path in _write(args.config, Path(folder)):
      for cache in ('', str(Path(folder) / 'jax')):
        environment = {
          k: v for k, v in os.environ.items() if not k.startswith('JAX_COMPILATION_CACHE')
        }
        environment['PYTHONPATH'] = str(ROOT)
        environment |= {'JAX_COMPILATION_CACHE_DIR': cache} if cache else {}
        laps = []
        for _ in range(args.runs + 1):
          done = subprocess.run(
            [sys.executable, __file__, CLASSIFY, str(path)],
            env=environment | {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
          )
          laps.append(json.loads(done.stdout))
          print(f'{path.name}: {sum(laps[-1][:3]):.2f} s', file=sys.stderr)
        laps = laps[1:]  # the first fills the cache
        firsts = [sum(lap[:3]) for lap in laps]
        medians = [statistics.median(column) for column in zip(*laps, strict=True)]
        following = statistics.median(answer for lap in laps for answer in lap[3:])
        whole = f'{statistics.median(firsts):.2f} ({min(firsts):.2f} - {max(firsts):.2f})'
        seconds = [*(f'{value:.2f}' for value in medians[:3]), whole, f'{following:.3f}']
        rows.append((path.name, 'filled' if cache else 'none', *seconds))
  print_table(
    f'{args.config}, {os.cpu_count()} cores, seconds, medians of {args.runs} processes',
    ('network', 'cache', 'import', 'load', 'first answer', 'all three', 'next answers'),
    rows,
  )


if __name__ == '__main__':
  if sys.argv[1:2] == [CLASSIFY]:
    _classify(sys.argv[2])
  else:
    main()
