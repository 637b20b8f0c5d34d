"""Progress in a notebook is one output that changes; tables on narrow terminals lose nothing."""

import builtins
import re
import sys
import types

import pytest

from alexnet_jax.utils import display


class ZMQInteractiveShell:  # by this name rich knows a notebook's kernel
  pass


class Cell:
  """What IPython would show below a cell: a list of outputs, each of the texts it has had."""

  def __init__(self):
    self.outputs = []

  def display(self, bundle, raw, display_id):
    assert raw
    assert display_id
    self.outputs.append([bundle])
    return types.SimpleNamespace(update=lambda bundle, raw: self.outputs[0].append(bundle))

  @property
  def text(self):
    return self.outputs[0][-1]['text/plain']


@pytest.fixture
def cell(monkeypatch):
  cell = Cell()
  monkeypatch.setattr(builtins, 'get_ipython', ZMQInteractiveShell, raising=False)
  monkeypatch.setitem(sys.modules, 'IPython', types.ModuleType('IPython'))
  module = types.ModuleType('IPython.display')
  module.display = cell.display
  monkeypatch.setitem(sys.modules, 'IPython.display', module)
  return cell


def test_a_notebook_has_one_output_with_lines_and_bars(cell, monkeypatch, capsys):
  monkeypatch.setattr(display, '_SECONDS_BETWEEN_UPDATES', 0)
  monkeypatch.setattr(display, '_NOTEBOOK_LINES', 10)
  with display.Display() as shown:
    assert shown.live
    update = shown.task('training', 200)
    for step in range(30):
      update(5, status=f'loss {step} < 100')
      shown.line(f'step {step}')
    assert 'training' in cell.text
    assert ' 75% ' in cell.text
    assert cell.text.splitlines()[:2] == ['(20 earlier lines)', 'step 20']
    assert 'loss 29 &lt; 100' in cell.outputs[0][-1]['text/html']
    update(done=True)
  assert cell.text.splitlines()[-1] == 'step 29'
  assert len(cell.outputs) == 1
  assert capsys.readouterr() == ('', '')


def test_a_notebook_s_output_changes_no_more_often_than_can_be_seen(cell, monkeypatch):
  monkeypatch.setattr(display, '_SECONDS_BETWEEN_UPDATES', 1000)
  with display.Display() as shown:
    update = shown.task('training', 200)
    for _ in range(200):
      update(1)
  assert len(cell.outputs[0]) == 2  # the first and the last
  assert '100%' in cell.text


def test_a_notebook_has_no_output_where_there_is_nothing_to_show(cell):
  with display.Display() as shown:
    shown.task('evaluation', 2)(done=True)
  assert cell.outputs == []


def test_quiet_is_quiet_in_a_notebook_too(cell):
  with display.Display(quiet=True) as shown:
    shown.task('training', 2)(1)
    shown.line('a line')
  assert cell.outputs == []


def test_elsewhere_lines_are_printed_and_bars_are_not(capsys):
  with display.Display() as shown:
    assert not shown.live
    shown.task('training', 2)(1)
    shown.line('a [line]')
  assert capsys.readouterr() == ('', 'a [line]\n')


@pytest.mark.parametrize('on_terminal', [False, True])
def test_text_is_shown_as_it_is(capsys, monkeypatch, on_terminal):
  if on_terminal:
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('COLUMNS', '100')
  text = 'runs/:100:/[red] 12'
  with display.Display() as shown:
    shown.line(text)
    shown.task(f'name {text}', 2)(1, status=f'status {text}')
  with display.waiting(f'waiting {text}'):
    pass
  display.print_table(f'title {text}', [f'column {text}'], [[f'cell {text}']], [f'total {text}'])
  out, err = (re.sub(r'\x1b\[[\d;?]*[a-zA-Z]', '', each) for each in capsys.readouterr())
  expected = ('name', 'status', 'waiting') if on_terminal else ()
  for where, words in ((err, ('', *expected)), (out, ('title', 'column', 'cell', 'total'))):
    for word in words:
      assert f'{word} {text}'.strip() in where


