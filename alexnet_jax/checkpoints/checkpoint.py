"""Reads and writes checkpoints: Orbax's, with digests of all their content.

A checkpoint is a folder named by its step. It holds named trees of arrays and a description, a
JSON object. Orbax restores a data file with a flipped bit without an error, so the description has
a digest of every tree and of itself, which are checked on reading.
"""

import contextlib
import functools
import gc
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from alexnet_jax.parallel import multihost
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line
from alexnet_jax.utils.silence import silenced

_DESCRIPTION = 'description'

_REPLACED = 'replaced-'  # before the step, in the name of a checkpoint that is being replaced

_MAX_COMPRESSION = 1000  # bytes of arrays per byte of files; trained ones are hardly compressed

FORMAT = 1
"""Format number of the checkpoints that are written.

Every version reads the formats up to its own: it loads and evaluates the network and resumes its
training; config fields that were added since have the value of the earlier behavior
(`config_fields.ADDED_FIELDS`). A newer format is refused with a request to upgrade. A change that
readers of this format would misread increases the number, and leaves a checkpoint of the old format
in tests/data.
"""


class DamagedError(Exception):
  """A checkpoint cannot be read, or its content differs from what was written."""


def digest(tree: Any) -> str:
  """The SHA-256, in hexadecimal, of a tree's arrays, with their names, shapes and dtypes."""
  sha = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.ascontiguousarray(multihost.whole(leaf))
    sha.update(f'{jax.tree_util.keystr(path)} {array.shape} {array.dtype}'.encode())
    sha.update(array.reshape(-1).view(np.uint8).data)
  return sha.hexdigest()


def _text_digest(value: Any) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def steps(directory: str | os.PathLike[str]) -> list[int]:
  """Steps of the complete checkpoints in a folder, in ascending order; [] where it is missing.

  Raises:
    UserError: a checkpoint is a link out of the folder.
  """
  if not epath.Path(directory).is_dir():
    return []
  # Orbax takes a folder such as dropout_0, of a variant, for a checkpoint too.
  paths = ocp.utils.checkpoint_steps_paths(directory)
  complete = sorted(int(path.name) for path in paths if path.name.isdecimal())
  for step in complete:
    files.inside(directory, str(step))
  return complete


def exists(directory: str | os.PathLike[str]) -> bool:
  """Whether a folder has a complete checkpoint, or one that a killed process was replacing."""
  return bool(steps(directory)) or any(Path(directory).glob(f'{_REPLACED}*'))


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
  """Whether a folder is itself a checkpoint."""
  folder = epath.Path(path)
  return folder.name.isdecimal() and (folder / _DESCRIPTION).is_dir()


def read(
  directory: str | os.PathLike[str], step: int, abstract: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads trees of a checkpoint, and its description.

  Args:
    directory: the folder of the checkpoints.
    step: the checkpoint's step.
    abstract: by name, the trees to read, of jax.ShapeDtypeStruct with any shardings, whatever
      those were with which they were written.

  Returns:
    The trees by name, and the description.

  Raises:
    DamagedError: the checkpoint cannot be read or differs from what was written.
    UserError: it was written by a newer version, or has pipes or links out of its folder.
  """
  folder = os.path.join(directory, str(step))
  for parent, folders, names in os.walk(folder):
    for name in (*folders, *names):
      files.inside(folder, Path(parent, name).relative_to(folder))
  with silenced():  # after a failed read Orbax leaves others unfinished, which print warnings
    try:
      return _read(directory, step, abstract)
    except DamagedError as error:
      reason = str(error)
    time.sleep(0.1)  # tensorstore's threads still end those reads, and do not report when
    gc.collect()
  raise DamagedError(reason)


def _read(
  directory: str | os.PathLike[str], step: int, abstract: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  items = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
  try:
    _check_size(epath.Path(directory) / str(step), abstract)
    with _checkpointer() as checkpointer:
      restored = checkpointer.restore(
        epath.Path(directory).absolute() / str(step),
        args=ocp.args.Composite(**{_DESCRIPTION: ocp.args.JsonRestore()}, **items),
      )
    written = restored[_DESCRIPTION]
    version = int(written['format'])
    description, digests = written['content'], written['digests']
    if not isinstance(description, dict):
      raise TypeError('its description is not an object')
    expected = {name: digests[name] for name in abstract}
    intact = written['digest'] == _text_digest([version, description, digests])
  except Exception as error:  # Orbax and tensorstore raise many kinds
    raise DamagedError(f'cannot be read: {first_line(error)[:80]}') from error
  if version > FORMAT:
    raise UserError(
      f'{epath.Path(directory) / str(step)} was written by a newer alexnet_jax; upgrade this one'
    )
  if not intact:
    raise DamagedError('its description differs from what was written')
  for name in abstract:
    if digest(restored[name]) != expected[name]:
      raise DamagedError(f'its {name} differ from what was written')
  return {name: restored[name] for name in abstract}, description


def _check_size(path: epath.Path, abstract: Mapping[str, Any]) -> None:
  """Raises ValueError where arrays are too large to be in a folder's files, which are compressed."""
  if '://' in str(path):
    return
  size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))
  stored = sum(
    os.stat(os.path.join(parent, name)).st_size
    for parent, _, names in os.walk(path)
    for name in names
  )
  if size > 2**24 and size > _MAX_COMPRESSION * stored:
    raise ValueError(f'{size:,} bytes of arrays cannot be in files of {stored:,}')


