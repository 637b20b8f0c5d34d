"""Files are whole or not there."""

import os
import socket
import subprocess
import sys

import pytest

from alexnet_jax import files


def test_a_file_is_whole_or_what_it_was(tmp_path):
  path = tmp_path / 'file'

  def write_half():
    with files.whole(path) as temporary:
      temporary.write_text('half')
      raise OSError('no room')

  for before in ([], ['file']):
    with pytest.raises(OSError, match='no room'):
      write_half()
    assert [there.name for there in tmp_path.iterdir()] == before
    path.write_text('whole')
  assert path.read_text() == 'whole'


def test_the_folder_is_made_and_the_name_keeps_its_end(tmp_path):
  with files.whole(tmp_path / 'a' / 'b' / 'net.npz') as temporary:
    assert temporary.suffix == '.npz'
    temporary.touch()
  assert [there.name for there in (tmp_path / 'a' / 'b').iterdir()] == ['net.npz']


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
  with subprocess.Popen([sys.executable, '-c', '']) as ended:
    pass
  ours = f'.new.{socket.gethostname()}.'
  left = tmp_path / f'{ours}{ended.pid}.file'
  kept = [f'{ours}{os.getppid()}.file', f'.new.elsewhere.{ended.pid}.file', f'{left.name}.txt']
  for name in (left.name, *kept):
    (tmp_path / name).touch()
  with files.whole(tmp_path / 'file') as temporary:
    temporary.touch()
  assert {there.name for there in tmp_path.iterdir()} == {'file', *kept}
