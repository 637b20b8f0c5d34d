"""Locks on folders: of the system where it has them, else by a file that only one process can make."""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from alexnet_jax.utils import files

# What flock raises on file systems that have no locks, as some of those in networks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_POLL_SECONDS = 1


def owner_file(path: Path) -> Path:
  """The file that stands for a lock where the file system has none; it holds host and process."""
  return path.with_name(f'{path.name}.owner')


@contextlib.contextmanager
def lock(
  path: Path, taken: Callable[[str], None], log: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
  """Holds a lock, which ends with the process at the latest.

  On a file system without locks, `owner_file` is the lock: a process of the same host that ended
  without removing it is noticed, one of another host is not.

  Args:
    path: the lock's file, made if need be; its folder exists.
    taken: called once where another process holds the lock, with words about who does, '' where it
      is not known; what it raises ends the attempt, else the lock is waited for.
    log: called with a line where the file system has no locks.

  Raises:
    OSError: the file cannot be written.
  """
  with path.open('a', encoding='utf-8') as file, contextlib.ExitStack() as held:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      taken('')
      fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      owner = owner_file(path)
      log(f'{path.parent} has no file locks ({error.strerror}); the file {owner} is used instead')
      held.enter_context(_owned(owner, taken))
    yield


@contextlib.contextmanager
def _owned(path: Path, taken: Callable[[str], None]) -> Iterator[None]:
  """Holds a lock that is a file."""
  told = False
  while not _make(path):
    if not path.parent.is_dir():  # finished, and moved away
      break
    if not told:
      taken('process {1} on {0}; if it has ended, remove {2}'.format(*_owner(path), path))
      told = True
    time.sleep(_POLL_SECONDS)
  try:
    yield
  finally:
    path.unlink(missing_ok=True)


def _make(path: Path) -> bool:
  """Makes the file, unless another process that may still run has; says whether it did."""
  host, process = _owner(path)
  if host == socket.gethostname() and not files.is_running(process):
    moved = path.with_name(f'{path.name}.{os.getpid()}')
    with contextlib.suppress(FileNotFoundError):
      path.rename(moved)  # not removed: another process may just have made it anew
      if _owner(moved) == (host, process):
        moved.unlink()
      else:
        moved.rename(path)
  try:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
  except (FileExistsError, FileNotFoundError):
    return False
  with os.fdopen(descriptor, 'w', encoding='utf-8') as file:
    file.write(f'{socket.gethostname()} {os.getpid()}\n')
  return True


def _owner(path: Path) -> tuple[str, str]:
  """Host and process of an owner's file, each '?' where it is not known."""
  try:
    host, process = path.read_text('utf-8').split()
  except (OSError, ValueError):
    return '?', '?'
  return host, process
