"""The full network on one GPU: images/s in both precisions, beside PyTorch's, and what bounds them.

  python benchmarks/gpu.py
  python benchmarks/gpu.py --peer --profile=1024

One process compiles all of our programs, and PyTorch's run in processes of their own (`--peer`), which
wait while ours run; so all take turns on one card. It needs no TensorFlow and no data. float32
products are TF32 on a GPU, as XLA and PyTorch compute them there by default.
"""

import argparse
import collections
import functools
import glob
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch wants memory too

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from communication import training_flop  # noqa: E402
from prepared import prepare  # noqa: E402

from alexnet_jax import experiment  # noqa: E402
from alexnet_jax.models import summary  # noqa: E402
from alexnet_jax.parallel import memory  # noqa: E402
from configs import imagenet  # noqa: E402

MODES = ('train', 'predict')


def log(*words: object) -> None:
  """Prints at once."""
  print(*words, flush=True)


def programs(
  mode: str, batch_size: int, precision: str, options: dict[str, Any] | None = None
) -> tuple[Callable[..., Any], Any]:
  """Compiles a step of the paper's network on one device.

  Args:
    mode: 'train' or 'predict'.
    batch_size: images a step.
    precision: 'float32' or 'bfloat16'.
    options: of XLA.

  Returns:
    A function that runs so many steps and returns the last result, and the compiled program.
  """
  config = imagenet.get_config()
  config.mesh.column_devices = config.mesh.data_devices = 1
  step = prepare(config, mode, batch_size, precision=precision)
  arguments = step.arguments()
  start = time.perf_counter()
  program = step.jitted.lower(*arguments).compile(options)
  seconds = time.perf_counter() - start
  log(f'  compiled {mode} {batch_size} {precision} {options or ""}: {seconds:.1f} s')

  def run(steps: int, fresh: bool = False) -> Any:
    nonlocal arguments
    last = None
    if fresh:
      arguments = step.arguments()
    for _ in range(steps):
      arguments, last = step.advance(program, arguments)
    return jax.block_until_ready((arguments[0], last))

  run(3)
  return run, program


def rate(run: Callable[[int], Any], batch_size: int) -> float:
  """Images a second, over steps that take about a fifth of a second."""
  steps = max(3, 8192 // batch_size)
  start = time.perf_counter()
  run(steps)
  return steps * batch_size / (time.perf_counter() - start)


def matrix_product(precision: str) -> float:
  """FLOP/s of a product of two 8192 x 8192 matrices."""
  n = 8192
  a = jax.random.normal(jax.random.key(0), (n, n), precision)
  product = jax.jit(functools.partial(jnp.matmul, preferred_element_type=precision))
  product(a, a).block_until_ready()
  seconds = []
  for _ in range(5):
    start = time.perf_counter()
    product(a, a).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 2 * n**3 / min(seconds)


def peers(batch_sizes: list[int]) -> Iterator[tuple[str, int, subprocess.Popen[str]]]:
  """Starts PyTorch's, compiled, channels_last, in bfloat16."""
  for mode, batch_size in itertools.product(MODES, batch_sizes):
    command = [
      sys.executable, str(ROOT / 'benchmarks/pytorch_peer.py'), '--device=cuda', '--channels_last',
      '--precision=bfloat16', f'--mode={mode}', f'--batch_size={batch_size}',
    ]  # fmt: skip
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    yield mode, batch_size, subprocess.Popen(command, text=True, cwd=ROOT, **pipes)  # type: ignore[call-overload]


def peer_rate(process: subprocess.Popen[str], batch_size: int) -> float:
  """Images a second of a process of PyTorch's."""
  assert process.stdin is not None
  assert process.stdout is not None
  process.stdin.write(f'{max(3, 8192 // batch_size)}\n')
  process.stdin.flush()
  return batch_size / statistics.mean(json.loads(process.stdout.readline())['seconds'])


def spread(rates: list[float]) -> str:
  """The median, and the lowest and the highest."""
  return f'{statistics.median(rates):,.0f} images/s ({min(rates):,.0f} - {max(rates):,.0f})'


def profile(run: Callable[[int], Any], steps: int = 3) -> None:
  """Prints the kernels that take longest."""
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run(steps)
    (path,) = glob.glob(f'{folder}/**/*.xplane.pb', recursive=True)
    seconds: collections.Counter[str] = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(path).planes:
      for line in plane.lines:
        if 'GPU' in plane.name and line.name.startswith('Stream'):
          for event in line.events:
            seconds[event.name[:60]] += event.duration_ns / steps / 1e9
  total = sum(seconds.values())
  log(f'  kernels: {1e3 * total:.2f} ms a step')
  for name, each in seconds.most_common(16):
    log(f'    {1e6 * each:8.0f} us {each / total:6.1%}  {name}')


def determinism(run: Callable[..., Any]) -> bool:
  """Whether two trainings of five steps end in the same bits."""
  ends = [jax.tree.map(np.asarray, run(5, fresh=True)[0].params) for _ in range(2)]
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, *ends)))


