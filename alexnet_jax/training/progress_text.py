"""What a run says of its progress: where it is, and a line of errors, losses and speed."""

import dataclasses
from collections.abc import Mapping

from alexnet_jax.utils.display import short_number


@dataclasses.dataclass(frozen=True)
class Length:
  """The length of a run, by which it says where it is: 'epoch 5/40', or 'step 30/90'.

  Attributes:
    total_steps: with which it ends.
    num_epochs: with which it ends; None where train.num_steps ends it before.
    batch_size: images a step.
    train_examples: images an epoch.
  """

  total_steps: int
  num_epochs: int | None
  batch_size: int
  train_examples: int

  def epoch(self, step: int) -> float:
    """How many epochs so many steps are."""
    return step * self.batch_size / self.train_examples

  def epochs_done(self, step: int) -> int:
    """Whole epochs behind a number of steps."""
    return step * self.batch_size // self.train_examples

  def is_epoch_end(self, step: int) -> bool:
    """Whether a step ends an epoch, or the run."""
    return step >= self.total_steps or self.epochs_done(step) > self.epochs_done(step - 1)

  def current(self, step: int, extra_width: int = 0) -> str:
    """The epoch of a step, from 1; the step itself where train.num_steps ends the run.

    Arguments as `done`'s.
    """
    if self.num_epochs is None:
      return self._place(f'{step}', 0)
    epoch = self.epochs_done(max(step, 1) - 1) + 1
    return self._place(f'{min(epoch, self.num_epochs)}', extra_width)

  def before_bar(self, step: int) -> str:
    """Like `current`, but in a run of steps without their total, for the bar to fit in 80 columns."""
    if self.num_epochs is None:
      return f'step {step:>{len(f"{self.total_steps}")}}'
    return self.current(step)

  def done(self, step: int, extra_width: int = 0) -> str:
    """How much is done after a step; within an epoch as '4.37/40'.

    Args:
      step: the step.
      extra_width: characters by which a number of epochs is wider than the last one's.
    """
    if self.num_epochs is None:
      return self._place(f'{step}', 0)
    if step >= self.total_steps:
      number = f'{self.num_epochs}'
    elif self.is_epoch_end(step):
      number = f'{self.epochs_done(step)}'
    else:
      number = f'{self.epoch(step):.2f}'
    return self._place(number, extra_width)

  def _place(self, number: str, extra_width: int) -> str:
    by_steps = self.num_epochs is None
    last = f'{self.total_steps}' if by_steps else f'{self.num_epochs}'
    return f'{"step" if by_steps else "epoch"} {number:>{len(last) + extra_width}}/{last}'


def percent(error: float) -> str:
  """An error as five characters: '31.4%', ' 5.0%', ' 100%'."""
  return ' 100%' if error >= 0.9995 else f'{error:5.1%}'


def line(
  place: str,
  train: Mapping[str, float] | None,
  validation: Mapping[str, float] | None,
  *,
  is_best: bool,
  images_per_second: float,
) -> str:
  """A line of at most 79 characters, whose columns stand below those of the line before.

  Args:
    place: where the run is.
    train: 'top1_error' and 'loss' in training; None where nothing was trained.
    validation: the same on the validation images; None where they were not.
    is_best: whether it is the best validation so far, which is marked.
    images_per_second: of training; 0 where it is not known.
  """
  errors = [
    f'train {percent(train["top1_error"])}' if train else '',
    f'val {percent(validation["top1_error"])}{" *" * is_best}' if validation else '',
  ]
  losses = [f'{values["loss"]:.3f}' if values else '' for values in (train, validation)]
  loss = f'loss {losses[0]:>5}{"/" if validation else ""}{losses[1]}'
  text = f'{place}  {errors[0]:11}  {errors[1]:11}  {loss:16}'
  if images_per_second:
    text += f'  {speed(images_per_second):>11}'
  return text.rstrip()


def speed(images_per_second: float) -> str:
  """'2.5k img/s'."""
  return f'{short_number(images_per_second)} img/s'
