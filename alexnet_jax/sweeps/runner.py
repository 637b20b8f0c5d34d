"""Runs the unfinished runs of a sweep, each in its own process, several at a time."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_jax import experiment
from alexnet_jax.checkpoints import workdir
from alexnet_jax.data import included
from alexnet_jax.sweeps import planning
from alexnet_jax.utils import files, host
from alexnet_jax.utils.display import Display, UpdateProgress, duration
from alexnet_jax.utils.errors import UserError
from alexnet_jax.utils.signals import Signals

FAILURE = 'failure.txt'  # in a run's folder: why it last failed
_LOG = 'log.txt'  # in a run's folder: its output


def missing(plan: planning.Plan) -> list[planning.Run]:
  """The runs that are not finished.

  Raises:
    UserError: runs were made with other configs; all of them are listed.
  """
  unfinished, changed = [], []
  for run in plan.runs:
    try:
      if not planning.is_finished(run):
        unfinished.append(run)
    except UserError as error:
      changed.append(str(error).splitlines()[0])
  if changed:
    raise UserError(
      '\n  '.join(['the config has changed since these were run:', *changed])
      + '\nRemove their folders, or give the sweep a --workdir of its own.'
    )
  return unfinished


def shares(jobs: int, cores: Sequence[int], environment: Mapping[str, str]) -> list['Share']:
  """Divides the machine among runs that run at the same time.

  Each gets its own CPU cores, because two runs with a core each are faster than two that contend
  for both, and its own GPUs of CUDA_VISIBLE_DEVICES, if that is set. If there are fewer than runs,
  all runs share all of them.

  Args:
    jobs: runs at a time.
    cores: numbers of the cores that this process may use.
    environment: the process's.
  """

  def share(items: Sequence[Any], i: int) -> Sequence[Any]:
    return items[i::jobs] if len(items) >= jobs else items

  gpus = [gpu for gpu in environment.get('CUDA_VISIBLE_DEVICES', '').split(',') if gpu]
  return [
    Share(
      frozenset(share(cores, i)), {'CUDA_VISIBLE_DEVICES': ','.join(share(gpus, i))} if gpus else {}
    )
    for i in range(jobs)
  ]


def prepare_data(runs: Sequence[planning.Run], program: str) -> None:
  """Prepares the data of runs, so that several that start together do not do it at once.

  Args:
    runs: those that will run.
    program: path of launch.py, or of the command `alexnet`.

  Raises:
    UserError: it failed; the program has said why on stderr.
  """
  of_data: dict[str, planning.Run] = {}
  for run in runs:
    of_data.setdefault(json.dumps(experiment.resolved(run.config)['data']), run)
  for run in of_data.values():
    if run.config.data.name in included.INCLUDED:
      continue
    command = [sys.executable, program, '--mode=prepare', *run.command]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
      raise UserError(f'the data of {run.name} could not be prepared; nothing was run')


@dataclasses.dataclass(frozen=True)
class Share:
  """One run's part of the machine: cores, and variables of its environment."""

  cores: frozenset[int]
  environment: Mapping[str, str]


@dataclasses.dataclass
class _Job:
  """A run in progress."""

  run: planning.Run
  process: subprocess.Popen[bytes]
  share: Share
  started: float
  update_progress: UpdateProgress
  epoch: int = 0  # of the progress bar

  def show_epochs(self) -> None:
    """Updates the progress bar to the run's epoch."""
    epoch = int(workdir.last_epoch(self.run.path))
    self.update_progress(epoch - self.epoch)
    self.epoch = epoch


