"""A sweep's table for a paper: LaTeX with booktabs' rules, no wider than a page of `article`."""

import math
import re
import unicodedata
from collections.abc import Sequence

from alexnet_jax.sweeps import origin, spec, tables
from alexnet_jax.sweeps.results import Results, Row

_HEADINGS = ('variant', 'runs', 'top-1 error, %', 'difference', '95% interval', '$p$')
_DESCRIPTIONS = r'>{\raggedright\arraybackslash}p{0.18\linewidth}'  # their column
_SPECIAL = {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  **{letter: f'\\{letter}' for letter in '&%$#_{}'},
  # TeX's original fonts have other letters in these places.
  '<': r'\textless{}',
  '>': r'\textgreater{}',
  '|': r'\textbar{}',
  # After a line's end LaTeX would read these as its options.
  '[': '{[}',
  '*': '{*}',
}
_GREEK = (
  'alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta', 'eta', 'theta', 'iota', 'kappa', 'lambda',
  'mu', 'nu', 'xi', 'pi', 'rho', 'sigma', 'tau', 'upsilon', 'phi', 'chi', 'psi', 'omega',
)  # fmt: skip
_MATHEMATICS = {
  '\N{MULTIPLICATION SIGN}': r'\times',
  '\N{MINUS SIGN}': '-',
  '\N{MICRO SIGN}': r'\mu',
  '±': r'\pm', '·': r'\cdot', '≤': r'\le', '≥': r'\ge', '≠': r'\ne', '≈': r'\approx', '→': r'\to',
  '∞': r'\infty', '°': r'^\circ', '²': '^2', '³': '^3', 'Δ': r'\Delta', 'Σ': r'\Sigma',
  'Ω': r'\Omega',
  **{
    unicodedata.lookup(f'GREEK SMALL LETTER {name.replace("lambda", "lamda")}'): f'\\{name}'
    for name in _GREEK
  },
}  # fmt: skip
# What pdfLaTeX knows beside letters with accents.
_PUNCTUATION = '\N{EN DASH}—\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}“”…'


def table(results: Results) -> str:
  """The table as results.tex has it: a `table` environment, for the packages array and booktabs.

  Errors are in percent, differences in percentage points. What the paper and the 2012 logs report has
  a column each where there is any. Comments say where the results come from.

  Args:
    results: what `results.gather` returned.
  """
  reported = [by for by in spec.REPORTERS if any(getattr(row, by) for row in results.rows)]
  headings = [escape(heading) if '$' not in heading else heading for heading in _HEADINGS]
  words = tables.words(results.rows)
  told = [results.title, *words.values()]
  unknown = sorted({letter for text in told for letter in text if not _is_known(letter)})
  lines = [
    r'% \usepackage{array,booktabs}',
    *([f'% needs LuaLaTeX or XeLaTeX, and a font that has {" ".join(unknown)}'] if unknown else []),
    *(f'% {name}: {" ".join(text.split())}' for name, text in origin.facts(results)),
    *(f'% {" ".join(note.split())}' for note in tables.notes(results)),
    r'\begin{table}',
    r'  \centering',
    f'  \\caption{{{escape(results.title)}. {escape(_EXPLAINED)}}}',
    r'  \footnotesize',
    r'  \setlength{\tabcolsep}{3pt}',
    f'  \\begin{{tabular}}{{@{{}}{_DESCRIPTIONS}{"r" * (len(headings) - 1 + len(reported))}@{{}}}}',
    r'    \toprule',
    _line([*headings, *(spec.REPORTERS[by] for by in reported)]),
    r'    \midrule',
    *(_line(_cells(row, words[row.name], reported)) for row in results.rows),
    r'    \bottomrule',
    r'  \end{tabular}',
    r'\end{table}',
  ]
  return '\n'.join(lines) + '\n'


_EXPLAINED = (
  'Top-1 error in percent ± standard deviation over seeds; differences from the base in percentage'
  ' points, with 95% confidence intervals and p of the paired t test over seeds.'
)


def escape(text: str) -> str:
  """Text as LaTeX sets it letter by letter, on one line.

  Greek letters and signs of mathematics are set as such; other letters beyond those with accents
  are left as they are, which pdfLaTeX refuses.
  """
  written = ''.join(
    f'${_MATHEMATICS[letter]}$' if letter in _MATHEMATICS else _SPECIAL.get(letter, letter)
    for letter in ' '.join(text.split())
  )
  return re.sub('-(?=-)', '-{}', written)  # two hyphens would become a dash


def _is_known(letter: str) -> bool:
  """Whether pdfLaTeX sets what `escape` makes of a letter."""
  return ord(letter) < 0x180 or letter in _MATHEMATICS or letter in _PUNCTUATION


def _cells(row: Row, variant: str, reported: Sequence[str]) -> list[str]:
  """A row's cells, its variant called so; those that are numbers as LaTeX sets numbers."""
  low, high = row.interval
  return [
    escape(variant),
    tables.cells(row)[1],
    escape(tables.number(row.top1, row.deviation)),
    '' if math.isnan(row.difference) else f'${row.difference:+.2f}$',
    '' if math.isnan(row.p) else f'${low:+.2f}$ to ${high:+.2f}$',
    escape(tables.p_value(row)),
    *(_reported(row, by) for by in reported),
  ]


def _reported(row: Row, by: str) -> str:
  reported = getattr(row, by)
  return '' if reported is None else f'{escape(reported.roughly)} ${reported.top1:+.4g}$'.strip()


def _line(cells: Sequence[str]) -> str:
  return f'    {" & ".join(cells)} \\\\'
