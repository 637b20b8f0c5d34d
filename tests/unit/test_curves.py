"""Learning curves show what they are given, and can be read without color."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from alexnet_jax.reports import curves
from alexnet_jax.sweeps import charts

RECORDS = [
  {'step': 5, 'epoch': 0.5, 'split': 'train', 'loss': 2.0, 'top1_error': 0.75},
  {'step': 10, 'epoch': 1.0, 'split': 'train', 'loss': 1.5, 'top1_error': 0.5},
  {'step': 10, 'epoch': 1.0, 'split': 'validation', 'loss': 1.6, 'top1_error': 0.55},
  {'step': 20, 'epoch': 2.0, 'split': 'train', 'loss': 1.0, 'top1_error': 0.25},
  {'step': 20, 'epoch': 2.0, 'split': 'validation', 'loss': 1.2, 'top1_error': 0.3},
]


@pytest.mark.parametrize(
  ('panel', 'name', 'train', 'validation'),
  [
    (0, 'cross-entropy loss', [2.0, 1.5, 1.0], [1.6, 1.2]),
    (1, 'top-1 error, %', [75, 50, 25], [55, 30]),
  ],
)
def test_both_splits_are_drawn_over_epochs(panel, name, train, validation):
  axes = curves.learning_curves({'run': RECORDS}, 'a run').axes[panel]
  assert axes.get_xlabel() == 'epochs'
  assert axes.get_ylabel() == name
  assert axes.get_yscale() == 'log'
  lines = {line.get_label(): line for line in axes.get_lines()}
  assert lines.keys() == {'training', 'validation'}
  assert list(lines['training'].get_xdata()) == [0.5, 1.0, 2.0]
  assert list(lines['training'].get_ydata()) == pytest.approx(train)
  assert list(lines['validation'].get_xdata()) == [1.0, 2.0]
  assert list(lines['validation'].get_ydata()) == pytest.approx(validation)


@pytest.mark.parametrize(
  ('errors', 'ticks'),
  [
    ([0.5, 0.01], [1, 2, 5, 10, 20, 50]),
    ([0.9, 0.0001, 0.0], [0.01, 0.1, 1, 10, 100]),
    ([0.41, 0.32], [30, 35, 40, 45]),
  ],
)
def test_errors_of_1_and_50_percent_can_both_be_read(errors, ticks):
  records = [{**RECORDS[2], 'epoch': i, 'top1_error': error} for i, error in enumerate(errors)]
  axes = curves.learning_curves({'run': records}, '').axes[1]
  assert axes.get_yticks() == pytest.approx(ticks)
  beside = charts.curves_beside_base([records], {'a': [records], 'b': [records]}, '')
  assert beside.axes[1].get_yticks() == pytest.approx(ticks)


def test_errors_that_are_all_0_are_drawn_on_a_linear_scale():
  records = [{**RECORDS[2], 'loss': 0.0, 'top1_error': 0.0}]
  assert curves.learning_curves({'run': records}, '').axes[1].get_yscale() == 'linear'


def test_the_splits_are_told_apart_without_color():
  figure = curves.learning_curves({'run': RECORDS}, 'a run')
  for axes in figure.axes:
    train, validation = axes.get_lines()
    assert train.get_linestyle() != validation.get_linestyle()
  legend = figure.axes[0].get_legend()
  assert [text.get_text() for text in legend.get_texts()] == ['training', 'validation']
  assert figure.get_suptitle() == 'a run'


def test_several_runs_are_told_apart_by_markers_and_named():
  runs = {'runs/relu': RECORDS, 'runs/tanh': RECORDS[:3]}
  figure = curves.learning_curves(runs, 'two')
  for axes in figure.axes:
    lines = axes.get_lines()
    assert [len(line.get_xdata()) for line in lines] == [3, 2, 2, 1]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert lines[1].get_marker() != lines[3].get_marker()
    brightness = [np.mean(to_rgb(lines[i].get_color())) for i in (1, 3)]
    assert brightness[1] - brightness[0] > 0.1
  (legend,) = figure.legends
  names = [text.get_text() for text in legend.get_texts()]
  assert names == ['runs/relu', 'runs/tanh', 'training', 'validation']
