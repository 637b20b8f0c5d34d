"""A sweep's results as files: Markdown, LaTeX, CSV, pictures, and one page that needs nothing else."""

import base64
import dataclasses
import importlib.resources
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from alexnet_jax.evaluation import metrics
from alexnet_jax.reports import canvas, fonts, run_page
from alexnet_jax.sweeps import charts, latex, origin, planning, spec, tables
from alexnet_jax.sweeps.results import SIGNIFICANCE_LEVEL, Results, Row, RunResult, gather
from alexnet_jax.utils import files, host
from alexnet_jax.utils.display import fill, print_table

_PICTURES = ('figure1', 'differences', 'learning_curves')

# What two runs of figure 1 may differ in, beside their length.
_FIGURE1 = {'model.activation', 'optimizer.learning_rate', 'train.num_epochs'}


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture of a report.

  Attributes:
    title, caption: what stands above and below it.
    paths: its files, PNG, PDF and SVG.
  """

  title: str
  caption: str
  paths: Sequence[Path]

  @property
  def source(self) -> str:
    """The SVG as a data: address, so that the page that shows it needs no file."""
    svg = next(path for path in self.paths if path.suffix == '.svg')
    return 'data:image/svg+xml;base64,' + base64.b64encode(svg.read_bytes()).decode()


def write(path: str | os.PathLike[str]) -> tuple[Results, list[Path]]:
  """Writes what a sweep's runs have given so far into its folder.

  results.md, results.tex, results.csv, runs.csv, report.html, and in `figures` the differences, the curves and,
  where runs differ in nothing but activation and rate, figure 1; what an earlier table left there and this
  one does not have is removed.

  Args:
    path: the sweep's folder.

  Returns:
    The results, and the files.

  Raises:
    UserError: as `results.gather`.
  """
  path = Path(path)
  results = gather(path)
  pictures = _pictures(results)
  written = [file for picture in pictures for file in picture.paths]
  for name, text in (
    ('results.md', _markdown(results, pictures)),
    ('results.tex', latex.table(results)),
    ('results.csv', tables.table_csv(results)),
    ('runs.csv', tables.runs_csv(results)),
    ('report.html', html(results, pictures)),
  ):
    with files.atomic_write(path / name) as temporary:
      temporary.write_text(text, 'utf-8')
    written.append(path / name)
  for name in _PICTURES:
    for kind in ('png', 'pdf', 'svg'):
      if (file := path / 'figures' / f'{name}.{kind}') not in written:
        file.unlink(missing_ok=True)
  return results, written


def _markdown(results: Results, pictures: Sequence[Picture]) -> str:
  lines = [tables.markdown(results)]
  for picture in pictures:
    name = next(file.name for file in picture.paths if file.suffix == '.png')
    lines.append(f'![{picture.title}](figures/{name})\n\n{tables.escaped(picture.caption)}\n')
  lines += ['## Provenance', '']
  lines += [f'- {name}: {text}' for name, text in origin.facts(results)]
  return '\n'.join(lines) + '\n'


def _pictures(results: Results) -> list[Picture]:
  folder = files.inside(results.path, 'figures')
  words = tables.words(results.rows)
  pictures = (
    _figure1(results, folder),
    _differences(results, words, folder),
    _curves(results, words, folder),
  )
  return [picture for picture in pictures if picture]


def _figure1(results: Results, folder: Path) -> Picture | None:
  """Figure 1; None without both activations, or where neither reaches 25% training error."""
  relu, tanh = _by_rate(results, 'relu'), _by_rate(results, 'tanh')
  if not relu or not tanh:
    return None
  best_relu, best_tanh = (min(of_rate.values(), key=_soonest) for of_rate in (relu, tanh))
  if _none_reaches([*best_relu, *best_tanh]):
    return None
  picture, caption = charts.figure1(
    [run.records for run in best_relu],
    [run.records for run in best_tanh],
    best_relu[0].window,
    results.title,
  )
  for name, of_rate, shown in (('ReLU', relu, best_relu), ('tanh', tanh, best_tanh)):
    seeds = f'seed{"s" * (len(shown) > 1)} {", ".join(str(run.seed) for run in shown)}'
    caption += f' {name}: {seeds}, learning rate {_rate(shown[0]):g}; training error by rate: '
    caption += ', '.join(
      f'{rate:g}: {np.mean([_training_error(run) for run in runs]):.1%} ({runs[0].length[0]:g} epochs)'
      for rate, runs in sorted(of_rate.items())
    )
    caption += '.'
  return Picture('Figure 1', caption, canvas.save(picture, folder / 'figure1'))


def _none_reaches(runs: Sequence[RunResult]) -> bool:
  """Whether none of some runs reaches 25% training error."""
  return all(_soonest([run])[0] == math.inf for run in runs)


def _differences(results: Results, words: Mapping[str, str], folder: Path) -> Picture | None:
  """The variants' differences from the base; None where there are none yet."""
  bars = [
    charts.Bar(
      words[row.name],
      row.difference,
      row.differences,
      *row.interval,
      row.paper.top1 if row.paper else math.nan,
      row.source.top1 if row.source else math.nan,
      row.is_significant,
    )
    for row in results.rows[1:]
    if not math.isnan(row.difference)
  ]
  if not bars:
    return None
  return Picture(
    'Differences from the base',
    'Top-1 error minus that of the base, percentage points; positive: more errors than the base.'
    ' Bars are means over seeds, dots the seeds, lines 95% confidence intervals of the mean.',
    canvas.save(charts.differences(bars, results.title), folder / 'differences'),
  )


