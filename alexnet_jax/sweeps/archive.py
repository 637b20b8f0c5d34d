"""A finished sweep in two small files, from which its tables and pictures can be made again.

sweep.json has, beside the sweep's description, the config of its first run, and of every run its
starts and the fields in which its config differs; curves.jsonl.gz has all runs' metrics.

  python -m alexnet_jax.sweeps.archive runs/ablations_digits kept/ablations device="1 H100" date=2026-11-25
  python launch.py --mode=figures --workdir=kept/ablations
"""

import copy
import functools
import gzip
import json
import operator
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_jax.checkpoints import workdir
from alexnet_jax.sweeps import sweep_file
from alexnet_jax.utils import config_fields, files
from alexnet_jax.utils.errors import UserError, first_line

CURVES = 'curves.jsonl.gz'

_USAGE = 'python -m alexnet_jax.sweeps.archive SWEEP_FOLDER NEW_FOLDER [NAME=VALUE ...]'

_MOST = 2**28  # bytes of uncompressed curves: a million lines


def write(
  folder: str | os.PathLike[str],
  target: str | os.PathLike[str],
  conditions: Mapping[str, str] | None = None,
) -> None:
  """Archives a sweep of which every run is finished. The same runs give the same bytes.

  Args:
    folder: the sweep's folder.
    target: the folder of the archive, made if need be.
    conditions: what else is to be known of the runs, as {'device': ..., 'date': ...}.

  Raises:
    UserError: the one is not a finished sweep's, or the other has a sweep already.
  """
  folder, target = Path(folder), Path(target)
  description = sweep_file.read(folder)
  if description is None or not description['runs'] or sweep_file.is_archive(description):
    raise UserError(f'{folder} is not the folder of a sweep with its runs')
  if files.inside(target, sweep_file.NAME).exists():
    raise UserError(f'{target} has a {sweep_file.NAME} already; choose another folder')
  base: dict[str, Any] = {}
  runs, lines = [], []
  for run in description['runs']:
    path = sweep_file.run_path(folder, run['variant'], run['seed'])
    config, records = workdir.read_config(path), workdir.read_metrics(path)
    if not config or workdir.final_record(records, run['num_epochs'], run['num_steps']) is None:
      raise UserError(f'the run in {path} is not finished; --mode=sweep runs what is missing')
    base = base or config
    differing, starts = _differing(base, config, path), workdir.read_starts(path)
    runs.append({**run, 'config': differing, 'starts': starts})
    lines += [
      json.dumps({'run': sweep_file.run_name(run['variant'], run['seed']), **record})
      for record in records
    ]
  # Compressed without a name and a time, so that the bytes depend on the curves alone.
  with (
    files.atomic_write(target / CURVES) as temporary,
    temporary.open('wb') as file,
    gzip.GzipFile('', 'wb', 9, file, mtime=0) as packed,
  ):
    packed.write(''.join(f'{line}\n' for line in lines).encode())
  del description['runs']
  description |= {'conditions': dict(conditions or {}), 'base_config': base, 'runs': runs}
  with files.atomic_write(target / sweep_file.NAME) as temporary:
    temporary.write_text(json.dumps(description, indent=2) + '\n', 'utf-8')


def unpack(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
  """Writes the config.json, metrics.jsonl and starts.jsonl of every run of an archive.

  The last is empty of runs from before starts were recorded.

  Args:
    path: the archive's folder.
    target: where the runs' folders are made.

  Raises:
    UserError: it is not an archive, it is damaged, or a run is missing.
  """
  path, target = Path(path), Path(target)
  description = sweep_file.read(path)
  if description is None or not sweep_file.is_archive(description):
    raise UserError(f'{path} is not the archive of a sweep')
  curves = _read_curves(files.inside(path, CURVES))
  for run in description['runs']:
    name = sweep_file.run_name(run['variant'], run['seed'])
    if name not in curves:
      raise UserError(f'{path / CURVES} has no curve of {name}, which {sweep_file.NAME} names')
    try:
      config = _changed(description['base_config'], run['config'])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise UserError(
        f'{path / sweep_file.NAME} is damaged: the config of {name} ({first_line(error)})'
      ) from error
    folder = sweep_file.run_path(target, run['variant'], run['seed'])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n', 'utf-8')
    (folder / 'metrics.jsonl').write_text(''.join(f'{line}\n' for line in curves[name]), 'utf-8')
    starts = [json.dumps(start) for start in run.get('starts', [])]
    (folder / workdir.STARTS).write_text(''.join(f'{line}\n' for line in starts), 'utf-8')


def _read_curves(path: Path) -> dict[str, list[str]]:
  """The lines of metrics.jsonl of each run."""
  curves: dict[str, list[str]] = {}
  try:
    with gzip.open(path) as file:
      content = file.read(_MOST + 1)
    if len(content) > _MOST:
      raise ValueError(f'more than {_MOST:,} bytes')
    for line in content.splitlines():
      record = files.parse_json(line)
      curves.setdefault(record.pop('run'), []).append(json.dumps(record))
  except FileNotFoundError as error:
    raise UserError(f'{path} is missing, without which the archive has no curves') from error
  except (AttributeError, EOFError, KeyError, OSError, TypeError, ValueError, zlib.error) as error:
    raise UserError(f'{path} is damaged ({first_line(error)})') from error
  return curves


def _differing(base: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> dict[str, Any]:
  """The fields of a config that are not as the base's."""
  ours, theirs = (dict(config_fields.flatten(one)) for one in (base, config))
  if lacking := sorted(ours.keys() - theirs.keys() - config_fields.ADDED_FIELDS.keys()):
    raise UserError(f'{path / "config.json"} has no {lacking[0]}, which the first run has')
  theirs = {
    name: value for name, value in config_fields.ADDED_FIELDS.items() if name in ours
  } | theirs
  return {name: value for name, value in theirs.items() if name not in ours or ours[name] != value}


def _changed(config: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
  """A copy of a config with some fields set."""
  changed = dict(copy.deepcopy(config))
  for field, value in fields.items():
    *sections, name = field.split('.')
    functools.reduce(operator.getitem, sections, changed)[name] = value
  return changed


def main(arguments: Sequence[str]) -> None:
  """Archives a sweep, as the command line has it: its folder, the target, and name=value."""
  try:
    if {'-h', '--help'} & set(arguments):
      print(f'usage: {_USAGE}\n\n{__doc__}')
      return
    if len(arguments) < 2 or not all('=' in condition for condition in arguments[2:]):
      raise UserError(
        "pass the sweep's folder, a folder for the archive, and notes to store with it, such as"
        f" date=2026-11-25 device='1 H100':\n{_USAGE}"
      )
    folder, target, *conditions = arguments
    write(folder, target, dict(condition.split('=', 1) for condition in conditions))
  except (UserError, OSError) as error:
    sys.exit(f'archive: {error}')


if __name__ == '__main__':
  main(sys.argv[1:])
