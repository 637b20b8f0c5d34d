"""What a sweep found: its runs' errors gathered into a table, as Markdown and as CSV.

All comes from sweep.json and from each run's config.json and metrics.jsonl, or from an archive of
them, so that the same runs give the same table to the last digit, however often they were stopped
on the way.
"""

import csv
import dataclasses
import io
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from alexnet_jax.checkpoints import workdir
from alexnet_jax.sweeps import archive, spec
from alexnet_jax.sweeps.runner import FAILURE
from alexnet_jax.utils import config_fields, files, host
from alexnet_jax.utils.errors import UserError, first_line

NOISE_LEVEL = 0.05  # a difference is more than noise where chance would give it more rarely


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
  """

  variant: str
  seed: int
  length: tuple[float, int | None]
  command: Sequence[str]
  config: Mapping[str, Any]
  records: Sequence[Mapping[str, Any]]
  final: Mapping[str, Any] | None
  state: str

  @property
  def seconds(self) -> float:
    """Time in training steps, by the images/s of its lines; validation and start-up come on top."""
    batch_size = self.config['train']['batch_size'] if self.config else 0
    seconds, before = 0.0, 0
    for record in self.records:
      if record['split'] == 'train':
        if record['images_per_second']:
          seconds += (record['step'] - before) * batch_size / record['images_per_second']
        before = record['step']
    return seconds


@dataclasses.dataclass(frozen=True)
class Row:
  """The runs of a variant together. Errors and differences are in percent and percentage points.

  Attributes:
    name, sentence: the variant's.
    errors: top-1 error of each finished run.
    top1, top5: their means; NaN where there is none.
    deviation: standard deviation of the top-1 errors (n - 1); NaN below two.
    difference, difference_top5: mean error less that of the base's runs of the same seeds and
      length; NaN where there are none.
    difference_deviation: of a run's difference: the root of both variances' sum.
    paper, source: what they report.
    noise: 'more than noise', 'within noise', or '' where there are too few runs to tell.
    states: of the runs that are not finished.
  """

  name: str
  sentence: str
  errors: Sequence[float]
  top1: float
  top5: float
  deviation: float
  difference: float
  difference_top5: float
  difference_deviation: float
  paper: spec.Reported | None
  source: spec.Reported | None
  noise: str
  states: Sequence[str]

  def agrees(self, reported: spec.Reported | None) -> str:
    """Whether the difference has the sign of a reported one: 'same sign', 'other sign' or ''."""
    if reported is None or math.isnan(self.difference) or not self.difference:
      return ''
    return 'same sign' if self.difference * reported.top1 > 0 else 'other sign'


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
  description = spec.read_written(path)
  if description is None:
    raise UserError(f'{path} has no {spec.FILE_NAME}; it is not the folder of a sweep')
  read = _read_archive if spec.is_archive(description) else _read_runs
  runs = read(path, description)
  if not any(run.final for run in runs):
    raise UserError(
      f'no run of the sweep in {path} is finished yet; --mode=sweep runs them, and says why one'
      ' fails'
    )
  base = [run for run in runs if run.variant == spec.BASE]
  rows = [_row(spec.BASE, 'the base', base, base)]
  for variant in description['variants']:
    of_variant = [run for run in runs if run.variant == variant['name']]
    reported = {
      by: spec.Reported(**variant[by]) if variant[by] else None for by in ('paper', 'source')
    }
    rows.append(_row(variant['name'], variant['sentence'], of_variant, base, **reported))
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
  folder = spec.run_path(path, run['variant'], run['seed'])
  config = workdir.read_config(folder) or {}
  if config:
    _check_config(config, folder)
  records = workdir.read_metrics(folder)
  length = run['num_epochs'], run['num_steps']
  final = spec.final_record(records, *length)
  if final is not None:
    state = 'finished'
    records = records[: records.index(dict(final)) + 1]
  elif (failure := files.inside(folder, FAILURE)).exists():
    with failure.open(errors='replace') as file:
      state = 'failed: ' + first_line(file.read(10_000))
  elif records:
    state = f'at epoch {records[-1]["epoch"]:.2g} of {run["num_epochs"]}'
  else:
    state = 'not run yet'
  return RunResult(
    run['variant'], run['seed'], length, run['command'], config, records, final, state
  )


def _check_config(config: Mapping[str, Any], folder: Path) -> None:
  """Raises UserError where a run's config lacks what a sweep's results say of it."""
  fields = dict(config_fields.flatten(config))
  for field, kind in (
    ('train.batch_size', int),
    ('model.activation', str),
    ('optimizer.learning_rate', int | float),
    ('data.name', str),
    ('data.validation_split', str),
  ):
    if not isinstance(fields.get(field), kind):
      raise UserError(f'{folder / "config.json"} has no {field}; remove {folder} and run it again')


def _row(
  name: str,
  sentence: str,
  runs: Sequence[RunResult],
  base: Sequence[RunResult],
  paper: spec.Reported | None = None,
  source: spec.Reported | None = None,
) -> Row:
  top1, top5 = _errors(runs, 'top1_error'), _errors(runs, 'top5_error')
  is_base = runs is base
  like = {(run.seed, run.length) for run in runs if run.final}
  base = [run for run in base if (run.seed, run.length) in like]
  base_top1, base_top5 = _errors(base, 'top1_error'), _errors(base, 'top5_error')
  variance = _deviation(top1) ** 2 + _deviation(base_top1) ** 2
  return Row(
    name=name,
    sentence=sentence,
    errors=top1,
    top1=_mean(top1),
    top5=_mean(top5),
    deviation=_deviation(top1),
    difference=math.nan if is_base else _mean(top1) - _mean(base_top1),
    difference_top5=math.nan if is_base else _mean(top5) - _mean(base_top5),
    difference_deviation=math.nan if is_base else math.sqrt(variance),
    paper=paper,
    source=source,
    noise='' if is_base else _noise(top1, base_top1),
    states=[run.state for run in runs if run.final is None],
  )


def _errors(runs: Sequence[RunResult], field: str) -> list[float]:
  return [100 * run.final[field] for run in runs if run.final]


def _mean(values: Sequence[float]) -> float:
  return float(np.mean(values)) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
  return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _noise(errors: Sequence[float], base: Sequence[float]) -> str:
  """Welch's test of two means, on the runs' errors."""
  if min(len(errors), len(base)) < 2:
    return ''
  of_each = [(_mean(some), _deviation(some), len(some)) for some in (errors, base)]
  if not any(deviation for _, deviation, _ in of_each):  # without any spread there is no test
    return 'within noise' if errors[0] == base[0] else 'more than noise'
  (mean, deviation, count), of_base = of_each
  chance = stats.ttest_ind_from_stats(mean, deviation, count, *of_base, equal_var=False).pvalue
  return 'more than noise' if chance < NOISE_LEVEL else 'within noise'


HEADINGS = (
  'variant', 'runs', 'top-1 error, %', 'difference', 'paper', 'source', 'sign', 'noise', 'what it is'
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
  """A row's cells, under HEADINGS."""
  agreement = row.agrees(row.paper or row.source)
  return (
    row.name,
    f'{len(row.errors)}' + (f' of {len(row.errors) + len(row.states)}' if row.states else ''),
    number(row.top1, row.deviation),
    number(row.difference, row.difference_deviation, '+'),
    reported(row.paper),
    reported(row.source),
    agreement,
    row.noise,
    row.sentence,
  )


