"""A data set of squares is written once, whole or not at all, whatever stops it and how often."""

import concurrent.futures
import dataclasses
import errno
import fcntl
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained
from alexnet_jax.data import (
  datasets,
  folder_tree,
  image_folder,
  imagenet_tars,
  images,
  left_out_list,
  prepare,
  statistics,
  tfds_reader,
)
from alexnet_jax.reports import printed
from alexnet_jax.training import loop, resume
from alexnet_jax.utils.errors import UserError
from configs import image_folder as image_folder_config
from configs import imagenet
from tests.displays import Lines
from tests.small import small_config
from tests.stored import store
from tests.tars import make_tar

REPOSITORY = Path(__file__).parents[2]
SIZE = 24
PER_SHARD = 8
CLASSES = ('red panda', 'Äpfel', '図書')  # as they are sorted

pytestmark = [
  # pytest replaces the filter that alexnet_jax.data.images sets.
  pytest.mark.filterwarnings(r'ignore:::PIL\.'),
  pytest.mark.usefixtures('no_other_folder'),
]


class Interrupted(BaseException):
  """As what ends a process, caught by nobody."""


def photo(number, width, height):
  """A picture of its own, with colors that differ in spread, and some noise."""
  rng = np.random.default_rng(number)
  rows, columns = np.mgrid[:height, :width] / max(height, width)
  turn = rng.uniform(0, 2 * np.pi, 3)
  pixels = 128 + np.stack(
    [
      spread * np.sin(5 * rows * np.cos(angle) + 5 * columns * np.sin(angle) + angle)
      for spread, angle in zip((100, 60, 30), turn, strict=True)
    ],
    axis=-1,
  )
  pixels += rng.normal(0, 10, pixels.shape)
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def put(path, number, width=None, height=None):
  """An image file, its size its own."""
  path.parent.mkdir(parents=True, exist_ok=True)
  photo(number, width or 20 + number % 9, height or 20 + number % 7).save(path, quality=90)


def fill(root, train=14, validation=6):
  """Images of three classes, half of them PNG; numbers differ."""
  numbers = itertools.count()
  for split, count in (('train', train), ('val', validation)):
    for name in CLASSES:
      for i in range(count):
        put(root / split / name / f'été {i:02d}{(".png", ".jpg")[i % 2]}', next(numbers))
  return root


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
  """A folder of sixty photographs, two of which are a dot and a line."""
  root = fill(tmp_path_factory.mktemp('originals') / 'My photos')
  put(root / 'train' / CLASSES[0] / 'été 00.png', 100, 1, 1)
  put(root / 'val' / CLASSES[1] / 'été 01.jpg', 101, 1, 5000)
  return root


@pytest.fixture(scope='module')
def source(originals):
  return image_folder.open_folder(originals, 0.1)


def run(source, folder, display=None, **changes):
  """Prepares, with small shards."""
  arguments = {
    'image_size': SIZE,
    'encoding': 'png',
    'statistics_of': 'train',
    'unreadable_limit': 0.001,
    'images_per_shard': PER_SHARD,
  }
  return prepare.prepare(source, folder, display=display or Lines(), **(arguments | changes))


@pytest.fixture(scope='module', autouse=True)
def tensorflow():
  return tfds_reader.import_tensorflow()


@pytest.fixture(scope='module')
def png(source, tmp_path_factory):
  """Where the photographs are prepared as PNG, without an interruption."""
  return run(source, tmp_path_factory.mktemp('png'))


@pytest.fixture(scope='module')
def jpeg(source, tmp_path_factory):
  return run(source, tmp_path_factory.mktemp('jpeg'), encoding='jpeg')


@pytest.fixture
def converted(monkeypatch):
  """The names of the files that are converted from now on."""
  names = []
  convert = prepare._convert

  def counted(example, **how):
    names.append(example.file_name)
    return convert(example, **how)

  monkeypatch.setattr(prepare, '_convert', counted)
  return names


@pytest.fixture
def interrupted(monkeypatch):
  """Calls a function that prepares, and stops it after so many images."""

  def call(count, function, *args, **kwargs):
    numbers = itertools.count(1)

    def tell(self, advance=0, done=False):
      if advance and next(numbers) == count:
        raise Interrupted

    with monkeypatch.context() as patch:
      patch.setattr(prepare._ProgressLog, '__call__', tell)
      with pytest.raises(Interrupted):
        function(*args, **kwargs)

  return call


def contents(folder):
  """Every file's content, by name."""
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def stored(directory, split):
  """A split's examples by file name: encoded image, label."""
  _, tfds = tfds_reader.import_tensorflow()
  rows = tfds_reader.open_directory(directory).as_dataset(
    split=split, decoders={'image': tfds.decode.SkipDecoding()}
  )
  return {
    row['file_name'].decode(): (row['image'], int(row['label'])) for row in rows.as_numpy_iterator()
  }


def decoded(encoded):
  return np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))


def square_of(path, size=SIZE):
  return images.fit_square(images.decode(path.read_bytes()), size)


def refusal(function, *args, **kwargs):
  with pytest.raises(UserError) as caught:
    function(*args, **kwargs)
  return str(caught.value)


# What becomes of a folder of photographs.


@pytest.mark.parametrize('encoding', ['png', 'jpeg'])
def test_tfds_opens_what_was_prepared(request, tensorflow, source, originals, encoding):
  directory = request.getfixturevalue(encoding)
  _, tfds = tensorflow
  builder = tfds.builder_from_directory(directory)
  assert builder.info.full_name == f'{source.name}_{SIZE}/1.0.0'
  assert source.name.startswith('my_photos_')
  assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
    'train': 42,
    'validation': 18,
  }
  assert builder.info.splits['train'].shard_lengths == [8, 8, 8, 8, 8, 2]
  assert builder.info.features['label'].names == list(CLASSES)
  assert builder.info.features['image'].shape == (SIZE, SIZE, 3)
  for split, folder in (('train', 'train'), ('validation', 'val')):
    rows = stored(directory, split)
    assert set(rows) == {
      str(path.relative_to(originals)) for path in originals.glob(f'{folder}/*/*')
    }
    for name, (encoded, label) in rows.items():
      square = square_of(originals / name)
      assert encoded == images.encode(square, encoding)
      assert CLASSES[label] == Path(name).parent.name
      distance = np.abs(decoded(encoded).astype(int) - np.asarray(square))
      assert distance.mean() <= (0 if encoding == 'png' else 8)


def test_tfds_loads_it_by_name(tensorflow, png, originals):
  _, tfds = tensorflow
  loaded, info = tfds.load(
    png.parent.name, split='train', data_dir=png.parents[1], as_supervised=True, with_info=True
  )
  squares = [(image, int(label)) for image, label in loaded.as_numpy_iterator()]
  assert len(squares) == info.splits['train'].num_examples == 42
  found = Counter((image.tobytes(), label) for image, label in squares)
  assert found == Counter(
    (np.asarray(square_of(path)).tobytes(), CLASSES.index(path.parent.name))
    for path in originals.glob('train/*/*')
  )


