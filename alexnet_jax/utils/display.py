"""The program's output: progress bars on a terminal or in a notebook, plain lines elsewhere, tables."""

import html
import io
import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

from rich import progress
from rich.console import Console
from rich.table import Table

_SECONDS_BETWEEN_UPDATES = 0.5
_NOTEBOOK_LINES = 200  # in a box that scrolls


class UpdateProgress(Protocol):
  """A function that updates a progress bar."""

  def __call__(self, advance: int = 0, status: str | None = None, done: bool = False) -> None:
    """Advances the bar by so many steps, changes the text behind it, or removes it."""


class Display:
  """Lines and progress bars on stderr, or in a notebook below the cell; use it in a `with`.

  Attributes:
    live: whether progress bars are shown: stderr is a terminal, or this is a notebook.
  """

  def __init__(self, quiet: bool = False) -> None:
    """With `quiet` shows nothing, as in all processes but the first."""
    self._console = Console(stderr=True, quiet=quiet)
    self._output: _NotebookOutput | None = None
    if self._console.is_jupyter and not quiet:
      self._output = _NotebookOutput()
    is_terminal = self._console.is_terminal and not quiet
    self.live = is_terminal or self._output is not None
    self._bars = progress.Progress(
      progress.TextColumn('{task.description}'),
      progress.BarColumn(bar_width=10),  # 80 characters in all
      progress.MofNCompleteColumn(),
      progress.TimeRemainingColumn(),
      progress.TextColumn('{task.fields[status]}'),
      console=self._console,
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

    def update_progress(advance: int = 0, status: str | None = None, done: bool = False) -> None:
      if done:
        self._bars.remove_task(task)
      else:
        self._bars.update(task, advance=advance)
        if status is not None:
          self._bars.update(task, status=status)
      if self._output is not None:
        self._output.update(self._bars)

    return update_progress

  def line(self, text: str) -> None:
    """Prints a line above the bars."""
    if self._output is None:
      self._console.print(text, highlight=False, markup=False, soft_wrap=True)
    else:
      self._output.lines.append(text)
      self._output.update(self._bars)


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
    console = Console(file=io.StringIO(), width=100, force_jupyter=False, force_terminal=False)
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

  Args:
    title: the table's title.
    columns: the columns' headings.
    rows: the cells.
    total: a last row, below a line.
  """
  table = Table(show_footer=bool(total))
  for i, column in enumerate(columns):
    footer = total[i] if total else ''
    table.add_column(column, footer=footer, justify='right' if i else 'left', no_wrap=True)
  for row in rows:
    table.add_row(*row)
  # Without a terminal rich assumes 80 columns and would truncate cells.
  console = Console() if Console().is_terminal else Console(width=160)
  console.print(title, markup=False, highlight=False, soft_wrap=True)
  console.print(table)
