"""Files are whole or not there."""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError


def test_a_file_is_whole_or_what_it_was(tmp_path):
  path = tmp_path / 'file'

  def write_half():
    with files.atomic_write(path) as temporary:
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
    with files.atomic_write(tmp_path / 'file') as temporary:
      temporary.touch()

  with pytest.raises(OSError, match=r'file') as error:
    write()
  assert str(error.value).endswith(f"'{tmp_path / 'file'}'")
  assert '.new' not in str(error.value)


def test_the_folder_is_made_and_the_name_keeps_its_end(tmp_path):
  with files.atomic_write(tmp_path / 'a' / 'b' / 'net.npz') as temporary:
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
  with files.atomic_write(tmp_path / 'file') as temporary:
    temporary.touch()
  assert {there.name for there in tmp_path.iterdir()} == {'file', *kept}


def test_a_link_that_lies_in_wait_is_not_written_through(tmp_path):
  (tmp_path / 'mine').write_text('mine')
  (tmp_path / f'.new.{socket.gethostname()}.{os.getpid()}.file').symlink_to('mine')
  with files.atomic_write(tmp_path / 'file') as temporary:
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
  assert os.fspath(files.inside(bucket, 'checkpoints')).endswith('bucket/run/checkpoints')
  assert files.check_kind(bucket) is None


def test_a_path_of_the_user_s_is_expanded(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert files.expanded('~/runs/a') == f'{tmp_path}/runs/a'
  assert files.local('~', '--workdir') == tmp_path
  assert files.readable('~/a') == epath.Path(tmp_path / 'a')
  for same in ('runs/a', '/runs/a', 'a/~', '~nobody-of-this-name/a'):
    assert files.expanded(same) == same


def test_without_a_home_folder_a_path_in_it_is_refused(monkeypatch):
  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.setattr(os, 'getuid', lambda: 2**31 - 5)  # of no passwd entry
  assert files.local('runs/a', '--workdir') == Path('runs/a')
  for path in ('~', '~/a'):
    with pytest.raises(UserError, match='is in a home folder, but there is none: set HOME'):
      files.expanded(path)


@pytest.mark.parametrize('address', ['gs://bucket/run', 's3://bucket/run', 'https://host/net.pth'])
def test_what_only_a_disk_can_hold_is_at_no_address(address):
  with pytest.raises(UserError, match=f'--workdir is {address}, which is not a local path'):
    files.local(address, '--workdir')
  with pytest.raises(UserError, match=f'the file to write is {address}'):
    files.write(address, b'')
  assert not os.path.exists(address.split('/')[0])


@pytest.mark.parametrize('scheme', ['https', 'ftp', 'file'])
def test_an_address_that_cannot_be_read_is_to_be_downloaded(scheme):
  with pytest.raises(UserError, match=f'{scheme}://host/a cannot be read as it is; download it'):
    files.readable(f'{scheme}://host/a')


def test_a_bucket_is_read_where_it_can_be(monkeypatch):
  bucket = epath.Path('gs://bucket/run')
  monkeypatch.setattr(type(bucket), 'exists', lambda _: False)
  assert files.readable('gs://bucket/run') == bucket

  def fail(_):
    raise RuntimeError('no network\nmore')

  monkeypatch.setattr(type(bucket), 'exists', fail)
  with pytest.raises(UserError, match=r'gs://bucket/run cannot be read \(no network\); download'):
    files.readable('gs://bucket/run')


def opened_as_text(tree):
  """Calls in a syntax tree that read or write text, with whether they name its encoding."""
  for node in ast.walk(tree):
    if not isinstance(node, ast.Call):
      continue
    called = (
      node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
    )
    values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    named = 'utf-8' in values or 'encoding' in {keyword.arg for keyword in node.keywords}
    binary = any(isinstance(value, str) and 'b' in value for value in values)
    image = isinstance(node.func, ast.Attribute) and getattr(node.func.value, 'id', '') in (
      'Image', 'tarfile', 'gzip', 'os',
    )  # fmt: skip
    if called in ('read_text', 'write_text') or (called == 'open' and not binary and not image):
      yield node.lineno, named


def test_every_text_file_is_read_and_written_in_utf_8_whatever_the_locale():
  package = Path(files.__file__).parents[1]
  without, found = [], 0
  for path in package.rglob('*.py'):
    for line, named in opened_as_text(ast.parse(path.read_text('utf-8'))):
      found += 1
      without += [] if named else [f'{path.relative_to(package)}:{line}']
  assert not without
  assert found > 20
