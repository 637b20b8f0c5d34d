"""What a sweep is: a base, and named variants of it beside what others reported.

A sweep file (`configs/sweeps/*.py`) has `get_sweep(config)`, which returns a `Sweep` for the config
it is given.
"""

import dataclasses
import os
import re
import runpy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, of_file

BASE = 'base'
# Who reports differences: fields of `Variant`, and their names in tables and pictures.
REPORTERS = {'paper': 'paper', 'source': '2012 logs'}


@dataclasses.dataclass(frozen=True)
class Reported:
  """A difference that somebody reported: a variant's error less its base's, in percentage points.

  Attributes:
    top1, top5: of the top-1 and top-5 error; top5 None where it is not given.
    roughly: what stands before the number where it is reported, as 'about' or 'over'.
    where: the data and views it was measured with, as 'ILSVRC-2012 validation'.
  """

  top1: float
  top5: float | None = None
  roughly: str = ''
  where: str = ''


@dataclasses.dataclass(frozen=True)
class Variant:
  """One thing that is done otherwise.

  Attributes:
    name: of its folder and its row: letters, digits and _ . + - =.
    overrides: values by field, as {'model.pool.window': 2}; of the fields' own types.
    description: what it is, in a few words.
    paper: the difference that the paper reports, if it does.
    source: the difference that the logs of the 2012 code show, if there are any.
  """

  name: str
  overrides: Mapping[str, Any]
  description: str
  paper: Reported | None = None
  source: Reported | None = None


@dataclasses.dataclass(frozen=True)
class Sweep:
  """What a sweep file returns.

  Attributes:
    title: what stands above its tables.
    variants: those to compare with the base, each once.
    seeds: `train.seed` of each run of the base and of every variant.
    base: overrides that all runs have, where the command line does not say otherwise.
  """

  title: str
  variants: Sequence[Variant]
  seeds: Sequence[int] = (0,)
  base: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read(path: str | os.PathLike[str], config: ConfigDict) -> Sweep:
  """Reads a sweep file and makes its sweep for a config.

  Raises:
    UserError: the file does not exist, is not a sweep file or changes the config, or a part of its sweep
      is of another kind than `Sweep`, `Variant` and `Reported` say.
  """
  path = files.local(path, '--sweep')
  if not path.is_file():
    raise UserError(
      f'there is no file {path} (--sweep); --mode=list lists those that come with the program'
    )
  try:
    get_sweep = runpy.run_path(str(path)).get('get_sweep')
    given = config.copy_and_resolve_references()
    sweep = get_sweep and checked(get_sweep(given))
    if given != config.copy_and_resolve_references():
      raise UserError(
        'get_sweep changes its config, but no run would have the change; put what all runs have into'
        " Sweep(base={'field': value})"
      )
  except Exception as error:  # whatever a user's file, or a generator of variants, may do
    raise UserError(of_file(path, error)) from error
  if not sweep:
    raise UserError(
      f'{path} has no get_sweep(config); --sweep takes a file that has, such as'
      ' configs/sweeps/ablations.py'
    )
  return sweep


# What the fields must be, in words too.
_TEXT = str, 'a string'
_FIELDS = Mapping, "a dict of values by field, as {'model.pool.window': 2}"
_DIFFERENCE = Reported | None, 'a Reported, as Reported(1.4), or None'
_KINDS: dict[type, dict[str, tuple[Any, str]]] = {
  Sweep: {
    'title': _TEXT,
    'variants': (Iterable, 'a list of Variant'),
    'seeds': (Iterable, 'a list of whole numbers'),
    'base': _FIELDS,
  },
  Variant: {
    'name': _TEXT,
    'overrides': _FIELDS,
    'description': _TEXT,
    'paper': _DIFFERENCE,
    'source': _DIFFERENCE,
  },
  Reported: {
    'top1': (int | float, 'a number'),
    'top5': (int | float | None, 'a number or None'),
    'roughly': _TEXT,
    'where': _TEXT,
  },
}


