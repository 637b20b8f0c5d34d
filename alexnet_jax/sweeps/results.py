"""The results of a sweep: its runs' errors, and the variants' differences from the base.

Everything is computed from sweep.json and each run's config.json and metrics.jsonl, or from an
archive of them, so the same runs give the same table to the last digit, however often they were
interrupted.
"""

import dataclasses
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from alexnet_jax.checkpoints import workdir
from alexnet_jax.sweeps import archive, spec, sweep_file
from alexnet_jax.sweeps.runner import FAILURE
from alexnet_jax.utils import config_fields, files
from alexnet_jax.utils.errors import UserError, first_line


@dataclasses.dataclass(frozen=True)
class RunResult:
  """One run.

  Attributes:
    variant, seed: which.
    length: its `train.num_epochs` and `train.num_steps`.
    command: arguments of launch.py that run it.
    config: its config.json, {} where there is none yet.
    records: lines of its metrics.jsonl up to its end.
    final: its last validation; None where it is not finished.
    state: 'finished', or why it is not.
    starts: lines of its starts.jsonl up to its end; none for a run of an older version.
  """

  variant: str
  seed: int
  length: tuple[int, int | None]
  command: Sequence[str]
  config: Mapping[str, Any]
  records: Sequence[Mapping[str, Any]]
  final: Mapping[str, Any] | None
  state: str
  starts: Sequence[Mapping[str, Any]]

  @property
  def name(self) -> str:
    """As `sweep_file.run_name` gives it."""
    return sweep_file.run_name(self.variant, self.seed)

  @property
  def window(self) -> int:
    """The steps that a training line is the mean of; fewer at an epoch's end."""
    return int(self.config['train']['log_every_steps'])

  @property
  def seconds(self) -> float:
    """Time in training steps, by the images/s of its lines; validation and start-up come on top."""
    batch_size = self.config['train']['batch_size'] if self.config else 0
    return sum(
      steps * batch_size / record['images_per_second']
      for steps, record in workdir.training_lines(self.records)
      if record['images_per_second']
    )


@dataclasses.dataclass(frozen=True)
class Row:
  """A variant's runs. Errors are in percent, differences in percentage points.

  Runs are paired: a run's difference is its error minus that of the base's run of the same seed and
  length, which took the same images in the same order.

  Attributes:
    name, description: the variant's.
    errors: top-1 error of each finished run.
    top1, top5: mean errors; NaN without a finished run.
    deviation: standard deviation of the top-1 errors (n - 1); NaN below two.
    differences: top-1 difference of each pair.
    difference, difference_top5: mean differences of the pairs; NaN without one.
    difference_deviation: standard deviation of the top-1 differences (n - 1); NaN below two.
    interval: 95% confidence interval of the top-1 difference (Student's t); NaN where there are
      fewer than two pairs, or where all differ by the same, which leaves nothing to estimate.
    p: p value of the paired t test of no top-1 difference; NaN likewise.
    paper, source: the differences that they report.
    states: of the runs that are not finished.
  """

  name: str
  description: str
  errors: Sequence[float]
  top1: float
  top5: float
  deviation: float
  differences: Sequence[float]
  difference: float
  difference_top5: float
  difference_deviation: float
  interval: tuple[float, float]
  p: float
  paper: spec.Reported | None
  source: spec.Reported | None
  states: Sequence[str]

  @property
  def is_significant(self) -> bool:
    """Whether the paired t test rejects that there is no difference; False without a test."""
    return self.p < 0.05

  @property
  def significance(self) -> str:
    """'significant (p < 0.05)', 'not significant', or '' without a test."""
    if math.isnan(self.p):
      return ''
    return 'significant (p < 0.05)' if self.is_significant else 'not significant'

  def agrees(self, reported: spec.Reported | None) -> str:
    """Whether the difference has the sign of a reported one: 'same sign', 'other sign'.

    '' where one of them is 0 or not known.
    """
    product = math.nan if reported is None else self.difference * reported.top1
    return 'same sign' if product > 0 else 'other sign' if product < 0 else ''


@dataclasses.dataclass(frozen=True)
class Results:
  """A sweep's runs and rows.

  Attributes:
    path: the sweep's folder.
    description: its sweep.json.
    runs: every run, finished or not.
    rows: the base's, then each variant's.
  """

  path: Path
  description: Mapping[str, Any]
  runs: Sequence[RunResult]
  rows: Sequence[Row]

  @property
  def title(self) -> str:
    """The sweep's title and its config's name."""
    return f'{self.description["title"]}, {Path(self.description["config"]).stem}'


