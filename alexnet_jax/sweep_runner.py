"""Runs what is missing of a sweep, each run a process of its own, some at a time on one machine."""

import collections
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_jax import experiment, files, sweep, workdir
from alexnet_jax.display import Display
from alexnet_jax.errors import Stopped, UserError

FAILURE = 'failure.txt'  # in a run's folder: why it last failed
_LOG = 'log.txt'  # in a run's folder: what it printed


def missing(plan: sweep.Plan) -> list[sweep.Run]:
  """The runs that are not finished.

  Raises:
    UserError: runs were made with other configs; all of them are listed.
  """
  unfinished, changed = [], []
  for run in plan.runs:
    try:
      if not sweep.is_finished(run):
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
  """What each of several runs at a time has of the machine.

  A CPU's cores are dealt out, for two runs of one core each are faster than two that contend for
  both; so are the GPUs of CUDA_VISIBLE_DEVICES, where it is set. Where there are fewer than runs,
  all have all.

  Args:
    jobs: runs at a time.
    cores: numbers of the cores that this process may use.
    environment: the process's.
  """

  def dealt(all_of: Sequence[Any], i: int) -> Sequence[Any]:
    return all_of[i::jobs] if len(all_of) >= jobs else all_of

  gpus = [gpu for gpu in environment.get('CUDA_VISIBLE_DEVICES', '').split(',') if gpu]
  return [
    Share(
      frozenset(dealt(cores, i)), {'CUDA_VISIBLE_DEVICES': ','.join(dealt(gpus, i))} if gpus else {}
    )
    for i in range(jobs)
  ]


def prepare_data(runs: Sequence[sweep.Run], program: str) -> None:
  """Prepares the data of runs, so that several that start together do not do it at once.

  Args:
    runs: those that will run.
    program: path of launch.py.

  Raises:
    UserError: it failed; the program has said why on stderr.
  """
  of_data = {json.dumps(experiment.resolved(run.config)['data']): run for run in runs}
  for run in of_data.values():
    if run.config.data.name == 'digits':  # part of scikit-learn
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
  run: sweep.Run
  process: subprocess.Popen[bytes]
  share: Share
  started: float
  epoch: int
  move: Callable[..., None]


def run_all(runs: Sequence[sweep.Run], jobs: int, program: str) -> dict[str, str]:
  """Runs them, going on after one that fails; a run's output goes to log.txt in its folder.

  Args:
    runs: what to run, in this order.
    jobs: how many at a time.
    program: path of launch.py.

  Returns:
    Why runs failed, by their names.

  Raises:
    Stopped: SIGINT or SIGTERM came; the runs have saved, and the same sweep goes on from there.
  """
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  free = collections.deque(shares(jobs, cores, os.environ))
  waiting = collections.deque(runs)
  failures: dict[str, str] = {}
  told: set[str] = set()
  with Display() as display, _Signals() as signals:
    move = display.task('runs', len(runs))
    running: list[_Job] = []
    while waiting or running:
      for run in list(waiting):
        if not free or signals.signum is not None:
          break
        if workdir.is_taken(run.path):  # by one that a killed sweep left, or on another machine
          if run.name not in told:
            display.line(f'{run.name}  another process is at work there; waiting for it')
            told.add(run.name)
          continue
        waiting.remove(run)
        if sweep.is_finished(run):
          move(1)
        else:
          running.append(_start(run, free.popleft(), program, display))
      if signals.signum is not None and not signals.passed_on:
        display.line('stopping: each run saves first')
        for job in running:
          job.process.send_signal(signal.SIGTERM)
        signals.passed_on = True
        waiting.clear()
      time.sleep(0.2)
      for job in list(running):
        if (code := job.process.poll()) is None:
          _show_epochs(job)
          continue
        running.remove(job)
        free.append(job.share)
        job.move(done=True)
        if not signals.passed_on:
          text, failure = _ended(job, code)
          display.line(text)
          if failure:
            failures[job.run.name] = failure
          move(1)
  if signals.signum is not None:
    raise Stopped(signals.signum)
  return failures


class _Signals:
  """Notes SIGINT and SIGTERM, which the runs do not get from the terminal themselves."""

  def __init__(self) -> None:
    self.signum: int | None = None
    self.passed_on = False
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> '_Signals':
    for signum in (signal.SIGINT, signal.SIGTERM):
      self._previous[signum] = signal.signal(signum, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    for signum, previous in self._previous.items():
      signal.signal(signum, previous)

  def _note(self, signum: int, frame: Any) -> None:
    del frame
    self.signum = signum


def _start(run: sweep.Run, share: Share, program: str, display: Display) -> _Job:
  run.path.mkdir(parents=True, exist_ok=True)
  (run.path / FAILURE).unlink(missing_ok=True)
  command = [sys.executable, program, *run.command]
  if setpriv := shutil.which('setpriv'):  # of Linux; the run saves and ends if this process dies
    command = [setpriv, '--pdeathsig', 'TERM', *command]
  with (run.path / _LOG).open('wb') as log:
    process = subprocess.Popen(
      command,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      env={**os.environ, **share.environment},
      start_new_session=True,  # Ctrl-C is this process's alone, which passes it on once
    )
  if share.cores:
    with contextlib.suppress(ProcessLookupError):  # long before the run counts its cores
      os.sched_setaffinity(process.pid, share.cores)
  epochs = run.config.train.num_epochs
  return _Job(run, process, share, time.perf_counter(), 0, display.task(run.name, epochs))


def _show_epochs(job: _Job) -> None:
  with contextlib.suppress(OSError, ValueError):
    records = workdir.read_metrics(job.run.path)
    if records and (epoch := int(records[-1]['epoch'])) > job.epoch:
      job.move(epoch - job.epoch)
      job.epoch = epoch


def _ended(job: _Job, code: int) -> tuple[str, str]:
  """A line for the user, and why the run failed, if it did."""
  run, seconds = job.run, time.perf_counter() - job.started
  length = run.config.train.num_epochs, run.config.train.num_steps
  final = sweep.final_record(workdir.read_metrics(run.path), *length)
  if code == 0 and final is not None:
    return f'{run.name}  top-1 error {final["top1_error"]:.2%}  {seconds:.0f} s', ''
  failure = _reason(run.path / _LOG, code)
  with files.whole(run.path / FAILURE) as temporary:
    temporary.write_text(failure + '\n')
  return f'{run.name}  failed: {failure}', failure


def _reason(log: Path, code: int) -> str:
  """What a run said last before it failed: its message, or the last line that it printed."""
  lines = [line for line in log.read_text(errors='replace').splitlines() if line.strip()]
  said = [line for line in lines if line.startswith('launch.py: ')]
  last = (said or lines or ['nothing was printed'])[-1].removeprefix('launch.py: ')
  ended = f'ended by signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
  return f'{last} ({ended}; {log})'
