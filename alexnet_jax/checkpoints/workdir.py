"""A run's folder: its lock, config.json, starts.jsonl and metrics.jsonl."""

import contextlib
import datetime
import io
import itertools
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from alexnet_jax.utils import config_fields, files, locks
from alexnet_jax.utils.errors import UserError, first_line

LEARNING_CURVES = 'figures/learning_curves'
"""The figure of a run, .png, .pdf and .svg; it is the last file that a run writes."""

STARTS = 'starts.jsonl'
"""Date, command, commit, versions and devices of each start of a run."""

SWEEP = 'sweep.json'
"""What a sweep's folder has, which is no run's workdir."""

_LOCK = '.lock'
_METRICS = 'metrics.jsonl'
_EVENTS = ('tensorboard/train', 'tensorboard/validation')
_MAX_LINE = 2**16  # bytes; a line of metrics has about 200


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
  """Reads a workdir's config.json; returns None where there is none.

  Raises:
    UserError: the file is not a JSON object, or is a link out of the workdir.
  """
  path = files.inside(workdir, 'config.json')
  if not path.exists():
    return None
  content = files.read(path)
  try:
    config = files.parse_json(content)
  except ValueError:
    config = None
  if not isinstance(config, dict):
    raise UserError(f'{path} is not a config; use another --workdir, or remove it')
  return config


def check(
  workdir: str | os.PathLike[str],
  config: Mapping[str, Any],
  may_differ: Sequence[str] = config_fields.CIRCUMSTANCES,
) -> None:
  """Checks that a workdir is of the same experiment, or of none yet.

  Args:
    workdir: the folder.
    config: the resolved config; model.num_classes may be None, for any number.
    may_differ: fields and sections of configs that may differ.

  Raises:
    UserError: the workdir's config differs in another field.
  """
  if (stored := read_config(workdir)) is not None:
    check_same(workdir, config, stored, may_differ)


def check_same(
  path: str | os.PathLike[str],
  config: Mapping[str, Any],
  stored: Mapping[str, Any],
  may_differ: Sequence[str] = config_fields.CIRCUMSTANCES,
) -> None:
  """Checks that a config is of the experiment of a stored one.

  Args:
    path: where that is stored, for the message.
    config: as of `check`.
    stored: the stored config.
    may_differ: as of `check`.

  Raises:
    UserError: they differ in another field.
  """
  if config.get('model', {}).get('num_classes', 0) is None:
    may_differ = (*may_differ, 'model.num_classes')
  if different := config_fields.differences(config, stored, may_differ):
    more = f' (and {len(different) - 3} more)' if len(different) > 3 else ''
    raise UserError(
      f'{path} holds another experiment: {"; ".join(different[:3])}{more}\n'
      'Give these fields the values they have there, or use another folder (--workdir).'
    )


def check_usable(workdir: str | os.PathLike[str], config: Mapping[str, Any], started: bool) -> None:
  """Checks that a run can use a workdir, which is left as it is, before anything that takes long.

  Args:
    workdir: the folder, which need not exist.
    config: the run's resolved config; model.num_classes may be None, for the data to decide.
    started: see `prepare`.

  Raises:
    UserError: the folder is a sweep's, cannot be written to, or holds another experiment, or another
      process is at work in it.
  """
  path = Path(workdir)
  check_is_no_sweep(path)
  if started:
    check(path, config)
  there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
  check_writable(there, path)
  if (path / _LOCK).exists():
    with lock(path):
      pass


def check_is_no_sweep(workdir: str | os.PathLike[str]) -> None:
  """Raises UserError where a folder is a sweep's, whose runs have workdirs of their own."""
  if Path(workdir, SWEEP).exists():
    raise UserError(
      f'{workdir} is the folder of a sweep; give the run a --workdir of its own, or --mode=sweep to run'
      ' what is missing'
    )


def check_writable(folder: Path, workdir: Path) -> None:
  """Raises UserError, of a workdir, where a folder cannot be written to."""
  try:
    tempfile.TemporaryFile(dir=folder).close()
  except OSError as error:
    raise cannot_write(workdir, error) from error


