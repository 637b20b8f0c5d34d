"""Training in a notebook, with learning curves that grow below the cell."""

import math
import os
import time
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax.reports import curves
from alexnet_jax.training import loop
from alexnet_jax.utils import display

_SECONDS_BETWEEN_DRAWINGS = 5  # a drawing takes a quarter of one, while nothing is trained


def train_and_evaluate(config: ConfigDict, workdir_path: str | os.PathLike[str]) -> dict[str, Any]:
  """Trains as `loop.train_and_evaluate` does; a notebook shows the learning curves meanwhile.

  They are one picture below the cell, which is drawn again as the run goes on, and whole in the end,
  also where the run is stopped. Elsewhere nothing is drawn.

  Args:
    config: see `loop.train_and_evaluate`.
    workdir_path: see there; it is the picture's title.

  Returns:
    See `loop.train_and_evaluate`.

  Raises:
    UserError: see `loop.train_and_evaluate`.
  """
  if not display.in_notebook():
    return loop.train_and_evaluate(config, workdir_path)
  growing = _Curves(os.fspath(workdir_path))
  try:
    return loop.train_and_evaluate(config, workdir_path, growing.add)
  finally:
    growing.draw()


class _Curves:
  """A picture of learning curves below a notebook's cell."""

  def __init__(self, title: str):
    self._title = title
    self._records: list[Mapping[str, Any]] = []
    self._handle: Any = None
    self._drawn = -math.inf

  def add(self, record: Mapping[str, Any]) -> None:
    """Takes in a record of metrics.jsonl, and draws it unless another was drawn a moment ago."""
    self._records.append(record)
    if time.monotonic() - self._drawn >= _SECONDS_BETWEEN_DRAWINGS:
      self.draw()

  def draw(self) -> None:
    """Draws all records so far, if there are any, in place of the picture before."""
    if not self._records:
      return
    from IPython.display import display as show

    picture = curves.learning_curves({self._title: self._records}, self._title)
    if self._handle is None:
      self._handle = show(picture, display_id=True)
    else:
      self._handle.update(picture)
    self._drawn = time.monotonic()
