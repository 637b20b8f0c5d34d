"""A sweep's table for a paper: LaTeX with booktabs' rules."""

import math
from collections.abc import Sequence

from alexnet_jax.sweeps import origin, tables
from alexnet_jax.sweeps.results import Results, Row

_HEADINGS = ('variant', 'runs', 'top-1 error, %', 'difference', '95 % interval', '$p$')
_REPORTED = ('paper', 'source')
_SPECIAL = {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '±': r'$\pm$',
  **{letter: f'\\{letter}' for letter in '&%$#_{}'},
}


def table(results: Results) -> str:
  """The table as results.tex has it: a `table` environment, which needs the package booktabs.

  Errors are in percent, differences in percentage points. What the paper and the source report has a
  column each where there is any. Comments say where the results come from.

  Args:
    results: what `results.gather` returned.
  """
  reported = [by for by in _REPORTED if any(getattr(row, by) for row in results.rows)]
  headings = [escape(heading) if '$' not in heading else heading for heading in _HEADINGS]
  lines = [
    r'% \usepackage{booktabs}',
    *(f'% {name}: {" ".join(text.split())}' for name, text in origin.facts(results)),
    r'\begin{table}',
    r'  \centering',
    f'  \\caption{{{escape(results.title)}. {escape(_EXPLAINED)}}}',
    f'  \\begin{{tabular}}{{l{"r" * (len(headings) - 1 + len(reported))}}}',
    r'    \toprule',
    _line([*headings, *reported]),
    r'    \midrule',
    *(_line(_cells(row, reported)) for row in results.rows),
    r'    \bottomrule',
    r'  \end{tabular}',
    r'\end{table}',
  ]
  return '\n'.join(lines) + '\n'


_EXPLAINED = (
  'Top-1 error in percent ± standard deviation over seeds; differences from the base in percentage'
  ' points, with 95 % confidence intervals and p of the paired t test over seeds.'
)


def escape(text: str) -> str:
  """Text as LaTeX sets it letter by letter."""
  return ''.join(_SPECIAL.get(letter, letter) for letter in text)


def _cells(row: Row, reported: Sequence[str]) -> list[str]:
  """A row's cells, those that are numbers as LaTeX sets numbers."""
  low, high = row.interval
  return [
    escape(row.description or row.name),
    f'{len(row.errors)}',
    escape(tables.number(row.top1, row.deviation)),
    '' if math.isnan(row.difference) else f'${row.difference:+.2f}$',
    '' if math.isnan(row.p) else f'${low:+.2f}$ to ${high:+.2f}$',
    '' if math.isnan(row.p) else f'{row.p:.3f}' if row.p >= 0.001 else '$<0.001$',
    *(_reported(row, by) for by in reported),
  ]


def _reported(row: Row, by: str) -> str:
  reported = getattr(row, by)
  return '' if reported is None else f'{escape(reported.roughly)} ${reported.top1:+.4g}$'.strip()


def _line(cells: Sequence[str]) -> str:
  return f'    {" & ".join(cells)} \\\\'
