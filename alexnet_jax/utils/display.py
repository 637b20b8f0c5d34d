"""The program's output: progress bars on a terminal or in a notebook, plain lines elsewhere, tables."""

import contextlib
import html
import io
import math
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rich import box, progress
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

_SECONDS_BETWEEN_UPDATES = 0.5
_NOTEBOOK_LINES = 200  # in a box that scrolls
_NOTEBOOK_WIDTH = 100
_BETWEEN_COLUMNS = 2  # spaces in a table
_NARROWEST_BARS = 60  # columns of a terminal; in fewer, a task is its name and percentage
_NARROWEST_NAME = 14  # to which a terminal's width may fold the first column of a table


class UpdateProgress(Protocol):
  """A function that updates a progress bar."""

  def __call__(
    self,
    advance: int = 0,
    status: str | None = None,
    description: str | None = None,
    done: bool = False,
  ) -> None:
    """Advances the bar by so many steps, changes the text behind or before it, or removes it."""


def duration(seconds: float) -> str:
  """A time in at most seven characters: '0:08', '12:40', '5h 03m', '2d 11h'."""
  whole = max(0, round(seconds))
  if whole < 3600:
    return f'{whole // 60}:{whole % 60:02}'
  if whole < 24 * 3600:
    return f'{whole // 3600}h {whole // 60 % 60:02}m'
  return f'{whole // 86400}d {whole // 3600 % 24:02}h'


def short_number(value: float) -> str:
  """A number of at least 0 to three or four digits: '38.4', '2.5k', '105.4M'."""
  if value < 999.5:
    return f'{value:.3g}'
  for unit in 'kM':
    value /= 1000
    if value < 999.95:
      return f'{value:.1f}{unit}'
  return f'{value / 1000:.1f}G'


def _console(**options: Any) -> Console:
  """A console that prints text as it is: rich would replace ':100:' in a path by a picture."""
  return Console(emoji=False, markup=False, highlight=False, **options)


def in_notebook() -> bool:
  """Whether this is a notebook's kernel, which shows pictures below its cells."""
  return _console().is_jupyter


class _Times(progress.ProgressColumn):
  """How long a task has taken, and how long it still will: '0:12, 1:30 left'."""

  def render(self, task: progress.Task) -> Text:
    """The text behind a bar."""
    text = duration(task.finished_time if task.finished_time is not None else task.elapsed or 0)
    if not task.finished and task.time_remaining is not None:
      text += f', {duration(task.time_remaining)} left'
    return Text(text, style='progress.elapsed')


class Display:
  """Lines and progress bars on stderr, or in a notebook below the cell; use it in a `with`.

  Attributes:
    live: whether progress bars are shown: stderr is a terminal, or this is a notebook.
  """

  def __init__(self, quiet: bool = False) -> None:
    """With `quiet` shows nothing, as in all processes but the first."""
    self._console = _console(stderr=True, quiet=quiet)
    self._output: _NotebookOutput | None = None
    if self._console.is_jupyter and not quiet:
      self._output = _NotebookOutput()
    is_terminal = self._console.is_terminal and not quiet
    self.live = is_terminal or self._output is not None
    name = progress.TextColumn('{task.description}', markup=False)
    columns: list[progress.ProgressColumn] = [
      name,
      progress.BarColumn(bar_width=None, table_column=Column(ratio=1)),  # what the others leave
      progress.TaskProgressColumn(),
      _Times(table_column=Column(no_wrap=True)),
      progress.TextColumn('{task.fields[status]}', markup=False),
    ]
    if is_terminal and self._console.width < _NARROWEST_BARS:
      columns = [name, progress.TaskProgressColumn()]
    self._bars = progress.Progress(
      *columns,
      console=self._console,
      expand=True,
      disable=not is_terminal,
      speed_estimate_period=120,
    )

  def __enter__(self) -> 'Display':
    if self.live and self._output is None:
      self._bars.start()
    return self

  def __exit__(self, *_: object) -> None:
    if self._output is not None:
      self._output.show(self._bars)
    elif self.live:  # else rich before 14.3 would print an empty line
      self._bars.stop()

  def task(self, description: str, total: int, completed: int = 0) -> UpdateProgress:
    """Adds a progress bar.

    Args:
      description: the text before it.
      total: the number of steps.
      completed: how many of them are done.

    Returns:
      A function that updates it.
    """
    task = self._bars.add_task(description, total=total, completed=completed, status='')

    def update_progress(
      advance: int = 0,
      status: str | None = None,
      description: str | None = None,
      done: bool = False,
    ) -> None:
      if done:
        self._bars.remove_task(task)
        # Else rich's own thread could draw fewer bars between a line's placing and its printing,
        # and the line above would be erased.
        self._bars.refresh()
      else:
        self._bars.update(task, advance=advance, description=description)
        if status is not None:
          self._bars.update(task, status=status)
      if self._output is not None:
        self._output.update(self._bars)

    return update_progress

  def line(self, text: str) -> None:
    """Prints a line above the bars."""
    if self._output is None:
      self._console.print(text, soft_wrap=True)
    else:
      self._output.lines.append(text)
      self._output.update(self._bars)


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
  """Shows on a terminal, on stderr, that work of some seconds goes on whose progress is not known."""
  console = _console(stderr=True)
  if not console.is_terminal or console.is_dumb_terminal or console.is_jupyter:
    yield
    return
  with console.status(Text(text), spinner='line'):  # ASCII, which every locale has
    yield


