"""Charts of a sweep: differences with their seeds, curves beside the base's."""

import math

import numpy as np

from alexnet_jax.sweeps import charts


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
