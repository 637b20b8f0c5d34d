"""Charts of a sweep: figure 1, differences with their seeds, curves beside the base's."""

import math

import numpy as np
import pytest

from alexnet_jax.sweeps import charts


def trained(errors, every=0.5):
  """Training lines of metrics.jsonl, so many epochs apart, an epoch being 20 steps."""
  return [
    {
      'step': round(20 * every * (i + 1)),
      'split': 'train',
      'epoch': every * (i + 1),
      'top1_error': error,
      'loss': error,
    }
    for i, error in enumerate(errors)
  ]


def test_epochs_are_counted_to_the_first_line_at_most_so_wrong():
  records = trained([0.9, 0.5, 0.25, 0.3, 0.1])
  validation = {'split': 'validation', 'epoch': 0.1, 'top1_error': 0.0, 'loss': 0}
  assert charts.epochs_to([validation, *records], 0.25, 10) == 1.5
  assert charts.epochs_to(records, 0.05, 10) is None
  assert charts.epochs_to([], 0.25, 10) is None


def test_every_window_of_a_training_error_has_as_many_steps():
  records = [
    {'split': split, 'step': step, 'epoch': step / 100, 'top1_error': error}
    for split, step, error in (
      ('train', 40, 0.9),
      ('train', 65, 0.8),  # an epoch's end
      ('validation', 65, 0.0),
      ('train', 80, 0.4),
      ('train', 120, 0.3),
      ('train', 130, 0.0),  # nothing follows
    )
  ]
  epochs, errors = charts.training_errors(records, 40)
  assert epochs == [0.4, 0.8, 1.2]
  assert errors == pytest.approx([0.9, (25 * 0.8 + 15 * 0.4) / 40, 0.3])
  assert charts.epochs_to(records, 0.3001, 40) == 1.2
  # Windows of 20 steps: of those that no line ends nothing is known.
  assert charts.training_errors(records, 20) == ([], [])
  assert charts.training_errors([], 40) == ([], [])


def test_figure_1_draws_relu_solid_and_tanh_dashed_with_the_line_of_25_percent():
  relu, tanh = trained([0.6, 0.25, 0.2]), trained([0.9, 0.8, 0.7, 0.5, 0.3, 0.2])
  picture, caption = charts.figure1([relu], [tanh], 10, 'CIFAR-10')
  (axes,) = picture.axes
  lines = {line.get_label(): line for line in axes.lines if line.get_label()[0] != '_'}
  assert lines['ReLU'].get_linestyle() == '-'
  assert lines['tanh'].get_linestyle() == '--'
  assert list(lines['tanh'].get_ydata()) == pytest.approx([0.9, 0.8, 0.7, 0.5, 0.3, 0.2])
  assert any(list(line.get_ydata()) == [0.25, 0.25] for line in axes.lines)
  assert caption == (
    '25% training error over 10 steps: ReLU after 1.0 epochs; tanh after 3.0 epochs; 3.0 times as many. In the'
    ' paper: six times.'
  )


def test_figure_1_does_not_claim_what_was_not_reached():
  relu, tanh = trained([0.6, 0.2]), trained([0.9, 0.8, 0.7, 0.6])
  assert (
    'tanh does not in 2.0 epochs; more than 2.0 times as many'
    in (charts.figure1([relu], [tanh], 10, '')[1])
  )
  assert charts.figure1([tanh], [tanh], 10, '')[1] == (
    '25% training error over 10 steps: ReLU does not in 2.0 epochs; tanh does not in 2.0 epochs. In the paper:'
    ' six times.'
  )


def test_figure_1_has_a_curve_for_each_seed_and_the_ratio_of_the_means():
  relu = [trained([0.6, 0.25]), trained([0.6, 0.5, 0.25])]
  tanh = [trained([0.9, 0.7, 0.5, 0.3, 0.2]), trained([0.9, 0.7, 0.5, 0.3, 0.3, 0.3, 0.2])]
  picture, caption = charts.figure1(relu, tanh, 10, '')
  assert 'ReLU after 1.0, 1.5 epochs; tanh after 2.5, 3.5 epochs; 2.4 times as many.' in caption
  (axes,) = picture.axes
  assert [text.get_text() for text in axes.get_legend().get_texts()] == ['ReLU', 'tanh']
  assert [line.get_linestyle() for line in axes.lines].count('--') == 2
  _, caption = charts.figure1(relu, [*tanh, trained([0.9, 0.8])], 10, '')
  assert 'tanh after 2.5, 3.5 epochs in 2 of 3 runs. In the paper' in caption


def bars(*differences):
  return [
    charts.Bar(
      f'what variant {i} is, in a few more words',
      value,
      [value - 0.25, value + 0.25],
      value - 0.5,
      value + 0.5,
      1.4 if i else math.nan,
      math.nan,
      bool(i),
    )
    for i, value in enumerate(differences)
  ]


def test_a_bar_for_each_variant_with_its_seeds_and_what_the_paper_reports():
  picture = charts.differences(bars(-0.5, 2.0), 'ablations')
  (axes,) = picture.axes
  assert [patch.get_width() for patch in axes.patches] == [-0.5, 2.0]
  assert [label.get_text() for label in axes.get_yticklabels()] == [
    f'what variant {i} is, in a few more\nwords' for i in range(2)
  ]
  pale, dark = (patch.get_facecolor()[0] for patch in axes.patches)
  assert pale > dark  # not significant, significant
  seeds = next(line for line in axes.lines if line.get_marker() == 'o')
  assert list(seeds.get_xdata()) == [-0.75, -0.25, 1.75, 2.25]
  assert list(seeds.get_ydata()) == [0, 0, 1, 1]
  marks = next(line for line in axes.lines if line.get_marker() == 'D')
  np.testing.assert_array_equal(marks.get_xdata(), [math.nan, 1.4])
  assert not any(line.get_marker() == 'X' for line in axes.lines)  # no 2012 logs here
  assert axes.get_xscale() == 'linear'


def test_one_variant_that_fails_altogether_does_not_hide_the_others():
  assert charts.differences(bars(-0.5, 60.0), '').axes[0].get_xscale() == 'symlog'


def test_each_variant_has_a_panel_with_the_base_behind_it():
  validation = [
    {'split': 'validation', 'epoch': epoch, 'top1_error': 1 / epoch, 'loss': 1} for epoch in (1, 2)
  ]
  variants = {f'variant {i}': [validation, validation] for i in range(5)}
  picture = charts.curves_beside_base([validation], variants, 'curves')
  drawn = [panel for panel in picture.axes if panel.lines]
  assert [panel.get_title() for panel in drawn] == list(variants)
  for panel in drawn:
    assert [line.get_color() for line in panel.lines] == ['0.7', 'black', 'black']
    assert list(panel.lines[0].get_ydata()) == [100, 50]
