"""A sweep's results as tables: cells and notes, Markdown, CSV."""

import collections
import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_jax.data import datasets
from alexnet_jax.sweeps import spec
from alexnet_jax.sweeps.results import Results, Row, RunResult
from alexnet_jax.utils import host, shell
from alexnet_jax.utils.errors import number_of

HEADINGS = (
  'variant', 'runs', 'top-1 error, %', 'difference', '95% interval', *spec.REPORTERS.values(), 'sign',
  'p', 'description',
)  # fmt: skip


SIGN = (
  'Sign: whether the difference has that of the paper or, where it reports none, of the 2012 logs.'
)
"""What the column of signs compares with."""


def cells(row: Row) -> tuple[str, ...]:
  """A row's cells, under HEADINGS."""
  agreement = row.agrees(row.paper or row.source)
  return (
    row.name,
    f'{len(row.errors)}' + (f' of {len(row.errors) + len(row.states)}' if row.states else ''),
    number(row.top1, row.deviation),
    '' if math.isnan(row.difference) else f'{row.difference:+.2f}',
    '' if math.isnan(row.p) else '{:+.2f} to {:+.2f}'.format(*row.interval),
    *(reported(getattr(row, by)) for by in spec.REPORTERS),
    agreement,
    p_value(row),
    row.description,
  )


def number(value: float, deviation: float = math.nan) -> str:
  """Formats a value as '12.34 ± 0.56'; '' for NaN."""
  if math.isnan(value):
    return ''
  return f'{value:.2f}' + ('' if math.isnan(deviation) else f' ± {deviation:.2f}')


def p_value(row: Row) -> str:
  """Formats a row's p as '0.020' or '< 0.001'; '' without a test."""
  if math.isnan(row.p):
    return ''
  return '< 0.001' if row.p < 0.001 else f'{row.p:.3f}'


def reported(difference: spec.Reported | None) -> str:
  """Formats a reported difference as 'about +1.4'; '' for None."""
  return '' if difference is None else f'{difference.roughly} {difference.top1:+.4g}'.strip()


def notes(results: Results) -> list[str]:
  """The notes below the table: the runs' conditions, the statistics, what is reported or missing."""
  description, seeds = results.description, results.description['seeds']
  of_config = next(run.config for run in results.runs if run.config)
  data = of_config['data']
  lengths = {(run['num_steps'], run['num_epochs']) for run in description['runs']}
  length = ' or '.join(
    number_of(epochs, 'epoch') if steps is None else number_of(steps, 'step')
    for steps, epochs in sorted(lengths, key=lambda length: (length[0] or 0, length[1]))
  )
  overrides = [f'--config.{field}={value}' for field, value in description['overrides'].items()]
  written = [
    f'Error of the last epoch, center crop, on {datasets.title(data)}, {data["validation_split"]} images;'
    f' {length}; seed{"s" * (len(seeds) > 1)} {", ".join(map(str, seeds))};'
    f' {description["config"]}' + ''.join(f' {shell.quote(option)}' for option in overrides) + '.',
    "Differences are from the base's run of the same seed and length, which took the same images in"
    ' the same order, in percentage points: positive where the variant is worse. ± is the standard'
    ' deviation over seeds. Intervals and p are by the paired t test over seeds, not corrected for the number'
    ' of variants: of 20 that change nothing, about one has a p below 0.05 by chance.',
  ]
  for row in results.rows:
    for field, by in spec.REPORTERS.items():
      difference: spec.Reported | None = getattr(row, field)
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


def words(rows: Sequence[Row]) -> dict[str, str]:
  """What pictures and LaTeX call each variant: its description, or its name where another has the same."""
  descriptions = {row.name: ' '.join(row.description.split()) for row in rows}
  count = collections.Counter(descriptions.values())
  return {
    name: description
    if count[description] == 1 and description not in ('', *descriptions)
    else name
    for name, description in descriptions.items()
  }


def markdown(results: Results) -> str:
  """The table as results.md has it."""
  lines = [f'# {escaped(results.title)}', '']
  lines += [_markdown_row(HEADINGS), '|---|' + '---:|' * 6 + '---|---:|---|']
  lines += [_markdown_row(cells(row)) for row in results.rows]
  lines += ['', *(f'{escaped(note)}\n' for note in (*notes(results), SIGN))]
  return '\n'.join(lines)


def _markdown_row(row: Sequence[str]) -> str:
  return f'| {" | ".join(map(escaped, row))} |'


def escaped(text: str) -> str:
  """Text as Markdown shows it letter by letter, on one line."""
  return _MARKUP.sub(r'\\\g<0>', ' '.join(text.split()))


# Of the letters that mean something in Markdown those that do in their place, so that most text stays
# as it is: a _ at the edge of a word, a < before a tag's name, an & before an entity's.
_MARKUP = re.compile(r'[\\`*\[\]|$~]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|&(?=#?\w+;)')


def recorded(start: Mapping[str, Any]) -> dict[str, str]:
  """What a start has recorded of its commit, its devices and each package's version, as words."""
  commit = start['commit'] or 'no checkout'
  return {'commit': commit, 'devices': start['devices'], **start['versions']}


def _recorded(runs: Sequence[RunResult]) -> dict[str, str]:
  """The commits, devices and versions of runs as a table has them: each once, '' if not recorded."""
  starts = [recorded(start) for run in runs for start in run.starts]
  columns: dict[str, list[str]] = {
    'commit': [start.pop('commit') for start in starts],
    'devices': [start.pop('devices') for start in starts],
    'versions': [', '.join(f'{name} {value}' for name, value in start.items()) for start in starts],
  }
  return {name: '; '.join(dict.fromkeys(values)) for name, values in columns.items()}


def table_csv(results: Results) -> str:
  """The table as results.csv has it: numbers in full, a row for each variant.

  Errors and their differences are fractions, as in all CSV files.
  """
  rows = []
  for row in results.rows:
    fields = {
      'variant': row.name,
      'runs': len(row.errors),
      'top1_error': _fraction(row.top1),
      'top1_error_deviation': _fraction(row.deviation),
      'top5_error': _fraction(row.top5),
      'difference': _fraction(row.difference),
      'difference_deviation': _fraction(row.difference_deviation),
      'difference_low': _fraction(row.interval[0]),
      'difference_high': _fraction(row.interval[1]),
      'p': row.p,
      'difference_top5': _fraction(row.difference_top5),
    }
    for by in spec.REPORTERS:
      reported: spec.Reported | None = getattr(row, by)
      top1, top5 = (reported.top1, reported.top5) if reported else (None, None)
      fields[f'{by}_difference'] = _fraction(top1)
      fields[f'{by}_difference_top5'] = _fraction(top5)
      fields[f'{by}_sign'] = row.agrees(reported)
    finished = [run for run in results.runs if run.final and run.variant == row.name]
    words = {'significance': row.significance, 'description': row.description}
    rows.append({**fields, **words, **_recorded(finished)})
  return _csv(rows)


def _fraction(percent: float | None) -> float | None:
  """A percentage as a fraction, without the noise of floats' last digits."""
  return None if percent is None else round(percent / 100, 12)


def runs_csv(results: Results) -> str:
  """runs.csv: a row for each run; errors are fractions."""
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
        'started': run.starts[0]['date'] if run.starts else None,
        **_recorded([run]),
        'command': host.command(*run.command),
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