def _curves(results: Results, words: Mapping[str, str], folder: Path) -> Picture | None:
  """The validation errors of each variant beside the base's; None where no variant has any."""
  curves = {
    words[row.name]: [
      run.records for run in results.runs if run.variant == row.name and run.records
    ]
    for row in results.rows
  }
  base = curves.pop(words[spec.BASE])
  curves = {name: runs for name, runs in curves.items() if runs}
  if not curves:
    return None
  return Picture(
    'Validation error',
    'Black: the variant, a line for each seed; gray: the base.',
    canvas.save(charts.curves_beside_base(base, curves, results.title), folder / 'learning_curves'),
  )


def _by_rate(results: Results, activation: str) -> dict[float, list[RunResult]]:
  """Finished runs of an activation by their learning rate, of each one for each seed.

  Only those that differ from the base in nothing else but their length.
  """
  only = {spec.BASE} | {
    variant['name']
    for variant in results.description['variants']
    if set(variant['overrides']) <= _FIGURE1
  }
  found: dict[float, dict[int, RunResult]] = {}
  for run in results.runs:
    if run.final and run.variant in only and run.config['model']['activation'] == activation:
      found.setdefault(_rate(run), {}).setdefault(run.seed, run)
  return {rate: list(by_seed.values()) for rate, by_seed in found.items()}


def _rate(run: RunResult) -> float:
  return float(run.config['optimizer']['learning_rate'])


def _soonest(runs: Sequence[RunResult]) -> tuple[float, float, float]:
  """Orders rates by when their runs reach 25% training error; equal ones by that error, then by loss.

  The error is of the last epoch's training, the loss of the last validation; all are means over seeds.
  """
  reached, errors, losses = [], [], []
  for run in runs:
    epoch = charts.epochs_to(run.records, 0.25, run.window)
    reached.append(math.inf if epoch is None else epoch)
    errors.append(_training_error(run))
    losses.append(math.inf if run.final is None else float(run.final['loss']))
  return float(np.mean(reached)), float(np.mean(errors)), float(np.mean(losses))


def _training_error(run: RunResult) -> float:
  """Of the last epoch: of the steps since the last validation but one; NaN without any."""
  validations = [record['step'] for record in run.records if record['split'] == 'validation']
  start = validations[-2] if len(validations) > 1 else 0
  lines = [
    (min(steps, record['step'] - start), record['top1_error'])
    for steps, record in planning.training_lines(run.records)
    if record['step'] > start
  ]
  if not lines:
    return math.nan
  return float(sum(steps * error for steps, error in lines) / sum(steps for steps, _ in lines))


