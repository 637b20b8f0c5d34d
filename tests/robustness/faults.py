"""Faults at random moments of every kind of work, and what they cost.

  python -m tests.robustness.faults --times=100
  python -m tests.robustness.faults --fault=write --times=20 --only=preparing

Each kind of work is first done undisturbed, which gives what it leaves and how long it takes. Then
the same command meets a fault, and is given again until it ends by itself; then afresh, until there
were so many faults. The faults:

  kill   SIGKILL, at moments spread evenly over the time that the work takes
  stop   SIGTERM, likewise
  write  a disk that is full, read-only or broken, from one of the program's writes on; these are
         spread evenly over all of its writes (needs a C compiler, and Linux)

Prints a line for each kind, and ends with 1 where anything differs from the undisturbed, a process
is left, or the program ends in another way than it should.
"""

import argparse
import dataclasses
import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from alexnet_jax.utils.errors import EXIT_AGAIN

ROOT = Path(__file__).parents[2]
TINY = (
  '--config=configs/digits.py',
  *(f'--config.model.{layer}.features=8' for layer in ('conv1', 'conv3', 'fc6')),
  *(f'--config.model.{layer}.features=0' for layer in ('conv2', 'conv4', 'conv5', 'fc7')),
  '--config.mesh.column_devices=1',
  '--config.optimizer.lr_decay_epochs=()',
  '--config.optimizer.patience=1',
  '--config.train.log_every_steps=10',
)
ABLATIONS = '--sweep=configs/sweeps/ablations.py'


def start(
  *args: Any, cache: Path | None = None, added: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
  """Starts launch.py as a shell would, without the settings of jax of a test run.

  Args:
    *args: of launch.py.
    cache: for what XLA compiles.
    added: to its environment.
    **options: of subprocess.Popen.
  """
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
  environment |= added or {}
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


def pictures(folder: Path) -> list[Path]:
  """The .png of a folder; in some stands where they are."""
  return sorted(folder.glob('figures/*.png'))


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
  """All that a run leaves."""
  return lines(folder), checkpoints(folder), names(folder)


def _trained_with_stops(folder: Path) -> tuple[Any, ...]:
  """All that a run leaves but for which older checkpoints: one is made where it is stopped."""
  saved = checkpoints(folder)
  newest = max(saved)
  return lines(folder), newest, saved[newest], _names_with_stops(folder)


def _names_with_stops(folder: Path) -> list[str]:
  """As `names`, the files of all checkpoints as those of one."""
  return sorted({re.sub(r'(checkpoints/)\d+', r'\1', name) for name in names(folder)})


def works(shared: Path, cache: Path, stops: bool = False) -> dict[str, Work]:
  """All kinds of work.

  Args:
    shared: a folder for what several of them need.
    cache: for what XLA compiles.
    stops: whether runs will be stopped, and so save where they are.
  """
  trained = _trained_with_stops if stops else _trained

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
    'training': Work(training(6, 20), trained, newest),
    'saving': Work(training(2, 1), trained, newest),
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
    'drawing': Work(
      lambda folder: ['--mode=figures', f'--workdir={folder}'],
      lambda folder: (_trained(folder), [Image.open(p).size for p in pictures(folder)]),
      newest,
      begin=lambda folder: shutil.copytree(run, folder),
    ),
    'converting': Work(
      lambda folder: [
        '--mode=convert',
        f'--source={run}',
        f'--target={folder / "net.safetensors"}',
      ],
      contents,
      lambda folder: len(contents(folder)),
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
        _names_with_stops(folder),  # a sweep that is killed stops its run
        [_trained_with_stops(path) for path in sorted(folder.glob('*/seed0'))],
      ),
      lambda folder: sum(newest(path) for path in folder.glob('*/seed0')),
    ),
  }


SILENT: dict[str, Any] = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}


@dataclasses.dataclass
class Result:
  """What became of a kind of work that met faults.

  Attributes:
    seconds: that it takes undisturbed.
    faults: how many there were.
    runs: how many times it was begun afresh.
    wrong: what was not as it should be.
  """

  seconds: float
  faults: int = 0
  runs: int = 0
  wrong: list[str] = dataclasses.field(default_factory=list)