def gather(path: str | os.PathLike[str]) -> Results:
  """Reads a sweep's folder, or the archive of one.

  Raises:
    UserError: it is none, is damaged, or none of its runs is finished.
  """
  path = Path(path)
  description = sweep_file.read(path)
  if description is None:
    raise UserError(f'{path} has no {sweep_file.NAME}; it is not the folder of a sweep')
  read = _read_archive if sweep_file.is_archive(description) else _read_runs
  runs = read(path, description)
  if not any(run.final for run in runs):
    first = f' (the first, {runs[0].name}: {runs[0].state})' if runs else ''
    raise UserError(
      f'no run of the sweep in {path} is finished{first}; --mode=sweep runs those that are not'
    )
  base = [run for run in runs if run.variant == spec.BASE]
  rows = [_row(spec.BASE, 'the base', base, ())]
  for variant in map(spec.read_variant, description['variants']):
    of_variant = [run for run in runs if run.variant == variant.name]
    reported = variant.paper, variant.source
    rows.append(_row(variant.name, variant.description, of_variant, base, *reported))
  return Results(path, description, runs, rows)


def _read_runs(path: Path, description: Mapping[str, Any]) -> list[RunResult]:
  return [_read_run(path, run) for run in description['runs']]


def _read_archive(path: Path, description: Mapping[str, Any]) -> list[RunResult]:
  with tempfile.TemporaryDirectory() as folder:
    archive.unpack(path, folder)
    try:
      return _read_runs(Path(folder), description)
    except UserError as error:  # it names an unpacked file, and what to do about that
      what = str(error).replace(f'{folder}/', '').rpartition(';')[0]
      raise UserError(f'the archive {path} is damaged: {what}') from error


def _read_run(path: Path, run: Mapping[str, Any]) -> RunResult:
  folder = sweep_file.run_path(path, run['variant'], run['seed'])
  config = workdir.read_config(folder) or {}
  if config:
    _check_config(config, folder)
  records = workdir.read_metrics(folder)
  if records and not config:
    raise UserError(
      f'{folder} has metrics.jsonl but no config.json, so what it ran is not known; remove {folder} and'
      ' run it again'
    )
  length = run['num_epochs'], run['num_steps']
  final = workdir.final_record(records, *length)
  if final is not None:
    state = 'finished'
    records = records[: records.index(dict(final)) + 1]
  elif (failure := files.inside(folder, FAILURE)).exists():
    with failure.open(encoding='utf-8', errors='replace') as file:
      state = 'failed: ' + first_line(file.read(10_000))
  elif records:
    state = f'at epoch {records[-1]["epoch"]:.4g} of {run["num_epochs"]}'
  else:
    state = 'not run yet'
  starts = workdir.read_starts(folder)
  if final is not None:  # a run may have gone on for longer
    starts = [start for start in starts if start['step'] < final['step']]
  return RunResult(
    run['variant'], run['seed'], length, run['command'], config, records, final, state, starts
  )


def _check_config(config: Mapping[str, Any], folder: Path) -> None:
  """Raises UserError where a run's config lacks what a sweep's results say of it."""
  fields = dict(config_fields.flatten(config))
  for field, kind in (
    ('train.batch_size', int),
    ('train.log_every_steps', int),
    ('model.activation', str),
    ('model.num_classes', int | None),
    ('optimizer.learning_rate', int | float),
    ('data.name', str),
    ('data.validation_split', str),
  ):
    if not isinstance(fields.get(field), kind):
      raise UserError(f'{folder / "config.json"} has no {field}; remove {folder} and run it again')


def _row(
  name: str,
  description: str,
  runs: Sequence[RunResult],
  base: Sequence[RunResult],
  paper: spec.Reported | None = None,
  source: spec.Reported | None = None,
) -> Row:
  finals = [run.final for run in runs if run.final]
  top1 = [100 * final['top1_error'] for final in finals]
  of_base = {(run.seed, run.length): run.final for run in base if run.final}
  pairs = [
    (run.final, of_base[run.seed, run.length])
    for run in runs
    if run.final and (run.seed, run.length) in of_base
  ]
  differences, differences_top5 = (
    # Rounded, so that equal differences of fractions are equal.
    [round(100 * (final[field] - base_final[field]), 9) for final, base_final in pairs]
    for field in ('top1_error', 'top5_error')
  )
  interval, p = (math.nan, math.nan), math.nan
  if len(set(differences)) > 1:
    test = stats.ttest_1samp(differences, 0)
    low, high = test.confidence_interval(0.95)
    # Rounded to what versions of SciPy agree on.
    interval, p = (round(float(low), 6), round(float(high), 6)), float(f'{test.pvalue:.6g}')
  return Row(
    name=name,
    description=description,
    errors=top1,
    top1=_mean(top1),
    top5=_mean([100 * final['top5_error'] for final in finals]),
    deviation=_deviation(top1),
    differences=differences,
    difference=_mean(differences),
    difference_top5=_mean(differences_top5),
    difference_deviation=_deviation(differences),
    interval=interval,
    p=p,
    paper=paper,
    source=source,
    states=[run.state for run in runs if run.final is None],
  )


def _mean(values: Sequence[float]) -> float:
  return float(np.mean(values)) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
  return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