def html(results: Results, pictures: Sequence[Picture]) -> str:
  """The report: one page without scripts, which asks nothing of any network."""
  template = importlib.resources.files('alexnet_jax.reports') / 'templates' / 'report.html'
  environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
  counts = [run.config['model'].get('num_classes') for run in results.runs if run.config]
  top5 = any(count is None or metrics.has_top5(count) for count in counts)
  return environment.from_string(template.read_text('utf-8')).render(
    title=results.title,
    headings=[_UNITS.get(heading, heading) for heading in tables.HEADINGS[:-1]],
    rows=[(*_row_cells(row), row.is_significant) for row in results.rows],
    notes=[*tables.notes(results), tables.SIGN, f'p is bold below {SIGNIFICANCE_LEVEL}.'],
    pictures=pictures,
    run_headings=_run_headings(top5),
    facts=origin.facts(results),
    commands=[host.command(*run.command) for run in results.runs],
    runs=[(run, _run_cells(run, top5), _page(results.path, run)) for run in results.runs],
  )


_UNITS = {by: f'{by}, points' for by in ('difference', '95% interval', *spec.REPORTERS.values())}


def _row_cells(row: Row) -> tuple[str, str, list[str]]:
  """A row's name, its description, and the cells between them."""
  name, *numbers, description = tables.cells(row)
  return name, description, [cell.replace('-', '\N{MINUS SIGN}') for cell in numbers]


def _page(path: Path, run: RunResult) -> str | None:
  """The address of a run's own page, from the sweep's; None where it has none."""
  page = planning.run_path(Path(), run.variant, run.seed) / run_page.NAME
  return page.as_posix() if (path / page).exists() else None


def _run_headings(top5: bool) -> tuple[str, ...]:
  errors = ('top-1 error, %', 'top-5 error, %') if top5 else ('top-1 error, %',)
  return 'variant', 'seed', 'epochs', *errors, 'loss', 'seconds'


def _run_cells(run: RunResult, top5: bool) -> list[str]:
  """A run's numbers; none where it is not finished."""
  if run.final is None:
    return []
  final: Mapping[str, Any] = run.final
  return [
    run_page.epoch(final),
    f'{100 * final["top1_error"]:.2f}',
    *([f'{100 * final["top5_error"]:.2f}'] if top5 else []),
    f'{final["loss"]:.4f}',
    f'{run.seconds:,.0f}',
  ]


def show(results: Results, written: Sequence[Path]) -> None:
  """Prints a sweep's table, what must stand below it, and which files were written.

  Args:
    results: what `results.gather` returned.
    written: the files.
  """
  columns = [*zip(_SHOWN_HEADINGS, *map(_shown_cells, results.rows), strict=True)]
  columns = [column for column in columns if any(column[1:])]  # as where the paper says nothing
  headings, *rows = zip(*columns, strict=True)
  print_table(f'{results.path}: {results.title}', headings, rows)
  notes = [*tables.notes(results), *origin.differences(results)]
  activations = [list(_by_rate(results, name).values()) for name in ('relu', 'tanh')]
  if all(activations) and _none_reaches(
    [run for rates in activations for runs in rates for run in runs]
  ):
    notes.append('Figure 1 is not drawn: no run reached 25% training error.')
  if any(row.is_significant for row in results.rows):
    notes = [f'*: significant (p < {SIGNIFICANCE_LEVEL}).', *notes]
  for note in notes:
    print(fill(note))
  if missing := fonts.missing([results.title, *(row.name for row in results.rows)]):
    print(missing, file=sys.stderr)
  for file in written:
    if file.suffix not in ('.pdf', '.svg'):
      print(f'{_KINDS[file.suffix]:14}{file}')


_KINDS = {'.png': 'picture', '.md': 'table', '.csv': 'table', '.tex': 'table', '.html': 'page'}

# Fewer and shorter than in the files, for a terminal.
_SHOWN_HEADINGS = (
  'variant', 'runs', 'error, %', 'difference', '95% interval', *spec.REPORTERS.values()
)  # fmt: skip


def _shown_cells(row: Row) -> tuple[str, ...]:
  name, runs, error, difference, interval, paper, logs, *_ = tables.cells(row)
  mark = '*' if row.is_significant else ' '
  return name, runs, error, difference and f'{difference} {mark}', interval, paper, logs
