"""Figure 1 from a sweep's runs: windows of training steps, the best learning rate, the curves."""

import pytest

from alexnet_jax.sweeps import figure1, planning, report, spec
from tests import sweeps


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
  assert figure1.epochs_to_error([validation, *records], 10) == 1.5
  assert figure1.epochs_to_error(records[:2], 10) is None
  assert figure1.epochs_to_error([], 10) is None


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
  epochs, errors = figure1.training_errors(records, 40)
  assert epochs == [0.4, 0.8, 1.2]
  assert errors == pytest.approx([0.9, (25 * 0.8 + 15 * 0.4) / 40, 0.3])
  assert (
    figure1.epochs_to_error(
      [{**line, 'top1_error': line['top1_error'] - 0.06} for line in records], 40
    )
    == 1.2
  )
  # Windows of 20 steps: of those that no line ends nothing is known.
  assert figure1.training_errors(records, 20) == ([], [])
  assert figure1.training_errors([], 40) == ([], [])


def test_figure_1_draws_relu_solid_and_tanh_dashed_with_the_line_of_25_percent():
  relu, tanh = trained([0.6, 0.25, 0.2]), trained([0.9, 0.8, 0.7, 0.5, 0.3, 0.2])
  picture, caption = figure1.draw([relu], [tanh], 10, 'CIFAR-10')
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
    in (figure1.draw([relu], [tanh], 10, '')[1])
  )
  assert figure1.draw([tanh], [tanh], 10, '')[1] == (
    '25% training error over 10 steps: ReLU does not in 2.0 epochs; tanh does not in 2.0 epochs. In the paper:'
    ' six times.'
  )


def test_figure_1_has_a_curve_for_each_seed_and_the_ratio_of_the_means():
  relu = [trained([0.6, 0.25]), trained([0.6, 0.5, 0.25])]
  tanh = [trained([0.9, 0.7, 0.5, 0.3, 0.2]), trained([0.9, 0.7, 0.5, 0.3, 0.3, 0.3, 0.2])]
  picture, caption = figure1.draw(relu, tanh, 10, '')
  assert 'ReLU after 1.0, 1.5 epochs; tanh after 2.5, 3.5 epochs; 2.4 times as many.' in caption
  (axes,) = picture.axes
  assert [text.get_text() for text in axes.get_legend().get_texts()] == ['ReLU', 'tanh']
  assert [line.get_linestyle() for line in axes.lines].count('--') == 2
  _, caption = figure1.draw(relu, [*tanh, trained([0.9, 0.8])], 10, '')
  assert 'tanh after 2.5, 3.5 epochs in 2 of 3 runs. In the paper' in caption


def test_there_is_no_figure_1_of_runs_that_stay_above_25_percent(tmp_path):
  sweeps.write_sweep(tmp_path, {'base': (0.3, 0.3), 'tanh': (0.4, 0.4)})
  _, written = sweeps.report_quickly(tmp_path)
  assert 'figure1.png' not in {file.name for file in written}
  assert 'Figure 1' not in (tmp_path / 'results.md').read_text()


def test_where_no_run_gets_far_enough_for_figure_1_it_is_said(tmp_path, capsys):
  of = spec.Sweep('Figure 1', (spec.Variant('tanh', {'model.activation': 'tanh'}, ''),))
  planned = sweeps.plan(tmp_path, of)
  planning.write(planned)
  for run in planned.runs:
    sweeps.write_run(run, sweeps.lines([0.9, 0.8, 0.7, 0.6]))
  report.show(*sweeps.report_quickly(tmp_path))
  assert 'Figure 1 is not drawn: no run reached 25% training error.' in capsys.readouterr().out


