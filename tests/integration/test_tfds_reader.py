"""tfds data sets: found, in parts, in blocks, decoded as Pillow decodes; what is damaged is named."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import pipeline, record_split, tfds_reader
from alexnet_jax.data.images import fit_square
from tests import stored
from tests.mistakes import refusal
from tests.stored import BLOCK, SIZE, TRAIN, VALIDATION, make_image, noise, open_records

REPOSITORY = Path(__file__).parents[2]
SIDE = 48  # of 'jpegs': three of a JPEG's blocks, as it halves the colors' resolution


def jpeg(pixels, mode='RGB', **options):
  """A JPEG of quality 95."""
  file = io.BytesIO()
  Image.fromarray(pixels).convert(mode).save(file, 'JPEG', quality=95, **options)
  return file.getvalue()


# Noise, in which every pixel tells.
JPEGS = {
  0: jpeg(noise(0, SIDE, SIDE), subsampling='4:2:0'),
  1: jpeg(noise(1, SIDE, SIDE), subsampling='4:2:2'),
  2: jpeg(noise(2, SIDE, SIDE), subsampling='4:4:4'),
  3: jpeg(noise(3, SIDE, SIDE), subsampling='4:2:0', progressive=True),
  4: jpeg(noise(4, SIDE, SIDE), 'L'),
}


def decoded(encoded):
  """What Pillow makes of an image file."""
  return Image.open(io.BytesIO(encoded)).convert('RGB')


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A folder with tfds data sets."""
  folder = tmp_path_factory.mktemp('tfds')

  def files(contents):
    return {'train': {label: io.BytesIO(content) for label, content in contents.items()}}

  stored.store_numbers(folder)
  stored.store(folder, 'unlabeled', {'train': {0: make_image(0)}}, labeled=False)
  stored.store(folder, 'jpegs', files(JPEGS), encoding='jpeg', shape=(SIDE, SIDE, 3))
  photographs = {0: jpeg(noise(0, 30, 41)), 1: jpeg(noise(1, 41, 30), 'L')}
  stored.store(folder, 'photographs', files(photographs), encoding='jpeg')
  return folder


def read_all(split):
  """All images and labels, whole."""
  with contextlib.closing(pipeline.whole_images(split)) as batches:
    got = list(batches)
  return tuple(np.concatenate([batch[name] for batch in got]) for name in ('image', 'label'))


def test_images_and_labels_are_those_stored(data_dir):
  split = open_records(data_dir)
  images, labels = read_all(split)
  assert split.num_examples == TRAIN
  assert split.class_names == [str(i) for i in range(TRAIN + VALIDATION)]
  assert sorted(labels) == list(range(TRAIN))
  for image, label in zip(images, labels, strict=True):
    whole = fit_square(Image.fromarray(make_image(label)), SIZE)
    np.testing.assert_array_equal(image, np.asarray(whole))


def test_an_epoch_is_shuffled_in_blocks_of_pieces(data_dir):
  split = open_records(data_dir, block=BLOCK)
  assert split.block_size == BLOCK
  blocks, others = (split.order(np.random.default_rng(epoch)) for epoch in (0, 1))
  assert [len(block) for block in blocks] == [17, 17, 6]
  order = np.concatenate(blocks)
  assert sorted(order) == list(range(TRAIN))
  # Blocks differ between epochs, and in them few neighbors stay side by side.
  assert set(blocks[0]) != set(others[0])
  assert np.mean(np.diff(order) == 1) < 0.2
  # It is pieces of two neighbors that make up a block; its end may part one pair.
  first = {int(i) for i in blocks[0] if i < 12}  # 12 of the 13 in the first shard
  assert len(first) > 2
  assert sum(i ^ 1 not in first for i in first) <= 1


@pytest.mark.parametrize('block', [None, BLOCK])
def test_the_order_as_stored_is_that_of_the_files(data_dir, block):
  blocks = open_records(data_dir, block=block).order()
  assert len(blocks) == (3 if block else 1)
  np.testing.assert_array_equal(np.concatenate(blocks), np.arange(TRAIN))


