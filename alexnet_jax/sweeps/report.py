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

from alexnet_jax.evaluation import metrics
from alexnet_jax.reports import canvas, fonts, page_curves, run_page
from alexnet_jax.sweeps import charts, figure1, latex, origin, spec, tables
from alexnet_jax.sweeps.results import Results, Row, RunResult, gather
from alexnet_jax.utils import files, host
from alexnet_jax.utils.display import fill, print_table

_FIGURE1 = 'figure1'
_PICTURES = (_FIGURE1, 'differences', 'learning_curves')


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
  lines += [f'- {name}: {tables.escaped(text)}' for name, text in origin.facts(results)]
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
  """Figure 1; None where `figure1.of_sweep` has none."""
  drawn = figure1.of_sweep(results)
  if drawn is None:
    return None
  picture, caption = drawn
  return Picture('Figure 1', caption, canvas.save(picture, folder / _FIGURE1))


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
    notes=[*tables.notes(results), tables.SIGN, 'p is bold below 0.05.'],
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
  page = Path(run.name, run_page.NAME)
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
    page_curves.epoch(final),
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
  if figure1.asked_for(results) and not any(file.stem == _FIGURE1 for file in written):
    notes.append(f'Figure 1 is not drawn: no run reached {figure1.ERROR:.0%} training error.')
  if any(row.is_significant for row in results.rows):
    notes = ['*: significant (p < 0.05).', *notes]
  for note in notes:
    print(fill(note))
  if missing := fonts.missing([results.title, *tables.words(results.rows).values()]):
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
