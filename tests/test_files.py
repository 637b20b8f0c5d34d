"""Files are whole or not there."""

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
