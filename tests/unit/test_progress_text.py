"""Where a run is, and its lines."""

import pytest

from alexnet_jax.training.progress_text import Length, line

BY_EPOCHS = Length(total_steps=900, num_epochs=40, batch_size=64, train_examples=1438)
BY_STEPS = Length(total_steps=90, num_epochs=None, batch_size=64, train_examples=1438)
EVERY_STEP = Length(total_steps=3, num_epochs=5, batch_size=64, train_examples=32)


@pytest.mark.parametrize(
  ('length', 'step', 'current', 'done'),
  [
    (BY_EPOCHS, 0, 'epoch  1/40', 'epoch  0/40'),
    (BY_EPOCHS, 23, 'epoch  1/40', 'epoch  1/40'),  # which has 22.5 steps
    (BY_EPOCHS, 24, 'epoch  2/40', 'epoch 1.07/40'),
    (BY_EPOCHS, 900, 'epoch 40/40', 'epoch 40/40'),
    (BY_STEPS, 23, 'step 23/90', 'step 23/90'),
    (BY_STEPS, 90, 'step 90/90', 'step 90/90'),
    (EVERY_STEP, 1, 'epoch 1/5', 'epoch 2/5'),
    (EVERY_STEP, 3, 'epoch 5/5', 'epoch 5/5'),  # its steps are of six
  ],
)
def test_a_run_is_in_an_epoch_or_at_a_step(length, step, current, done):
  assert (length.current(step), length.done(step)) == (current, done)


def test_beside_a_bar_there_is_no_room_for_how_many_steps_there_are():
  assert BY_STEPS.before_bar(7) == 'step  7'
  assert BY_EPOCHS.before_bar(23) == BY_EPOCHS.current(23)


def test_lines_stand_below_each_other_and_fit_a_narrow_terminal():
  train, validation = {'top1_error': 0.314, 'loss': 0.87}, {'top1_error': 1.0, 'loss': 10.71}
  both = {'is_best': True, 'images_per_second': 2512.0}
  lines = [
    line(BY_EPOCHS.done(23, 3), train, validation, **both),
    line(BY_EPOCHS.done(24, 3), train, None, is_best=False, images_per_second=38.42),
    line(BY_EPOCHS.done(900, 3), None, validation, is_best=False, images_per_second=0),
  ]
  assert BY_EPOCHS.current(23, 3) == 'epoch     1/40'
  assert lines == [
    'epoch     1/40  train 31.4%  val  100% *  loss 0.870/10.710   2.5k img/s',
    'epoch  1.07/40  train 31.4%               loss 0.870         38.4 img/s',
    'epoch    40/40               val  100%    loss      /10.710',
  ]
  long = Length(450_000, None, 128, 1_281_167).done(449_999)
  assert len(line(long, train, validation, **both)) <= 79