def test_the_next_block_is_asked_for_while_one_is_read(data_dir, monkeypatch):
  split = open_records(data_dir, block=BLOCK)
  calls = []
  for name in ('_ask_for', '_stored'):
    method = getattr(record_split.RecordSplit, name)

    def noted(self, wanted, name=name, method=method):
      if len(wanted):
        calls.append((name, len(wanted)))
      return method(self, wanted)

    monkeypatch.setattr(record_split.RecordSplit, name, noted)
  groups = [
    (block, np.zeros((len(block), 2), np.int32)) for block in split.order(np.random.default_rng(0))
  ]
  _, labels = read_all(split)
  calls.clear()
  batches = list(split.read(groups, 12, SIZE))
  assert calls[0] == ('_ask_for', 17)  # while the first block, of 17, is read
  assert [count for name, count in calls if name == '_ask_for'] == [17, 6]
  assert sorted(count for name, count in calls if name == '_stored') == [4, 12, 12, 12]
  assert [len(batch['label']) for batch in batches] == [12, 12, 12, 4]
  got = np.concatenate([batch['label'] for batch in batches])
  np.testing.assert_array_equal(got, labels[np.concatenate([block for block, _ in groups])])


@pytest.mark.parametrize('label', JPEGS)
def test_a_crop_cut_while_decoding_is_that_of_the_whole_image(data_dir, label):
  split = open_records(data_dir, name='jpegs', image_size=SIDE)
  size, whole = SIDE - 32, np.asarray(decoded(JPEGS[label]))  # 33 offsets, as the 2012 code's
  [example] = np.flatnonzero(read_all(split)[1] == label)
  offsets = np.argwhere(np.ones((33, 33), bool)).astype(np.int32)
  groups = [(np.full(len(offsets), example), offsets)]
  with contextlib.closing(split.read(groups, len(offsets), size)) as batches:
    [batch] = batches
  np.testing.assert_array_equal(batch['offset'], offsets)
  expected = np.lib.stride_tricks.sliding_window_view(whole, (size, size, 3))
  np.testing.assert_array_equal(batch['image'], expected.reshape(-1, size, size, 3))


@pytest.mark.parametrize('image_size', [SIDE, 40, 60])
def test_square_jpegs_are_decoded_as_pillow_does_and_scaled(data_dir, image_size):
  split = open_records(data_dir, name='jpegs', image_size=image_size)
  for image, label in zip(*read_all(split), strict=True):
    expected = fit_square(decoded(JPEGS[label]), image_size)
    np.testing.assert_array_equal(image, np.asarray(expected))


def test_jpegs_of_any_size_are_decoded_gray_ones_too(data_dir):
  images, labels = read_all(open_records(data_dir, name='photographs', image_size=24))
  assert sorted(labels) == [0, 1]
  shapes = ((30, 41), (41, 30))
  for image, label in zip(images, labels, strict=True):
    original = decoded(jpeg(noise(label, *shapes[label]), ('RGB', 'L')[label]))
    np.testing.assert_array_equal(image, np.asarray(fit_square(original, 24)))


@pytest.fixture(scope='module')
def labels_in_order(data_dir):
  """The labels of each split of 'numbers', as its files have them."""
  return {split: read_all(open_records(data_dir, split))[1] for split in ('train', 'validation')}


@pytest.mark.parametrize(
  ('split', 'whole', 'chosen'),
  [
    ('train[:50%]', ['train'], [slice(0, 20)]),
    ('train[:50%]+train[90%:]', ['train', 'train'], [slice(0, 20), slice(36, 40)]),
    ('train[-5:]', ['train'], [slice(35, 40)]),
    ('train[13:15]', ['train'], [slice(13, 15)]),
    ('validation[2:]+train', ['validation', 'train'], [slice(2, 7), slice(0, 40)]),
    ('train[:3]+train[-3:]', ['train', 'train'], [slice(0, 3), slice(37, 40)]),
  ],
)
@pytest.mark.parametrize('block', [None, 5])
def test_parts_of_splits_can_be_read(data_dir, labels_in_order, split, whole, chosen, block):
  parts = zip(whole, chosen, strict=True)
  expected = np.concatenate([labels_in_order[name][part] for name, part in parts])
  part = open_records(data_dir, split, block=block)
  assert part.num_examples == len(expected)
  np.testing.assert_array_equal(read_all(part)[1], expected)
  shuffled = part.order(np.random.default_rng(0))
  assert sorted(np.concatenate(shuffled)) == list(range(len(expected)))
  assert all(len(of_block) <= (block or len(expected)) for of_block in shuffled)


@pytest.mark.parametrize(
  'split', ['trian', 'train[:', 'train[90:]', 'train[:200%]', 'all[:10%]', '']
)
def test_splits_that_are_not_there_are_refused(data_dir, split):
  builder = tfds_reader.open_builder('numbers', str(data_dir))
  message = refusal(record_split.RecordSplit, builder, split, SIZE, 1000)
  assert re.search(r"numbers/1\.0\.0 has no split .* 'train', 'validation'", message)


