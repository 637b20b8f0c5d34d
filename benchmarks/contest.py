"""What `train_step.py` and `predict.py` share: contestants in processes of their own take turns.

A contestant says that it is ready with a line of JSON; then, for each number of steps that it
reads, it runs so many and says how long they took; at the end of its input, what memory it had.
While one runs the others wait, so a round compares neighbors in time on a noisy machine.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TOGGLES = ('library_fusions', 'huge_pages')
MATMUL = {'cpu': (21632, 2304, 384), 'gpu': (8192, 8192, 8192), 'tpu': (8192, 8192, 8192)}


@dataclasses.dataclass
class Contestant:
  """A process that runs steps when it is asked to.

  Attributes:
    name: for the table.
    images: of a step.
    ready: what it said when it was.
    seconds: of a step, the mean of each turn.
    matmul: FLOP/s of a matrix product, one number a turn; none for the peer.
    peak_bytes: memory at the end.
  """

  name: str
  images: int
  process: subprocess.Popen[str]
  ready: dict[str, Any] = dataclasses.field(default_factory=dict)
  seconds: list[float] = dataclasses.field(default_factory=list)
  matmul: list[float] = dataclasses.field(default_factory=list)
  peak_bytes: int = 0

  def reads(self) -> dict[str, Any]:
    """The next line that it prints; ends the program where it prints none."""
    assert self.process.stdout is not None
    line = self.process.stdout.readline()
    if not line:
      sys.exit(f'{self.name} ended with exit code {self.process.wait()}')
    said: dict[str, Any] = json.loads(line)
    return said

  def turn(self, steps: int) -> None:
    """Runs one step, in which memory that others used comes back, and then those that count."""
    assert self.process.stdin is not None
    for count in (1, steps):
      self.process.stdin.write(f'{count}\n')
      self.process.stdin.flush()
      said = self.reads()
    self.seconds.append(statistics.mean(said['seconds']))
    self.matmul += [said['matmul']] if 'matmul' in said else []

  def ends(self) -> None:
    """Asks for its memory, and waits for its end."""
    assert self.process.stdin is not None
    self.process.stdin.close()
    self.peak_bytes = self.reads()['peak_memory_bytes']
    self.process.wait()


def start(
  name: str,
  images: int,
  command: Sequence[str],
  environment: dict[str, str],
  python: str = sys.executable,
  folder: Path = ROOT,
) -> Contestant:
  """A contestant, once it is ready: a Python file and its arguments, their interpreter and folder."""
  print(f'starting {name}', file=sys.stderr)
  process = subprocess.Popen(
    [python, *command],
    cwd=folder,
    env=environment,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  contestant = Contestant(name, images, process)
  contestant.ready = contestant.reads()
  return contestant


def command(
  config: str,
  mode: str,
  batch_size: int,
  *,
  precision: str = 'float32',
  column_devices: int = 1,
  data_devices: int = 1,
  without: Sequence[str] = (),
  cache: str = '',
  compile_only: bool = False,
) -> list[str]:
  """What starts one of our contestants.

  Args:
    config: a config's file.
    mode: train or predict.
    batch_size: images of a step.
    precision: one of `xla.PRECISIONS`.
    column_devices: over how many devices the columns are spread.
    data_devices: over how many of those a batch is.
    without: which of TOGGLES are off.
    cache: the folder of jax's compilation cache; '' for none.
    compile_only: whether it is only to compile.
  """
  return [__file__, json.dumps(locals())]


def _contestants(
  args: argparse.Namespace, mode: str, cache: str, compile_only: bool = False
) -> Iterator[Contestant]:
  variants = [[], *([toggle] for toggle in args.without)]
  for batch_size in args.batch_size:
    for precision in args.precision:
      for devices in args.column_devices:
        for without in variants:
          name = f'{precision}, {devices} device{"s" * (devices > 1)}'
          ours = command(
            args.config,
            mode,
            batch_size,
            precision=precision,
            column_devices=devices,
            data_devices=args.data_devices,
            without=without,
            cache=cache,
            compile_only=compile_only,
          )
          environment = dict(os.environ)
          if 'huge_pages' in without:
            environment['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=0'
          name = ', '.join([name, *(f'without {toggle}' for toggle in without)])
          yield start(name, batch_size, ours, environment)
          if args.before:
            theirs = [str(args.before / 'benchmarks' / 'contest.py'), ours[1]]
            yield start(
              f'{name}, {args.before.name}', batch_size, theirs, environment, folder=args.before
            )
    for precision in args.peer_precision if args.peer else ():
      peer = [
        str(ROOT / 'benchmarks' / 'pytorch_peer.py'),
        f'--config={args.config}',
        f'--mode={mode}',
        f'--batch_size={batch_size}',
        f'--precision={precision}',
      ]
      for pages in ('', *(['huge pages'] if args.peer_huge_pages else [])):
        environment = {**os.environ, 'TORCHINDUCTOR_CACHE_DIR': f'{cache}/{len(pages)}{precision}'}
        if pages:
          environment['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
        name = f'PyTorch compiled, {precision}{", " + pages if pages else ""}'
        yield start(name, batch_size, peer, environment)


def _work(options: dict[str, Any]) -> None:
  """Our contestant: builds a step, and runs it as it is asked."""
  sys.path.insert(0, str(ROOT))  # configs import each other; the package may not be installed
  from alexnet_jax.utils import host

  host.prepare_process()
  import jax
  import jax.numpy as jnp
  from communication import training_flop
  from prepared import prepare

  from alexnet_jax.models import summary
  from alexnet_jax.parallel import xla

  config = runpy.run_path(options['config'])['get_config']()
  config.train.batch_size = batch_size = options['batch_size']
  config.mesh.column_devices = options['column_devices']
  config.mesh.data_devices = options['data_devices']
  if options['cache']:
    jax.config.update('jax_compilation_cache_dir', options['cache'])
  fusions = 'library_fusions' not in options['without']
  prepared = prepare(
    config,
    options['mode'],
    batch_size,
    precision=options['precision'],
    library_fusions=fusions,
  )
  net, mesh, arguments = prepared.net, prepared.mesh, prepared.arguments()
  lowered = prepared.jitted.lower(*arguments)
  start = time.perf_counter()
  step = lowered.compile()
  compile_seconds = time.perf_counter() - start

  def run(steps: int) -> float:
    """Seconds a step, the host waiting for the last only."""
    nonlocal arguments
    start, last = time.perf_counter(), None
    for _ in range(steps):
      arguments, last = prepared.advance(step, arguments)
    jax.block_until_ready(last)
    return (time.perf_counter() - start) / steps

  platform_name = mesh.devices.flat[0].platform
  rows, inner, columns = MATMUL[platform_name]
  a = jnp.ones((rows, inner), options['precision'])
  b = jnp.ones((inner, columns), options['precision'])
  product = jax.jit(
    lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32),
    compiler_options=xla.options(platform_name, fusions),
  )

  def matmul() -> float:
    """FLOP/s of one device, or of all emulated ones."""
    product(a, b).block_until_ready()
    start = time.perf_counter()
    product(a, b).block_until_ready()
    return 2 * rows * inner * columns / (time.perf_counter() - start)

  if not options['compile_only']:
    run(1)
    matmul()
  forward = 2 * sum(row.multiply_adds for row in summary.rows(net))
  analysis = step.memory_analysis()
  ready = {
    'ready': True,
    'compile_seconds': compile_seconds,
    'flop': batch_size * (training_flop(net) if options['mode'] == 'train' else forward),
    'device': mesh.devices.flat[0].device_kind,
    'platform': platform_name,
    'temporary_bytes': analysis.temp_size_in_bytes,
    'argument_bytes': analysis.argument_size_in_bytes,
    'python': platform.python_version(),
    'versions': _versions(),
    'options': xla.options(platform_name, fusions),
  }
  print(json.dumps(ready), flush=True)
  for line in sys.stdin:
    said = {'seconds': [run(int(line))], 'matmul': matmul()}
    print(json.dumps(said), flush=True)
  in_use = mesh.devices.flat[0].memory_stats() if platform_name != 'cpu' else None
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  print(json.dumps({'peak_memory_bytes': in_use['peak_bytes_in_use'] if in_use else peak}))


def _integers(text: str) -> list[int]:
  return [int(part) for part in text.split(',')]


def _names(text: str) -> list[str]:
  return text.split(',')


def _parser(description: str) -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/imagenet.py', help='any config')
  parser.add_argument('--batch_size', type=_integers, default=[128], help='as 128 or 128,1024')
  parser.add_argument('--precision', type=_names, default=['float32'], help='float32,bfloat16')
  parser.add_argument('--column_devices', type=_integers, default=[1], help='1, 2 or 1,2')
  parser.add_argument('--data_devices', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=7, help='turns of each contestant')
  parser.add_argument('--steps', type=int, default=2, help='steps that count in a turn')
  parser.add_argument(
    '--without', type=_names, default=[], help=f'and again without one of {", ".join(TOGGLES)}'
  )
  parser.add_argument(
    '--before',
    type=lambda path: Path(path).resolve(),
    help='another checkout of this project, to time too',
  )
  parser.add_argument('--peer', action='store_true', help='PyTorch too, where it is installed')
  parser.add_argument('--peer_precision', type=_names, default=['float32', 'bfloat16'])
  parser.add_argument(
    '--peer_huge_pages',
    action='store_true',
    help='PyTorch again, with the huge pages that we ask for',
  )
  parser.add_argument('--json', type=Path, help='write the figures to this file as well')
  return parser


def take_turns(contestants: Sequence[Contestant], rounds: int, steps: int) -> None:
  """Runs so many rounds, in each of which every contestant has a turn, and ends them."""
  for number in range(rounds):
    print(f'round {number + 1} of {rounds}', file=sys.stderr)
    for contestant in contestants:
      contestant.turn(steps)
  for contestant in contestants:
    contestant.ends()


def _figures(contestant: Contestant) -> dict[str, Any]:
  seconds, ready, images = contestant.seconds, contestant.ready, contestant.images
  rates = sorted(images / one for one in seconds)
  median = statistics.median(rates)
  figures = {
    'contestant': contestant.name,
    'batch_size': images,
    'images_per_second': median,
    'lowest': rates[0],
    'highest': rates[-1],
    'n': len(rates),
    'peak_memory_bytes': contestant.peak_bytes,
    'compile_seconds': ready.get('compile_seconds', ready.get('first_step_seconds')),
  }
  if contestant.matmul:
    figures['flop_per_second'] = ready['flop'] / images * median
    figures['matmul_flop_per_second'] = statistics.median(contestant.matmul)
    figures['temporary_bytes'] = ready['temporary_bytes']
  return figures


def main(mode: str, description: str) -> None:
  """Runs the contest, and prints and writes what came of it."""
  args = _parser(description).parse_args()
  if unknown := set(args.without) - set(TOGGLES):
    sys.exit(f'--without={",".join(unknown)}: it must be {" or ".join(TOGGLES)}')
  if args.peer and importlib.util.find_spec('torch') is None:
    sys.exit('--peer needs PyTorch: pip install torch')
  from alexnet_jax.utils import provenance
  from alexnet_jax.utils.display import print_table

  with tempfile.TemporaryDirectory() as cache:
    contestants = list(_contestants(args, mode, cache))
    take_turns(contestants, args.rounds, args.steps)
    figures = [_figures(contestant) for contestant in contestants]
    args.peer_precision = []
    for again in _contestants(
      args, mode, cache, compile_only=True
    ):  # the same programs, out of the cache
      again.process.kill()
      at = again.name, again.images
      same = next(row for row in figures if (row['contestant'], row['batch_size']) == at)
      same['cached_compile_seconds'] = again.ready['compile_seconds']
  device = next((one.ready['device'] for one in contestants if 'device' in one.ready), '')
  versions = _versions()
  if args.peer:
    versions['torch'] = importlib.metadata.version('torch')
  where = {
    'mode': mode,
    'config': args.config,
    'command': ' '.join(['python', *sys.argv]),
    'date': datetime.date.today().isoformat(),
    'device': device,
    'processor': provenance.processor(),
    'cores': len(os.sched_getaffinity(0)),
    'versions': versions,
  }
  if args.json:
    args.json.write_text(json.dumps({**where, 'figures': figures}, indent=2) + '\n')
  first = figures[0]['images_per_second']
  print_table(
    f'{args.config}, {mode}; {where["processor"]}, {where["cores"]} cores, {device};'
    f' {", ".join(f"{k} {v}" for k, v in versions.items())}; {where["date"]};'
    f' medians of {figures[0]["n"]} turns',
    (
      'contestant', 'batch', 'images/s', 'lowest - highest', 'first is', 'GFLOP/s', 'of matmul',
      'peak GB', 'compile s', 'cached s',
    ),
    [_cells(f, first) for f in figures],
  )  # fmt: skip


def _cells(figures: dict[str, Any], first: float) -> tuple[str, ...]:
  rate, matmul = figures.get('flop_per_second'), figures.get('matmul_flop_per_second')
  cached = figures.get('cached_compile_seconds')
  return (
    figures['contestant'],
    f'{figures["batch_size"]:,}',
    _number(figures['images_per_second']),
    f'{_number(figures["lowest"])} - {_number(figures["highest"])}',
    f'{first / figures["images_per_second"]:.2f} x',
    f'{rate / 1e9:,.0f}' if rate else '',
    f'{rate / matmul:.2f} of {matmul / 1e9:,.0f}' if rate and matmul else '',
    f'{figures["peak_memory_bytes"] / 1e9:.2f}',
    f'{figures["compile_seconds"]:.1f}' if figures['compile_seconds'] else '',
    f'{cached:.1f}' if cached else '',
  )


def _number(value: float) -> str:
  return f'{value:,.1f}' if value < 1000 else f'{value:,.0f}'


def _versions() -> dict[str, str]:
  return {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}


if __name__ == '__main__':
  _work(json.loads(sys.argv[1]))
