"""Checkpoints of a run, each state written once."""

import dataclasses
from pathlib import Path
from typing import Any

from alexnet_jax.checkpoints import checkpoint
from alexnet_jax.data import augment
from alexnet_jax.training import resume
from alexnet_jax.training import step as step_lib


class Saver:
  """Writes a run's checkpoints.

  Attributes:
    newest: the step of the newest checkpoint that this run has started to write or resumed from;
      None before the first.
  """

  def __init__(
    self,
    directory: Path,
    keep: int,
    description: dict[str, Any],
    restored: tuple[int, resume.Progress] | None,
  ):
    """Opens the directory of the checkpoints.

    Args:
      directory: where they are.
      keep: how many of the newest are kept, beside the best.
      description: of the run, fit for JSON; part of every checkpoint.
      restored: step and progress of the checkpoint that the run resumed from.
    """
    self._writer = checkpoint.Writer(directory, keep)
    self._description = description
    self._saved = restored and (restored[0], dataclasses.replace(restored[1]))

  @property
  def newest(self) -> int | None:
    """The step of the newest checkpoint."""
    return self._saved[0] if self._saved else None

  def is_saved(self, step: int, progress: resume.Progress) -> bool:
    """Whether the newest checkpoint is of this step and progress."""
    return self._saved == (step, progress)

  def save(
    self,
    state: step_lib.TrainState,
    statistics: augment.Statistics,
    progress: resume.Progress,
    step: int,
  ) -> None:
    """Starts to write a checkpoint; the writing goes on behind the steps that follow."""
    self._writer.save(
      step,
      {
        'params': state.params,
        'training': resume.training_tree(state),
        'statistics': statistics._asdict(),
      },
      {'step': step, 'progress': dataclasses.asdict(progress), **self._description},
      progress.best_step,
    )
    self._saved = step, dataclasses.replace(progress)

  def check(self) -> None:
    """Raises UserError where the writing behind the steps has failed; waits for none."""
    self._writer.check()

  def close(self) -> None:
    """Waits until everything is written; raises UserError where it cannot be."""
    self._writer.close()