@pytest.mark.parametrize('encoding', ['png', 'jpeg'])
def test_training_reads_the_pixels_that_pillow_decodes(request, encoding):
  directory = request.getfixturevalue(encoding)
  builder = tfds_reader.open_directory(directory)
  held = datasets.open_split(builder, 'train', SIZE, 1)
  expected = [decoded(encoded) for encoded, _ in stored(directory, 'train').values()]
  np.testing.assert_array_equal(held.images, expected)
  assert held.class_names == list(CLASSES)


def test_neighbors_are_of_different_classes(png):
  labels = [label for _, label in stored(png, 'train').values()]
  assert all(len(set(labels[i : i + PER_SHARD])) > 1 for i in range(0, 40, PER_SHARD))


def test_metadata_say_from_what_and_how_a_data_set_was_prepared(png, source, originals):
  metadata = json.loads((png / 'metadata.json').read_text('utf-8'))
  assert metadata == prepare.read_metadata(png)
  assert metadata['source'] == dict(source.description)
  assert metadata['source']['path'] == str(originals)
  assert (metadata['resize'], metadata['image_size']) == (images.RESIZE_RULES['paper'], SIZE)
  assert (metadata['encoding'], metadata['statistics_of']) == ('png', 'train')
  assert metadata['class_names'] == list(CLASSES)
  assert metadata['images_per_class'] == {'train': [14] * 3, 'validation': [6] * 3}
  assert metadata['unreadable_files'] == 0
  assert not (png / left_out_list.FILE_NAME).exists()
  assert {path.name for path in png.iterdir()} >= {'dataset_info.json', 'statistics.npz'}
  assert not {path.name for path in png.iterdir()} & {'lock', 'done.npz', 'shard.part'}


@pytest.mark.parametrize(('limit', 'encoding'), [(60, 'png'), (59, 'jpeg')])
def test_few_images_are_kept_without_loss(source, tmp_path, monkeypatch, limit, encoding):
  assert prepare.LOSSLESS_UP_TO == 10_000
  monkeypatch.setattr(prepare, 'LOSSLESS_UP_TO', limit)
  directory = run(source, tmp_path, encoding='auto', image_size=4)
  assert prepare.read_metadata(directory)['encoding'] == encoding
  assert tfds_reader.open_directory(directory).info.features['image']._encoding_format == encoding


def test_a_large_split_has_shards_of_a_sixteenth(source, tmp_path):
  directory = run(source, tmp_path, image_size=4, images_per_shard=None)
  shards = prepare.read_metadata(directory)['images_per_shard']
  assert shards == {'train': 16, 'validation': 16}
  assert len(list(directory.glob('*.tfrecord-*'))) == 3 + 2


@pytest.mark.parametrize('encoding', ['png', 'jpeg'])
def test_statistics_are_of_the_stored_training_pixels(request, encoding):
  directory = request.getfixturevalue(encoding)
  pixels = np.array([decoded(image) for image, _ in stored(directory, 'train').values()], float)
  found = statistics.load(directory / 'statistics.npz', SIZE)
  np.testing.assert_allclose(found['mean_image'], pixels.mean(axis=0), rtol=0, atol=1e-9)
  covariance = np.cov(pixels.reshape(-1, 3) / 255, rowvar=False, bias=True)
  eigenvalues, eigenvectors = np.linalg.eigh(covariance)
  np.testing.assert_allclose(found['eigenvalues'], eigenvalues, rtol=0, atol=1e-9)
  signs = np.sign((found['eigenvectors'] * eigenvectors).sum(axis=0))
  np.testing.assert_allclose(found['eigenvectors'], eigenvectors * signs, rtol=0, atol=1e-9)
  metadata = prepare.read_metadata(directory)
  np.testing.assert_allclose(metadata['mean_color'], pixels.mean(axis=(0, 1, 2)), atol=1e-9)
  np.testing.assert_array_equal(metadata['eigenvalues'], found['eigenvalues'])


def test_squares_of_another_kind_are_another_data_set(source, png, tmp_path):
  other = run(source, tmp_path, resize='torchvision')
  assert other.parent.name == f'{png.parent.name}_torchvision'
  assert prepare.find(tmp_path, source.name, SIZE, 'torchvision') == other
  assert prepare.find(tmp_path, source.name, SIZE) is None
  metadata, of_paper = prepare.read_metadata(other), prepare.read_metadata(png)
  assert metadata['resize'] == images.RESIZE_RULES['torchvision']
  assert metadata['mean_color'] != of_paper['mean_color']


def test_another_size_is_another_data_set(source, png, converted):
  other = run(source, png.parents[1], image_size=5)
  assert other != png
  assert len(converted) == 60
  assert prepare.find(png.parents[1], source.name, 5) == other
  assert prepare.find(png.parents[1], source.name, SIZE) == png
  assert prepare.find(png.parents[1], source.name, 6) is None


def test_what_is_there_is_not_prepared_again(source, png, converted):
  display, before = Lines(), contents(png)
  assert run(source, png.parents[1], display) == png
  assert (converted, display.lines, contents(png)) == ([], [], before)


def test_the_newest_version_is_found(tmp_path):
  for version in ('9.0.0', '10.0.0', '11.0.0.incomplete', 'x'):
    (tmp_path / 'x_8' / version).mkdir(parents=True)
    (tmp_path / 'x_8' / version / 'dataset_info.json').touch()
  (tmp_path / 'x_8' / '12.0.0').mkdir()
  assert prepare.find(tmp_path, 'x', 8) == tmp_path / 'x_8' / '10.0.0'


# Interruptions.


@pytest.mark.parametrize('count', [1, 8, 9, 42, 43, 60])
def test_it_goes_on_wherever_it_stopped(source, png, tmp_path, interrupted, converted, count):
  interrupted(count, run, source, tmp_path)
  assert prepare.find(tmp_path, source.name, SIZE) is None
  converted.clear()
  assert contents(run(source, tmp_path)) == contents(png)
  done = (count - 1) // 8 * 8 if count <= 42 else 42 + (count - 43) // 8 * 8
  assert len(converted) == 60 - done


def test_it_goes_on_where_nothing_but_the_move_is_left(
  source, png, tmp_path, monkeypatch, converted
):
  def stop(*args):
    raise Interrupted

  with monkeypatch.context() as patch:
    patch.setattr(Path, 'rename', stop)
    with pytest.raises(Interrupted):
      run(source, tmp_path)
  assert prepare.find(tmp_path, source.name, SIZE) is None
  [incomplete] = tmp_path.glob('*/1.0.0.incomplete')
  (incomplete / '.new.12.statistics.npz').touch()  # as a kill can leave it
  converted.clear()
  assert contents(run(source, tmp_path)) == contents(png)
  assert converted == []


def test_another_rule_starts_afresh(source, jpeg, tmp_path, interrupted, converted):
  interrupted(30, run, source, tmp_path, encoding='png')
  converted.clear()
  assert contents(run(source, tmp_path, encoding='jpeg')) == contents(jpeg)
  assert len(converted) == 60


def test_another_source_starts_afresh(source, png, tmp_path, interrupted, converted):
  other = dataclasses.replace(source, description={**source.description, 'fingerprint': 'x'})
  interrupted(30, run, other, tmp_path)
  converted.clear()
  assert contents(run(source, tmp_path)) == contents(png)
  assert len(converted) == 60