@pytest.mark.parametrize('split', ['train[5:5]', 'train[9:3]', 'train[9:3]+validation'])
def test_parts_that_hold_nothing_are_refused(data_dir, split):
  builder = tfds_reader.open_builder('numbers', str(data_dir))
  message = refusal(record_split.RecordSplit, builder, split, SIZE, 1000)
  assert re.search(r'empty|no split', message)


def test_images_without_labels_are_refused(data_dir):
  builder = tfds_reader.open_builder('unlabeled', str(data_dir))
  for use in (tfds_reader.class_names, tfds_reader.TfdsSource):
    assert 'unlabeled/1.0.0 has no class label; it has image' in refusal(use, builder)


@pytest.mark.parametrize(
  ('name', 'near'), [('cifar1O', 'cifar10'), ('imagnet2012', 'imagenet2012'), ('digit', 'digits')]
)
def test_an_unknown_name_brings_near_ones(data_dir, name, near):
  message = refusal(tfds_reader.open_builder, name, str(data_dir), ('digits', 'folder'))
  assert re.search(rf"no data set '{name}'.*did you mean .*\b{near}\b", message)


def test_a_name_like_no_other_is_refused(data_dir):
  message = refusal(tfds_reader.open_builder, 'qqqqqq', str(data_dir))
  assert "no data set 'qqqqqq'" in message
  assert 'did you mean' not in message
  assert str(data_dir) in message


def test_a_version_may_be_given(data_dir):
  builder = tfds_reader.open_builder('numbers:1.0.0', str(data_dir))
  assert builder.is_prepared()
  assert tfds_reader.plain_name(builder) == 'numbers'


@pytest.mark.parametrize('name', ['numbers:9.9.9', 'cifar10:9.9.9'])
def test_a_version_that_is_not_there_is_refused(data_dir, name):
  assert name in refusal(tfds_reader.open_builder, name, str(data_dir))


def test_a_missing_folder_is_named(tmp_path):
  missing = str(tmp_path / 'nowhere')
  message = refusal(tfds_reader.open_builder, 'cifar10', missing)
  assert message == f'there is no folder {missing} (data.data_dir)'