def test_a_bar_of_a_long_run_fits_a_terminal_of_80_columns(capsys, monkeypatch):
  monkeypatch.setenv('FORCE_COLOR', '1')
  monkeypatch.setenv('COLUMNS', '80')
  monkeypatch.setattr(display, 'duration', lambda seconds: '12h 05m')
  status = 'train  100% loss 10.871 41.9k img/s'
  with display.Display() as shown:
    shown.task('step 449999', 100)(13, status=status)
  text = re.sub(r'\x1b\[[^a-zA-Z]*[a-zA-Z]', '', capsys.readouterr().err)
  last = text.strip().splitlines()[-1]
  [bar] = re.fullmatch(rf'step 449999 ([━╸╺]+) +13% 12h 05m {status}', last).groups()
  assert len(last) == 80
  assert len(bar) > len(', 12h 05m left')  # for which a second step makes room


def test_a_narrow_terminal_has_how_much_is_done_and_cuts_nothing(capsys, monkeypatch):
  monkeypatch.setenv('FORCE_COLOR', '1')
  monkeypatch.setenv('COLUMNS', '40')
  with display.Display() as shown:
    shown.task('norm_over_all_channels/seed0', 100)(13, status='loss 10.871')
  text = re.sub(r'\x1b\[[^a-zA-Z]*[a-zA-Z]', '', capsys.readouterr().err)
  assert text.splitlines()[-1].split() == ['norm_over_all_channels/seed0', '13%']


def test_text_is_filled_to_the_width_of_a_terminal_and_to_79_elsewhere(capsys, monkeypatch):
  text = 'a-b ' * 40
  assert max(map(len, display.fill(text).splitlines())) == 79
  monkeypatch.setenv('FORCE_COLOR', '1')
  monkeypatch.setenv('COLUMNS', '30')
  lines = display.fill(text, indent='  ', hanging='    ').splitlines()
  assert lines[:2] == ['  a-b a-b a-b a-b a-b a-b a-b', '    a-b a-b a-b a-b a-b a-b']


def test_a_wait_is_shown_on_a_terminal_alone_and_leaves_nothing(capsys, monkeypatch):
  with display.waiting('loading'):
    pass
  assert capsys.readouterr() == ('', '')
  monkeypatch.setenv('FORCE_COLOR', '1')
  with display.waiting('loading'):
    pass
  shown = capsys.readouterr().err
  assert 'loading' in shown
  assert shown.rpartition('\x1b[2K')[2].strip('\r') == ''


COLUMNS = ('name', 'parameters', 'error')
ROWS = (('a network', '60,965,224', '18.21%'), ('another network', '7', ''))


def table(capsys, monkeypatch, columns, width):
  """What `print_table` prints on a terminal so wide, or for None into a file, without colors."""
  if width:
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('COLUMNS', str(width))
  display.print_table('title', columns, ROWS, ('total', '60,965,231', ''))
  text = re.sub(r'\x1b\[[\d;]*m', '', capsys.readouterr().out)
  return [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize('width', [None, 35, 120])
def test_a_table_is_as_wide_as_its_cells(capsys, monkeypatch, width):
  assert table(capsys, monkeypatch, COLUMNS, width) == [
    'title',
    'name             parameters   error',
    '───────────────────────────────────',
    'a network        60,965,224  18.21%',
    'another network           7',
    '───────────────────────────────────',
    'total            60,965,231',
  ]


def test_a_narrow_terminal_folds_names_and_no_numbers(capsys, monkeypatch):
  lines = table(capsys, monkeypatch, COLUMNS, 34)
  assert max(map(len, lines)) == 34
  assert lines[3:6] == [
    'a network       60,965,224  18.21%',
    'another                  7',
    'network',
  ]


def test_a_terminal_too_narrow_for_a_table_has_a_list_for_each_row(capsys, monkeypatch):
  assert table(capsys, monkeypatch, COLUMNS, 30) == [
    'title',
    'a network',
    '  parameters  60,965,224',
    '  error       18.21%',
    'another network',
    '  parameters  7',
    'total',
    '  parameters  60,965,231',
  ]


@pytest.mark.parametrize(
  ('value', 'text'),
  [(0, '0'), (38.42, '38.4'), (999.4, '999'), (999.6, '1.0k'), (999_960, '1.0M'), (2e9, '2.0G')],
)
def test_numbers_are_short(value, text):
  assert display.short_number(value) == text


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(7.6, '0:08'), (760, '12:40'), (18_180, '5h 03m'), (212_400, '2d 11h')],
)
def test_durations_are_short(seconds, text):
  assert display.duration(seconds) == text