@pytest.mark.parametrize('damage', [b'', b'PK\x03\x04', None])
def test_damaged_notes_start_afresh(source, png, tmp_path, interrupted, converted, damage):
  interrupted(30, run, source, tmp_path)
  [notes] = tmp_path.glob('*/*/done.npz')
  whole = notes.read_bytes()
  notes.write_bytes(whole[:-100] if damage is None else damage)
  converted.clear()
  assert contents(run(source, tmp_path)) == contents(png)
  assert len(converted) == 60


def test_a_second_process_waits_and_finds_it_done(source, png, tmp_path, converted, monkeypatch):
  begun, waiting = threading.Event(), threading.Event()
  convert = prepare._convert

  def slow(example, **how):
    begun.set()
    assert waiting.wait(60)
    return convert(example, **how)

  monkeypatch.setattr(prepare, '_convert', slow)
  second = Lines(lambda text: waiting.set())
  with concurrent.futures.ThreadPoolExecutor() as pool:
    first = pool.submit(run, source, tmp_path)
    assert begun.wait(60)
    directory = pool.submit(run, source, tmp_path, second).result(60)
    assert first.result(60) == directory
  assert contents(directory) == contents(png)
  assert len(converted) == 60
  [line] = second.lines
  assert line.startswith('another process is preparing')
  assert str(directory.parent) in line
  assert line.endswith('waiting for it')


def test_a_second_process_takes_over(source, png, tmp_path, converted, interrupted):
  """Where the first one ends before it is done."""
  interrupted(30, run, source, tmp_path)
  converted.clear()
  [lock] = tmp_path.glob('*/*/lock')
  with lock.open() as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    display = Lines(lambda text: held.close())
    assert contents(run(source, tmp_path, display)) == contents(png)
  assert 'waiting' in display.lines[0]
  assert len(converted) == 60 - 24


def test_where_the_file_system_has_no_locks_a_file_is_one(source, png, tmp_path, monkeypatch):
  def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(fcntl, 'flock', flock)
  display = Lines()
  directory = run(source, tmp_path, display)
  assert f'{directory}.incomplete has no file locks (' in display.lines[0]
  assert contents(directory) == contents(png)


# Files that cannot be read.

NOTHING, CUT, TEXT = 'été 00.png', 'été 01.jpg', 'été 03.jpg'