class LockedError(UserError):
  """Another process has locked the folder."""


@contextlib.contextmanager
def lock(
  workdir: str | os.PathLike[str], log: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
  """Locks a folder, made if need be, for this process; see `locks.lock`.

  Args:
    workdir: the folder.
    log: called with a line where the file system has no locks.

  Raises:
    LockedError: another process has locked it.
    UserError: the folder cannot be written to.
  """
  path = Path(workdir)

  def refuse(owner: str) -> None:
    raise LockedError(
      f'another process is at work in {path}{owner and f" ({owner})"}; wait for it, or use another'
      ' --workdir'
    )

  with contextlib.ExitStack() as held:
    try:
      path.mkdir(parents=True, exist_ok=True)
      held.enter_context(locks.lock(files.inside(path, _LOCK), refuse, log))
    except OSError as error:
      raise cannot_write(path, error) from error
    yield


def is_locked(workdir: str | os.PathLike[str]) -> bool:
  """Whether a process has locked a folder.

  Raises:
    UserError: the folder cannot be written to, so that this is unknown.
  """
  if not (Path(workdir) / _LOCK).exists():
    return False
  try:
    with lock(workdir):
      return False
  except LockedError:
    return True


def cannot_write(path: Path, error: OSError) -> UserError:
  """The error to raise where a workdir cannot be written to."""
  return UserError(
    f'cannot write to the workdir {path}: {error.strerror}; choose another with --workdir'
  )


def prepare(
  workdir: str | os.PathLike[str], config: Mapping[str, Any], started: bool = True
) -> None:
  """Makes the workdir; where the run has not started yet, writes config.json, and removes statistics.npz.

  Args:
    workdir: the folder.
    config: the resolved config, as values for JSON.
    started: whether the run has checkpoints; where it has none, another experiment may replace it.

  Raises:
    UserError: the folder cannot be written to, holds another experiment, or has a link out of it.
  """
  path = Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    for folder in ('figures', 'profile/plugins/profile', *_EVENTS):  # where the run will write
      files.inside(path, folder)
    if started:
      check(path, config)
    else:
      read_config(path)  # raises where it is no config
      (path / 'statistics.npz').unlink(missing_ok=True)  # its images may have changed since
      write_config(path, config)
  except OSError as error:
    raise cannot_write(path, error) from error


def write_config(workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
  """Writes config.json atomically.

  Args:
    workdir: the folder.
    config: the resolved config, as values for JSON.

  Raises:
    OSError: nothing can be written there.
  """
  with files.atomic_write(Path(workdir) / 'config.json') as temporary:
    temporary.write_text(json.dumps(config, indent=2) + '\n', 'utf-8')


def record_start(workdir: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
  """Appends a line to starts.jsonl, which has one for each start of the run; removes a torn last line.

  Args:
    workdir: the folder.
    record: the step and the `provenance.describe` of the process, as values for JSON.

  Raises:
    OSError: nothing can be written there.
  """
  path = files.inside(workdir, STARTS)
  with path.open('ab') as file:
    _cut(file, path)
    file.write(json.dumps(record).encode() + b'\n')


def read_starts(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads what `record_start` has written, of the starts that the run's present state comes from.

  A start is left out where the run began again at its step or before it, as are lines that are no
  such records.
  """
  path = files.inside(workdir, STARTS)
  starts = []
  for line in _complete_lines(path):
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
      record = files.parse_json(line)
      datetime.datetime.fromisoformat(record['date'])
      if (
        isinstance(record['step'], int)
        and all(isinstance(record[name], str | None) for name in ('command', 'commit'))
        and isinstance(record['devices'], str)
        and all(isinstance(version, str) for version in record['versions'].values())
      ):
        starts.append(record)
  left, lowest = [], math.inf
  for start in reversed(starts):
    if start['step'] < lowest:
      left.append(start)
      lowest = start['step']
  return left[::-1]


class MetricsLog:
  """Writes metrics.jsonl, a JSON object per line, each flushed at once.

  Attributes:
    lines: number of lines in the file.
  """

  def __init__(self, workdir: str | os.PathLike[str], keep_lines: int, writes: bool = True):
    """Opens the file, and truncates it after the first `keep_lines` complete lines.

    Without `writes` it only counts lines: of several processes, one writes.
    """
    self._path = path = files.inside(workdir, _METRICS)
    if not writes:
      self._file: BinaryIO = io.BytesIO()
      self.lines = keep_lines
      return
    self._file = path.open('ab')
    self.lines = _cut(self._file, path, keep_lines)

  def write(self, record: Mapping[str, Any]) -> None:
    """Appends a line."""
    with files.naming(self._path):
      self._file.write(json.dumps(record).encode() + b'\n')
      self._file.flush()
    self.lines += 1

  def close(self) -> None:
    """Closes the file."""
    with contextlib.suppress(OSError):  # `write` has raised it
      self._file.close()


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads the records of a workdir's metrics.jsonl, without an incomplete last line.

  Raises:
    UserError: a line is not a record of metrics.
  """
  path = files.inside(workdir, _METRICS)
  lines = enumerate(_complete_lines(path), 1)
  return [_record(line, f'line {number} of {path}') for number, line in lines]


def training_lines(
  records: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[int, Mapping[str, Any]]]:
  """Each training line of metrics.jsonl, with the number of steps that it is the mean of."""
  before = 0
  for record in records:
    if record['split'] == 'train':
      yield record['step'] - before, record
      before = record['step']


def final_record(
  records: Sequence[Mapping[str, Any]], num_epochs: int, num_steps: int | None
) -> Mapping[str, Any] | None:
  """The validation at the end of a run of a stated length; None where it was not reached.

  Args:
    records: lines of metrics.jsonl, of a run that may have gone on for longer.
    num_epochs: its `train.num_epochs`.
    num_steps: its `train.num_steps`.
  """
  for record in records:
    if record['split'] == 'validation' and (
      record['epoch'] >= num_epochs or (num_steps is not None and record['step'] >= num_steps)
    ):
      return record
  return None


def _complete_lines(path: Path) -> Iterator[bytes]:
  """The lines of a file, without a last one that has no newline: it was being written.

  A line too long for metrics comes in parts, so that no file fills the memory.
  """
  if path.exists():
    with path.open('rb') as file:
      while (line := file.readline(_MAX_LINE)).endswith(b'\n') or len(line) == _MAX_LINE:
        yield line


def _cut(file: BinaryIO, path: Path, keep_lines: int | None = None) -> int:
  """Truncates a file, opened to append, after its first complete lines; returns how many are left."""
  kept = [len(line) for line in itertools.islice(_complete_lines(path), keep_lines)]
  file.truncate(sum(kept))
  return len(kept)


def last_epoch(workdir: str | os.PathLike[str]) -> float:
  """The epoch in the last complete line of a workdir's metrics.jsonl; 0 where there is none.

  Raises:
    UserError: the line is not a record of metrics.
  """
  path = files.inside(workdir, _METRICS)
  if not path.exists():
    return 0.0
  with path.open('rb') as file:
    file.seek(max(0, path.stat().st_size - 4096))  # a line has about 200 bytes
    lines = file.read().split(b'\n')[:-1]
  return float(_record(lines[-1], f'the last line of {path}')['epoch']) if lines else 0.0


def _record(line: bytes, where: str) -> dict[str, Any]:
  """Parses a line of metrics.jsonl; raises UserError where it is not a record of metrics."""
  try:
    record: dict[str, Any] = files.parse_json(line)
    names = ['step', 'epoch', 'loss', 'top1_error', 'top5_error']
    if record['split'] == 'train':
      names += ['images_per_second', 'learning_rate']
    for name in names:
      if not isinstance(record[name], int | float):
        raise TypeError(f'{name} is not a number')
    if not isinstance(record['split'], str):
      raise TypeError('split is not a string')
    if not all(0 <= record[name] < math.inf for name in ('step', 'epoch')):
      raise ValueError('step or epoch is not a number of at least 0')
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{where} is not a record of metrics ({first_line(error)}); remove it, or the file'
    ) from error
  return record
