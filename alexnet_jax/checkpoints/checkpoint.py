"""Checkpoints: Orbax's files, with a digest of everything in them.

A checkpoint is a folder named by its step. It holds named trees of arrays and a description, a
JSON object. Orbax restores a data file with a flipped bit without complaint, so the description
keeps a digest of every tree, and of itself; they are checked on reading.
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
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from alexnet_jax.parallel import multihost
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line
from alexnet_jax.utils.silence import silenced

_DESCRIPTION = 'description'

_REPLACED = 'replaced-'  # before the step, in the name of what a new checkpoint is to replace

_MOST_COMPRESSED = 1000  # bytes of arrays in one of a file; trained ones are hardly compressed

FORMAT = 1
"""Version of the checkpoints that are written.

Every later version reads those of this number and of all below it: it loads the network, evaluates
it, and goes on training from it, fields that a config has got since having the value of what was
done before (`config_fields.ADDED_FIELDS`). A number above its own it refuses, asking for an upgrade. What
a reader of this number could not take for what it is, changes the number, and leaves a checkpoint of
the old one in tests/data.
"""


class DamagedError(Exception):
  """A checkpoint that cannot be read, or whose contents are not what was written."""


def digest(tree: Any) -> str:
  """A digest of all arrays of a tree, their names, shapes and dtypes."""
  sha = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
      leaf = multihost_utils.process_allgather(leaf, tiled=True)  # parts lie with other processes
    array = np.ascontiguousarray(leaf)
    sha.update(f'{jax.tree_util.keystr(path)} {array.shape} {array.dtype}'.encode())
    sha.update(array.reshape(-1).view(np.uint8).data)
  return sha.hexdigest()


def _text_digest(value: Any) -> str:
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def steps(directory: str | os.PathLike[str]) -> list[int]:
  """Steps of the whole checkpoints in a folder, oldest first; none where there is no folder.

  Raises:
    UserError: one of them is not in the folder, but behind a link.
  """
  if not epath.Path(directory).is_dir():
    return []
  found = sorted(ocp.utils.checkpoint_steps(directory))
  for step in found:
    files.inside(directory, str(step))
  return found


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
  """Whether a folder is itself a checkpoint."""
  at = epath.Path(path)
  return at.name.isdecimal() and (at / _DESCRIPTION).is_dir()


def read(
  directory: str | os.PathLike[str], step: int, abstract: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads trees of a checkpoint, and its description.

  Args:
    directory: the folder of the checkpoints.
    step: which one.
    abstract: the trees to read, by name, as jax.ShapeDtypeStruct with the shardings wanted, which
      need not be those with which they were written.

  Returns:
    The trees by name, and the description.

  Raises:
    DamagedError: something cannot be read or differs from what was written.
    UserError: it was written by a newer version, or has links to elsewhere, or pipes.
  """
  folder = os.path.join(directory, str(step))
  for at, folders, names in os.walk(folder):
    for name in (*folders, *names):
      files.inside(folder, os.path.join(at, name))
  with silenced():  # Orbax leaves unfinished reads behind a failed one, which complain as they go
    try:
      return _read(directory, step, abstract)
    except DamagedError as error:
      reason = str(error)
    time.sleep(0.1)  # threads of tensorstore's still end those reads; nothing tells when they have
    gc.collect()
  raise DamagedError(reason)


def _read(
  directory: str | os.PathLike[str], step: int, abstract: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  items = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
  try:
    _check_room(epath.Path(directory) / str(step), abstract)
    with _checkpointer() as checkpointer:
      found = checkpointer.restore(
        epath.Path(directory).absolute() / str(step),
        args=ocp.args.Composite(**{_DESCRIPTION: ocp.args.JsonRestore()}, **items),
      )
    written = found[_DESCRIPTION]
    version = int(written.get('format', 0))  # 0: from before there were versions
    description, digests = written['content'], written['digests']
    if not isinstance(description, dict):
      raise TypeError('its description is none')
    wanted = {name: digests[name] for name in abstract}
    versioned = [version] if version else []
    intact = written['digest'] == _text_digest([*versioned, description, digests])
  except Exception as error:  # Orbax and tensorstore raise many kinds
    raise DamagedError(f'cannot be read: {first_line(error)[:80]}') from error
  if version > FORMAT:
    raise UserError(
      f'{epath.Path(directory) / str(step)} was written by a newer alexnet_jax; upgrade this one'
    )
  if not intact:
    raise DamagedError('its description differs from what was written')
  for name in abstract:
    if digest(found[name]) != wanted[name]:
      raise DamagedError(f'its {name} differ from what was written')
  return {name: found[name] for name in abstract}, description


def _check_room(path: epath.Path, abstract: Mapping[str, Any]) -> None:
  """Raises ValueError where trees are too large to be in a folder; files leave zeros out."""
  if '://' in str(path):
    return
  wanted = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))
  stored = sum(
    os.stat(os.path.join(at, f)).st_size for at, _, names in os.walk(path) for f in names
  )
  if wanted > 2**24 and wanted > _MOST_COMPRESSED * stored:
    raise ValueError(f'{wanted:,} bytes of arrays are not in files of {stored:,}')