def test_figure_1_takes_of_each_activation_the_run_that_is_soonest_there(tmp_path):
  overrides = {'model.activation': 'tanh', 'optimizer.learning_rate': 0.5}
  of = spec.Sweep(
    'Figure 1',
    (
      spec.Variant('relu_fast', {'optimizer.learning_rate': 0.25}, ''),
      spec.Variant('tanh_slow', {'model.activation': 'tanh'}, ''),
      spec.Variant('tanh', overrides, ''),
      spec.Variant('tanh_narrow', {**overrides, 'model.fc6.features': 32}, ''),
    ),
  )
  planned = sweeps.plan(tmp_path, of)
  planning.write(planned)
  errors = {
    'base': [0.8, 0.5, 0.3, 0.2],
    'relu_fast': [0.7, 0.2, 0.2, 0.2],
    'tanh_slow': [0.9, 0.8, 0.7, 0.6],
    'tanh': [0.9, 0.8, 0.5, 0.25],
    'tanh_narrow': [0.1, 0.1, 0.1, 0.1],  # another network: not its business
  }
  for run in planned.runs:
    sweeps.write_run(run, sweeps.lines(errors[run.variant]))
  sweeps.report_quickly(tmp_path)
  assert (
    '25% training error over 10 steps: ReLU after 2.0 epochs; tanh after 4.0 epochs; 2.0 times as'
    ' many. In the paper: six times. ReLU: seed 0, learning rate 0.25; training error by rate: 0.02: 20.0% (4'
    ' epochs), 0.25: 20.0% (4 epochs). tanh: seed 0, learning rate 0.5; training error by rate:'
    ' 0.02: 60.0% (4 epochs), 0.5: 25.0% (4 epochs).'
  ) in (tmp_path / 'results.md').read_text()


def report_of(path, seeds, lines_of):
  """results.md of ReLU at two learning rates, 0.02 and 0.25 ('fast'), and tanh; a run's lines by `lines_of`."""
  fast = spec.Variant('fast', {'optimizer.learning_rate': 0.25}, '')
  tanh = spec.Variant('tanh', {'model.activation': 'tanh'}, '')
  planned = sweeps.plan(path, spec.Sweep('Figure 1', (fast, tanh), seeds=seeds))
  planning.write(planned)
  for run in planned.runs:
    sweeps.write_run(run, lines_of(run))
  sweeps.report_quickly(path)
  return (path / 'results.md').read_text()


def test_figure_1_takes_of_equally_soon_runs_the_one_with_the_lower_loss(tmp_path):
  def lines_of(run):
    factor = 0.5 if run.variant == 'fast' else 1.0
    lines = sweeps.lines([0.8, 0.5, 0.3, 0.2])
    return [{**line, 'loss': factor * line['loss']} for line in lines]

  assert 'ReLU: seed 0, learning rate 0.25;' in report_of(tmp_path, (0,), lines_of)


def test_figure_1_takes_the_rate_that_is_soonest_there_on_average_and_shows_all_its_seeds(tmp_path):
  errors = {
    ('base', 3): [0.5, 0.4, 0.2, 0.2],
    ('base', 4): [0.5, 0.4, 0.2, 0.2],
    ('fast', 3): [0.5, 0.2, 0.2, 0.2],  # soonest, but not in the mean
    ('fast', 4): [0.8, 0.8, 0.8, 0.8],
    ('tanh', 3): [0.8, 0.8, 0.8, 0.2],
    ('tanh', 4): [0.8, 0.8, 0.8, 0.3],
  }
  text = report_of(tmp_path, (3, 4), lambda run: sweeps.lines(errors[run.variant, run.seed]))
  assert 'ReLU after 3.0, 3.0 epochs; tanh after 4.0 epochs in 1 of 2 runs. In the paper' in text
  assert 'ReLU: seeds 3, 4, learning rate 0.02; training error by rate: 0.02: 20.0% (4' in text
  assert '0.25: 50.0% (4 epochs). tanh: seeds 3, 4,' in text


def test_figure_1_prefers_a_rate_that_some_seeds_reach_25_percent_at_to_one_that_none_does(
  tmp_path,
):
  errors = {
    ('base', 3): [0.5, 0.4, 0.3, 0.3],
    ('base', 4): [0.5, 0.4, 0.3, 0.3],
    ('fast', 3): [0.5, 0.4, 0.2, 0.2],
    ('fast', 4): [0.8, 0.8, 0.8, 0.8],
    ('tanh', 3): [0.8, 0.8, 0.8, 0.8],
    ('tanh', 4): [0.8, 0.8, 0.8, 0.8],
  }
  text = report_of(tmp_path, (3, 4), lambda run: sweeps.lines(errors[run.variant, run.seed]))
  assert 'ReLU after 3.0 epochs in 1 of 2 runs; tanh does not in 4.0 epochs' in text
  assert 'ReLU: seeds 3, 4, learning rate 0.25;' in text
