"""The curves of a run's page: top-1 error over epochs, laid out for an SVG of the template run.html."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.checkpoints import workdir

SIZE = _WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 330, 64, 16, 30, 50
"""Width and height of the SVG, and its margins, in pixels."""

_FEWEST_MARKS = 3  # on the axis of errors, if there are as many


class Mark(NamedTuple):
  """A place on the axis of the curves.

  Attributes:
    at: in the curves' coordinates.
    text: what stands there.
  """

  at: float
  text: str


class Point(NamedTuple):
  """A validation.

  Attributes:
    x, y: in the curves' coordinates.
    low, high: from where to where on the x axis the pointer shows it.
    text: what it then says.
  """

  x: float
  y: float
  low: float
  high: float
  text: str


class Curves(NamedTuple):
  """The curves of top-1 error over epochs, on a logarithmic scale.

  Attributes:
    training: points of the line, as SVG takes them.
    validation: the points.
    best: where the validation error is lowest.
    cuts: where the learning rate was cut.
    across, up: marks of the axes.
  """

  training: str
  validation: Sequence[Point]
  best: Mark
  cuts: Sequence[Mark]
  across: Sequence[Mark]
  up: Sequence[Mark]

  @property
  def line(self) -> str:
    """Points of the validations' line, as SVG takes them."""
    return ' '.join(f'{point.x:.1f},{point.y:.1f}' for point in self.validation)


def curves(records: Sequence[Mapping[str, Any]]) -> Curves | None:
  """Lays out the curves of a run; None where there is no validation yet, or no step.

  Args:
    records: the lines of metrics.jsonl.
  """
  lines = list(workdir.training_lines(records))
  training = [line for _, line in lines]
  validation = [record for record in records if record['split'] == 'validation']
  last = max((record['epoch'] for record in records), default=0)
  if not validation or not last:
    return None
  errors = [record['top1_error'] for record in records if record['top1_error'] > 0] or [1.0]
  lowest, highest = max(min(errors), 1e-4) / 1.3, max(errors)

  def x(epochs: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * epochs / last

  def y(error: float) -> float:
    share = math.log(max(error, lowest) / lowest) / math.log(highest / lowest * 1.1)
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

  points, last_step = [], 0
  places = [x(record['epoch']) for record in validation]
  edges = [_LEFT, *((a + b) / 2 for a, b in itertools.pairwise(places)), _WIDTH - _RIGHT]
  for i, record in enumerate(validation):
    since = [(steps, line) for steps, line in lines if last_step < line['step'] <= record['step']]
    text = f'epoch {epoch(record)}: validation error {record["top1_error"]:.2%}'
    if since:
      weights, of_epoch = zip(*since, strict=True)
      error = np.average([line['top1_error'] for line in of_epoch], weights=weights)
      text += f', training {error:.2%}, rate {of_epoch[-1]["learning_rate"]:.3g}'
    last_step = record['step']
    points.append(Point(places[i], y(record['top1_error']), edges[i], edges[i + 1], text))
  lowest_error = best(validation)
  text = f'lowest error, {lowest_error["top1_error"]:.2%}, epoch {epoch(lowest_error)}'
  cuts = [
    Mark(x(before['epoch']), f'rate {after["learning_rate"]:.3g}')
    for before, after in itertools.pairwise(training)
    if after['learning_rate'] < before['learning_rate']
  ]
  step = next(step for step in _nice_steps() if last / step <= 10)
  marks: list[Mark] = []
  for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
    if len(marks) < _FEWEST_MARKS:
      shares = [digit * scale for scale in (0.001, 0.01, 0.1, 1) for digit in digits]
      marks = [
        Mark(y(share), f'{100 * share:g}%')
        for share in shares
        if lowest <= share <= min(1, highest * 1.1)
      ]
  return Curves(
    ' '.join(f'{x(record["epoch"]):.1f},{y(record["top1_error"]):.1f}' for record in training),
    points,
    Mark(x(lowest_error['epoch']), text),
    cuts,
    [Mark(x(i * step), f'{i * step:g}') for i in range(int(last / step) + 1)],
    marks,
  )


def epoch(record: Mapping[str, Any]) -> str:
  """How many epochs a line of metrics.jsonl comes after: '3' of 3.026, where a step ended the third."""
  epochs = record['epoch']
  of_a_step = epochs / record['step'] if record['step'] else 0
  return f'{math.floor(epochs)}' if epochs % 1 < of_a_step else f'{epochs:.4g}'


def best(validations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
  """The record of the lowest error, of equal ones of the lowest loss."""
  return min(validations, key=lambda record: (record['top1_error'], record['loss']))


def _nice_steps() -> Iterator[float]:
  scale = 0.1
  while True:
    yield from (scale, 2 * scale, 5 * scale)
    scale *= 10
