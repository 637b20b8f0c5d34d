"""Learning curves draw what metrics.jsonl holds."""

import pytest

from alexnet_jax import figures

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
  axes = figures.learning_curves(RECORDS, 'a run').axes[panel]
  assert axes.get_xlabel() == 'epochs'
  assert axes.get_ylabel() == name
  assert axes.get_ylim()[0] == 0
  lines = {line.get_label(): line for line in axes.get_lines()}
  assert lines.keys() == {'training', 'validation'}
  assert list(lines['training'].get_xdata()) == [0.5, 1.0, 2.0]
  assert list(lines['training'].get_ydata()) == pytest.approx(train)
  assert list(lines['validation'].get_xdata()) == [1.0, 2.0]
  assert list(lines['validation'].get_ydata()) == pytest.approx(validation)


def test_the_splits_are_told_apart_without_colour():
  figure = figures.learning_curves(RECORDS, 'a run')
  for axes in figure.axes:
    train, validation = axes.get_lines()
    assert train.get_linestyle() != validation.get_linestyle()
  legend = figure.axes[0].get_legend()
  assert [text.get_text() for text in legend.get_texts()] == ['training', 'validation']
  assert figure.get_suptitle() == 'a run'


@pytest.mark.parametrize('records', [RECORDS, RECORDS[:2]], ids=['both', 'before-validation'])
@pytest.mark.parametrize(('kind', 'start'), [('png', b'\x89PNG'), ('svg', b'<?xml')])
def test_figures_are_saved(tmp_path, records, kind, start):
  path = tmp_path / f'curves.{kind}'
  figures.learning_curves(records, 'a run').savefig(path)
  assert path.read_bytes().startswith(start)