def fill(text: str, indent: str = '', hanging: str = '') -> str:
  """Fills lines of at most 79 characters, of fewer on a terminal that is narrower; breaks no word.

  Args:
    text: the text.
    indent: before the first line.
    hanging: before the others.
  """
  console = _console()
  width = min(79, console.width) if console.is_terminal else 79
  return textwrap.fill(
    text,
    width,
    initial_indent=indent,
    subsequent_indent=hanging,
    break_long_words=False,
    break_on_hyphens=False,
  )


class _NotebookOutput:
  """One output of a notebook's cell, which is updated: lines, in a box that scrolls, and bars.

  rich's own bars would need ipywidgets.

  Attributes:
    lines: all lines so far.
  """

  def __init__(self) -> None:
    self.lines: list[str] = []
    self._handle: Any = None
    self._shown = -math.inf

  def update(self, bars: progress.Progress) -> None:
    """Shows lines and bars, unless that was done a moment ago."""
    if time.monotonic() - self._shown >= _SECONDS_BETWEEN_UPDATES:
      self.show(bars)

  def show(self, bars: progress.Progress) -> None:
    """Shows lines and bars, if there are any or have been."""
    if not self.lines and not bars.tasks and self._handle is None:
      return
    from IPython.display import display

    self._shown = time.monotonic()
    console = _console(
      file=io.StringIO(), width=_NOTEBOOK_WIDTH, force_jupyter=False, force_terminal=False
    )
    if bars.tasks:
      console.print(bars.get_renderable())
    bars_text = console.file.getvalue().rstrip()  # type: ignore[attr-defined]
    left_out = len(self.lines) - _NOTEBOOK_LINES
    lines = [f'({left_out:,} earlier lines)'] if left_out > 0 else []
    lines += self.lines[-_NOTEBOOK_LINES:]
    # Reversed, so that the box is scrolled to its end.
    box = 'max-height:15em;overflow-y:auto;display:flex;flex-direction:column-reverse'
    bundle = {
      'text/plain': '\n'.join([*lines, bars_text]).strip(),
      'text/html': f'<div style="{box}"><pre>{html.escape(chr(10).join(lines))}</pre></div>'
      f'<pre>{html.escape(bars_text)}</pre>',
    }
    if self._handle is None:
      self._handle = display(bundle, raw=True, display_id=True)
    else:
      self._handle.update(bundle, raw=True)


def print_table(
  title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str] = ()
) -> None:
  """Prints a table to stdout; all columns but the first are right-aligned.

  No cell is cut: where a terminal is too narrow, the first column is folded, and if that does not
  suffice, each row is a list of its own, one cell per line.

  Args:
    title: the table's title.
    columns: the columns' headings.
    rows: the cells.
    total: a last row, below a line.
  """
  lines = [columns, *rows, total] if total else [columns, *rows]
  widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
  needed = sum(widths) + _BETWEEN_COLUMNS * (len(columns) - 1)
  # Without a terminal there is no edge.
  console = _console() if _console().is_terminal else _console(width=needed)
  console.print(title, soft_wrap=not console.is_terminal)
  if needed - widths[0] + min(widths[0], _NARROWEST_NAME) > console.width:
    for row in lines[1:]:
      _print_list(console, columns, row)
    return
  table = Table(
    box=box.SIMPLE,
    show_edge=False,
    show_footer=bool(total),
    padding=(0, _BETWEEN_COLUMNS - 1, 0, 0),  # the box has the other space
    pad_edge=False,
  )
  for i, column in enumerate(columns):
    footer = total[i] if total else ''
    if i:
      table.add_column(column, footer=footer, justify='right', no_wrap=True, min_width=widths[i])
    else:
      table.add_column(column, footer=footer, overflow='fold')
  for row in rows:
    table.add_row(*map(Text, row))
  console.print(table)


def _print_list(console: Console, columns: Sequence[str], row: Sequence[str]) -> None:
  """Prints a row of a table as a list: its name, and below it each other cell that is not empty."""
  console.print(row[0], soft_wrap=True)
  width = max(map(cell_len, columns))
  for column, cell in zip(columns[1:], row[1:], strict=True):
    if cell:
      text = f'  {column:{width}}  {cell}'
      console.print(text, soft_wrap=True)
