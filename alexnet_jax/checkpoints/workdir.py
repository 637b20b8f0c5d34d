"""What a run leaves beside its checkpoints: config.json and metrics.jsonl."""

import contextlib
import fcntl
import io
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from alexnet_jax.utils import config_fields, files
from alexnet_jax.utils.errors import UserError, first_line

LEARNING_CURVES = 'figures/learning_curves'
"""The picture of a run, .png and .svg, which is the last that it leaves."""

_LOCK = '.lock'
_METRICS = 'metrics.jsonl'
_LONGEST_LINE = 2**16  # bytes; a line of metrics has some 200


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
  """A workdir's config.json; None where there is none.

  Raises:
    UserError: the file is not a JSON object, or not in the workdir.
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
  but_for: Sequence[str] = config_fields.CIRCUMSTANCES,
) -> None:
  """Raises UserError where a workdir has a config that is another experiment, but for some fields."""
  there = read_config(workdir)
  if there is not None and (different := config_fields.differences(config, there, but_for)):
    more = f' (and {len(different) - 3} more)' if len(different) > 3 else ''
    raise UserError(
      f'{workdir} holds another experiment: {"; ".join(different[:3])}{more}\n'
      'Give this one a --workdir of its own.'
    )


class TakenError(UserError):
  """Another process keeps the folder to itself."""


@contextlib.contextmanager
def alone(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Keeps a folder, made if need be, to this process; the system ends that with the process.

  Raises:
    TakenError: another process has it.
    UserError: nothing can be written there.
  """
  path = Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    lock = files.inside(path, _LOCK).open('a')
  except OSError as error:
    raise _cannot_write(path, error) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise TakenError(
        f'another process is at work in {path}; wait for it, or give this one a --workdir of its own'
      ) from error
    yield


def is_taken(workdir: str | os.PathLike[str]) -> bool:
  """Whether a process keeps a folder to itself.

  Raises:
    UserError: the folder cannot be written to, so that there is no telling.
  """
  if not (Path(workdir) / _LOCK).exists():
    return False
  try:
    with alone(workdir):
      return False
  except TakenError:
    return True


def _cannot_write(path: Path, error: OSError) -> UserError:
  return UserError(
    f'cannot write to the workdir {path}: {error.strerror}; choose another with --workdir'
  )


def prepare(
  workdir: str | os.PathLike[str], config: Mapping[str, Any], started: bool = True
) -> None:
  """Makes the workdir and writes its config.json, in one move.

  Args:
    workdir: the folder.
    config: the resolved config, fit for JSON.
    started: whether the run has checkpoints; where it has none, another experiment may take its
      place.

  Raises:
    UserError: nothing can be written there, or another experiment has been, or a link leads out.
  """
  path = Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    for written_later in ('figures', 'profile/plugins/profile'):
      files.inside(path, written_later)
    if started:
      check(path, config)
    elif (there := read_config(path)) is not None and config_fields.differences(config, there):
      (path / 'statistics.npz').unlink(missing_ok=True)
    with files.whole(path / 'config.json') as temporary:
      temporary.write_text(json.dumps(config, indent=2) + '\n')
  except OSError as error:
    raise _cannot_write(path, error) from error


class MetricsLog:
  """metrics.jsonl: one JSON object a line, flushed as it is known.

  Attributes:
    lines: lines written so far.
  """

  def __init__(self, workdir: str | os.PathLike[str], keep_lines: int, writes: bool = True):
    """Opens the log, and drops what stands after the first `keep_lines` whole lines.

    Without `writes` it only counts: of several processes, one writes.
    """
    self._path = path = files.inside(workdir, _METRICS)
    if not writes:
      self._file: BinaryIO = io.BytesIO()
      self.lines = keep_lines
      return
    kept = list(itertools.islice(_whole_lines(path), keep_lines))
    self._file = path.open('ab')
    self._file.truncate(sum(map(len, kept)))
    self.lines = len(kept)

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


class Events:
  """TensorBoard's events.

  tensorboardX's own SummaryWriter has a thread write them: when that fails, nobody hears of it, and
  its queue, once full, is waited for without end.
  """

  def __init__(self, workdir: str | os.PathLike[str], first_step: int):
    """Begins a file; TensorBoard hides what earlier ones have of `first_step` and later."""
    from tensorboardX import summary  # its import takes PyTorch's along
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    self._path, self._event, self._scalar = Path(workdir), Event, summary.scalar
    with files.naming(self._path):
      # The process's number, for the clock may give the same second twice.
      self._writer = EventsWriter(os.fspath(self._path / 'events'), f'.{os.getpid()}')
      started = SessionLog(status=SessionLog.START)
      self._writer.write_event(Event(step=first_step, session_log=started))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes scalars of a step."""
    with files.naming(self._path / 'events.out.tfevents'):
      for name, value in scalars.items():
        self._writer.write_event(
          self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value))
        )
      self._writer.flush()

  def close(self) -> None:
    """Closes the file."""
    with contextlib.suppress(OSError):  # `write` has raised it
      self._writer.close()


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The records of a workdir's metrics.jsonl, a half-written last line left out.

  Raises:
    UserError: a line is none of metrics.
  """
  path = files.inside(workdir, _METRICS)
  lines = enumerate(_whole_lines(path), 1)
  return [_record(line, f'line {number} of {path}') for number, line in lines]


def _whole_lines(path: Path) -> Iterator[bytes]:
  """The lines of a file, but for a last one without an end, which was being written.

  One that is too long for metrics ends them, in parts, so that no file fills the memory.
  """
  if path.exists():
    with path.open('rb') as file:
      while (line := file.readline(_LONGEST_LINE)).endswith(b'\n') or len(line) == _LONGEST_LINE:
        yield line


def last_epoch(workdir: str | os.PathLike[str]) -> float:
  """The epoch of the last whole line of a workdir's metrics.jsonl, read from its end; 0 for none.

  Raises:
    UserError: it is no line of metrics.
  """
  path = files.inside(workdir, _METRICS)
  if not path.exists():
    return 0.0
  with path.open('rb') as file:
    file.seek(max(0, path.stat().st_size - 4096))  # a line has some 200 bytes
    lines = file.read().split(b'\n')[:-1]
  return float(_record(lines[-1], f'the last line of {path}')['epoch']) if lines else 0.0


def _record(line: bytes, where: str) -> dict[str, Any]:
  """A line of metrics; raises UserError where it is none."""
  try:
    record: dict[str, Any] = files.parse_json(line)
    names = ['step', 'epoch', 'loss', 'top1_error', 'top5_error']
    if record['split'] == 'train':
      names += ['images_per_second', 'learning_rate']
    for name in names:
      if not isinstance(record[name], int | float):
        raise TypeError(f'{name} is no number')
    if not isinstance(record['split'], str):
      raise TypeError('split is no name')
    if not all(0 <= record[name] < math.inf for name in ('step', 'epoch')):
      raise ValueError('step or epoch is below 0, or no number')
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{where} is no line of metrics ({first_line(error)}); remove it, or the file'
    ) from error
  return record
