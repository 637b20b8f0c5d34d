"""ImageNet's tar files: every image once, in a fixed order, and mistakes named."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_jax.data import imagenet_tars
from tests.mistakes import refusal
from tests.tars import make_tar

REPOSITORY = Path(__file__).parents[2]


def read(source, split, start=0):
  return [(e.file_name, e.read(), e.label) for e in source.examples(split, start)]


SYNSETS = ('n01', 'n02', 'n03')
VALIDATION = ('n02', 'n03', 'n03', 'n01', 'n02')  # of images in the order of their names
TRAIN_TAR, VALIDATION_TAR = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'


def synset_tar(synset, count):
  # Of sizes below, at and above a tar's blocks.
  return make_tar({f'{synset}_{i}.JPEG': f'{synset}_{i}'.encode() * 128 * i for i in range(count)})


@pytest.fixture
def store(tmp_path, monkeypatch):
  """Puts files into a folder as though they were ImageNet's."""
  monkeypatch.setattr(imagenet_tars, 'class_synsets', lambda: SYNSETS)
  monkeypatch.setattr(imagenet_tars, 'validation_synsets', lambda: VALIDATION)

  def put(train, validation, num_images=(9, 5)):
    folder = tmp_path / 'imagenet'
    folder.mkdir(exist_ok=True)
    (folder / TRAIN_TAR).write_bytes(train)
    (folder / VALIDATION_TAR).write_bytes(validation)
    archives = tuple(
      archive._replace(size=len(content), num_images=count)
      for archive, content, count in zip(
        imagenet_tars.ARCHIVES, (train, validation), num_images, strict=True
      )
    )
    monkeypatch.setattr(imagenet_tars, 'ARCHIVES', archives)
    return folder

  return put


def train_tar(synsets=('n03', 'n01', 'n02')):
  return make_tar({f'{synset}.tar': synset_tar(synset, int(synset[1:]) + 1) for synset in synsets})


def validation_tar():
  names = [f'ILSVRC2012_val_{i:08d}.JPEG' for i in (3, 1, 2, 5, 4)]
  return make_tar({name: name.encode() for name in names})


def test_tars_are_read_in_place(store):
  folder = store(train_tar(), validation_tar())
  source = imagenet_tars.find(folder)
  assert (source.name, source.version) == ('imagenet2012', '5.1.0')
  assert list(source.class_names) == list(SYNSETS)
  assert source.splits == {'train': 9, 'validation': 5}
  train = read(source, 'train')
  assert sorted(train) == sorted(
    (f'{synset}_{i}.JPEG', f'{synset}_{i}'.encode() * 128 * i, label)
    for label, (synset, count) in enumerate((('n01', 2), ('n02', 3), ('n03', 4)))
    for i in range(count)
  )
  assert sorted(read(source, 'validation')) == [
    (name, name.encode(), SYNSETS.index(synset))
    for i, synset in enumerate(VALIDATION, start=1)
    for name in [f'ILSVRC2012_val_{i:08d}.JPEG']
  ]
  assert sorted(os.listdir(folder)) == [TRAIN_TAR, VALIDATION_TAR]


def test_the_order_of_tars_is_fixed(store):
  source = imagenet_tars.find(store(train_tar(), validation_tar()))
  whole = read(source, 'train')
  assert whole == read(source, 'train') != sorted(whole)
  for start in (1, 5, 9):
    assert read(source, 'train', start) == whole[start:]
  # Nor does it depend on the order within the tar.
  assert whole == read(imagenet_tars.find(store(train_tar(SYNSETS), validation_tar())), 'train')


def test_tars_are_described_as_json(store):
  folder = store(train_tar(), validation_tar())
  description = imagenet_tars.find(folder).description
  assert json.loads(json.dumps(description)) == description
  assert (description['kind'], description['path']) == ('imagenet tars', str(folder))
  train = description['archives'][0]
  assert train == {
    'file_name': TRAIN_TAR,
    'size': len(train_tar()),
    'md5': '1d675b47d978889d74fa0da5fadfb00e',
  }


def test_the_archives_are_imagenets():
  train, validation = imagenet_tars.ARCHIVES
  assert (train.split, train.file_name, train.size) == ('train', TRAIN_TAR, 147_897_477_120)
  assert (validation.split, validation.file_name) == ('validation', VALIDATION_TAR)
  assert (validation.size, validation.num_images) == (6_744_924_160, 50_000)


def test_tars_are_found(store, tmp_path):
  folder = store(train_tar(), validation_tar())
  assert imagenet_tars.find(folder).folder == folder
  data_dir = tmp_path / 'data'
  assert imagenet_tars.find(data_dir) is None
  manual = data_dir / 'downloads' / 'manual'
  manual.parent.mkdir(parents=True)
  assert imagenet_tars.find(data_dir) is None
  folder.rename(manual)
  assert imagenet_tars.find(data_dir).folder == manual
  (data_dir / TRAIN_TAR).touch()  # one alone does not hide the pair
  assert imagenet_tars.find(data_dir).folder == manual


@pytest.mark.parametrize('missing', [TRAIN_TAR, VALIDATION_TAR])
def test_a_missing_tar_is_named(store, missing):
  folder = store(train_tar(), validation_tar())
  (folder / missing).unlink()
  assert f'{folder} lacks {missing}; put it there' in refusal(imagenet_tars.find, folder)


