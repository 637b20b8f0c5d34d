"""Files are whole or not there."""

import os
import socket
import subprocess
import sys

import pytest
from etils import epath

from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError


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


def test_what_fails_names_the_file_that_was_to_be(tmp_path):
  (tmp_path / 'file').mkdir()  # which no file can take the place of

  def write():
    with files.whole(tmp_path / 'file') as temporary:
      temporary.touch()

  with pytest.raises(OSError, match=r'file') as error:
    write()
  assert str(error.value).endswith(f"'{tmp_path / 'file'}'")
  assert '.new' not in str(error.value)


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


def test_a_link_that_lies_in_wait_is_not_written_through(tmp_path):
  (tmp_path / 'mine').write_text('mine')
  (tmp_path / f'.new.{socket.gethostname()}.{os.getpid()}.file').symlink_to('mine')
  with files.whole(tmp_path / 'file') as temporary:
    temporary.write_text('new')
  assert (tmp_path / 'mine').read_text() == 'mine'
  assert (tmp_path / 'file').read_text() == 'new'


def test_what_links_lead_to_is_inside_a_folder_or_refused(tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'linked').symlink_to('run')
  for name, target in (('within', 'nothing'), ('round', 'round'), ('out', '../run2/x')):
    (tmp_path / 'run' / name).symlink_to(target)
  for name in ('within', 'round', 'nothing', 'a/b'):
    assert files.inside(tmp_path / 'linked', name) == tmp_path / 'linked' / name
  for name in ('out', 'out/a', '../run2', '/etc'):
    with pytest.raises(UserError, match=r'leads out of .*linked'):
      files.inside(tmp_path / 'linked', name)


def test_a_bucket_has_no_links():
  bucket = epath.Path('gs://bucket/run')
  files.inside(bucket, 'checkpoints')
  files.check_kind(bucket)
