"""What the user sees of a run: a progress bar on a terminal, plain lines elsewhere, a table."""

from collections.abc import Callable, Sequence

from rich import progress
from rich.console import Console
from rich.table import Table


class Display:
  """Lines and progress bars on stderr; use it in a `with`.

  Attributes:
    live: whether it is a terminal.
  """

  def __init__(self, quiet: bool = False) -> None:
    """`quiet` shows nothing: of several processes one speaks."""
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
    if self.live:  # else rich below 14.3 would end bars that it has not shown with an empty line
      self._bars.stop()

  def task(self, description: str, total: int, completed: int = 0) -> Callable[..., None]:
    """Starts a bar.

    Args:
      description: what is being done.
      total: how much there is to do.
      completed: how much of it is done.

    Returns:
      move(advance, status=None, done=False): moves the bar on, changes the words behind it, or
      takes it away.
    """
    task = self._bars.add_task(description, total=total, completed=completed, status='')

    def move(advance: int = 0, status: str | None = None, done: bool = False) -> None:
      if done:
        self._bars.remove_task(task)
      else:
        self._bars.update(task, advance=advance)
        if status is not None:
          self._bars.update(task, status=status)

    return move

  def line(self, text: str) -> None:
    """Prints a line above the bars."""
    self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_table(
  title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str] = ()
) -> None:
  """Prints a table to stdout; all columns but the first are aligned right.

  Args:
    title: its heading.
    columns: their headings.
    rows: the cells.
    total: a last row, set off by a line.
  """
  table = Table(show_footer=bool(total))
  for i, column in enumerate(columns):
    footer = total[i] if total else ''
    table.add_column(column, footer=footer, justify='right' if i else 'left', no_wrap=True)
  for row in rows:
    table.add_row(*row)
  # Away from a terminal rich assumes 80 columns and would cut cells off.
  console = Console() if Console().is_terminal else Console(width=160)
  console.print(title, markup=False, highlight=False, soft_wrap=True)
  console.print(table)
