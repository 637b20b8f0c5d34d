"""Every file below a folder is used as an image or left out with a reason."""

import errno
import io
import os
import random
from collections import Counter

import pytest
from PIL import Image

from alexnet_jax.data import folder_tree, image_folder, images
from tests.mistakes import refusal

HEIC = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'
MP4 = b'\0\0\0\x18ftypisom\0\0\0\0mp42isom'


def encoded(kind, **options):
  file = io.BytesIO()
  Image.new('RGB', (5, 4), 'orange').save(file, kind, **options)
  return file.getvalue()


def put(path, content=b''):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def reasons(folder):
  return {
    os.path.relpath(file.path, folder): file.reason for file in folder_tree.Tree().walk(folder)
  }


@pytest.mark.parametrize('name', ['photo', 'photo.1', 'photo.txt', 'photo.heic', 'photo.dat'])
@pytest.mark.parametrize('kind', images.FORMATS)
def test_images_are_told_by_their_first_bytes(tmp_path, kind, name):
  put(tmp_path / name, encoded(kind))
  assert reasons(tmp_path) == {name: ''}


@pytest.mark.parametrize('suffix', folder_tree.IMAGE_SUFFIXES)
def test_files_named_as_images_are_not_opened(tmp_path, suffix, monkeypatch):
  put(tmp_path / f'photo{suffix.upper()}')
  monkeypatch.setattr(folder_tree, 'open', None, raising=False)
  assert reasons(tmp_path) == {f'photo{suffix.upper()}': ''}


@pytest.mark.parametrize(
  ('name', 'content', 'reason'),
  [
    ('IMG_1.HEIC', HEIC, 'HEIC: Pillow does not read it; convert to JPEG'),
    ('IMG_1', HEIC, 'HEIC: Pillow does not read it; convert to JPEG'),
    ('IMG_1.heif', b'', 'HEIC: Pillow does not read it; convert to JPEG'),
    ('x.jxl', b'\xff\x0a12', 'JPEG XL: Pillow does not read it; convert to JPEG'),
    ('x.psd', b'8BPS\0\1', 'Photoshop: Pillow does not read it; convert to JPEG'),
    ('x.nef', b'MM\0*', 'raw photograph: Pillow does not read it; convert to JPEG'),
    ('x.mp4', MP4, 'not an image'),
    ('x.txt', b'P6 is a format, BM another', 'not an image'),
    ('LICENSE', b'', 'not an image'),
    ('Thumbs.db', b'', 'hidden, or left by the system'),
    ('.photo.jpg', b'', 'hidden, or left by the system'),
    ('desktop.ini', b'', 'hidden, or left by the system'),
    ('@eaDir/photo.jpg', b'', 'hidden, or left by the system'),
    ('__MACOSX/a/photo.jpg', b'', 'hidden, or left by the system'),
    ('$RECYCLE.BIN/photo.jpg', b'', 'hidden, or left by the system'),
    ('System Volume Information/photo.jpg', b'', 'hidden, or left by the system'),
    ('lost+found/photo.jpg', b'', 'hidden, or left by the system'),
    ('.ipynb_checkpoints/photo.jpg', b'', 'hidden, or left by the system'),
    ('.thumbnails/photo.jpg', b'', 'hidden, or left by the system'),
    ('thumbnails/photo.jpg', b'', 'hidden, or left by the system'),
  ],
)
def test_other_files_are_left_out_with_a_reason(tmp_path, name, content, reason):
  put(tmp_path / name, content)
  assert reasons(tmp_path) == {name: reason}
  assert not folder_tree.Tree().holds_images(tmp_path)


def test_links_to_nowhere_and_pipes_are_told(tmp_path):
  (tmp_path / 'link').symlink_to(tmp_path / 'nowhere')
  (tmp_path / 'loop').symlink_to('loop')
  os.mkfifo(tmp_path / 'pipe')
  found = reasons(tmp_path)
  assert found.pop('loop')
  assert found == {'link': 'broken link', 'pipe': 'not a regular file'}


def refuse(path, *args):
  raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))