def checked(sweep: Any) -> Sweep:
  """A sweep with tuples for whatever gives its variants and seeds, and Python's numbers for NumPy's.

  Args:
    sweep: what get_sweep has returned.

  Raises:
    UserError: a part is of another kind than it must be, or there is no variant.
  """
  if not isinstance(sweep, Sweep):
    raise UserError(f'get_sweep(config) must return a Sweep, not {type(sweep).__name__}')
  sweep = _checked(sweep, 'the sweep')
  variants = []
  for number, variant in enumerate(sweep.variants, 1):
    if not isinstance(variant, Variant):
      raise UserError(f'variant {number} must be a Variant, not {type(variant).__name__}')
    variants.append(_checked_variant(variant))
  if not variants:
    raise UserError('the sweep has no variants; give it one or more to compare with the base')
  return dataclasses.replace(sweep, variants=tuple(variants), seeds=_plain(tuple(sweep.seeds)))


def read_variant(description: Mapping[str, Any]) -> Variant:
  """A variant from a sweep.json, which has it as `dataclasses.asdict` gives it.

  Raises:
    KeyError, TypeError: a part is missing, or none of a variant's.
    UserError: a part is of another kind than `Variant` and `Reported` say.
  """
  values = {field.name: description[field.name] for field in dataclasses.fields(Variant)}
  for by in REPORTERS:
    values[by] = None if values[by] is None else Reported(**values[by])
  return _checked_variant(Variant(**values))


def _checked_variant(variant: Variant) -> Variant:
  """A variant with plain values; raises UserError where a part of it is of another kind."""
  where = f'variant {variant.name!r}'
  reported = {
    by: _checked(one, f'{where}, {by}')
    for by in REPORTERS
    if isinstance(one := getattr(variant, by), Reported)
  }
  return dataclasses.replace(_checked(variant, where), **reported)


def _checked(part: Any, where: str) -> Any:
  """A Sweep, Variant or Reported with plain values; raises UserError where one is of another kind."""
  values = {}
  for field, (kind, words) in _KINDS[type(part)].items():
    values[field] = value = _plain(getattr(part, field))
    if not isinstance(value, kind):
      raise UserError(f'{where}: {field} must be {words}, not {type(value).__name__}')
    if kind is Mapping and (wrong := [name for name in value if not isinstance(name, str)]):
      raise UserError(f'{where}: {field} has the field {wrong[0]!r}; a field is a string')
  return dataclasses.replace(part, **values)


def _plain(value: Any) -> Any:
  """A value with NumPy's numbers and arrays as Python's, which configs and JSON take."""
  if isinstance(value, np.generic | np.ndarray):
    return value.tolist()
  if isinstance(value, Mapping):
    return {name: _plain(inner) for name, inner in value.items()}
  return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def chosen(sweep: Sweep, only: Sequence[str] | None, seeds: Sequence[str] | None) -> Sweep:
  """A sweep with some of its variants, and with other seeds.

  Args:
    sweep: the sweep.
    only: names of variants to keep; None: all.
    seeds: as a command line has them; None: its own.

  Raises:
    UserError: it has no such variant, or a seed is not a number or there twice.
  """
  names = [variant.name for variant in sweep.variants]
  if only is not None:
    if unknown := [name for name in only if name not in (*names, BASE)]:
      raise UserError(
        f'the sweep has no variant {unknown[0]!r} (--only); it has {", ".join(names)}'
      )
    kept = [variant for variant in sweep.variants if variant.name in only]
    sweep = dataclasses.replace(sweep, variants=kept)
  if seeds is not None:
    numbers: list[Any] = [
      int(seed) if re.fullmatch('[0-9]{1,10}', seed) else seed for seed in seeds
    ]
    if mistake := mistaken_seeds(numbers):
      raise UserError(f'--seeds is {",".join(seeds)}; {mistake}')
    sweep = dataclasses.replace(sweep, seeds=numbers)
  return sweep


def mistaken_seeds(seeds: Sequence[Any]) -> str | None:
  """Says what is wrong with the seeds of a sweep; None where nothing is."""
  most = experiment.SEEDS - 1
  if not seeds or not all(isinstance(seed, int) and 0 <= seed <= most for seed in seeds):
    return f'give one or more whole numbers from 0 to {most}, as 0,1,2'
  return 'each may appear only once' if len(set(seeds)) < len(seeds) else None
