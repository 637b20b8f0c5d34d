"""The benchmarks' terminal shows what a real one would."""

import sys

from benchmarks.terminal import Screen, started


def test_carriage_returns_and_erased_lines_leave_the_last_text():
  screen = Screen(20)
  screen.feed('bar 10%\r\x1b[2Kbar 20%\r\x1b[2')  # a code in two parts
  screen.feed('K\x1b[31mdone\x1b[0m\r\nnext\n')
  assert screen.text() == 'done\nnext\n'
  assert screen.erased == ['bar 10%', 'bar 20%']
  assert (screen.wrapped, screen.unknown) == ([], [])


def test_a_line_above_is_drawn_anew():
  screen = Screen(20)
  screen.feed('one\r\ntwo\r\x1b[2K\x1b[1A\x1b[2KONE\r\nTWO')
  assert screen.text() == 'ONE\nTWO\n'


def test_a_line_that_fills_the_terminal_fits_and_a_longer_one_wraps():
  screen = Screen(5)
  screen.feed('12345\r\n123456')
  assert screen.text() == '12345\n12345\n6\n'
  assert screen.wrapped == ['12345']
  assert screen.longest == 5


def test_wide_characters_take_two_columns():
  screen = Screen(5)
  screen.feed('\u6f22\u5b57\u6f22')
  assert screen.text() == '\u6f22\u5b57\n\u6f22\n'


def test_codes_that_are_not_known_are_told():
  screen = Screen(5)
  screen.feed('\x1b[3J')
  assert screen.unknown == ['ESC [3J']


def test_a_command_sees_a_terminal_of_the_width_asked_for(tmp_path):
  code = 'import os; print(os.get_terminal_size().columns, os.isatty(2))'
  screen = Screen(100)
  with started([sys.executable, '-c', code], 100, tmp_path, {'COLUMNS': '7'}) as (process, output):
    for _, text in output:
      screen.feed(text)
  assert screen.text() == '100 True\n'
  assert process.returncode == 0