def test_a_tar_of_another_size_is_named(store):
  folder = store(train_tar(), validation_tar())
  size = (folder / TRAIN_TAR).stat().st_size
  os.truncate(folder / TRAIN_TAR, size - 700)
  message = refusal(imagenet_tars.find, folder)
  assert f'{folder / TRAIN_TAR} has {size - 700:,} of {size:,} bytes' in message
  assert 'md5sum must give 1d675b47d978889d74fa0da5fadfb00e' in message


def damaged(content, place, length=512):
  return content[:place] + b'\x17' * length + content[place + length :]


@pytest.mark.parametrize(
  ('train', 'validation', 'named', 'why'),
  [
    (damaged(train_tar(), 0), validation_tar(), TRAIN_TAR, 'damaged'),
    (bytes(20480), validation_tar(), TRAIN_TAR, '3 missing'),
    (damaged(train_tar(), train_tar().index(b'n01_1.JPEG')), validation_tar(), TRAIN_TAR, '8 im'),
    (damaged(train_tar(), train_tar().index(b'n01.tar')), validation_tar(), TRAIN_TAR, '2 missing'),
    (train_tar(), b'no tar at all' * 2000, VALIDATION_TAR, 'damaged'),
    (train_tar(), damaged(validation_tar(), 2048), VALIDATION_TAR, '2 images, not 5'),
    (train_tar(), make_tar({'1.JPEG': b''}), VALIDATION_TAR, '1 images, not 5'),
  ],
)
def test_damaged_tars_are_named(store, train, validation, named, why):
  folder = store(train, validation)
  split = 'train' if named == TRAIN_TAR else 'validation'
  message = refusal(read, imagenet_tars.find(folder), split)
  assert f'{folder / named} is damaged' in message
  assert why in message


@pytest.mark.parametrize('readings', [0, 1], ids=['listed', 'read'])
def test_a_tar_that_cannot_be_read_is_named(store, monkeypatch, readings):
  source = imagenet_tars.find(store(train_tar(), validation_tar()))
  opened, left = open, [readings]

  def fail(path, *args, **kwargs):
    if not left[0]:
      raise OSError(errno.EIO, os.strerror(errno.EIO), path)
    left[0] -= 1
    return opened(path, *args, **kwargs)

  monkeypatch.setattr(imagenet_tars, 'open', fail, raising=False)
  message = refusal(read, source, 'train')
  assert message == f'{source.folder / TRAIN_TAR} cannot be read: Input/output error'


def test_synsets_that_are_not_imagenets(store):
  folder = store(train_tar(('n01', 'n03', 'n04')), validation_tar(), (11, 5))
  message = refusal(read, imagenet_tars.find(folder), 'train')
  assert TRAIN_TAR in message
  assert "of its synsets, 1 missing, such as 'n02', and 1 unknown, such as 'n04'" in message


def test_classes_are_checked_against_the_synsets(monkeypatch):
  synsets = imagenet_tars.class_synsets()
  assert (len(synsets), synsets[0], synsets[-1]) == (1000, 'n01440764', 'n15075141')
  assert list(synsets) == sorted(synsets)
  imagenet_tars.check_synsets(list(synsets))
  wrong = 'the classes are not the synsets of ImageNet 2012: '
  assert refusal(imagenet_tars.check_synsets, ['cat', *synsets[1:]]) == (
    wrong + "1 missing, such as 'n01440764', and 1 unknown, such as 'cat'"
  )
  assert refusal(imagenet_tars.check_synsets, synsets[:-2]).startswith(wrong + '2 missing')
  assert refusal(imagenet_tars.check_synsets, synsets[::-1]).startswith(wrong + 'their order')


def test_validation_images_have_synsets():
  labels = imagenet_tars.validation_synsets()
  assert len(labels) == 50_000
  assert set(labels) == set(imagenet_tars.class_synsets())
  assert labels[0] == 'n01751748'


def test_labels_come_without_importing_tfds():
  program = """
import sys
from alexnet_jax.data import image_folder, imagenet_tars
imagenet_tars.class_synsets(), imagenet_tars.validation_synsets()
assert not {'tensorflow', 'tensorflow_datasets', 'jax'} & set(sys.modules)
"""
  subprocess.run([sys.executable, '-c', program], cwd=REPOSITORY, check=True)


def test_labels_without_tfds(monkeypatch):
  monkeypatch.setattr(imagenet_tars.importlib.util, 'find_spec', lambda name: None)
  assert 'pip install -e ".[train]"' in refusal(imagenet_tars.validation_synsets)


def test_instructions_say_what_to_put_where(tmp_path):
  data_dir = tmp_path / 'my data'
  text = imagenet_tars.instructions(data_dir)
  for archive in imagenet_tars.ARCHIVES:
    assert f'{archive.file_name}  {archive.size:,} bytes, MD5 {archive.md5}' in text
  assert f'into {data_dir}' in text
  assert 'https://image-net.org/download-images' in text
  assert text.endswith(
    'python launch.py --config=configs/imagenet.py --mode=prepare'
    f" '--config.data.data_dir={data_dir}'"
  )
