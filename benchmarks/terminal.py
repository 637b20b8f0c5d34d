"""What a terminal shows of a command: a pseudo-terminal, and the few codes that the program prints."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len

ROWS = 50
_CODES = re.compile(r'\x1b\[([?\d;]*)([A-Za-z])|(\r)|(\n)|(\x08)|(\t)|([^\x00-\x1f\x7f])|(.)', re.S)
_UNENDED = re.compile(r'\x1b(\[[?\d;]*)?\Z')


class Screen:
  """The lines of a terminal with an endless memory.

  It knows carriage returns, backspaces, tabs, and the codes that move the cursor and erase; colors are
  passed over.

  Attributes:
    columns: its width.
    wrapped: lines that ran over its edge, with how many characters they had then.
    erased: lines that were erased or written over, as progress bars are, in their order.
    longest: the columns that the widest line took, erased ones included, as far as the edge.
    unknown: codes that it does not know.
  """

  def __init__(self, columns: int):
    self.columns = columns
    self.wrapped: list[str] = []
    self.erased: list[str] = []
    self.longest = 0
    self.unknown: list[str] = []
    self._lines: list[list[str]] = [[]]
    self._row = self._column = 0
    self._rest = ''

  def feed(self, text: str) -> None:
    """Shows more text; a code may be split between two calls."""
    text = self._rest + text
    unended = _UNENDED.search(text)
    self._rest = unended[0] if unended else ''
    for match in _CODES.finditer(text[: len(text) - len(self._rest)]):
      parameters, code, carriage_return, newline, backspace, tab, character, other = match.groups()
      if code:
        self._obey(parameters, code)
      elif carriage_return:
        self._column = 0
      elif newline:
        self._down()
      elif backspace:
        self._column = max(0, self._column - 1)
      elif tab:
        self._column = min(self.columns - 1, self._column // 8 * 8 + 8)
      elif character:
        self._write(character)
      else:
        self.unknown.append(repr(other))

  def text(self) -> str:
    """All lines as they stand, without spaces at their ends."""
    return ''.join(f'{"".join(line).rstrip()}\n' for line in self._lines).rstrip('\n') + '\n'

  def _obey(self, parameters: str, code: str) -> None:
    number = int(parameters) if parameters.isdigit() else 0
    line = self._lines[self._row]
    if code == 'A':
      self._row = max(0, self._row - max(1, number))
    elif code == 'K':
      if ''.join(line).strip():
        self.erased.append(''.join(line).rstrip())
      del line[self._column if number == 0 else 0 :]
    elif code not in 'mhl':  # colors; the cursor shown and hidden
      self.unknown.append(f'ESC [{parameters}{code}')

  def _down(self) -> None:
    self._row += 1
    if self._row == len(self._lines):
      self._lines.append([])

  def _write(self, character: str) -> None:
    width = cell_len(character)
    if self._column + width > self.columns:
      self.wrapped.append(''.join(self._lines[self._row]))
      self._down()
      self._column = 0
    line = self._lines[self._row]
    line += ' ' * (self._column - len(line))
    if (
      self._column == 0 and ''.join(line).strip() and ''.join(line).rstrip() not in self.erased[-1:]
    ):
      self.erased.append(''.join(line).rstrip())
    line[self._column : self._column + width] = [character, *[''] * (width - 1)]
    self._column += width
    self.longest = max(self.longest, self._column)


@contextlib.contextmanager
def started(
  command: Sequence[str], columns: int, folder: Path, environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[tuple[float, str]]]]:
  """Starts a command in a pseudo-terminal of its own.

  Args:
    command: the program and its arguments.
    columns: the terminal's width; it has `ROWS` lines.
    folder: where to run it.
    environment: its variables; COLUMNS and LINES, which programs believe before the terminal, are
      left out.

  Yields:
    The process, and what it prints, with the seconds since its start, until it has ended.
  """
  ours, its = pty.openpty()
  fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack('HHHH', ROWS, columns, 0, 0))
  kept = {name: value for name, value in environment.items() if name not in ('COLUMNS', 'LINES')}
  start = time.monotonic()
  process = subprocess.Popen(
    command, cwd=folder, env=kept, stdin=its, stdout=its, stderr=its, start_new_session=True
  )
  os.close(its)

  def output() -> Iterator[tuple[float, str]]:
    decoder = codecs.getincrementaldecoder('utf-8')('replace')
    while True:
      try:
        content = os.read(ours, 65536)
      except OSError:  # Linux's end of a terminal
        content = b''
      if not content:
        return
      yield time.monotonic() - start, decoder.decode(content)

  try:
    yield process, output()
    process.wait()
  finally:
    os.close(ours)
    if process.poll() is None:
      process.kill()
      process.wait()