def number(value: float, deviation: float = math.nan, sign: str = '') -> str:
  """As '12.34 ± 0.56'; '' for NaN."""
  if math.isnan(value):
    return ''
  return f'{value:{sign}.2f}' + ('' if math.isnan(deviation) else f' ± {deviation:.2f}')


def reported(difference: spec.Reported | None) -> str:
  """As 'about +1.4'; '' for None."""
  return '' if difference is None else f'{difference.roughly} {difference.top1:+.4g}'.strip()


def notes(results: Results) -> list[str]:
  """What must stand below the table."""
  description = results.description
  of_config = next(run.config for run in results.runs if run.config)
  data = of_config['data']
  lengths = {(run['num_steps'], run['num_epochs']) for run in description['runs']}
  length = ' or '.join(
    f'{epochs:g} epochs' if steps is None else f'{steps} steps'
    for steps, epochs in sorted(lengths, key=lambda length: (length[0] or 0, length[1]))
  )
  written = [
    f'Error of the last epoch, centre crop, on {data["name"]}, {data["validation_split"]} images;'
    f' {length}; seeds {", ".join(map(str, description["seeds"]))};'
    f' {description["config"]}'
    + ''.join(f' --config.{field}={value}' for field, value in description['overrides'].items())
    + '.',
    'Differences are of the error to the base at the same length and seeds, in percentage points: positive where the variant is'
    ' worse. ± is the standard deviation over seeds, of a difference the root of both variances.'
    f" More than noise: Welch's test, p < {NOISE_LEVEL}.",
  ]
  for row in results.rows:
    for by, difference in (('paper', row.paper), ('source', row.source)):
      if difference is not None:
        top5 = '' if difference.top5 is None else f', top-5 {difference.top5:+.4g}'
        where = f', {difference.where}' if difference.where else ''
        written.append(f'{row.name}, {by}: top-1 {reported(difference)}{top5}{where}.')
  if description['not_applying']:
    written.append(f'Not applying to this config: {", ".join(description["not_applying"])}.')
  if unfinished := [run for run in results.runs if run.final is None]:
    listed = '; '.join(f'{run.variant}, seed {run.seed}: {run.state}' for run in unfinished)
    written.append(f'Not finished: {listed}.')
  return written