def run_all(runs: Sequence[planning.Run], jobs: int, program: str) -> dict[str, str]:
  """Runs them, continuing after one that fails; a run's output goes to log.txt in its folder.

  Args:
    runs: what to run, in this order.
    jobs: how many at a time, at most.
    program: path of launch.py, or of the command `alexnet`.

  Returns:
    Reasons of failures, by the run's name.

  Raises:
    Stopped: SIGINT, or one of `signals.PREEMPTION`, came; the runs have saved, and the same sweep
      resumes from there.
  """
  if not runs:  # nor is there any progress to show
    return {}
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  free = shares(min(jobs, len(runs)), cores, os.environ)
  waiting, running = list(runs), list[_Job]()
  width = max((len(run.name) for run in runs), default=0)
  failures: dict[str, str] = {}
  reported: set[str] = set()
  with Display() as display, Signals('stopping, when each run has saved') as signals:
    update_progress = display.task(f'runs 0/{len(runs)}', len(runs))

    def count_run() -> None:
      ended = len(runs) - len(waiting) - len(running)
      update_progress(1, description=f'runs {ended}/{len(runs)}')

    try:
      while waiting or running:
        taken = [run for run in waiting if free and workdir.is_locked(run.path)]
        for run in [run for run in taken if run.name not in reported]:
          display.line(f'{run.name}  another process is running it; it is left for later')
          reported.add(run.name)
        for run in [run for run in waiting if run not in taken][: len(free)]:
          waiting.remove(run)
          if planning.is_finished(run):  # by another process, meanwhile
            count_run()
          else:
            running.append(_start(run, free.pop(0), program, display))
        time.sleep(0.2)
        if signals.signum is not None:
          break
        for job in list(running):
          if job.process.poll() is None:
            job.show_epochs()
            continue
          running.remove(job)
          free.append(job.share)
          text, failure = _ended(job, width)
          if failure:
            failures[job.run.name] = failure
          display.line(text)
          job.update_progress(done=True)
          count_run()
    finally:
      for job in running:
        job.process.terminate()  # it saves first
      for job in running:
        job.process.wait()
    signals.check(saved=True)
  return failures


def _start(run: planning.Run, share: Share, program: str, display: Display) -> _Job:
  run.path.mkdir(parents=True, exist_ok=True)
  (run.path / FAILURE).unlink(missing_ok=True)
  command = [sys.executable, program, *run.command]
  if setpriv := shutil.which('setpriv'):  # of Linux; the run saves and ends if this process dies
    command = [setpriv, '--pdeathsig', 'TERM', *command]
  with files.inside(run.path, _LOG).open('wb') as log, _on(share.cores):
    process = subprocess.Popen(
      command,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      env={**os.environ, 'PYTHONIOENCODING': 'utf-8', **share.environment},
      start_new_session=True,  # Ctrl-C is this process's alone, which passes it on once
    )
  return _Job(
    run, process, share, time.perf_counter(), display.task(run.name, run.config.train.num_epochs)
  )


@contextlib.contextmanager
def _on(cores: frozenset[int]) -> Iterator[None]:
  """Keeps this thread on some cores, so that a process that it starts has them from the beginning.

  Set from outside, once the process runs, they may come after it has counted its cores.

  Args:
    cores: their numbers; none where the system does not tell them, and nothing is changed.
  """
  if not cores:
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, cores)
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


def _ended(job: _Job, width: int) -> tuple[str, str]:
  """A line for the user, the run's name as wide as the widest, and why it failed, if it did."""
  run, code, seconds = job.run, job.process.returncode, time.perf_counter() - job.started
  final = workdir.final_record(workdir.read_metrics(run.path), *run.length)
  if code == 0 and final is not None:
    return f'{run.name:{width}}  top-1 error {final["top1_error"]:6.2%}  {duration(seconds)}', ''
  failure = _reason(run.path / _LOG, code)
  with files.atomic_write(run.path / FAILURE) as temporary:
    temporary.write_text(failure + '\n', 'utf-8')
  return f'{run.name:{width}}  failed: {failure}', failure


def _reason(log: Path, code: int) -> str:
  """The message of a run that failed, or else the last line that it printed."""
  lines = [line for line in log.read_text('utf-8', errors='replace').splitlines() if line.strip()]
  begins = f'{host.program_name()}: '
  said = [line for line in lines if line.startswith(begins)]
  last = (said or lines or ['nothing was printed'])[-1].removeprefix(begins)
  ended = f'ended by signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
  return f'{last} ({ended}; {log})'
