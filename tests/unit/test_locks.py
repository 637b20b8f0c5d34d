"""One process at a time, on file systems with locks and without."""

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading

import pytest

from alexnet_jax.checkpoints import workdir
from alexnet_jax.utils import locks
from alexnet_jax.utils.errors import UserError


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
  def flock(*_):
    raise OSError(request.param, os.strerror(request.param))

  monkeypatch.setattr(fcntl, 'flock', flock)


@pytest.fixture
def ended():
  """The number of a process that has ended."""
  with subprocess.Popen([sys.executable, '-c', '']) as process:
    pass
  return process.pid


def test_a_workdir_is_one_process_s_where_there_are_no_locks(tmp_path, no_locks):
  said = []
  with workdir.lock(tmp_path, said.append):
    assert workdir.is_locked(tmp_path)
    owner = f'process {os.getpid()} on {socket.gethostname()}; if it has ended, remove'
    with pytest.raises(UserError, match=rf'another process is at work in .* \({owner} .*\.owner\)'):  # noqa: SIM117
      with workdir.lock(tmp_path):
        pass
    assert workdir.is_locked(tmp_path)
  assert len(said) == 1
  assert f'{tmp_path} has no file locks (' in said[0]
  assert [path.name for path in tmp_path.iterdir()] == ['.lock']
  assert not workdir.is_locked(tmp_path)


def test_what_an_ended_process_of_this_host_holds_is_free(tmp_path, no_locks, ended):
  path = tmp_path / 'lock'
  locks.owner_file(path).write_text(f'{socket.gethostname()} {ended}\n')
  with locks.lock(path, pytest.fail):
    assert locks.owner_file(path).read_text() == f'{socket.gethostname()} {os.getpid()}\n'
  assert [left.name for left in tmp_path.iterdir()] == ['lock']


@pytest.mark.parametrize('content', ['elsewhere {ended}\n', '', 'nonsense'])
def test_what_may_still_be_held_is_not_taken(tmp_path, monkeypatch, no_locks, ended, content):
  path = tmp_path / 'lock'
  owner = locks.owner_file(path)
  owner.write_text(content.format(ended=ended))
  monkeypatch.setattr(locks, '_POLL_SECONDS', 0.01)
  told = threading.Event()
  held = threading.Event()

  def hold():
    with locks.lock(path, lambda _: told.set()):
      held.set()

  thread = threading.Thread(target=hold)
  thread.start()
  assert told.wait(60)
  assert not held.is_set()
  owner.unlink()
  assert held.wait(60)
  thread.join()


def test_a_folder_that_was_moved_away_needs_no_lock(tmp_path, monkeypatch, no_locks):
  path = tmp_path / 'folder' / 'lock'
  path.parent.mkdir()
  locks.owner_file(path).write_text('elsewhere 1\n')
  monkeypatch.setattr(locks, '_POLL_SECONDS', 0.01)
  with locks.lock(path, lambda _: path.parent.rename(tmp_path / 'moved')):
    pass
  assert not path.parent.exists()


def test_other_errors_are_raised(tmp_path, monkeypatch):
  def flock(*_):
    raise OSError(errno.EIO, 'Input/output error')

  monkeypatch.setattr(fcntl, 'flock', flock)
  with pytest.raises(OSError, match='Input/output'), locks.lock(tmp_path / 'lock', pytest.fail):
    pass


def test_a_lock_that_the_system_has_is_waited_for(tmp_path):
  path, told = tmp_path / 'lock', []
  with contextlib.ExitStack() as first:
    first.enter_context(locks.lock(path, pytest.fail))

    def taken(owner):
      told.append(owner)
      first.close()

    with locks.lock(path, taken):
      assert told == ['']
