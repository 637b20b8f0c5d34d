"""Processes killed (SIGKILL) at random moments and started again, and what that costs.

  python -m tests.faults --kills=100
  python -m tests.faults --kills=20 --only=preparing

Each kind of work is first done undisturbed, which gives what it leaves and how long it takes. Then
the same command is killed at moments spread evenly over that time, and given again until it ends
by itself; then afresh, until there were so many kills (a tenth of them for all but the first kind).
Prints a line for each kind, and ends with 1 where anything differs from the undisturbed.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
TINY = (
  '--config=configs/digits.py',
  *(f'--config.model.conv{i}.features=8' for i in range(1, 6)),
  '--config.model.fc6.features=16',
  '--config.model.fc7.features=16',
  '--config.mesh.column_devices=1',
  '--config.optimizer.cut_epochs=()',
  '--config.optimizer.patience=1',
  '--config.train.log_every_steps=10',
)
ABLATIONS = '--sweep=configs/sweeps/ablations.py'


def start(*args: Any, cache: Path | None = None, **options: Any) -> subprocess.Popen[str]:
  """Starts launch.py as a shell would, without the settings of jax of a test run."""
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
  if cache is not None:
    environment['JAX_COMPILATION_CACHE_DIR'] = str(cache)
  return subprocess.Popen(
    [sys.executable, 'launch.py', *map(str, args)], cwd=ROOT, env=environment, text=True, **options
  )


def lines(folder: Path) -> list[dict[str, Any]]:
  """The records of a run's metrics.jsonl without what differs from one time to the next."""
  records = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return [{k: v for k, v in r.items() if k != 'images_per_second'} for r in records]


def checkpoints(folder: Path) -> dict[int, dict[str, str]]:
  """The digests of all that a run's checkpoints hold, by step."""
  return {
    int(path.parts[-3]): json.loads(path.read_text())['digests']
    for path in folder.glob('checkpoints/*/description/metadata')
    if path.parts[-3].isdigit()
  }


