"""Writes files atomically, and reads files from untrusted sources safely."""

import contextlib
import glob
import io
import json
import math
import os
import re
import socket
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from alexnet_jax.utils.errors import UserError, first_line

_DEEPEST = 20  # lists and objects within each other in JSON
# What a download or a clone may leave under a file's name, by its first bytes.
_STAND_INS = (
  (
    rb'version https://git-lfs',
    'a Git LFS pointer, not the file itself; fetch that with git lfs pull',
  ),
  (
    rb'\s*<(!doctype|html)',
    'a web page, not the file itself: the download failed, or needs a login',
  ),
)
_MOST = 2**26  # bytes of a file of JSON; the largest, a sweep's of 1,000 runs, has one or two


def expanded(path: str | os.PathLike[str]) -> str:
  """A path that a user gave, with the home folder for its ~, as a shell has it.

  Raises:
    UserError: there is no home folder.
  """
  text = os.path.expanduser(os.fspath(path))
  if text == '~' or text.startswith('~/'):  # HOME is not set, and the user has no entry
    raise UserError(
      f'{text} is in a home folder, but there is none: set HOME, or give another path'
    )
  return text


def is_elsewhere(path: str | os.PathLike[str]) -> bool:
  """Whether a path is an address, as gs://bucket/run, and not one on a disk."""
  return re.match(r'[A-Za-z][\w.+-]*://', os.fspath(path)) is not None


def local(path: str | os.PathLike[str], name: str) -> Path:
  """A path that a user gave, expanded, of what only a disk can hold.

  Args:
    path: the path.
    name: of the flag or field that it was given by, for messages.

  Raises:
    UserError: it is an address, such as gs://..., or there is no home folder for its ~.
  """
  text = expanded(path)
  if is_elsewhere(text):
    raise UserError(
      f'{name} is {text}, which is not a local path; copy the files to a local disk and give that path'
    )
  return Path(text)


def readable(path: str | os.PathLike[str]) -> epath.Path:
  """A path that a user gave to read from, expanded: on a disk, or in a bucket as gs://...

  Raises:
    UserError: it is an address that cannot be read here, or there is no home folder for its ~.
  """
  text = expanded(path)
  if not is_elsewhere(text):
    return epath.Path(text)
  try:
    bucket = epath.Path(text)
    bucket.exists()
  except KeyError as error:  # https://..., say
    raise UserError(
      f'{text} cannot be read as it is; download it first, and give its path'
    ) from error
  except Exception as error:  # a missing library, network or right
    raise UserError(
      f'{text} cannot be read ({first_line(error)}); download it first, and give its path'
    ) from error
  return bucket


@contextlib.contextmanager
def naming(
  path: str | os.PathLike[str], temporary: str | os.PathLike[str] | None = None
) -> Iterator[None]:
  """Adds a file's name to an OSError that has none, as those of writing, or has that of a temporary file."""
  try:
    yield
  except OSError as error:
    known = temporary and os.fspath(temporary)
    if error.errno is not None and error.filename in (None, known):
      error.filename = os.fspath(path)
      del error.filename2  # of a move; None would be printed
    raise


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
  """A temporary path, which takes the file's name in one move once all has gone well.

  What processes that were killed have left of the same file is removed.

  Args:
    path: the file; its folder is made if need be. The temporary name ends as it does.
  """
  target = Path(path)
  target.parent.mkdir(parents=True, exist_ok=True)
  ours = f'.new.{socket.gethostname()}.'
  temporary = target.with_name(f'{ours}{os.getpid()}.{target.name}')
  for left in target.parent.glob(glob.escape(ours) + '*.' + glob.escape(target.name)):
    if not is_running(left.name.removeprefix(ours).split('.')[0]):
      left.unlink(missing_ok=True)
  temporary.unlink(missing_ok=True)  # a link that someone left would be written through
  try:
    with naming(target, temporary):
      yield temporary
      temporary.replace(target)
  finally:
    temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], content: bytes) -> None:
  """Writes a file atomically; raises UserError where it cannot be written."""
  target = local(path, 'the file to write')
  try:
    with atomic_write(target) as temporary:
      temporary.write_bytes(content)
  except OSError as error:
    raise UserError(f'cannot write {target}: {error.strerror or error}') from error