@contextlib.contextmanager
def _checkpointer() -> Iterator[ocp.Checkpointer]:
  checkpointer = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
  try:
    yield checkpointer
  finally:
    checkpointer.close()


def put_back(directory: str | os.PathLike[str]) -> None:
  """Puts back a checkpoint that a killed process was about to replace, unless it had."""
  for path in Path(directory).glob(f'{_REPLACED}*'):
    target = path.with_name(path.name.removeprefix(_REPLACED))
    if target.exists():
      shutil.rmtree(path)
    else:
      path.rename(target)


def set_aside(directory: str | os.PathLike[str], step: int) -> Path:
  """Moves a damaged checkpoint out of the way of the one that will take its place."""
  target = Path(directory) / f'damaged-{step}'
  while target.exists():
    target = target.with_name(target.name + '-again')
  return (Path(directory) / str(step)).rename(target)


class Writer:
  """Writes checkpoints in the background; the newest ones and the best are kept."""

  def __init__(self, directory: str | os.PathLike[str], keep: int):
    """`keep`: how many of the newest; raises UserError where it is below 1, or for a link out."""
    if keep < 1:
      raise UserError(f'checkpoint.keep is {keep}; at least one checkpoint must be kept')
    if os.path.isdir(directory):
      for name in os.listdir(directory):  # Orbax keeps files of its own beside the checkpoints
        files.inside(directory, name)
    self._newest = checkpoint_managers.LatestN(keep)
    self._kept = checkpoint_managers.AnyPreservationPolicy([self._newest])
    self._manager = ocp.CheckpointManager(
      Path(directory).absolute(),
      options=ocp.CheckpointManagerOptions(preservation_policy=self._kept),
    )

  def save(
    self, step: int, trees: Mapping[str, Any], description: Mapping[str, Any], best_step: int | None
  ) -> None:
    """Starts to write a checkpoint, in the place of one of the same step.

    It waits for the one before, copies the trees and takes their digests; the writing goes on
    behind, unless it replaces one.

    Args:
      step: its step.
      trees: trees of arrays, by name.
      description: what else is to be kept, fit for JSON.
      best_step: the best checkpoint, which is kept however old it grows.
    """
    folder = Path(self._manager.directory)
    replaced = step in self._manager.all_steps()
    if replaced:
      with self._named():
        self._manager.wait_until_finished()
        # Under this name it stays until the new one is whole.
        there = folder / str(step)
        multihost.first_alone(
          functools.partial(there.rename, folder / f'{_REPLACED}{step}'), f'replacing {step}'
        )
        self._manager.reload()
    self._kept.policies = [self._newest, checkpoint_managers.CustomSteps([best_step])]
    digests = {name: digest(tree) for name, tree in trees.items()}
    # As it will be read: JSON has no tuples.
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
        multihost.first_alone(functools.partial(put_back, folder), f'replaced {step}')

  def check(self) -> None:
    """Raises UserError where the writing that goes on behind has failed; waits for none."""
    if not self._manager.is_saving_in_progress():
      with self._named():
        self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits until everything is written; raises UserError where it cannot be."""
    with self._named():
      self._manager.close()

  @contextlib.contextmanager
  def _named(self) -> Iterator[None]:
    """Makes one message of whatever Orbax and tensorstore raise."""
    try:
      yield
    except jax.errors.JaxRuntimeError:  # another process is gone
      raise
    except Exception as error:
      folder = self._manager.directory
      raise UserError(
        f'cannot write a checkpoint into {folder}: {_reason(error)}\n'
        'The ones that are there are whole; once that is mended, the same command goes on.'
      ) from error


def _reason(error: Exception) -> str:
  """Why a file could not be written, in the system's words where they are known."""
  if code := re.search(r"os_error_code='(\d+)'", str(error)):  # tensorstore's
    return os.strerror(int(code[1]))
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return first_line(error)