def names(folder: Path) -> list[str]:
  """The files of a folder; TensorBoard's, of which each start makes one, and data as one each."""
  found = {os.fspath(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}
  return sorted({re.sub(r'(tfevents)\..*|(/d/)[0-9a-f]+$', r'\1\2', name) for name in found})


def contents(folder: Path) -> dict[str, str]:
  """The files of a folder and a digest of each."""
  return {
    os.fspath(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def processes(words: str) -> list[int]:
  """The processes, but this one, with these words in their command line."""
  found = []
  for path in Path('/proc').glob('[0-9]*/cmdline'):
    try:
      if words.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
        found.append(int(path.parent.name))
    except OSError:
      pass  # it has ended meanwhile
  return found


def write_photographs(folder: Path, count: int, side: int = 300) -> None:
  """A folder of noise in two classes."""
  rng = np.random.default_rng(0)
  for i in range(count):
    path = folder / f'class{i % 2}' / f'{i:03d}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((side, side)).save(path)


@dataclasses.dataclass
class Work:
  """A kind of work.

  Attributes:
    arguments: of launch.py, given its folder.
    begin: makes what its folder starts with.
    left: all of what it leaves that must not depend on interruptions.
    kept: how much of it there is: it may not become less.
  """

  arguments: Callable[[Path], list[Any]]
  left: Callable[[Path], Any]
  kept: Callable[[Path], int]
  begin: Callable[[Path], Any] = lambda folder: folder.mkdir()


def _trained(folder: Path) -> tuple[Any, ...]:
  return lines(folder), checkpoints(folder), names(folder)


def works(shared: Path, cache: Path) -> dict[str, Work]:
  """All kinds of work.

  Args:
    shared: a folder for what several of them need.
    cache: for what XLA compiles.
  """

  def training(epochs: float, every: int) -> Callable[[Path], list[Any]]:
    return lambda folder: [
      *TINY,
      f'--config.train.num_epochs={epochs}',
      f'--config.checkpoint.every_steps={every}',
      f'--workdir={folder}',
    ]

  photographs, run = shared / 'photographs', shared / 'run'
  write_photographs(photographs, 200)
  assert start(*training(1, 100)(run), cache=cache, **SILENT).wait() == 0

  def newest(folder: Path) -> int:
    return max(checkpoints(folder), default=0)

  return {
    'training': Work(training(6, 20), _trained, newest),
    'saving': Work(training(2, 1), _trained, newest),
    'preparing': Work(
      lambda folder: [
        '--config=configs/image_folder.py',
        '--mode=prepare',
        f'--config.data.data_dir={photographs}',
        f'--config.data.prepared_dir={folder}',
      ],
      contents,
      lambda folder: len(list(folder.rglob('*.tfrecord-*'))),
    ),
    'evaluating': Work(
      lambda folder: ['--mode=evaluate', f'--workdir={folder}'],
      lambda folder: (
        _trained(folder),
        contents(folder / 'evaluation'),
        json.loads((folder / 'evaluation.json').read_text())['ten_views'],
      ),
      newest,
      begin=lambda folder: shutil.copytree(run, folder),
    ),
    'sweeping': Work(
      lambda folder: [
        '--mode=sweep',
        ABLATIONS,
        *TINY,
        '--config.train.num_epochs=4',
        '--config.checkpoint.every_steps=10',
        '--only=no_dropout',
        f'--workdir={folder}',
      ],
      lambda folder: (
        (folder / 'results.csv').read_text(),
        names(folder),
        [_trained(path) for path in sorted(folder.glob('*/seed0'))],
      ),
      lambda folder: sum(newest(path) for path in folder.glob('*/seed0')),
    ),
  }


SILENT: dict[str, Any] = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}


@dataclasses.dataclass
class Result:
  """What became of a kind of work that was killed."""

  seconds: float
  kills: int = 0
  runs: int = 0
  wrong: list[str] = dataclasses.field(default_factory=list)


def kill(
  work: Work, kills: int, folder: Path, cache: Path, rng: random.Random, runs: int | None = None
) -> Result:
  """Does a work undisturbed, then kills it.

  Args:
    work: what to do.
    kills: how often to kill it.
    folder: an empty one, for it.
    cache: for what XLA compiles.
    rng: from which the moments come.
    runs: how many times to begin afresh, at most; None: as often as it ends before all kills.
  """
  whole = folder / 'whole'
  for path in (folder / 'first', whole):  # the first fills the cache
    work.begin(path)
    began = time.monotonic()
    if code := start(*work.arguments(path), cache=cache, **SILENT).wait():
      raise SystemExit(f'undisturbed, it ended with {code}')
    seconds = time.monotonic() - began
  expected = work.left(whole)
  result = Result(seconds)
  while result.kills < kills and (runs is None or result.runs < runs):
    result.runs += 1
    path = folder / f'killed{result.runs}'
    work.begin(path)
    while True:
      before = work.kept(path)
      process = start(*work.arguments(path), cache=cache, stdout=subprocess.DEVNULL, stderr=-1)
      # Strata, so that few kills too are spread over all of its life.
      last = result.kills >= kills
      moment = seconds * (result.kills % 5 + rng.random()) / 5
      try:
        _, said = process.communicate(timeout=None if last else moment)
      except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        result.kills += 1
        print(f'  kill {result.kills} after {moment:.1f} s, at {work.kept(path)}', file=sys.stderr)
        if not _gone(path):
          result.wrong.append(
            f'run {result.runs}: a process is left {moment:.1f} s after its start'
          )
        if work.kept(path) < before:
          result.wrong.append(f'run {result.runs}: {before} was there, {work.kept(path)} is left')
        continue
      if process.returncode:
        result.wrong.append(f'run {result.runs} ended with {process.returncode}: {said[-300:]}')
      elif (left := work.left(path)) != expected:
        result.wrong.append(f'run {result.runs} differs: {_difference(left, expected)}')
      break
    shutil.rmtree(path)
  return result


def _gone(path: Path) -> bool:
  """Whether all processes of a folder end (those of a sweep save first)."""
  deadline = time.monotonic() + 60
  while processes(str(path)):
    if time.monotonic() > deadline:
      return False
    time.sleep(0.1)
  return True


def _difference(left: Any, expected: Any) -> str:
  """The first place where two differ."""
  if isinstance(left, tuple | list) and len(left) == len(expected):
    return next(
      f'[{i}]{_difference(a, b)}'
      for i, (a, b) in enumerate(zip(left, expected, strict=True))
      if a != b
    )
  if isinstance(left, list) and all(isinstance(x, str) for x in left):
    return (
      f' too many {sorted(set(left) - set(expected))}, lacks {sorted(set(expected) - set(left))}'
    )
  return f' {str(left)[:200]}, not {str(expected)[:200]}'


def main() -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--kills', type=int, default=100)
  parser.add_argument('--seed', type=int, default=2012)
  parser.add_argument('--only', help='one kind of work, so many kills of which there are then')
  args = parser.parse_args()
  wrong = []
  print('killed while  undisturbed   kills  begun afresh   wrong', flush=True)
  with tempfile.TemporaryDirectory() as temporary:
    shared, cache = Path(temporary, 'shared'), Path(temporary, 'cache')
    shared.mkdir()
    for name, work in works(shared, cache).items():
      if args.only not in (None, name):
        continue
      kills = args.kills if args.only or name == 'training' else -(-args.kills // 10)
      folder = Path(temporary, name)
      folder.mkdir()
      result = kill(work, kills, folder, cache, random.Random(args.seed))
      print(
        f'{name:12} {result.seconds:10.1f} s {result.kills:7} {result.runs:13}'
        f' {len(result.wrong):7}',
        flush=True,
      )
      for text in result.wrong:
        print(f'  {text}', flush=True)
      wrong += result.wrong
      shutil.rmtree(folder)
  return 1 if wrong else 0


if __name__ == '__main__':
  sys.exit(main())