def test_a_data_set_that_cannot_be_prepared_says_why(tmp_path):
  _, tfds = tfds_reader.import_tensorflow()

  class ArchiveIsMissing(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      return tfds.core.DatasetInfo(builder=self)

    def _split_generators(self, dl_manager):
      raise FileNotFoundError('put archive.tar there by hand')

    def _generate_examples(self):
      raise NotImplementedError

  builder = tfds_reader.open_builder('archive_is_missing', str(tmp_path))
  first, second = refusal(tfds_reader.let_tfds_prepare, builder).splitlines()
  assert 'put archive.tar there by hand' in first
  assert 'data.data_dir' in second


@pytest.mark.parametrize(
  ('name', 'image_size', 'shrunk'),
  [('numbers', 100, True), ('jpegs', SIDE - 1, True), ('jpegs', SIDE, False), ('jpegs', 99, False)],
)
def test_what_is_larger_or_of_many_sizes_needs_shrinking(data_dir, name, image_size, shrunk):
  builder = tfds_reader.open_builder(name, str(data_dir))
  assert tfds_reader.needs_shrinking(builder, image_size) == shrunk


def test_a_data_set_is_a_source_that_goes_on_anywhere(data_dir, labels_in_order):
  source = tfds_reader.TfdsSource(tfds_reader.open_builder('numbers', str(data_dir)))
  assert (source.name, source.version) == ('numbers', '1.0.0')
  assert source.splits == {'train': TRAIN, 'validation': VALIDATION}
  assert json.loads(json.dumps(source.description)) == source.description
  for start in (0, 13, 39):
    with contextlib.closing(source.examples('train', start)) as examples:
      got = list(examples)
    assert [example.label for example in got] == labels_in_order['train'][start:].tolist()
    pixels = np.asarray(decoded(got[0].read()))
    np.testing.assert_array_equal(pixels, make_image(got[0].label))


def flip_a_bit(shard):
  data = bytearray(shard.read_bytes())
  data[len(data) // 2] ^= 1
  shard.write_bytes(data)


def cut_short(shard):
  shard.write_bytes(shard.read_bytes()[:-30])


def lose_an_example(shard):
  tf, _ = tfds_reader.import_tensorflow()
  examples = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
  with tf.io.TFRecordWriter(str(shard)) as writer:
    for example in examples[:-1]:
      writer.write(example)


def spoil_an_image(shard):
  tf, _ = tfds_reader.import_tensorflow()
  examples = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
  with tf.io.TFRecordWriter(str(shard)) as writer:
    for example in examples:
      writer.write(example.replace(b'PNG', b'NOT').replace(b'JFIF', b'NONE', 1)[: len(example)])


@pytest.mark.parametrize(
  'damage', [flip_a_bit, cut_short, lose_an_example, spoil_an_image, Path.unlink]
)
@pytest.mark.parametrize('block', [None, 5])
def test_damaged_files_are_named(data_dir, tmp_path, damage, block):
  shutil.copytree(data_dir / 'numbers', tmp_path / 'numbers')
  split = open_records(tmp_path, block=block)
  folder = tmp_path / 'numbers' / '1.0.0'
  damage(sorted(folder.glob('*-train*'))[1])
  message = refusal(read_all, split)
  assert str(folder) in message
  assert not re.search('function_node|Graph execution|Detected at', message)


@pytest.mark.parametrize('damage', [flip_a_bit, cut_short, lose_an_example, Path.unlink])
def test_damaged_files_of_a_source_are_named(data_dir, tmp_path, damage):
  shutil.copytree(data_dir / 'numbers', tmp_path / 'numbers')
  source = tfds_reader.TfdsSource(tfds_reader.open_builder('numbers', str(tmp_path)))
  folder = tmp_path / 'numbers' / '1.0.0'
  damage(sorted(folder.glob('*-train*'))[1])
  message = refusal(lambda: list(source.examples('train', 3)))
  assert str(folder) in message
  assert 'function_node' not in message


@pytest.mark.parametrize('file', ['dataset_info.json', 'features.json'])
def test_a_data_set_with_damaged_metadata_is_named(data_dir, tmp_path, file):
  shutil.copytree(data_dir / 'numbers' / '1.0.0', tmp_path / 'numbers' / '1.0.0')
  (tmp_path / 'numbers' / '1.0.0' / file).write_text('{"name": ')
  message = refusal(tfds_reader.open_builder, 'numbers', str(tmp_path))
  assert message.startswith(f'{tmp_path / "numbers"} cannot be read (')


def test_damaged_metadata_are_named(data_dir, tmp_path):
  folder = tmp_path / 'numbers' / '1.0.0'
  shutil.copytree(data_dir / 'numbers' / '1.0.0', folder)
  assert tfds_reader.open_directory(folder).info.splits['train'].num_examples == TRAIN
  (folder / 'dataset_info.json').write_text('{"name": ')
  assert f'{folder} is no tfds data set' in refusal(tfds_reader.open_directory, folder)


@pytest.mark.parametrize(
  ('version', 'broken', 'words'),
  [
    ((3, 13), 'VersionError("gencode 6.31.1, runtime 5.29.6")', ['5.29.6', '".[train]"']),
    ((3, 14), 'ImportError("No module named tensorflow")', ['none for Python 3.14']),
  ],
)
def test_tensorflow_that_cannot_be_used_is_named(tmp_path, version, broken, words):
  (tmp_path / 'tensorflow.py').touch()
  tfds = tmp_path / 'tensorflow_datasets'
  tfds.mkdir()
  (tfds / '__init__.py').touch()  # imports without a word, as tfds does
  (tfds / 'public_api.py').write_text(f'class VersionError(Exception): ...\nraise {broken}\n')
  code = f"""
import sys
from alexnet_jax.data import tfds_reader
from alexnet_jax.utils import errors
sys.version_info = {version}
try:
  tfds_reader.import_tensorflow()
except errors.UserError as error:
  print(error)
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=REPOSITORY,
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
    check=True,
    timeout=100,
  )
  assert 'needs TensorFlow' in done.stdout
  assert all(word in done.stdout for word in words), done.stdout


def test_a_warning_says_where_tensorflow_keeps_its_gpus(monkeypatch):
  tf, _ = tfds_reader.import_tensorflow()

  def refuse(devices, kind):
    raise RuntimeError('Visible devices cannot be modified after being initialized')

  monkeypatch.setattr(tf.config, 'set_visible_devices', refuse)
  with pytest.warns(UserWarning, match='keeps GPU memory'):
    tfds_reader.import_tensorflow.__wrapped__()


def test_a_data_set_that_does_not_name_its_files_has_no_names(data_dir):
  assert open_records(data_dir).file_names() is None
