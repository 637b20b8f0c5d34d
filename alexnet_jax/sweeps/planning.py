"""The runs of a sweep: which there are, how far each is, and the sweep.json that describes them.

A run's folder is `<workdir>/<variant>/seed<seed>`, and all that is asked of a run is answered from
its config.json and metrics.jsonl.
"""

import collections
import dataclasses
import functools
import json
import operator
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import workdir
from alexnet_jax.sweeps import spec, sweep_file
from alexnet_jax.utils import config_fields, files
from alexnet_jax.utils.errors import UserError, listed


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of a sweep.

  Attributes:
    variant: the variant's name.
    seed: its `train.seed`.
    config: what it runs.
    path: its workdir.
    command: arguments of launch.py that run it alone.
  """

  variant: str
  seed: int
  config: ConfigDict
  path: Path
  command: tuple[str, ...]

  @property
  def name(self) -> str:
    """As `sweep_file.run_name` gives it."""
    return sweep_file.run_name(self.variant, self.seed)

  @property
  def length(self) -> tuple[int, int | None]:
    """Its epochs and steps, as `workdir.final_record` takes them."""
    return self.config.train.num_epochs, self.config.train.num_steps


@dataclasses.dataclass(frozen=True)
class Plan:
  """The runs of a sweep with one config.

  Attributes:
    name: the sweep's: its file's.
    sweep: what the file returned, without the variants that do not apply.
    not_applying: names of variants that change nothing of this base.
    config_file: of the base.
    overrides: of the base's fields, from the command line.
    path: the sweep's folder.
    runs: every seed of the base and all variants, then the next seed.
  """

  name: str
  sweep: spec.Sweep
  not_applying: tuple[str, ...]
  config_file: str
  overrides: Mapping[str, Any]
  path: Path
  runs: tuple[Run, ...]


def plan(
  name: str,
  sweep: spec.Sweep,
  config: ConfigDict,
  path: str | os.PathLike[str],
  *,
  config_file: str,
  overrides: Mapping[str, Any],
) -> Plan:
  """Plans the runs of a sweep; tries every override, so that nothing runs if one is wrong.

  Args:
    name: the sweep's.
    sweep: what its file returned.
    config: the base's, its overrides from the command line applied.
    path: the sweep's folder.
    config_file: the base's file, for the runs' command lines.
    overrides: those from the command line, for the same.

  Raises:
    UserError: two variants have one name or one config, a name cannot be a folder's, or a variant
      sets the seed, a field that does not exist, or an invalid value; all of them are listed.
  """
  mistakes = _mistaken_names(sweep)
  if mistake := spec.mistaken_seeds(sweep.seeds):
    mistakes.append(f'seeds are {sweep.seeds!r}; {mistake}')
  common = {**sweep.base, **overrides}  # the command line overrides the file
  before = len(mistakes)
  base = _changed(config, common, 'all runs', mistakes)
  base_is_valid = len(mistakes) == before  # else every variant would repeat its mistakes
  not_applying = []
  planned: dict[str, tuple[Mapping[str, Any], ConfigDict]] = {spec.BASE: ({}, base)}
  resolved = {spec.BASE: experiment.resolved(base)}
  for variant in sweep.variants if base_is_valid else ():
    changed = _changed(base, variant.overrides, variant.name, mistakes)
    value = experiment.resolved(changed)
    same = next((name for name, other in resolved.items() if other == value), None)
    if same == spec.BASE:
      not_applying.append(variant.name)
    elif same is not None:
      mistakes.append(f'{variant.name}: it is the same as {same}; leave one of them out')
    else:
      planned[variant.name] = variant.overrides, changed
      resolved[variant.name] = value
  if mistakes:
    raise UserError('\n  '.join([f'nothing was run, for in the sweep {name!r}', *mistakes]))
  path = Path(path)
  runs = []
  for seed in sweep.seeds:
    for variant_name, (of_variant, changed) in planned.items():
      run_config = changed.copy_and_resolve_references()
      run_config.train.seed = seed
      fields = {**common, **of_variant, 'train.seed': seed}
      folder = sweep_file.run_path(path, variant_name, seed)
      command = (
        f'--config={config_file}',
        *(f'--config.{field}={value}' for field, value in fields.items()),
        f'--workdir={folder}',
      )
      runs.append(Run(variant_name, seed, run_config, folder, command))
  return Plan(
    name,
    dataclasses.replace(sweep, variants=tuple(v for v in sweep.variants if v.name in planned)),
    tuple(not_applying),
    config_file,
    dict(overrides),
    path,
    tuple(runs),
  )


def _mistaken_names(sweep: spec.Sweep) -> list[str]:
  counts = collections.Counter(variant.name for variant in sweep.variants)
  mistakes = [
    f'{count} variants have the name {name!r}; each needs its own'
    for name, count in counts.items()
    if count > 1
  ]
  for name in counts:
    if name == spec.BASE:
      mistakes.append(
        f'a variant has the name {spec.BASE!r}, which is that of the runs without any'
      )
    elif not re.fullmatch(sweep_file.FOLDER_NAME, name):
      mistakes.append(f'the name {name!r} cannot be a folder; use letters, digits and _ . + - =')
  return mistakes


def _changed(
  config: ConfigDict, overrides: Mapping[str, Any], name: str, mistakes: list[str]
) -> ConfigDict:
  """Copies a config with overrides applied; adds what is invalid to the mistakes."""
  changed = config.copy_and_resolve_references()
  found = len(mistakes)
  for field, value in overrides.items():
    field = config_fields.current_name(field)
    if field == 'train.seed':
      mistakes.append(f'{name}: a sweep sets train.seed itself; give its seeds, or --seeds')
      continue
    if field not in (known := dict(config_fields.flatten(changed.to_dict()))):
      near = config_fields.nearest(field, known)
      hint = f'; did you mean {near}?' if near else ''
      mistakes.append(f'{name}: the config has no field {field!r}{hint}')
      continue
    try:
      changed.update_from_flattened_dict({field: value})
    except (TypeError, ValueError):
      section, _, last = field.rpartition('.')
      kind = functools.reduce(operator.getitem, section.split('.'), changed).get_type(last)
      mistakes.append(f'{name}: {field} is {value!r}; it must be of type {kind.__name__}')
  if len(mistakes) == found:
    try:
      experiment.check(changed)
      experiment.check_new(changed)
    except UserError as error:
      mistakes.append(f'{name}: {error}')
  return changed


def check_folder(plan: Plan) -> None:
  """Raises UserError where the sweep's folder holds an archive, another sweep, or a run."""
  written = sweep_file.read(plan.path)
  if written is None:
    if (plan.path / 'config.json').exists():
      raise UserError(f'{plan.path} holds a run; give the sweep a --workdir of its own')
  elif sweep_file.is_archive(written):
    raise UserError(
      f'{plan.path} holds the archive of a sweep, which is not run again; give the sweep a --workdir'
      ' of its own'
    )
  elif written['sweep'] != plan.name:
    raise UserError(
      f'{plan.path} holds another sweep, {written["sweep"]!r}, not {plan.name!r}; give this one a'
      ' --workdir of its own'
    )


