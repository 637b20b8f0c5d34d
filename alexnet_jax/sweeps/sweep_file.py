"""sweep.json, which describes a sweep and its runs: read and checked, for anyone may have written it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_jax.checkpoints import workdir
from alexnet_jax.sweeps import spec
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

NAME = workdir.SWEEP
"""In the sweep's folder."""

FOLDER_NAME = r'[A-Za-z0-9_+=-][A-Za-z0-9_.+=-]*'
"""What a variant's name matches, which is that of a folder."""


def run_name(variant: str, seed: int) -> str:
  """A run's name, as 'no_dropout/seed0'."""
  return f'{variant}/seed{seed}'


def run_path(path: Path, variant: str, seed: int) -> Path:
  """A run's folder in its sweep's; raises UserError where a link leads out of that."""
  return files.inside(path, run_name(variant, seed))


def read(path: str | os.PathLike[str]) -> dict[str, Any] | None:
  """A sweep's folder's sweep.json; None where there is none.

  Raises:
    UserError: it cannot be understood.
  """
  file = files.inside(path, NAME)
  if not file.exists():
    return None
  content = files.read(file)
  try:
    description: dict[str, Any] = files.parse_json(content)
    _check(description)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{file} is not the description of a sweep ({first_line(error)}); remove it and run the sweep again:'
      ' finished runs are kept'
    ) from error
  return description


def is_archive(description: Mapping[str, Any]) -> bool:
  """Whether a sweep.json, as `read` returns it, is that of an archive (`archive.write`)."""
  return 'base_config' in description


def _check(description: Mapping[str, Any]) -> None:
  """Raises KeyError, TypeError or ValueError for what `planning.write` cannot have written."""

  def of_kinds(part: Any, kinds: Mapping[str, Any]) -> None:
    for name, kind in kinds.items():
      if not isinstance(part[name], kind):
        raise TypeError(f'{name} is {part[name]!r}')

  def all_of_kind(values: Sequence[Any], kind: Any) -> None:
    for value in values:
      if not isinstance(value, kind):
        raise TypeError(f'{value!r} is of another kind')

  of_kinds(description, {'sweep': str, 'title': str, 'config': str, 'overrides': dict})
  of_kinds(description, {'seeds': list, 'variants': list, 'not_applying': list, 'runs': list})
  all_of_kind([description.get(name) for name in ('command', 'caller')], str | None)
  all_of_kind(description['seeds'], int)
  all_of_kind(description['not_applying'], str)
  of_kinds({'conditions': {}, **description}, {'conditions': dict})  # of an archive
  for variant in description['variants']:
    spec.read_variant(variant)
  for run in description['runs']:
    of_kinds(run, {'variant': str, 'seed': int, 'num_epochs': int, 'num_steps': int | None})
    of_kinds(run, {'command': list})
    all_of_kind(run['command'], str)
    all_of_kind(run.get('starts', []), dict)  # of an archive
    # Its folder is within the sweep's.
    if not re.fullmatch(FOLDER_NAME, run['variant']) or run['seed'] < 0:
      raise ValueError(f'a run is {run["variant"]!r}, seed {run["seed"]}')


def recorded(path: str | os.PathLike[str]) -> dict[str, tuple[int, int | None]]:
  """The epochs and steps of the runs in a folder's sweep.json, by `run_name`; raises as `read`."""
  written = read(path)
  return {
    run_name(run['variant'], run['seed']): (run['num_epochs'], run['num_steps'])
    for run in (written['runs'] if written else ())
  }