@contextlib.contextmanager
def _checkpointer() -> Iterator[ocp.Checkpointer]:
  checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
  try:
    yield checkpointer
  finally:
    checkpointer.close()


def restore_replaced(directory: str | os.PathLike[str]) -> None:
  """Restores a checkpoint that a killed process was replacing, or removes it where it was replaced."""
  for path in Path(directory).glob(f'{_REPLACED}*'):
    target = path.with_name(path.name.removeprefix(_REPLACED))
    if target.exists():
      shutil.rmtree(path)
    else:
      path.rename(target)


def set_aside(directory: str | os.PathLike[str], step: int) -> Path:
  """Renames a damaged checkpoint, so that a new one can have its step; returns its new path."""
  target = Path(directory) / f'damaged-{step}'
  while target.exists():
    target = target.with_name(target.name + '-again')
  return (Path(directory) / str(step)).rename(target)


class Writer:
  """Writes checkpoints in the background, and keeps the newest ones and the best."""

  def __init__(self, directory: str | os.PathLike[str], keep: int):
    """Opens a folder of checkpoints, made if need be.

    Args:
      directory: the folder.
      keep: how many of the newest checkpoints to keep, at least 1.

    Raises:
      UserError: the folder has a link out of it.
    """
    if os.path.isdir(directory):
      for name in os.listdir(directory):  # Orbax writes files of its own beside the checkpoints
        files.inside(directory, name)
    self._keep = keep
    self._newest = checkpoint_managers.LatestN(keep)
    self._kept = checkpoint_managers.AnyPreservationPolicy([self._newest])
    self._manager = ocp.CheckpointManager(
      Path(directory).absolute(),
      options=ocp.CheckpointManagerOptions(preservation_policy=self._kept),
    )

  def delete_old(self, best_step: int | None) -> None:
    """Deletes what `save` would have, had the process not been killed: all but the newest and the best.

    Args:
      best_step: as `save`'s.

    Raises:
      UserError: one cannot be deleted.
    """
    with self._named():
      for step in sorted(self._manager.all_steps())[: -self._keep]:
        if step != best_step:  # it may be whole, or deleted in part
          self._manager.delete(step)

  def save(
    self, step: int, trees: Mapping[str, Any], description: Mapping[str, Any], best_step: int | None
  ) -> None:
    """Starts to write a checkpoint, which replaces one of the same step.

    It waits for the checkpoint before, copies the trees and computes their digests; the files are
    then written in the background, except where a checkpoint is replaced.

    Args:
      step: its step.
      trees: trees of arrays, by name.
      description: what else to store, as values for JSON.
      best_step: step of the best checkpoint, which is kept however old it is; None: there is none.

    Raises:
      UserError: this checkpoint, or the one before, cannot be written.
    """
    folder = Path(self._manager.directory)
    replaced = step in self._manager.all_steps()
    if replaced:
      with self._named():
        self._manager.wait_until_finished()
        # It stays under this name until the new one is complete.
        old = folder / str(step)
        multihost.first_alone(functools.partial(old.rename, folder / f'{_REPLACED}{step}'))
        self._manager.reload()
    self._kept.policies = [self._newest, checkpoint_managers.CustomSteps([best_step])]
    digests = {name: digest(tree) for name, tree in trees.items()}
    # As it will be read, for the digest: JSON turns tuples into lists.
    content = json.loads(json.dumps(description))
    written = {
      'format': FORMAT,
      'content': content,
      'digests': digests,
      'digest': _text_digest([FORMAT, content, digests]),
    }
    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    with self._named():
      self._manager.save(
        step,
        args=ocp.args.Composite(**{_DESCRIPTION: ocp.args.JsonSave(written)}, **items),
        force=True,
      )
      if replaced:
        self._manager.wait_until_finished()
        multihost.first_alone(functools.partial(restore_replaced, folder))

  def check(self) -> None:
    """Raises UserError where writing in the background has failed; does not wait for it."""
    if not self._manager.is_saving_in_progress():
      with self._named():
        self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits until all checkpoints are written; raises UserError where one cannot be."""
    with self._named():
      self._manager.close()

  @contextlib.contextmanager
  def _named(self) -> Iterator[None]:
    """Turns any error of Orbax and tensorstore into a UserError that names the folder."""
    try:
      yield
    except jax.errors.JaxRuntimeError:  # another process has ended
      raise
    except Exception as error:
      folder = self._manager.directory
      then = (
        'Earlier checkpoints are complete; once this is fixed, the same command resumes.'
        if steps(folder)
        else 'There is no earlier checkpoint; once this is fixed, the same command starts again.'
      )
      raise UserError(
        f'cannot write a checkpoint into {folder}: {_reason(error)}\n{then}'
      ) from error


def _reason(error: Exception) -> str:
  """Why a file could not be written, in the operating system's words where there are some."""
  if code := re.search(r"os_error_code='(\d+)'", str(error)):  # tensorstore's
    return os.strerror(int(code[1]))
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return first_line(error)