def damage(folder):
  """An empty file, one that is cut off, and one that is no image."""
  (folder / NOTHING).write_bytes(b'')
  put(folder / CUT, 102, 120, 100)
  whole = (folder / CUT).read_bytes()
  (folder / CUT).write_bytes(whole[: len(whole) // 2])
  (folder / TEXT).write_text('Not found')


@pytest.fixture
def holey(tmp_path):
  """Photographs, four of which cannot be read."""
  root = fill(tmp_path / 'holey', train=5, validation=2)
  damage(root / 'train' / CLASSES[1])
  (root / 'val' / CLASSES[2] / CUT).write_bytes(b'')
  return root


@pytest.mark.parametrize('per_shard', [1, 8])
def test_files_that_cannot_be_read_are_left_out(holey, tmp_path, per_shard):
  display = Lines()
  source = image_folder.open_folder(holey, 0.1)
  directory = run(source, tmp_path / 'out', display, images_per_shard=per_shard)
  lines = (directory / left_out_list.FILE_NAME).read_text('utf-8').splitlines()
  assert lines[0].split('\t') == ['split', 'class', 'file', 'reason']
  listed = {tuple(line.split('\t')[:3]): line.split('\t')[3] for line in lines[1:]}
  train = f'train/{CLASSES[1]}/'
  assert set(listed) == {
    ('train', CLASSES[1], train + NOTHING),
    ('train', CLASSES[1], train + CUT),
    ('train', CLASSES[1], train + TEXT),
    ('validation', CLASSES[2], f'val/{CLASSES[2]}/{CUT}'),
  }
  assert listed['train', CLASSES[1], train + NOTHING] == 'cannot be read: empty file'
  assert 'truncated' in listed['train', CLASSES[1], train + CUT]
  assert 'cannot identify image file' in listed['train', CLASSES[1], train + TEXT]
  assert display.lines[-2:] == [
    'cannot be read, and left out: 4 of 21 images',
    f'all files that are left out are listed in {directory / left_out_list.FILE_NAME}',
  ]

  again = Lines()
  run(source, tmp_path / 'out', again, images_per_shard=per_shard)
  assert again.lines == ['cannot be read, and left out: 4 of 21 images']

  for split, folder in (('train', 'train'), ('validation', 'val')):
    rows = stored(directory, split)
    files = {str(path.relative_to(holey)) for path in holey.glob(f'{folder}/*/*')}
    assert set(rows) == files - {name for _, _, name in listed}
    for name, (encoded, label) in rows.items():
      np.testing.assert_array_equal(decoded(encoded), square_of(holey / name))
      assert CLASSES[label] == Path(name).parent.name
  metadata = prepare.read_metadata(directory)
  assert metadata['images_per_class'] == {'train': [5, 2, 5], 'validation': [2, 2, 1]}
  assert metadata['unreadable_files'] == 4
  pixels = np.array([decoded(image) for image, _ in stored(directory, 'train').values()], float)
  found = statistics.load(directory / 'statistics.npz', SIZE)
  np.testing.assert_allclose(found['mean_image'], pixels.mean(axis=0), rtol=0, atol=1e-9)
  held = datasets.open_split(tfds_reader.open_directory(directory), 'train', SIZE, 1)
  np.testing.assert_array_equal(held.images, pixels)


def test_too_many_files_that_cannot_be_read_stop_it(holey, tmp_path, monkeypatch, converted):
  source = image_folder.open_folder(holey, 0.1)
  monkeypatch.setattr(prepare, '_LEAST_UNREADABLE', 1)
  display = Lines()
  message = refusal(run, source, tmp_path / 'out', display, images_per_shard=1)
  [written] = (tmp_path / 'out').glob(f'*/*/{left_out_list.FILE_NAME}')
  assert '4 of 21 images cannot be read, more than 1, such as ' in message
  name, _, rest = message.partition('such as ')[2].partition(' (')
  assert (holey / name).is_file()
  assert rest.startswith(('train): ', 'validation): '))
  assert 'checking the remaining ones, to list them all' in display.text
  assert str(written) in message
  limit = message.rpartition('add --config.data.unreadable_limit=')[2]
  assert len(written.read_text('utf-8').splitlines()) == 1 + 4  # those that came later as well
  done = len(list(written.parent.glob('*.tfrecord-*')))
  assert done
  converted.clear()
  changes = {'images_per_shard': 1, 'unreadable_limit': float(limit)}
  directory = run(source, tmp_path / 'out', **changes)
  assert len(converted) == 21 - done
  assert contents(directory) == contents(run(source, tmp_path / 'other', **changes))
  assert prepare.read_metadata(directory)['unreadable_files'] == 4


def test_photographs_of_kinds_that_are_not_read_count_as_unreadable(holey, tmp_path):
  for number in range(7):
    (holey / 'train' / CLASSES[0] / f'{number}.heic').write_bytes(b'x')
    (holey / f'{number}.heic').write_bytes(b'x')  # of no class
    (holey / 'train' / CLASSES[0] / f'{number}.txt').write_bytes(b'x')
  source = image_folder.open_folder(holey, 0.1)
  left_out = source.left_out
  message = refusal(run, source, tmp_path / 'out', left_out=left_out)
  assert '11 of 28 images cannot be read, more than 10' in message
  limit = float(message.rpartition('add --config.data.unreadable_limit=')[2])
  directory = run(source, tmp_path / 'out', left_out=left_out, unreadable_limit=limit)
  assert len(rows_of(directory)) == 4 + len(left_out) == 4 + 21
  refusal(run, source, tmp_path / 'b', left_out=left_out, unreadable_limit=limit - 0.02)


def test_ten_files_may_always_be_unreadable(holey, tmp_path):
  assert prepare._LEAST_UNREADABLE == 10
  directory = run(image_folder.open_folder(holey, 0.1), tmp_path, unreadable_limit=0.0)
  assert prepare.read_metadata(directory)['unreadable_files'] == 4


def test_files_that_were_mended_are_in(holey, tmp_path, monkeypatch):
  source = image_folder.open_folder(holey, 0.1)
  monkeypatch.setattr(prepare, '_LEAST_UNREADABLE', 0)
  refusal(run, source, tmp_path / 'out', images_per_shard=1)
  assert list((tmp_path / 'out').glob('*/*/*.tfrecord-*'))
  fill(holey, train=5, validation=2)
  display = Lines()
  directory = run(source, tmp_path / 'out', display, images_per_shard=1)
  assert contents(directory) == contents(run(source, tmp_path / 'other', images_per_shard=1))
  assert not (directory / left_out_list.FILE_NAME).exists()
  assert 'left out' not in display.text


def test_a_class_must_have_an_image(holey, tmp_path):
  source = image_folder.open_folder(holey, 0.1)
  for path in (holey / 'train' / CLASSES[1]).iterdir():
    path.write_bytes(b'')
  message = refusal(run, source, tmp_path / 'out')
  [written] = (tmp_path / 'out').glob(f'*/*/{left_out_list.FILE_NAME}')
  assert f'no image of class {CLASSES[1]!r}' in message
  assert str(written) in message
  assert prepare.find(tmp_path / 'out', source.name, SIZE) is None
  fill(holey, train=5, validation=2)  # and when it has, the same command goes on
  directory = run(source, tmp_path / 'out')
  assert prepare.read_metadata(directory)['images_per_class']['train'] == [5, 5, 5]
  assert not (directory / left_out_list.FILE_NAME).exists()


def test_the_list_has_a_line_for_each_file(tmp_path):
  fill(tmp_path / 'in', train=3, validation=1)
  (tmp_path / 'in' / 'train' / CLASSES[0] / 'a\tb\nc\u2028d.jpg').touch()
  directory = run(image_folder.open_folder(tmp_path / 'in', 0.1), tmp_path / 'out')
  lines = (directory / left_out_list.FILE_NAME).read_text('utf-8').splitlines()
  assert [len(line.split('\t')) for line in lines] == [4, 4]
  assert 'a b c d.jpg' in lines[1]


def rows_of(directory):
  lines = (directory / left_out_list.FILE_NAME).read_text('utf-8').splitlines()
  return [tuple(line.split('\t')) for line in lines[1:]]


def test_the_list_has_the_files_that_are_no_images_and_follows_them(holey, tmp_path, converted):
  (holey / 'train' / 'notes.txt').write_text('by me')
  source = image_folder.open_folder(holey, 0.1)
  directory = run(source, tmp_path / 'out', left_out=source.left_out)
  rows = rows_of(directory)
  assert len(rows) == 4 + 1
  assert rows[-1] == ('train', '', 'train/notes.txt', 'not an image')
  prepared = sum(
    sum(counts) for counts in prepare.read_metadata(directory)['images_per_class'].values()
  )
  assert prepared + len(rows) == sum(path.is_file() for path in holey.rglob('*'))

  (holey / 'train' / 'notes.txt').rename(holey / 'read me')
  source = image_folder.open_folder(holey, 0.1)
  converted.clear()
  assert run(source, tmp_path / 'out', left_out=source.left_out) == directory
  assert converted == []
  assert rows_of(directory) == [*rows[:-1], ('', '', 'read me', 'not an image')]
  (holey / 'read me').unlink()
  run(source, tmp_path / 'out')
  assert rows_of(directory) == rows[:-1]


def test_why_a_file_cannot_be_read_is_told(tmp_path, monkeypatch):
  root = fill(tmp_path / 'in', train=3, validation=1)
  folder = root / 'train' / CLASSES[0]
  (folder / 'link.jpg').symlink_to(tmp_path / 'nowhere')
  (folder / 'phone.jpg').write_bytes(b'\0\0\0\x18ftypheic\0\0\0\0mif1heic')
  (folder / 'theirs.jpg').write_bytes(b'x')
  opened = open

  def refused(path, *args, **kwargs):
    if str(path).endswith('theirs.jpg'):
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return opened(path, *args, **kwargs)

  monkeypatch.setattr(folder_tree, 'open', refused, raising=False)
  rows = rows_of(run(image_folder.open_folder(root, 0.1), tmp_path / 'out'))
  assert {Path(row[2]).name: row[3] for row in rows} == {
    'link.jpg': 'cannot be read: broken link',
    'phone.jpg': 'cannot be read: HEIC: Pillow does not read it; convert to JPEG',
    'theirs.jpg': 'cannot be read: permission denied',
  }


def test_originals_are_read_several_at_a_time(tmp_path, monkeypatch):
  source = image_folder.open_folder(fill(tmp_path / 'in', train=4, validation=2), 0.1)
  together, read = threading.Barrier(2, timeout=60), folder_tree.read

  def waiting(path):
    together.wait()
    return read(path)

  monkeypatch.setattr(folder_tree, 'read', waiting)
  assert prepare.read_metadata(run(source, tmp_path / 'out'))['unreadable_files'] == 0


def test_what_was_prepared_of_the_same_folder_before_is_named(tmp_path):
  root = fill(tmp_path / 'my photos', train=3, validation=1)
  out = tmp_path / 'out'
  display = Lines()
  first = run(image_folder.open_folder(root, 0.1), out, display)
  assert 'the same folder' not in display.text
  put(root / 'train' / CLASSES[0] / 'more.jpg', 77)
  second = run(image_folder.open_folder(root, 0.1), out, Lines())
  put(root / 'train' / CLASSES[0] / 'yet more.jpg', 78)
  display = Lines()
  run(image_folder.open_folder(root, 0.1), out, display)
  [line] = [line for line in display.lines if 'the same folder' in line]
  assert line.startswith('2 data sets (')
  assert ' MB) ' in line
  command, _, folders = line.partition('if no other config needs them: ')[2].partition(' -r ')
  assert (command, {*folders.split()}) == ('rm', {str(first.parent), str(second.parent)})
  display = Lines()  # of another folder, nothing
  run(image_folder.open_folder(fill(tmp_path / 'others', train=3, validation=1), 0.1), out, display)
  assert 'the same folder' not in display.text


def test_what_another_process_may_be_preparing_is_reused_but_not_to_be_removed(
  tmp_path, interrupted
):
  root = fill(tmp_path / 'my photos', train=4, validation=2)
  interrupted(PER_SHARD + 2, run, image_folder.open_folder(root, 0.1), tmp_path / 'out')
  put(root / 'train' / CLASSES[0] / 'more.jpg', 77)
  display = Lines()
  run(image_folder.open_folder(root, 0.1), tmp_path / 'out', display)
  assert f'prepared earlier: {PER_SHARD} images' in display.text
  assert 'rm -r' not in display.text


@pytest.mark.parametrize('encoding', ['png', 'jpeg'])
def test_images_that_were_prepared_before_are_taken(tmp_path, monkeypatch, encoding):
  root = fill(tmp_path / 'my photos', train=4, validation=2)
  out, fresh = tmp_path / 'out', tmp_path / 'fresh'
  run(image_folder.open_folder(root, 0.1), out, encoding=encoding)
  put(root / 'train' / CLASSES[0] / 'more.jpg', 77)
  moved = root / 'train' / CLASSES[0] / 'été 00.png'
  moved.rename(root / 'train' / CLASSES[1] / 'moved.png')
  made = []
  fit_square = images.fit_square
  monkeypatch.setattr(images, 'fit_square', lambda *a: made.append(1) or fit_square(*a))
  display = Lines()
  source = image_folder.open_folder(root, 0.1)
  again = run(source, out, display, encoding=encoding)
  assert len(made) == 1
  assert 'prepared earlier: 18 images; those of identical files are reused' in display.lines
  whole = run(source, fresh, encoding=encoding)
  assert len(made) == 1 + 19
  for split in ('train', 'validation'):
    assert stored(again, split) == stored(whole, split)
  found, expected = (statistics.load(path / statistics.FILE_NAME, SIZE) for path in (again, whole))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_files_of_the_same_content_are_told(tmp_path, interrupted):
  root = fill(tmp_path / 'my photos', train=6, validation=2)
  for name in CLASSES:
    shutil.copy(root / 'train' / name / 'été 00.png', root / 'val' / name / 'été 00.png')
  shutil.copy(root / 'train' / CLASSES[0] / 'été 01.jpg', root / 'train' / CLASSES[1] / 'twin.jpg')
  source = image_folder.open_folder(root, 0.1)
  told = [
    '3 of 6 validation images are copies of training images; remove them from one of the two splits,'
    ' or the error that is measured will be too low',
    '1 image is in more than one class, as copies of one file',
  ]
  for _ in range(2):  # what was done before counts as well
    interrupted(12, run, source, tmp_path / 'out')
    [originals] = tmp_path.rglob('originals')
    with originals.open('ab') as file:
      file.write(bytes(100))  # of a shard that was not recorded before the program was killed
  for _ in range(2):
    display = Lines()
    run(source, tmp_path / 'out', display)
    assert display.lines[-2:] == told


def test_copies_in_several_classes_are_counted_by_content(tmp_path):
  root = fill(tmp_path / 'my photos', train=3, validation=1)
  for number, name in enumerate((*CLASSES, CLASSES[0])):  # one in three classes, and twice in one
    shutil.copy(root / 'train' / CLASSES[0] / 'été 00.png', root / 'train' / name / f'{number}.png')
  shutil.copy(root / 'train' / CLASSES[1] / 'été 01.jpg', root / 'train' / CLASSES[1] / 'twin.jpg')
  shutil.copy(root / 'train' / CLASSES[1] / 'été 02.png', root / 'train' / CLASSES[2] / 'twin.png')
  display = Lines()
  run(image_folder.open_folder(root, 0.1), tmp_path / 'out', display)
  assert display.lines[-1] == '2 images are in more than one class, as copies of one file'


def test_images_of_no_class_are_in_no_second_one(tmp_path):
  root = fill(tmp_path / 'my photos', train=2, validation=1)
  source = image_folder.open_folder(root, 0.1)
  [(path, _), *_] = source.files['train']
  files = {**source.files, 'test': [(path, -1)]}
  display = Lines()
  run(dataclasses.replace(source, files=files), tmp_path / 'out', display)
  assert '1 of 1 test images is a copy of a training image' in display.text
  assert 'more than one class' not in display.text


def test_damaged_images_of_before_are_made_again(tmp_path):
  root = fill(tmp_path / 'my photos', train=4, validation=2)
  first = run(image_folder.open_folder(root, 0.1), tmp_path / 'out')
  for path in first.glob('*.tfrecord-*'):
    path.write_bytes(path.read_bytes()[:-9])
  put(root / 'train' / CLASSES[0] / 'more.jpg', 77)
  source = image_folder.open_folder(root, 0.1)
  display = Lines()
  again, whole = run(source, tmp_path / 'out', display), run(source, tmp_path / 'fresh')
  assert stored(again, 'train') == stored(whole, 'train')
  assert '3 files of images prepared earlier cannot be read to the end, such as' in display.text


# Folders that cannot be written to.


def test_too_little_room_is_seen_before(source, png, tmp_path, monkeypatch, converted):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=499_000_000))
  message = refusal(run, source, tmp_path, image_size=4096)
  assert f'takes about {60 * 2 * 4096**2 / 1e9:.1f} GB' in message
  assert f'{tmp_path} has 0.5 GB free' in message
  assert 'data.prepared_dir' in message
  assert converted == []
  assert contents(run(source, tmp_path)) == contents(png)


