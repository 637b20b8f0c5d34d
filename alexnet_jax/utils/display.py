"""The program's output: progress bars on a terminal, plain lines elsewhere, tables."""

from collections.abc import Sequence
from typing import Protocol

from rich import progress
from rich.console import Console
from rich.table import Table


class UpdateProgress(Protocol):
  """A function that updates a progress bar."""

  def __call__(self, advance: int = 0, status: str | None = None, done: bool = False) -> None:
    """Advances the bar by so many steps, changes the text behind it, or removes it."""


class Display:
  """Lines and progress bars on stderr; use it in a `with`.

  Attributes:
    live: whether progress bars are shown: stderr is a terminal.
  """

  def __init__(self, quiet: bool = False) -> None:
    """With `quiet` shows nothing, as in all processes but the first."""
    self._console = Console(stderr=True, quiet=quiet)
    self.live = self._console.is_terminal and not quiet
    self._bars = progress.Progress(
      progress.TextColumn('{task.description}'),
      progress.BarColumn(bar_width=10),  # 80 characters in all
      progress.MofNCompleteColumn(),
      progress.TimeRemainingColumn(),
      progress.TextColumn('{task.fields[status]}'),
      console=self._console,
      disable=not self.live,
      speed_estimate_period=120,
    )

  def __enter__(self) -> 'Display':
    if self.live:
      self._bars.start()
    return self

  def __exit__(self, *_: object) -> None:
    if self.live:  # else rich before 14.3 would print an empty line
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

    return update_progress

  def line(self, text: str) -> None:
    """Prints a line above the bars."""
    self._console.print(text, highlight=False, markup=False, soft_wrap=True)


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