def main() -> None:
  """Runs all that was asked for."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--peer', action='store_true', help='PyTorch too, where it is installed')
  parser.add_argument('--batch_size', default='128,1024', help='4096 compiles for minutes')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--profile', type=int, default=0, help='batch whose training is profiled')
  parser.add_argument('--determinism', action='store_true')
  args = parser.parse_args()
  sizes = [int(size) for size in args.batch_size.split(',')]
  if args.peer and importlib.util.find_spec('torch') is None:
    parser.error('--peer needs PyTorch: pip install torch')
  if args.profile and args.profile not in sizes:
    parser.error(f'--profile={args.profile} is not among --batch_size={args.batch_size}')
  device = jax.devices()[0]
  log(f'{device.device_kind}, jax {jax.__version__}')
  others = []
  # Before XLA tries out kernels, which they would disturb; one after the other for the same reason.
  for mode, size, process in peers(sizes) if args.peer else ():
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    log(
      f'  PyTorch {ready["version"]} {mode} {size}: first step {ready["first_step_seconds"]:.0f} s'
    )
    others.append((mode, size, process))
  ours = {
    (mode, size, precision): programs(mode, size, precision)
    for mode, size, precision in itertools.product(MODES, sizes, ('bfloat16', 'float32'))
  }
  products = {precision: matrix_product(precision) for precision in ('bfloat16', 'float32')}
  log(', '.join(f'{name} product: {flop / 1e12:.0f} TFLOP/s' for name, flop in products.items()))
  rates: dict[Any, list[float]] = collections.defaultdict(list)
  for _ in range(args.rounds):
    for (mode, size, precision), (run, _) in ours.items():
      rates[mode, size, precision].append(rate(run, size))
    for mode, size, process in others:
      rates[mode, size, 'PyTorch bfloat16'].append(peer_rate(process, size))
  for _, _, process in others:
    process.kill()
  net = experiment.make_network(imagenet.get_config())
  forward = 2 * sum(row.multiply_adds for row in summary.rows(net))
  of_image = {'train': training_flop(net), 'predict': forward}
  for (mode, size, name), found in sorted(rates.items()):
    flop = statistics.median(found) * of_image[mode]
    share = f', {flop / products[name]:.2f} of the product' if name in products else ''
    log(f'{mode:8} {size:5} {name:17} {spread(found)}, {flop / 1e12:.0f} TFLOP/s{share}')
  for (mode, size, precision), (_, program) in ours.items():
    analysis = program.memory_analysis()
    log(f'memory of {mode} {size} {precision}: {analysis.temp_size_in_bytes / 1e9:.2f} GB')
  config = imagenet.get_config()
  config.mesh.column_devices = 1
  stats = device.memory_stats() or {}
  log(f'free: {memory.free(experiment.make_mesh(config))}; peak: {stats.get("peak_bytes_in_use")}')
  if args.profile:
    profile(ours['train', args.profile, 'bfloat16'][0])
  if args.determinism:
    run = ours['train', sizes[0], 'bfloat16'][0]
    log(f'two trainings of five steps end in the same bits: {determinism(run)}')
    ours.clear()
    run, _ = programs('train', sizes[0], 'bfloat16', {'xla_gpu_deterministic_ops': True})
    deterministic = [rate(run, sizes[0]) for _ in range(3)]
    log(f'with xla_gpu_deterministic_ops: {determinism(run)}; {spread(deterministic)}')


if __name__ == '__main__':
  main()