def markdown(results: Results) -> str:
  """The table as results.md has it."""
  lines = [f'# {results.title}', '']
  lines += [_markdown_row(HEADINGS), '|---|' + '---:|' * 5 + '---|' * 3]
  lines += [_markdown_row(cells(row)) for row in results.rows]
  lines += ['', *(f'{note}\n' for note in notes(results))]
  return '\n'.join(lines)


def _markdown_row(row: Sequence[str]) -> str:
  return '| ' + ' | '.join(cell.replace('|', r'\|') for cell in row) + ' |'


def table_csv(results: Results) -> str:
  """The table as results.csv has it: numbers in full, a row for each variant."""
  rows = []
  for row in results.rows:
    fields = {
      'variant': row.name,
      'runs': len(row.errors),
      'top1_error': row.top1,
      'top1_error_deviation': row.deviation,
      'top5_error': row.top5,
      'difference': row.difference,
      'difference_deviation': row.difference_deviation,
      'difference_top5': row.difference_top5,
    }
    for by, difference in (('paper', row.paper), ('source', row.source)):
      fields[f'{by}_difference'] = difference and difference.top1
      fields[f'{by}_difference_top5'] = difference and difference.top5
      fields[f'{by}_sign'] = row.agrees(difference)
    rows.append({**fields, 'noise': row.noise, 'what': row.sentence})
  return _csv(rows)


def runs_csv(results: Results) -> str:
  """runs.csv: a row for each run."""
  return _csv(
    [
      {
        'variant': run.variant,
        'seed': run.seed,
        'state': run.state,
        **{
          field: run.final[field] if run.final else None
          for field in ('epoch', 'step', 'top1_error', 'top5_error', 'loss')
        },
        'command': ' '.join([host.program(), *run.command]),
      }
      for run in results.runs
    ]
  )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
  text = io.StringIO()
  writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
  writer.writeheader()
  for row in rows:
    writer.writerow(
      {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()}
    )
  return text.getvalue()
