"""left_out.tsv: which files are not in a prepared data set, and why."""

from collections.abc import Sequence
from pathlib import Path

from alexnet_jax.data.sources import LeftOut
from alexnet_jax.utils import files
from alexnet_jax.utils.display import Display

FILE_NAME = 'left_out.tsv'
_UNREADABLE = 'cannot be read: '  # so begin the reasons of the files that were to be used


def write(folder: Path, unreadable: Sequence[Sequence[str]], left_out: Sequence[LeftOut]) -> None:
  """Writes the list into a data set's folder, unless it is empty.

  Args:
    folder: the data set's.
    unreadable: split, class, file name and reason of each file that could not be read.
    left_out: files that were not to be used.
  """
  rows = [(*place, _UNREADABLE + reason) for *place, reason in unreadable]
  _write(folder / FILE_NAME, [*map(_line, rows), *(_line(file[:4]) for file in left_out)])


def update(folder: Path, left_out: Sequence[LeftOut], display: Display) -> None:
  """Brings the list of a data set that is complete up to date: other files may be left out now."""
  path = folder / FILE_NAME
  before = path.read_text('utf-8', 'replace').split('\n')[1:-1] if path.exists() else []
  unreadable = [line for line in before if line.split('\t')[-1].startswith(_UNREADABLE)]
  now = [*unreadable, *(_line(file[:4]) for file in left_out)]
  if now != before:
    try:
      _write(path, now)
    except OSError as error:
      display.line(f'{path} is not up to date and cannot be written: {error.strerror or error}')


def _write(path: Path, lines: Sequence[str]) -> None:
  if not lines:
    path.unlink(missing_ok=True)
    return
  with files.atomic_write(path) as temporary:
    content = '\n'.join([_line(('split', 'class', 'file', 'reason')), *lines]) + '\n'
    temporary.write_text(content, 'utf-8')


def _line(row: Sequence[str]) -> str:
  return '\t'.join(' '.join(field.expandtabs(1).splitlines()) for field in row)