def test_files_that_may_not_be_read_are_told(tmp_path, monkeypatch):
  put(tmp_path / 'theirs')
  monkeypatch.setattr(folder_tree, 'open', refuse, raising=False)
  assert reasons(tmp_path) == {'theirs': 'permission denied'}


def test_a_folder_that_may_not_be_listed_is_refused(tmp_path, monkeypatch):
  put(tmp_path / 'cats' / '1.jpg')
  put(tmp_path / 'lost+found' / 'x')
  scan = os.scandir

  def scandir(path):
    return refuse(path) if os.path.basename(path) in ('cats', 'lost+found') else scan(path)

  monkeypatch.setattr(os, 'scandir', scandir)
  message = refusal(image_folder.open_folder, tmp_path, 0.1)
  assert f'{tmp_path / "cats"} cannot be listed: Permission denied' in message
  (tmp_path / 'cats').rename(tmp_path / 'dogs')
  assert reasons(tmp_path) == {
    'dogs/1.jpg': '',
    'lost+found': 'hidden, or left by the system',
  }


def test_a_folder_in_one_that_may_not_be_entered_is_refused(tmp_path, monkeypatch):
  put(tmp_path / 'cats' / '1.jpg')
  original = os.stat

  def stat(path, **kwargs):
    return refuse(path) if path == str(tmp_path / 'cats') else original(path, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'stat', stat)
    message = refusal(image_folder.open_folder, tmp_path, 0.1)
  assert f'{tmp_path / "cats"} cannot be listed: Permission denied' in message


def some_file(rng):
  """A name's ending, a content, and whether it is used as an image."""
  good = encoded(rng.choice(images.FORMATS))
  return rng.choice(
    [
      ('.jpg', good, True),
      ('.PNG', good, True),
      ('.jpeg', good[: len(good) // 2], True),  # so long as it has not been read
      ('.webp', b'', True),
      ('', good, True),
      ('.orig', good, True),
      ('.heic', HEIC, False),
      ('.heic', good, True),
      ('.cr2', encoded('TIFF'), False),
      ('.txt', b'notes', False),
      ('', b'', False),
      ('.mp4', MP4, False),
      ('.xml', b'<annotation/>', False),
    ]
  )


def test_every_file_is_used_or_accounted_for_once(tmp_path):
  rng = random.Random(2012)
  folders = ['train/a', 'train/b', 'train/a/deeper/yet', 'train/c d', 'val/a', 'val/b']
  for folder in folders:
    put(tmp_path / folder / 'first.jpg', encoded('JPEG'))
  outside = [
    '',
    'train',
    'val',
    'test',
    'annotations',
    'train/__MACOSX/a',
    '.git/x',
    'val/a/@eaDir',
  ]
  expected = Counter(used=len(folders))
  for number in range(200 - len(folders)):
    folder = rng.choice(folders * 2 + outside)
    suffix, content, is_image = some_file(rng)
    if folder == 'annotations':
      suffix, content = '.xml', b'<annotation/>'
    name = rng.choice(['', '', '', '', '.']) + f'{rng.choice(["IMG", "é", "a b"])}_{number}{suffix}'
    expected['used'] += is_image and folder in folders and not name.startswith('.')
    put(tmp_path / folder / name, content)
  source = image_folder.open_folder(tmp_path, 0.1)
  every = sorted(
    os.path.relpath(os.path.join(path, name), tmp_path)
    for path, _, names in os.walk(tmp_path)
    for name in names
  )
  assert len(every) == 200
  used = [e.file_name for split in source.splits for e in source.examples(split, 0)]
  assert sorted([*used, *(file.file_name for file in source.left_out)]) == every
  assert len(used) == sum(source.splits.values()) == expected['used']
  assert all(file.reason for file in source.left_out)
  for file in source.left_out:
    assert file.file_name.startswith(
      {'train': 'train/', 'validation': 'val/', '': ''}[file.split] + file.class_name
    )
  [summary] = [note for note in source.notes if note.startswith('left out: ')]
  total, *parts = summary.removeprefix('left out: ').replace(' of 200 files: ', ';').split(';')
  counts = [int(part.split()[0]) for part in parts if part.strip()[0].isdigit()]
  assert sum(counts) == int(total) == len(source.left_out) == 200 - len(used)