class Interruption:
  """A signal, at moments spread over the time that a work takes."""

  once_a_run = False

  def __init__(self, signum: int, seconds: float, rng: random.Random):
    """Sends `signum` within `seconds` of a start."""
    self._signum, self._seconds, self._rng = signum, seconds, rng

  def meet(self, work: Work, folder: Path, cache: Path, number: int) -> tuple[bool, str]:
    """Does the work until the fault; see `Fault`."""
    moment = self._seconds * (number % 5 + self._rng.random()) / 5  # few too are spread over it
    process = start(*work.arguments(folder), cache=cache, stdout=subprocess.DEVNULL, stderr=-1)
    try:
      _, said = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
      process.send_signal(self._signum)
      said = _finish(process)
    else:
      return False, '' if process.returncode == 0 else _ended(process, said)
    print(f'  fault {number + 1} after {moment:.1f} s, at {work.kept(folder)}', file=sys.stderr)
    fine = (-self._signum, EXIT_AGAIN, 0)  # 0: it was ending by itself
    if process.returncode not in fine or 'Traceback' in said:
      return True, f'after {moment:.1f} s it {_ended(process, said)}'
    return True, '' if _gone(folder) else f'a process is left {moment:.1f} s after its start'


class FailingDisk:
  """A disk that fails from one of a work's writes on."""

  once_a_run = True
  ERRORS = (errno.ENOSPC, errno.EROFS, errno.EIO)

  def __init__(self, library: Path, writes: int, times: int):
    """`library` is failing_writes.c, compiled; `writes` how many a work has."""
    self._library, self._writes, self._times = library, writes, times

  def meet(self, work: Work, folder: Path, cache: Path, number: int) -> tuple[bool, str]:
    """Does the work until the fault; see `Fault`."""
    at = 1 + number * self._writes // self._times
    code = self.ERRORS[number % len(self.ERRORS)]
    process, said, counted = self.run(work, folder, cache, self._library, at, code)
    if counted < at:
      return False, '' if process.returncode == 0 else _ended(process, said)
    what = f'{errno.errorcode[code]} from write {at} of {self._writes} on'
    print(f'  fault {number + 1}, {what}: {process.returncode} {said[-160:]!r}', file=sys.stderr)
    if process.returncode not in (0, 1) or 'Traceback' in said:
      return True, f'{what}: it {_ended(process, said)}'
    if process.returncode == 1 and (os.strerror(code) not in said or str(folder) not in said):
      return True, f'{what}: no word of it, but {said[-300:]!r}'
    return True, '' if _gone(folder) else f'{what}: a process is left'

  @staticmethod
  def run(
    work: Work, folder: Path, cache: Path, library: Path, at: int, code: int
  ) -> tuple[subprocess.Popen[str], str, int]:
    """Does a work whose writes fail from one on; its process, messages and number of writes."""
    with tempfile.NamedTemporaryFile() as count:
      count.write(bytes(8))
      count.flush()
      added = {
        'LD_PRELOAD': str(library),
        'FAILING_FOLDER': str(folder),
        'FAILING_COUNT': count.name,
        'FAILING_AT': str(at),
        'FAILING_ERRNO': str(code),
      }
      process = start(
        *work.arguments(folder), cache=cache, added=added, stdout=subprocess.DEVNULL, stderr=-1
      )
      said = _finish(process)
      return process, said, int.from_bytes(Path(count.name).read_bytes(), sys.byteorder)


class Fault(Protocol):
  """What can happen to a work.

  Attributes:
    once_a_run: whether the work is not to meet it again before it has ended.
  """

  once_a_run: bool

  def meet(self, work: Work, folder: Path, cache: Path, number: int) -> tuple[bool, str]:
    """Does a work until the fault, which is one of a series.

    Returns:
      Whether it came before the work's end, and what was wrong with how it ended.
    """


def undisturbed(work: Work, folder: Path, cache: Path) -> tuple[float, Any]:
  """Does a work twice, the first time to fill the cache; the seconds it takes, and what it leaves."""
  for name in ('first', 'whole'):
    work.begin(folder / name)
    began = time.monotonic()
    process = start(*work.arguments(folder / name), cache=cache, **SILENT)
    if code := process.wait():
      raise SystemExit(f'undisturbed, it ended with {code}')
  return time.monotonic() - began, work.left(folder / 'whole')


