"""Where a sweep's results come from: its command, and what its runs' starts have recorded."""

import datetime
from collections.abc import Sequence
from typing import Any

from alexnet_jax.sweeps.results import Results, RunResult
from alexnet_jax.sweeps.tables import recorded

_NOT_RECORDED = 'not recorded'


def facts(results: Results) -> list[tuple[str, str]]:
  """What is known, as names and texts: command, dates, time, commit, devices, versions, conditions.

  All but the time is of the finished runs, which are those of the tables. Values in which they differ
  are listed by run; what no run has recorded, as in earlier versions, is named as not recorded.

  Args:
    results: what `results.gather` returned.
  """
  finished = [run for run in results.runs if run.final]
  with_starts = [run for run in finished if run.starts]
  minutes = sum(run.seconds for run in results.runs) / 60
  time = f'{minutes / 60:.1f} hours' if minutes >= 60 else f'{minutes:.1f} minutes'
  found = [
    ('command', _command(results.description)),
    ('time', f'{time} in training steps, all runs together'),
  ]
  if with_starts:
    dates = [_in_utc(start['date']) for run in with_starts for start in run.starts]
    found.append(('runs started', f'{min(dates)} to {max(dates)} UTC'))
    packages = []
    for name, values in _by_value(with_starts).items():
      if len(values) > 1:
        found.append((name, _differing(values)))
      elif name in ('commit', 'devices'):
        found.append((name, next(iter(values))))
      else:
        packages.append(f'{name} {next(iter(values))}')
    found.append(('versions', ', '.join(packages)))
  if without := [run.name for run in finished if not run.starts]:
    of = f' of {", ".join(without)}' if with_starts else ''
    found.append(('start, commit, devices, versions', _NOT_RECORDED + of))
  conditions = results.description.get('conditions', {})
  return found + [(f'{name} (as archived)', f'{value}') for name, value in conditions.items()]


def differences(results: Results) -> list[str]:
  """A sentence for each of commit, devices and packages in which finished runs differ."""
  runs = [run for run in results.runs if run.final and run.starts]
  return [
    f'Not all runs have the same {name}: {_differing(values)}.'
    for name, values in _by_value(runs).items()
    if len(values) > 1
  ]


def _in_utc(date: str) -> str:
  """As '2026-11-28 10:00', which sorts by time."""
  return f'{datetime.datetime.fromisoformat(date).astimezone(datetime.UTC):%Y-%m-%d %H:%M}'


def _command(description: Any) -> str:
  if command := description.get('command'):
    return str(command)
  if caller := description.get('caller'):
    return f'none: it was started from Python, by {caller}'
  return _NOT_RECORDED


def _by_value(runs: Sequence[RunResult]) -> dict[str, dict[str, list[str]]]:
  """For commit, devices and each package: the runs of each value, and the step where it changed."""
  all_starts = [recorded(start) for run in runs for start in run.starts]
  names = dict.fromkeys(name for start in all_starts for name in start)
  found: dict[str, dict[str, list[str]]] = {name: {} for name in names}
  for run in runs:
    for name in names:
      before = None
      for start in run.starts:
        value = recorded(start).get(name, 'none')
        since = '' if before is None else f' from step {start["step"]}'
        if value != before:
          found[name].setdefault(value, []).append(run.name + since)
        before = value
  return found


def _differing(values: dict[str, list[str]]) -> str:
  """Each value and its runs; for the value that most runs have, last, 'all others'."""
  *few, most = sorted(values, key=lambda value: len(values[value]))
  return '; '.join(
    [*(f'{value}: {", ".join(values[value])}' for value in few), f'{most}: all others']
  )