def is_running(process: str) -> bool:
  """Whether there is a process of this number on this machine."""
  try:
    os.kill(int(process), 0)
  except (ProcessLookupError, OverflowError, ValueError):
    return False
  except PermissionError:
    pass  # another user's
  return True


def check_kind(path: str | os.PathLike[str]) -> None:
  """Raises UserError where a path is a pipe, which may be waited for without end, or a device."""
  if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
    raise UserError(
      f'{path} is neither a file nor a folder, but a pipe or a device, which is not read'
    )


def stand_in(head: bytes) -> str:
  """What came in place of a file, and what to do, from its first bytes; '' where it is none of these."""
  found = (what for pattern, what in _STAND_INS if re.match(pattern, head, re.IGNORECASE))
  return next(found, '')


def inside(folder: str | os.PathLike[str], name: str | os.PathLike[str]) -> Path:
  """A path in a folder that anyone may have made, so that nothing outside is read or written.

  The folder itself, or one that it is in, may be a link. A bucket (gs://...) has no links.

  Args:
    folder: the folder.
    name: a path in it; there need not be anything.

  Returns:
    The two, joined.

  Raises:
    UserError: a link leads out of the folder, or what is there is neither a file nor a folder.
  """
  path = Path(os.fspath(folder), name)
  top, target = os.path.realpath(folder), os.path.realpath(path)
  if not Path(target).is_relative_to(top):
    raise UserError(
      f'{path} is behind a link that leads out of {folder}, to {target}; such links are not'
      ' followed: have the files here, or make a link of the whole folder'
    )
  check_kind(path)
  return path


def read(path: Path) -> bytes:
  """The content of a file of JSON; raises UserError where it is a pipe or too large to be one."""
  check_kind(path)
  with path.open('rb') as file:
    content = file.read(_MOST + 1)
  if len(content) > _MOST:
    raise UserError(f'{path} has more than {_MOST:,} bytes, which this program does not write')
  return content


def parse_json(text: str | bytes) -> Any:
  """What JSON holds, where it is of a kind that this project writes.

  Raises:
    ValueError: it is no JSON, is nested too deeply, has whole numbers of more than 18 digits, or
      strings that cannot be printed.
  """

  def whole_number(digits: str) -> int:
    if len(digits) > 18:
      raise ValueError(f'a number has {len(digits):,} digits')
    return int(digits)

  try:
    value = json.loads(text, parse_int=whole_number)
  except RecursionError as error:
    raise ValueError('it is nested too deeply') from error
  level = [value]
  for _ in range(_DEEPEST):
    level = [
      inner
      for part in level
      if isinstance(part, dict | list)
      for inner in (part.values() if isinstance(part, dict) else part)
    ]
  if level:
    raise ValueError('it is nested too deeply')
  json.dumps(value, ensure_ascii=False).encode()  # half a character, as "\\ud800", cannot be
  return value


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Arrays of a .npz, as `numpy.savez` writes it; no larger than the file, or half the memory.

  Raises:
    Exception: of many kinds, where the file is no such file or not whole.
  """
  check_kind(path)
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if (size := os.path.getsize(path)) > memory // 2:  # a file with holes takes no room on a disk
    raise ValueError(f'it has {size:,} bytes, more than half of the memory')
  with zipfile.ZipFile(path) as archive:
    return {name: _read_array(archive, f'{name}.npy', size) for name in names}


def _read_array(archive: zipfile.ZipFile, name: str, most: int) -> np.ndarray:
  member = archive.getinfo(name)
  if member.compress_type != zipfile.ZIP_STORED:
    raise ValueError(f'{name} is compressed')  # a small file could fill any memory
  if not member.file_size == member.compress_size <= most:  # so much zipfile would ask for
    raise ValueError(f'{name} is to have {member.compress_size:,} bytes')
  content = archive.read(name)
  file = io.BytesIO(content)
  with warnings.catch_warnings(action='ignore'):  # a header is Python, of which Python may warn
    if np.lib.format.read_magic(file) != (1, 0):
      raise ValueError(f'{name} is of another version')
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or math.prod(shape) * max(1, dtype.itemsize) > len(content):
      raise ValueError(f'{name} is to have the shape {shape}')
    file.seek(0)
    array: np.ndarray = np.lib.format.read_array(file)
  return array