def inject(
  fault: Fault,
  work: Work,
  times: int,
  folder: Path,
  cache: Path,
  undisturbed: tuple[float, Any],
  runs: int | None = None,
) -> Result:
  """Has a work meet faults until there were so many.

  Args:
    fault: what happens to it.
    work: what to do.
    times: how many faults.
    folder: for the work.
    cache: for what XLA compiles.
    undisturbed: what `undisturbed` gave.
    runs: how many times to begin afresh, at most; None: as often as it ends before all faults.
  """
  seconds, expected = undisturbed
  result = Result(seconds)
  while result.faults < times and (runs is None or result.runs < runs):
    result.runs += 1
    path = folder / f'run{result.runs}'
    work.begin(path)
    wrong: list[str] = []
    met = again = True
    while met and again and result.faults < times:
      before = work.kept(path)
      met, how = fault.meet(work, path, cache, result.faults)
      again = not fault.once_a_run
      result.faults += met
      wrong += [how] if how else []
      if work.kept(path) < before:
        wrong.append(f'{before} was there, {work.kept(path)} is left')
    if met:  # the last of them
      process = start(*work.arguments(path), cache=cache, stdout=subprocess.DEVNULL, stderr=-1)
      said = _finish(process)
      wrong += [f'afterwards it {_ended(process, said)}'] if process.returncode else []
    if not wrong and (left := work.left(path)) != expected:
      wrong.append(f'it differs: {_difference(left, expected)}')
    result.wrong += [f'run {result.runs}, after {result.faults} faults: {text}' for text in wrong]
    shutil.rmtree(path)
  return result


def _finish(process: subprocess.Popen[str]) -> str:
  """What a process still says on stderr; one that does not end is killed."""
  try:
    return process.communicate(timeout=300)[1]
  except subprocess.TimeoutExpired:
    process.kill()
    return process.communicate()[1] + 'it did not end'


def _ended(process: subprocess.Popen[str], said: str) -> str:
  return f'ended with {process.returncode}: {said[-400:]!r}'


def compile_failing_disk(folder: Path) -> Path | None:
  """failing_writes.c as a library to preload; None where there is no compiler."""
  compiler = shutil.which('cc')
  if compiler is None or sys.platform != 'linux':
    return None
  library = folder / 'failing_writes.so'
  source = Path(__file__).with_name('failing_writes.c')
  subprocess.run([compiler, '-O1', '-shared', '-fPIC', source, '-o', library, '-ldl'], check=True)
  return library


def make_fault(
  name: str, work: Work, seconds: float, times: int, folder: Path, cache: Path, rng: random.Random
) -> Fault:
  """The fault of a name, for a work that takes so long."""
  if name != 'write':
    return Interruption(signal.SIGKILL if name == 'kill' else signal.SIGTERM, seconds, rng)
  library = compile_failing_disk(folder)
  if library is None:
    raise SystemExit('a disk that fails needs a C compiler, and Linux')
  work.begin(folder / 'counted')
  _, _, writes = FailingDisk.run(work, folder / 'counted', cache, library, sys.maxsize, 0)
  return FailingDisk(library, writes, times)


def _gone(path: Path) -> bool:
  """Whether all processes of a folder end (those of a sweep that was killed save first)."""
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
  parser.add_argument('--fault', choices=['kill', 'stop', 'write'], default='kill')
  parser.add_argument('--times', type=int, default=100, help='how many, of each kind of work')
  parser.add_argument('--seed', type=int, default=2012)
  parser.add_argument('--only', help='these kinds of work alone, as training,saving')
  args = parser.parse_args()
  wrong = []
  print(f'{args.fault:12} undisturbed  faults  begun afresh   wrong', flush=True)
  with tempfile.TemporaryDirectory() as temporary:
    shared, cache = Path(temporary, 'shared'), Path(temporary, 'cache')
    shared.mkdir()
    all_works = works(shared, cache, stops=args.fault == 'stop')
    for name in args.only.split(',') if args.only else all_works:
      folder = Path(temporary, name)
      folder.mkdir()
      work = all_works[name]
      alone = undisturbed(work, folder, cache)
      rng = random.Random(args.seed)
      fault = make_fault(args.fault, work, alone[0], args.times, folder, cache, rng)
      result = inject(fault, work, args.times, folder, cache, alone)
      print(
        f'{name:12} {result.seconds:9.1f} s {result.faults:7} {result.runs:13}'
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