def test_too_little_room_for_the_rest_leaves_what_is_done(
  source, png, tmp_path, monkeypatch, interrupted, converted
):
  interrupted(30, run, source, tmp_path)
  usage = shutil.disk_usage(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1))
    assert '0.0 GB free' in refusal(run, source, tmp_path)
  converted.clear()
  assert contents(run(source, tmp_path)) == contents(png)
  assert len(converted) == 60 - 24


@pytest.fixture
def small_disk(tmp_path):
  """A file system of its own, and a function that gives it another size."""
  folder = tmp_path / 'disk'
  folder.mkdir()

  def mount(*options):
    return subprocess.run(['mount', '-t', 'tmpfs', *options, folder], capture_output=True)

  def resize(size):
    assert mount('-o', f'remount,size={size}').returncode == 0

  try:
    mounted = mount('-o', 'size=4k', 'none').returncode == 0
  except OSError:
    mounted = False
  if not mounted:
    pytest.skip('mounting a file system takes rights that this user lacks')
  try:
    yield folder, resize
  finally:
    subprocess.run(['umount', '--lazy', folder], check=True)


@pytest.mark.parametrize(
  ('owner', 'method', 'number'),
  [(prepare._ProgressLog, '__call__', 20), (prepare._Done, 'save', 3)],
)
def test_a_full_disk_keeps_what_is_done(
  source, small_disk, tmp_path, monkeypatch, converted, owner, method, number
):
  """Whether it is a shard that finds no room, or the notes of what is done."""
  folder, resize = small_disk
  resize('64m')
  whole, numbers, usage = getattr(owner, method), itertools.count(1), shutil.disk_usage

  def fill_up(*args, **kwargs):
    if next(numbers) == number:
      resize(usage(folder).used + 20_000)
    return whole(*args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(owner, method, fill_up)
    patch.setattr(shutil, 'disk_usage', lambda path: usage(path)._replace(free=10**12))
    message = refusal(run, source, folder, image_size=96)
  assert f'cannot write to {folder}' in message
  assert 'No space left on device' in message
  assert 'What is done is kept' in message
  assert 'data.prepared_dir' in message
  assert prepare.find(folder, source.name, 96) is None
  resize('64m')
  converted.clear()
  directory = run(source, folder, image_size=96)
  assert len(converted) == 60 - 2 * PER_SHARD
  assert contents(directory) == contents(run(source, tmp_path, image_size=96))


def test_a_file_in_place_of_the_folder(source, tmp_path):
  (tmp_path / 'file').touch()
  for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
    message = refusal(run, source, folder)
    assert f'cannot write to {folder}' in message
    assert 'data.prepared_dir' in message
    assert prepare.find(folder, source.name, SIZE) is None


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
@pytest.mark.parametrize('mode', [0o500, 0o000])
def test_a_folder_of_another_users(source, tmp_path, mode):
  folder = tmp_path / 'theirs'
  folder.mkdir()
  folder.chmod(mode)
  try:
    assert prepare.find(folder, source.name, SIZE) is None
    message = refusal(run, source, folder)
  finally:
    folder.chmod(0o700)
  assert f'cannot write to {folder}' in message
  assert 'Permission denied' in message
  assert 'data.prepared_dir' in message


def test_a_file_system_to_be_read_alone(source, png, tmp_path, monkeypatch):
  def refuse(path, *args, **kwargs):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

  with monkeypatch.context() as patch:
    patch.setattr(Path, 'mkdir', refuse)
    message = refusal(run, source, tmp_path)
    assert run(source, png.parents[1]) == png  # one that is done needs nothing written
  assert f'cannot write to {tmp_path}' in message
  assert 'Read-only file system' in message
  assert 'data.prepared_dir' in message


# From a config.


def config_of(originals, tmp_path, base=image_folder_config, **fields):
  config = base.get_config()
  config.data.data_dir = str(originals)
  config.data.prepared_dir = str(tmp_path / 'prepared')
  config.update_from_flattened_dict(fields)
  return config


def test_the_command_prepares_and_tells(tmp_path, capsys, converted):
  root = fill(tmp_path / 'My photos', train=3, validation=1)
  config = config_of(root, tmp_path)
  damage(root / 'train' / CLASSES[2])  # leaves one of that class
  (root / 'train' / CLASSES[2] / 'notes.txt').write_text('by me')
  printed.preparation(config)
  out, err = capsys.readouterr()
  [directory] = (tmp_path / 'prepared').glob('my_photos_*_256/1.0.0')
  for words in (
    f'{directory.parent.name}/1.0.0, 3 classes',
    f'folder        {directory}\n',
    'mean color ',
    'eigenvalues ',
    f'left out      4 files (3 unreadable), listed in {directory / left_out_list.FILE_NAME}',
  ):
    assert words in out
  table = [line.split() for line in out.splitlines()]
  assert ['train', '7', '1'] in [row[:3] for row in table]
  assert ['validation', '3', '1'] in [row[:3] for row in table]
  lines = err.splitlines()
  notes = [
    f'{root}: 3 classes ({", ".join(CLASSES)}); images: train 10, validation 3',
    'left out: 1 of 14 files: 1 not an image (.txt)',
  ]
  assert lines[:2] == notes
  assert lines[2].startswith(f'preparing {directory.parent.name} once, in {directory.parent}: 13 ')
  assert [line.split(':')[0] for line in lines[3:5]] == ['preparing train', 'preparing validation']
  assert lines[5:] == [
    'cannot be read, and left out: 3 of 13 images',
    f'all files that are left out are listed in {directory / left_out_list.FILE_NAME}',
  ]

  before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
  converted.clear()
  printed.preparation(config)
  again = capsys.readouterr()
  assert again.out == out
  assert again.err.splitlines() == [*notes, 'cannot be read, and left out: 3 of 13 images']
  assert converted == []
  assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_training_prepares_by_itself(originals, tmp_path, capsys, monkeypatch):
  def compute(*args):
    raise AssertionError('the statistics are computed, though they are stored')

  monkeypatch.setattr(resume, 'compute_statistics', compute)
  config = small_config(
    {
      'data.name': 'folder',
      'data.data_dir': str(originals),
      'data.prepared_dir': str(tmp_path / 'prepared'),
      'model.num_classes': None,
      'model.num_columns': 1,
      'model.response_norm.layers': (),
      'model.pool.layers': ('conv1',),
      **{f'model.conv{i}.features': 0 for i in (2, 3, 4, 5)},
      'augment.lighting.std': (),
      'mesh.data_devices': 1,
      'train.batch_size': 16,
      'train.num_steps': 2,
    }
  )
  result = loop.train_and_evaluate(config, tmp_path / 'run')
  assert result['step'] == 2
  [directory] = (tmp_path / 'prepared').glob('my_photos_*_8/1.0.0')
  said = capsys.readouterr().err.splitlines()
  assert sum(line.startswith('preparing') and ' once, in ' in line for line in said) == 1
  assert not (tmp_path / 'run' / statistics.FILE_NAME).exists()
  found = pretrained.read(tmp_path / 'run' / 'checkpoints' / '2')
  assert list(found.class_names) == list(CLASSES)
  for name, array in statistics.load(directory / statistics.FILE_NAME, 8).items():
    np.testing.assert_array_equal(getattr(found.statistics, name), array.astype(np.float32))


def open_data(config, display=None):
  return experiment.open_data(config, display or Lines())


@pytest.fixture
def prepared_config(png, originals):
  """A config whose data are prepared."""
  return config_of(
    originals, png.parents[1], **{'data.image_size': SIZE, 'data.prepared_dir': str(png.parents[1])}
  )


def test_a_wrong_number_of_classes_is_told_before_anything_is_prepared(tmp_path):
  root = fill(tmp_path / 'photos', train=2, validation=1)
  message = refusal(open_data, config_of(root, tmp_path, **{'model.num_classes': 10}))
  assert '--config.model.num_classes=3' in message
  assert not (tmp_path / 'prepared').exists()


def test_another_encoding_is_refused(png, prepared_config):
  for encoding in ('auto', 'png'):
    prepared_config.data.encoding = encoding
    config, data_set = open_data(prepared_config)
    assert (data_set.directory, config.model.num_classes) == (png, 3)
  prepared_config.data.encoding = 'jpeg'
  message = refusal(open_data, prepared_config)
  assert f"{png} holds png images, but data.encoding is 'jpeg'" in message
  assert 'data.prepared_dir' in message


def test_statistics_of_another_resolution(png, prepared_config, tmp_path):
  config, data_set = open_data(prepared_config)
  assert data_set.stored_statistics('train')['mean_image'].shape == (SIZE, SIZE, 3)
  place = tmp_path / png.parent.name / png.name
  shutil.copytree(png, place)
  config.data.prepared_dir = str(tmp_path)
  sums = statistics.Sums.zero(5)
  sums.add(np.zeros((5, 5, 3), np.uint8))
  statistics.save(place / statistics.FILE_NAME, sums.compute())
  config, data_set = open_data(config)
  message = refusal(data_set.stored_statistics, 'train')
  assert str(place / statistics.FILE_NAME) in message
  assert f'5 x 5 pixels, but data.image_size is {SIZE}' in message
  (place / statistics.FILE_NAME).write_bytes(b'x')
  message = refusal(data_set.stored_statistics, 'train')
  assert f'{place / statistics.FILE_NAME} cannot be read' in message


def test_statistics_are_of_the_whole_training_split_alone(prepared_config):
  _, data_set = open_data(prepared_config)
  for split in ('train[:50%]', 'validation', 'train+validation'):
    assert data_set.stored_statistics(split) is None


def test_files_that_are_newer_than_what_was_prepared_of_them_are_told(
  png, prepared_config, tmp_path
):
  folder = shutil.copytree(prepared_config.data.data_dir, tmp_path / 'my_photos')
  prepared_config.data.data_dir = str(folder)
  lines = Lines()
  open_data(prepared_config, lines)
  assert not any('are newer than the images' in line for line in lines.lines)
  os.utime(next(folder.rglob('*.png')), (0, time.time() + 60))
  open_data(prepared_config, lines)
  [line] = [line for line in lines.lines if 'are newer than the images' in line]
  assert 'have the same names and sizes' in line
  assert line.endswith(f'remove {png}')


def test_a_data_set_of_other_images_is_refused(png, prepared_config, tmp_path):
  place = tmp_path / png.parent.name / png.name
  shutil.copytree(png, place)
  metadata = prepare.read_metadata(place)
  metadata['splits']['train'] = 1041
  (place / 'metadata.json').write_text(json.dumps(metadata))
  prepared_config.data.prepared_dir = str(tmp_path)
  message = refusal(open_data, prepared_config)
  assert f'{place} was made of other images (train 1,041, validation 18)' in message
  assert '(train 42, validation 18)' in message


@pytest.mark.parametrize('name', ['metadata.json', 'dataset_info.json', 'features.json'])
def test_a_damaged_data_set_is_named(png, prepared_config, tmp_path, name):
  place = tmp_path / png.parent.name / png.name
  shutil.copytree(png, place)
  (place / name).write_text('{')
  prepared_config.data.prepared_dir = str(tmp_path)
  message = refusal(open_data, prepared_config)
  assert str(place) in message
  assert f'remove {place}' in message or 'remove it' in message


def test_imagenet_that_is_not_there_is_asked_for(tmp_path):
  (tmp_path / 'in').mkdir()
  message = refusal(open_data, config_of(tmp_path / 'in', tmp_path, imagenet))
  for archive in imagenet_tars.ARCHIVES:
    assert f'{archive.file_name}  {archive.size:,} bytes, MD5 {archive.md5}' in message
  assert 'python launch.py --config=configs/imagenet.py --mode=prepare' in message
  assert f'--config.data.data_dir={tmp_path / "in"}' in message
  assert list(tmp_path.iterdir()) == [tmp_path / 'in']


SYNSETS = ('n01', 'n02', 'n03')
VALIDATION = ('n02', 'n03', 'n03', 'n01', 'n02')


def encoded_photo(number):
  file = io.BytesIO()
  photo(number, 20 + number, 22).save(file, 'JPEG')
  return file.getvalue()


def test_imagenet_is_prepared_from_its_tars(tmp_path, monkeypatch):
  of_synset = {
    synset: {f'{synset}_{i}.JPEG': encoded_photo(3 * label + i) for i in range(3)}
    for label, synset in enumerate(SYNSETS)
  }
  held_out = {
    f'ILSVRC2012_val_{i:08d}.JPEG': encoded_photo(20 + i) for i in range(1, len(VALIDATION) + 1)
  }
  content = (
    make_tar({f'{name}.tar': make_tar(files) for name, files in of_synset.items()}),
    make_tar(held_out),
  )
  archives = tuple(
    archive._replace(size=len(data), num_images=count)
    for archive, data, count in zip(imagenet_tars.ARCHIVES, content, (9, 5), strict=True)
  )
  monkeypatch.setattr(imagenet_tars, 'ARCHIVES', archives)
  monkeypatch.setattr(imagenet_tars, 'class_synsets', lambda: SYNSETS)
  monkeypatch.setattr(imagenet_tars, 'validation_synsets', lambda: VALIDATION)
  (tmp_path / 'in').mkdir()
  for archive, data in zip(archives, content, strict=True):
    (tmp_path / 'in' / archive.file_name).write_bytes(data)

  fields = {'data.image_size': SIZE, 'model.num_classes': 3}
  config = config_of(tmp_path / 'in', tmp_path, imagenet, **fields)
  display = Lines()
  _, data_set = open_data(config, display)
  directory = tmp_path / 'prepared' / f'imagenet2012_{SIZE}' / '5.1.0'
  assert data_set.directory == directory
  assert display.lines[0].startswith(f'preparing imagenet2012_{SIZE} once, in {directory.parent}')
  labels = {name: SYNSETS.index(name[:3]) for files in of_synset.values() for name in files}
  held_out_labels = dict(zip(held_out, map(SYNSETS.index, VALIDATION), strict=True))
  whole = {name: data for files in of_synset.values() for name, data in files.items()}
  for split, data, expected in (
    ('train', whole, labels),
    ('validation', held_out, held_out_labels),
  ):
    rows = stored(directory, split)
    assert {name: label for name, (_, label) in rows.items()} == expected
    for name, (encoded, _) in rows.items():
      square = images.fit_square(images.decode(data[name]), SIZE)
      np.testing.assert_array_equal(decoded(encoded), square)
  assert list(data_set.class_names) == list(SYNSETS)
  # It is found again without the tars.
  for archive in archives:
    (tmp_path / 'in' / archive.file_name).unlink()
  display = Lines()
  assert open_data(config, display)[1].directory == directory
  assert display.lines == []


def store_pictures(folder, name, **options):
  """A tfds data set of 26 pictures in two shards, whose labels number them."""
  splits = {'train': range(20), 'validation': range(20, 26)}
  square = 'shape' in options
  pictures = {
    split: {i: np.asarray(photo(i, 32 if square else 20 + i, 32)) for i in numbers}
    for split, numbers in splits.items()
  }
  store(folder, name, pictures, shards=2, **options)
  return pictures


def test_a_tfds_data_set_of_many_sizes_is_shrunk(tmp_path, interrupted, monkeypatch, converted):
  pictures = store_pictures(tmp_path / 'in', 'pictures')
  fields = {
    'data.name': 'pictures',
    'data.train_split': 'train[:90%]',  # of which there are no statistics kept
    'data.image_size': SIZE,
    'model.num_classes': 26,
  }
  config = config_of(tmp_path / 'in', tmp_path, imagenet, **fields)
  whole = prepare.prepare
  monkeypatch.setattr(  # of more than one shard
    prepare, 'prepare', lambda *args, **kw: whole(*args, **kw, images_per_shard=PER_SHARD)
  )
  interrupted(22, open_data, config)
  converted.clear()
  display = Lines()
  _, data_set = open_data(config, display)
  assert len(converted) == 6
  directory = tmp_path / 'prepared' / f'pictures_{SIZE}' / '1.0.0'
  assert data_set.directory == directory
  assert display.lines[0].startswith(f'preparing pictures_{SIZE} once, in {directory.parent}')
  for split, of_split in pictures.items():
    rows = stored(directory, split).values()
    assert sorted(label for _, label in rows) == sorted(of_split)
    for encoded, label in rows:
      square = images.fit_square(Image.fromarray(of_split[label]), SIZE)
      np.testing.assert_array_equal(decoded(encoded), square)
  metadata = prepare.read_metadata(directory)
  assert (metadata['source']['kind'], metadata['source']['name']) == ('tfds', 'pictures/1.0.0')
  assert metadata['class_names'] == list(map(str, range(26)))
  assert metadata['statistics_of'] == 'train'
  assert data_set.stored_statistics('train[:90%]') is None
  assert data_set.stored_statistics('train') is not None


@pytest.mark.parametrize('image_size', [32, 40])
def test_small_squares_need_no_preparation(tmp_path, image_size):
  store_pictures(tmp_path / 'in', 'tiles', shape=(32, 32, 3))
  fields = {'data.name': 'tiles', 'data.image_size': image_size, 'model.num_classes': 26}
  config = config_of(tmp_path / 'in', tmp_path, imagenet, **fields)
  display = Lines()
  _, data_set = open_data(config, display)
  assert data_set.directory == tmp_path / 'in' / 'tiles' / '1.0.0'
  assert data_set.stored_statistics(config.data.train_split) is None
  assert display.lines == []
  assert list(tmp_path.iterdir()) == [tmp_path / 'in']


# Kills, last, because they take their time.

KILLED = """
import itertools, os, signal, sys
from alexnet_jax.data import image_folder, prepare, tfds_reader

root, folder, size, per_shard, logs, *moments = sys.argv[1:]
convert = prepare._convert

def prepare_until(place, number, log):
  numbers = itertools.count(1)
  names = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

  def logged(example, **how):
    os.write(names, example.file_name.encode() + b'\\n')
    return convert(example, **how)

  def killing(function):
    def wrapped(self, *args, **kwargs):
      if args and next(numbers) == number:
        os.kill(os.getpid(), signal.SIGKILL)
      return function(self, *args, **kwargs)
    return wrapped

  class Silent:
    live = False
    line = task = lambda self, *args: lambda *args, **kwargs: None

  prepare._convert = logged
  owner, name = {
    'image': (prepare._ProgressLog, '__call__'), 'note': (prepare._Done, 'save')
  }[place]
  setattr(owner, name, killing(getattr(owner, name)))
  prepare.prepare(
    image_folder.open_folder(root, 0.1), prepare.Path(folder), image_size=int(size),
    encoding='png', statistics_of='train', unreadable_limit=0.001,
    images_per_shard=int(per_shard), display=Silent(),
  )

tfds_reader.import_tensorflow()  # once for all
for time, moment in enumerate(moments):
  process = os.fork()
  if process == 0:
    place, number = moment.split(':')
    prepare_until(place, int(number), f'{logs}/{time}')
    os._exit(1)
  _, status = os.waitpid(process, 0)
  left = sorted(path.name for path in prepare.Path(folder).glob('*/*/*'))
  print(os.waitstatus_to_exitcode(status), *left, sep='\\t', flush=True)
"""


def kill_three_times(source, folder, logs):
  """What is there after each time: names of the files that were converted, and of those written."""
  # In the third shard; with the fourth in its place, but not noted; in the second split.
  moments = ('image:20', 'note:2', f'image:{18 + 10}')
  arguments = [*map(str, (source.root, folder, SIZE, PER_SHARD, logs)), *moments]
  done = subprocess.run(
    [sys.executable, '-c', KILLED, *arguments],
    cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=200,
  )  # fmt: skip
  times = []
  for kill, line in enumerate(done.stdout.splitlines()):
    code, *names = line.split('\t')
    assert int(code) == -signal.SIGKILL
    times.append((set((logs / str(kill)).read_text('utf-8').splitlines()), names))
  assert len(times) == len(moments)
  return times


@pytest.fixture(scope='module', autouse=True)
def killing(request, source, tmp_path_factory):
  """A preparation that is killed three times while other tests run, if any asks for it."""
  if not any('killed' in item.fixturenames for item in request.session.items):
    yield
    return
  folder, logs = tmp_path_factory.mktemp('killed'), tmp_path_factory.mktemp('logs')
  with concurrent.futures.ThreadPoolExecutor() as pool:
    yield folder, pool.submit(kill_three_times, source, folder, logs)


@pytest.fixture(scope='module')
def killed(killing):
  """The folder of the preparation that was killed, and what was there after each time."""
  folder, times = killing
  return folder, times.result()


def shards(name, split, count, of):
  return [f'{name}_{SIZE}-{split}.tfrecord-{i:05d}-of-{of:05d}' for i in range(count)]


def test_what_was_killed_three_times_is_as_if_it_had_not(killed, source, png, tmp_path, converted):
  folder = tmp_path / 'killed'
  shutil.copytree(killed[0], folder)
  directory = run(source, folder)
  assert contents(directory) == contents(png)
  assert [path.name for path in directory.parent.iterdir()] == ['1.0.0']
  rest = [example.file_name for example in source.examples('validation', PER_SHARD)]
  assert sorted(converted) == sorted(rest)


def test_what_is_done_is_not_done_again(killed, source):
  order = [example.file_name for s in source.splits for example in source.examples(s, 0)]
  times = [names for names, _ in killed[1]]
  # Some images are read ahead of the one that it is at, but none before the shard.
  assert set(order[:20]) <= times[0] <= set(order[:42])
  assert set(order[16:32]) <= times[1] <= set(order[16:42])
  assert set(order[24:52]) <= times[2] <= set(order[24:])


def test_what_was_killed_has_the_shards_it_should(killed, source):
  first, second, third = (names for _, names in killed[1])
  kept = ['done.npz', 'lock', 'originals']
  assert first == sorted([*kept, *shards(source.name, 'train', 2, 6), 'shard.part'])
  assert second == sorted([*kept, *shards(source.name, 'train', 4, 6)])
  both = [*shards(source.name, 'train', 6, 6), *shards(source.name, 'validation', 1, 3)]
  assert third == sorted([*kept, *both, 'shard.part'])


def test_what_was_killed_is_never_found(killed, source, tensorflow):
  folder, _ = killed
  _, tfds = tensorflow
  assert prepare.find(folder, source.name, SIZE) is None
  assert not (folder / f'{source.name}_{SIZE}' / '1.0.0').exists()
  with pytest.raises(tfds.core.registered.DatasetNotFoundError):
    tfds.builder(f'{source.name}_{SIZE}', data_dir=folder)
  assert 'no tfds data set' in refusal(
    tfds_reader.open_directory, folder / f'{source.name}_{SIZE}' / '1.0.0.incomplete'
  )