def is_recorded(plan: Plan) -> bool:
  """Whether the sweep.json in a plan's folder has its runs, of the same lengths; raises as `sweep_file.read`."""
  return {run.name: run.length for run in plan.runs}.items() <= sweep_file.recorded(
    plan.path
  ).items()


def changes(plan: Plan, variants: Collection[str]) -> list[str]:
  """What a table will not have that the sweep.json in a plan's folder lists now, in lines for the user.

  Args:
    plan: what will be written.
    variants: names of all variants of the sweep, and the base's; the plan may have some of them.

  Raises:
    UserError: as `sweep_file.read`.
  """
  before, planned = sweep_file.recorded(plan.path), {run.name: run.length for run in plan.runs}
  left_out = [name for name in before if name not in planned]
  gone = [name for name in left_out if name.partition('/')[0] not in variants]
  others = [name for name in left_out if name not in gone]
  of_other_length = [name for name in planned if before.get(name, planned[name]) != planned[name]]
  lines = []
  if others:
    lines.append(
      f'the table will leave out {listed(others)}, of an earlier command in {plan.path}; to have them in'
      ' it, give their --only and --seeds too'
    )
  if gone:
    lines.append(
      f'the table will leave out {listed(gone)}, of variants that the sweep no longer has'
    )
  if of_other_length:
    lines.append(
      f'{plan.path} had {listed(of_other_length)} with another train.num_epochs or train.num_steps; the'
      ' table will have them once they have been trained as long as this command says'
    )
  return lines


def write(plan: Plan, started_by: Mapping[str, str | None] | None = None) -> None:
  """Makes the sweep's folder and writes sweep.json: all that its tables need beside the runs.

  Args:
    plan: the sweep's.
    started_by: the command, as `provenance.started_by` has it; None: not recorded.

  Raises:
    UserError: nothing can be written there.
  """
  try:
    with files.atomic_write(plan.path / sweep_file.NAME) as temporary:
      description = _description(plan) | dict(started_by or {})
      temporary.write_text(json.dumps(description, indent=2) + '\n', 'utf-8')
  except OSError as error:
    raise UserError(
      f'cannot write to {plan.path}: {error.strerror}; choose another with --workdir'
    ) from error


def _description(plan: Plan) -> dict[str, Any]:
  return {
    'sweep': plan.name,
    'config': plan.config_file,
    'overrides': dict(plan.overrides),
    **dataclasses.asdict(plan.sweep),
    'not_applying': plan.not_applying,
    'runs': [
      {
        'variant': run.variant,
        'seed': run.seed,
        'num_epochs': run.config.train.num_epochs,
        'num_steps': run.config.train.num_steps,
        'command': run.command,
      }
      for run in plan.runs
    ],
  }


def is_finished(run: Run) -> bool:
  """Whether a run's metrics.jsonl has its last validation, and it has left its picture.

  One that was killed in between, when its last checkpoint may not have been whole, is not.

  Raises:
    UserError: the folder holds a run of another config.
  """
  there = workdir.read_config(run.path)
  if there is None:
    return False
  workdir.check(run.path, experiment.resolved(run.config))
  picture = files.inside(run.path, f'{workdir.LEARNING_CURVES}.svg')
  return (
    picture.exists()
    and workdir.final_record(workdir.read_metrics(run.path), *run.length) is not None
  )
