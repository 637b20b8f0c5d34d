"""Learning curves of a notebook's run are one picture, drawn again as the run goes on."""

import sys
import types

import pytest

from alexnet_jax.training import live, loop
from alexnet_jax.utils import display
from alexnet_jax.utils.errors import UserError

CURVE = [
  {'split': split, 'step': step, 'epoch': step / 5, 'loss': 1 / step, 'top1_error': 1 / step}
  for step in (5, 10, 15)
  for split in ('train', 'validation')
]


class Cell:
  """What IPython would show below a cell: the lengths of the curves of each picture, by output."""

  def __init__(self):
    self.outputs = []

  def display(self, picture, display_id):
    assert display_id
    self.outputs.append([])
    self._show(picture)
    return types.SimpleNamespace(update=self._show)

  def _show(self, picture):
    self.outputs[-1].append([len(line.get_xdata()) for line in picture.axes[0].lines])


@pytest.fixture
def cell(monkeypatch):
  cell, module = Cell(), types.ModuleType('IPython.display')
  module.display = cell.display
  monkeypatch.setitem(sys.modules, 'IPython.display', module)
  monkeypatch.setattr(display, 'in_notebook', lambda: True)
  return cell


def training(error=None):
  """A run that writes `CURVE`, and ends with an error or a result."""

  def train_and_evaluate(config, path, on_record=None):
    for record in CURVE:
      if on_record is not None:
        on_record(record)
    if error is not None:
      raise error
    return {'config': config, 'path': path}

  return train_and_evaluate


def test_curves_are_one_output_that_is_updated(cell, monkeypatch):
  monkeypatch.setattr(loop, 'train_and_evaluate', training())
  monkeypatch.setattr(live, '_SECONDS_BETWEEN_DRAWINGS', 0)
  assert live.train_and_evaluate('config', 'run') == {'config': 'config', 'path': 'run'}
  assert cell.outputs == [[[1, 0], [1, 1], [2, 1], [2, 2], [3, 2], [3, 3], [3, 3]]]


def test_curves_change_no_more_often_than_can_be_seen(cell, monkeypatch):
  monkeypatch.setattr(loop, 'train_and_evaluate', training())
  monkeypatch.setattr(live, '_SECONDS_BETWEEN_DRAWINGS', 1000)
  live.train_and_evaluate('config', 'run')
  assert cell.outputs == [[[1, 0], [3, 3]]]  # the first and the last


def test_a_run_that_fails_leaves_the_curves_so_far(cell, monkeypatch):
  monkeypatch.setattr(loop, 'train_and_evaluate', training(UserError('the loss is nan')))
  with pytest.raises(UserError, match='the loss is nan'):
    live.train_and_evaluate('config', 'run')
  assert cell.outputs[-1][-1] == [3, 3]


def test_nothing_is_drawn_outside_of_notebooks(cell, monkeypatch):
  monkeypatch.setattr(loop, 'train_and_evaluate', training())
  monkeypatch.setattr(display, 'in_notebook', lambda: False)
  live.train_and_evaluate('config', 'run')
  assert cell.outputs == []
