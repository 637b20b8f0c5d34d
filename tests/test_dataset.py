"""Batches that follow from (seed, step) alone, in memory and streamed, and the data behind."""

import contextlib
import io
import itertools
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import dataset
from alexnet_jax.errors import UserError

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = Path(__file__).parents[2] / 'shared' / 'tfds'

# Labels number the images, so that a batch shows which examples it holds.
TRAIN, VALIDATION, SIZE = 40, 7, 10
BLOCK = 17  # examples; with three shards of 13 or 14, no multiple of anything


def make_image(number):
  """An image of its own size and pixels."""
  shape = (SIZE + number % 4, SIZE + number % 3, 3)
  return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A folder with the tfds data sets 'squares', 'photographs' and 'unlabelled'."""
  _, tfds = dataset._import_tensorflow()
  folder = tmp_path_factory.mktemp('tfds')

  def store(name, splits, shards=1, label=True, encoding='png'):
    features = {'image': tfds.features.Image(encoding_format=encoding)}
    if label:
      features['label'] = tfds.features.ClassLabel(num_classes=TRAIN + VALIDATION)
    tfds.dataset_builders.store_as_tfds_dataset(
      name,
      '1.0.0',
      tfds.features.FeaturesDict(features),
      {split: list(enumerate(examples)) for split, examples in splits.items()},
      data_dir=folder,
      download_config=tfds.download.DownloadConfig(num_shards=shards),
    )

  numbers = {'train': range(TRAIN), 'validation': range(TRAIN, TRAIN + VALIDATION)}
  squares = {
    split: [{'image': make_image(i), 'label': i} for i in of_split]
    for split, of_split in numbers.items()
  }
  store('squares', squares, shards=3)
  store('unlabelled', {'train': [{'image': make_image(0)}]}, label=False)
  photographs = [
    {'image': io.BytesIO(jpeg(mode)), 'label': i} for i, mode in enumerate(('RGB', 'L'))
  ]
  store('photographs', {'train': photographs}, encoding='jpeg')
  return str(folder)


def gradient(mode):
  """A smooth picture of 30 by 24 pixels, which a JPEG keeps."""
  ramp = np.linspace(20, 220, 30)[None, :] + np.linspace(-10, 10, 24)[:, None]
  pixels = np.stack([ramp, 255 - ramp, ramp / 2], axis=-1).astype(np.uint8)
  return Image.fromarray(pixels).convert(mode)


def jpeg(mode):
  encoded = io.BytesIO()
  gradient(mode).save(encoded, 'JPEG', quality=95)
  return encoded.getvalue()


def small_blocks(monkeypatch, data_dir):
  """Makes blocks so small that 'squares' has several."""
  _, tfds = dataset._import_tensorflow()
  train = tfds.builder('squares', data_dir=data_dir).info.splits['train']
  monkeypatch.setattr(dataset, '_BLOCK_BYTES', train.num_bytes // TRAIN * BLOCK)


def load(data_dir, split='train', memory=False):
  return dataset.load_split('squares', split, data_dir, SIZE, memory_megabytes=1 if memory else 0)


@pytest.fixture(params=['memory', 'streamed', 'blocks'])
def squares(request, data_dir, monkeypatch):
  """The training images of 'squares', held in each way."""
  if request.param == 'blocks':
    small_blocks(monkeypatch, data_dir)
  split = load(data_dir, memory=request.param == 'memory')
  assert isinstance(split, dataset.ArraySplit) == (request.param == 'memory')
  return split


def coordinate_split(n=24, size=9):
  """Images whose channels are each pixel's row and column, and the image's number."""
  images = np.zeros((n, size, size, 3), np.uint8)
  images[..., 0] = np.arange(size)[:, None]
  images[..., 1] = np.arange(size)
  images[..., 2] = np.arange(n)[:, None, None]
  return dataset.ArraySplit(images, np.arange(n, dtype=np.int32), [str(i) for i in range(n)])


def batches(split, count, first_step=0, **changes):
  """The first so many training batches."""
  arguments = {
    'seed': 5,
    'batch_size': 12,
    'crop_size': split.image_size - 2,
    'crop_offsets': 3,
    'images_per_draw': 1,
  }
  made = dataset.train_batches(split, first_step=first_step, **(arguments | changes))
  with contextlib.closing(made):
    return list(itertools.islice(made, count))


def joined(parts, name):
  return np.concatenate([part[name] for part in parts])


def assert_same_batches(a, b):
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for name in x:
      assert x[name].dtype == y[name].dtype
      np.testing.assert_array_equal(x[name], y[name])


def test_digits_are_all_there_in_two_parts():
  from sklearn import datasets

  train, validation = dataset.digits('train'), dataset.digits('validation')
  assert (train.num_examples, validation.num_examples) == (1438, 359)
  assert list(train.class_names) == list('0123456789')
  for split in (train, validation):
    assert split.image_size == 8
    assert split.images.shape == (split.num_examples, 8, 8, 3)
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
    assert np.all(split.images == split.images[..., :1])

  def as_rows(grey, labels):
    return sorted(
      (*image.ravel().tolist(), int(label)) for image, label in zip(grey, labels, strict=True)
    )

  bunch = datasets.load_digits()
  grey = np.concatenate([train.images, validation.images])[..., 0]
  ours = as_rows(grey, np.concatenate([train.labels, validation.labels]))
  assert ours == as_rows(np.round(bunch.images * 255 / 16).astype(np.uint8), bunch.target)


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_digits_are_the_same_every_time(split):
  first, again = dataset.digits(split), dataset.digits(split)
  np.testing.assert_array_equal(first.images, again.images)
  np.testing.assert_array_equal(first.labels, again.labels)


@pytest.mark.parametrize('batch_size', [1, 12, 40, 100])
def test_each_epoch_holds_every_example_once(data_dir, batch_size):
  split = load(data_dir, memory=True)
  got = batches(split, 3 * TRAIN // batch_size, batch_size=batch_size)
  labels = joined(got, 'label')
  assert all(len(batch['label']) == batch_size for batch in got)
  for start in range(0, len(labels) // TRAIN * TRAIN, TRAIN):
    assert sorted(labels[start : start + TRAIN]) == list(range(TRAIN))


def test_streams_run_on_across_epochs(squares):
  got = batches(squares, 10)  # 120 images: three epochs
  labels = joined(got, 'label').reshape(3, TRAIN)
  for epoch in labels:
    assert sorted(epoch) == list(range(TRAIN))
  assert not np.array_equal(labels[0], labels[1])
  assert not np.array_equal(labels[1], labels[2])
  for batch in got:
    assert batch['image'].shape == (12, SIZE - 2, SIZE - 2, 3)
    assert batch['image'].dtype == np.uint8
    assert (batch['offset'].dtype, batch['label'].dtype) == (np.int32, np.int32)


def test_batches_follow_from_the_seed(squares):
  got, again, others = (batches(squares, 2, seed=seed) for seed in (5, 5, 6))
  assert_same_batches(got, again)
  for name in ('label', 'offset'):
    assert not np.array_equal(joined(got, name), joined(others, name))


def test_a_run_that_starts_at_a_step_skips_what_came_before(squares):
  whole = batches(squares, 10)
  for first_step in (1, 5, 8):
    resumed = batches(squares, 2, first_step)
    assert_same_batches(resumed, whole[first_step : first_step + 2])


def test_crops_are_the_examples_cut_at_their_offsets(squares):
  for batch in batches(squares, 5):
    for image, (row, column), label in zip(*batch.values(), strict=True):
      whole = dataset.fit_square(make_image(label), SIZE)
      np.testing.assert_array_equal(image, whole[row : row + SIZE - 2, column : column + SIZE - 2])


def test_memory_and_streamed_give_the_same_batches(data_dir):
  held, streamed = load(data_dir, memory=True), load(data_dir)
  assert_same_batches(batches(held, 8), batches(streamed, 8))
  assert held.class_names == streamed.class_names == [str(i) for i in range(TRAIN + VALIDATION)]


def test_blocks_are_shuffled_and_read_one_at_a_time(data_dir, monkeypatch):
  small_blocks(monkeypatch, data_dir)
  split = load(data_dir)
  order, other = split.order(0, 0), split.order(0, 1)
  assert sorted(order) == list(range(TRAIN))
  # Blocks differ between epochs, and in them few neighbours stay side by side.
  assert set(order[:BLOCK]) != set(other[:BLOCK])
  assert np.mean(np.diff(order) == 1) < 0.2
  # It is pieces of two neighbours that make up a block; its end may part one pair.
  first = {int(i) for i in order[:BLOCK] if i < 12}  # 12 of the 13 in the first shard
  assert len(first) > 2
  assert sum(i ^ 1 not in first for i in first) <= 1

  read, encoded = [], dataset.RecordSplit._encoded
  monkeypatch.setattr(
    dataset.RecordSplit,
    '_encoded',
    lambda self, wanted: read.append(len(wanted)) or encoded(self, wanted),
  )
  offsets = np.zeros((TRAIN, 2), np.int32)
  for start, blocks in ((0, [17, 17, 6]), (20, [14, 6])):
    read.clear()
    chunks = list(split.read(order[start:], offsets[start:], SIZE))
    assert read == blocks
    assert len(joined(chunks, 'label')) == TRAIN - start


@pytest.mark.parametrize(
  ('crop_size', 'crop_offsets', 'first', 'last'),
  # Images are 9x9.
  [(5, 5, 0, 4), (5, 3, 1, 3), (5, 1, 2, 2), (5, 2, 1, 2), (9, 1, 0, 0), (8, 2, 0, 1)],
)
def test_offsets_are_as_many_as_asked_for_in_the_middle(crop_size, crop_offsets, first, last):
  got = batches(coordinate_split(), 10, crop_size=crop_size, crop_offsets=crop_offsets)
  offsets, images = joined(got, 'offset'), joined(got, 'image')
  for axis in (0, 1):
    assert sorted(set(offsets[:, axis].tolist())) == list(range(first, last + 1))
  assert images.shape[1:] == (crop_size, crop_size, 3)
  np.testing.assert_array_equal(images[:, 0, 0, :2], offsets)
  np.testing.assert_array_equal(images[:, -1, -1, :2], offsets + crop_size - 1)
  np.testing.assert_array_equal(images[:, 0, 0, 2], joined(got, 'label'))
  if crop_offsets > 1:
    assert np.any(offsets[:, 0] != offsets[:, 1])


def test_consecutive_images_of_an_epoch_share_an_offset():
  got = batches(coordinate_split(), 6, images_per_draw=8)
  draws = joined(got, 'offset').reshape(9, 8, 2)  # three epochs of 24
  assert np.all(draws == draws[:, :1])
  assert len(np.unique(draws[:, 0], axis=0)) > 3


@pytest.mark.parametrize(
  ('crop_size', 'crop_offsets', 'fits'),
  [(5, 6, '1 to 5 offsets'), (5, 0, '1 to 5 offsets'), (9, 2, '1 to 1 offsets'), (10, 1, 'none')],
)
def test_crops_that_do_not_fit_are_refused(crop_size, crop_offsets, fits):
  with pytest.raises(UserError, match=rf'crop_offsets is {crop_offsets}.*at {fits}'):
    batches(coordinate_split(), 1, crop_size=crop_size, crop_offsets=crop_offsets)


@pytest.mark.parametrize('batch_size', [8, 12, 40, 64])
def test_evaluation_counts_every_image_once(data_dir, batch_size):
  got = list(dataset.evaluation_batches(load(data_dir, memory=True), batch_size, SIZE - 2))
  assert len(got) == -(-TRAIN // batch_size)
  for batch in got:
    assert {len(array) for array in batch.values()} == {batch_size}
    assert batch['mask'].dtype == bool
  assert all(batch['mask'].all() for batch in got[:-1])
  mask = joined(got, 'mask')
  assert mask.sum() == TRAIN
  assert sorted(joined(got, 'label')[mask]) == list(range(TRAIN))


def test_evaluation_cuts_the_centre(squares):
  for batch in dataset.evaluation_batches(squares, 12, SIZE - 4):
    assert np.all(batch['offset'] == 2)
    for image, label in zip(batch['image'], batch['label'], strict=True):
      whole = dataset.fit_square(make_image(label), SIZE)
      np.testing.assert_array_equal(image, whole[2:-2, 2:-2])


def test_evaluation_runs_across_chunks():
  got = list(dataset.evaluation_batches(dataset.digits('validation'), 100, 8))
  assert [batch['mask'].sum() for batch in got] == [100, 100, 100, 59]
  labels = joined(got, 'label')[joined(got, 'mask')]
  np.testing.assert_array_equal(labels, dataset.digits('validation').labels)


def test_statistics_are_numpys(squares):
  images = joined(list(dataset.whole_images(squares)), 'image').astype(np.float64)
  assert len(images) == TRAIN
  seen = []
  mean_image, eigenvalues, eigenvectors = dataset.statistics(squares, progress=seen.append)
  assert sum(seen) == TRAIN
  assert {a.dtype for a in (mean_image, eigenvalues, eigenvectors)} == {np.dtype(np.float32)}
  np.testing.assert_allclose(mean_image, images.mean(axis=0), rtol=1e-6)
  covariance = np.cov(images.reshape(-1, 3).T / 255, bias=True)
  np.testing.assert_allclose(eigenvalues, np.linalg.eigvalsh(covariance), rtol=1e-5)
  vectors = eigenvectors.astype(np.float64)
  np.testing.assert_allclose((vectors * eigenvalues) @ vectors.T, covariance, atol=1e-7)
  np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-6)
  assert np.all(vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0)


def test_statistics_of_grey_images_have_no_negative_variance():
  mean_image, eigenvalues, _ = dataset.statistics(dataset.digits('train'))
  images = dataset.digits('train').images.astype(np.float64)
  np.testing.assert_allclose(mean_image, images.mean(axis=0), rtol=1e-6)
  assert np.all(eigenvalues >= 0)
  np.testing.assert_allclose(eigenvalues, [0, 0, 3 * np.var(images / 255)], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(('height', 'width'), [(20, 60), (60, 20), (5, 15), (15, 5)])
def test_fit_square_scales_the_whole_image_and_cuts_the_centre(height, width):
  image = np.random.default_rng(0).integers(80, 170, (height, width, 3), dtype=np.uint8)
  whole = (30, 10) if width > height else (10, 30)
  scaled = np.asarray(Image.fromarray(image).resize(whole, Image.Resampling.BICUBIC))
  centre = scaled[:, 10:20] if width > height else scaled[10:20]
  # Pillow chooses which side it scales first, and rounds in between.
  np.testing.assert_allclose(dataset.fit_square(image, 10).astype(int), centre, atol=1)


@pytest.mark.parametrize(('height', 'width'), [(40, 100), (100, 40), (41, 100), (40, 41)])
def test_fit_square_shows_the_centre_square(height, width):
  short = min(height, width)
  top, left = (height - short) // 2, (width - short) // 2
  image = np.full((height, width, 3), 255, np.uint8)
  image[top : top + short + height % 2, left : left + short + width % 2] = (10, 60, 110)
  fitted = dataset.fit_square(image, 20)
  assert (fitted.shape, fitted.dtype) == ((20, 20, 3), np.uint8)
  # Scaling reaches a little over the edges.
  np.testing.assert_array_equal(fitted[2:-2, 2:-2], np.tile(np.uint8([10, 60, 110]), (16, 16, 1)))
  assert np.all(fitted < 200)


def test_fit_square_leaves_what_fits_as_it_is():
  image = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
  np.testing.assert_array_equal(dataset.fit_square(image, 10), image)


def test_jpegs_are_decoded_grey_ones_too(data_dir):
  split = dataset.load_split('photographs', 'train', data_dir, 24, 1)
  assert sorted(split.labels) == [0, 1]
  for image, label in zip(split.images, split.labels, strict=True):
    original = np.asarray(gradient(('RGB', 'L')[label]).convert('RGB'))
    difference = image.astype(int) - dataset.fit_square(original, 24)
    assert np.abs(difference).mean() < 2


@pytest.fixture(scope='module')
def labels_in_order(data_dir):
  """The labels of each split of 'squares', as its files have them."""
  return {split: load(data_dir, split, memory=True).labels for split in ('train', 'validation')}


@pytest.mark.parametrize(
  ('split', 'whole', 'chosen'),
  [
    ('train[:50%]', ['train'], [slice(0, 20)]),
    ('train[-5:]', ['train'], [slice(35, 40)]),
    ('train[13:15]', ['train'], [slice(13, 15)]),
    ('validation[2:]+train', ['validation', 'train'], [slice(2, 7), slice(0, 40)]),
    ('train[30:]+validation', ['train', 'validation'], [slice(30, 40), slice(0, 7)]),
    ('train[:3]+train[-3:]', ['train', 'train'], [slice(0, 3), slice(37, 40)]),
  ],
)
@pytest.mark.parametrize('held', ['memory', 'blocks'])
def test_parts_of_splits_can_be_read(
  data_dir, labels_in_order, monkeypatch, split, whole, chosen, held
):
  parts = zip(whole, chosen, strict=True)
  expected = np.concatenate([labels_in_order[name][part] for name, part in parts])
  if held == 'blocks':
    small_blocks(monkeypatch, data_dir)
  part = load(data_dir, split, memory=held == 'memory')
  assert part.num_examples == len(expected)
  np.testing.assert_array_equal(joined(list(dataset.whole_images(part)), 'label'), expected)
  [epoch] = batches(part, 1, batch_size=part.num_examples)
  assert sorted(epoch['label']) == sorted(expected)


@pytest.mark.parametrize('split', ['trian', 'train[:', 'train[90:]', 'train[:200%]', ''])
def test_splits_that_are_not_there_are_refused(data_dir, split):
  with pytest.raises(UserError, match=r"squares/1\.0\.0 has no split .* 'train', 'validation'"):
    load(data_dir, split)


@pytest.mark.parametrize('split', ['train[5:5]', 'train[9:3]', 'train[9:3]+validation'])
def test_parts_that_hold_nothing_are_refused(data_dir, split):
  with pytest.raises(UserError, match=r'empty|no split'):
    load(data_dir, split)


@pytest.mark.parametrize(
  ('name', 'near'), [('cifar1O', 'cifar10'), ('imagnet2012', 'imagenet2012')]
)
def test_an_unknown_name_brings_near_ones(data_dir, name, near):
  with pytest.raises(UserError, match=rf"no data set '{name}'.*did you mean .*\b{near}\b"):
    dataset.load_split(name, 'train', data_dir, 32, 1)


def test_a_name_like_no_other_is_refused(data_dir):
  with pytest.raises(UserError, match="no data set 'qqqqqq'") as refused:
    dataset.load_split('qqqqqq', 'train', data_dir, 32, 1)
  assert 'did you mean' not in str(refused.value)
  assert data_dir in str(refused.value)


def test_a_version_may_be_given(data_dir):
  assert dataset.load_split('squares:1.0.0', 'train', data_dir, SIZE, 1).num_examples == TRAIN


@pytest.mark.parametrize('name', ['squares:9.9.9', 'cifar10:9.9.9'])
def test_a_version_that_is_not_there_is_refused(data_dir, name):
  with pytest.raises(UserError, match=name):
    dataset.load_split(name, 'train', data_dir, SIZE, 1)


def test_a_missing_folder_is_named(tmp_path):
  missing = str(tmp_path / 'nowhere')
  with pytest.raises(UserError, match=rf'no folder {missing} \(data\.data_dir\)'):
    dataset.load_split('cifar10', 'train', missing, 32, 1)


def test_a_data_set_that_cannot_be_prepared_says_why(tmp_path):
  _, tfds = dataset._import_tensorflow()

  class ArchiveIsMissing(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      return tfds.core.DatasetInfo(builder=self)

    def _split_generators(self, dl_manager):
      raise FileNotFoundError('put archive.tar there by hand')

    def _generate_examples(self):
      raise NotImplementedError

  with pytest.raises(UserError) as refused:
    dataset.load_split('archive_is_missing', 'train', str(tmp_path), 32, 1)
  first, second = str(refused.value).splitlines()
  assert 'put archive.tar there by hand' in first
  assert 'data.data_dir' in second


def test_images_without_labels_are_refused(data_dir):
  with pytest.raises(UserError, match=r'unlabelled/1\.0\.0 has no class label; it has image'):
    dataset.load_split('unlabelled', 'train', data_dir, SIZE, 1)


@pytest.mark.parametrize(
  ('split', 'image_size', 'words'),
  [('train', 32, 'set data.image_size to 8, not 32'), ('test', 8, "'validation', not 'test'")],
)
def test_digits_have_one_size_and_two_splits(split, image_size, words):
  with pytest.raises(UserError, match=words):
    dataset.load_split('digits', split, None, image_size, 1)


def test_digits_need_no_tensorflow():
  code = """
import sys
sys.modules['tensorflow'] = None
from alexnet_jax import dataset, errors
assert dataset.load_split('digits', 'train', None, 8, 0).num_examples == 1438
assert [name for name in sys.modules if name.startswith('tensorflow')] == ['tensorflow']
try:
  dataset.load_split('cifar10', 'test', None, 32, 1)
except errors.UserError as error:
  print(error)
"""
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', code],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=True,
  )
  assert 'needs TensorFlow' in done.stdout
  assert 'pip install -e ".[train]"' in done.stdout


@pytest.mark.parametrize(
  ('name', 'split', 'size', 'classes', 'first_class'),
  [
    ('cifar10', 'test[:100]', 32, 10, 'airplane'),
    # 68x121 to 2400x1600 pixels, some grey.
    ('imagenet2012', 'validation[:8]', 64, 1000, 'n01440764'),
  ],
)
def test_real_images_are_read(name, split, size, classes, first_class):
  if not (SHARED_DATA / name).is_dir():
    pytest.skip(f'{SHARED_DATA / name} is not there')
  held = dataset.load_split(name, split, str(SHARED_DATA), size, 100)
  assert held.images.shape == (held.num_examples, size, size, 3)
  assert held.num_examples in (100, 8)
  assert len(held.class_names) == classes
  assert held.class_names[0] == first_class
  assert np.all((held.labels >= 0) & (held.labels < classes))
  assert len(np.unique(held.labels)) >= 8
  assert 60 < held.images.mean() < 180


def numbered(count, closed=None):
  """Batches with their number; says when it is closed."""
  try:
    for i in itertools.count() if count is None else range(count):
      yield {'label': np.array([i])}
  finally:
    if closed is not None:
      closed.append(True)


def test_prefetch_hands_on_all_batches_in_order():
  got = list(dataset.prefetch(numbered(20), count=3))
  assert [int(batch['label'][0]) for batch in got] == list(range(20))


def test_prefetch_hands_on_an_exception_after_the_batches_before():
  def breaking():
    yield from numbered(3)
    raise ValueError('the third is the last')

  ahead = dataset.prefetch(breaking())
  assert [int(next(ahead)['label'][0]) for _ in range(3)] == [0, 1, 2]
  with pytest.raises(ValueError, match='the third is the last'):
    next(ahead)


@pytest.mark.parametrize('taken', [1, 5])
def test_prefetch_ends_its_thread_when_closed(taken):
  before, closed = set(threading.enumerate()), []
  source = numbered(None, closed)
  ahead = dataset.prefetch(source, count=2)
  for i in range(taken):
    assert int(next(ahead)['label'][0]) == i
  assert len(set(threading.enumerate()) - before) == 1
  ahead.close()
  assert set(threading.enumerate()) == before
  assert closed == [True]


def test_prefetched_training_batches_can_be_left_early(squares):
  before = set(threading.enumerate())
  made = dataset.train_batches(
    squares,
    seed=5,
    batch_size=12,
    first_step=0,
    crop_size=SIZE - 2,
    crop_offsets=3,
    images_per_draw=1,
  )
  with contextlib.closing(dataset.prefetch(made)) as ahead:
    got = list(itertools.islice(ahead, 4))
  assert set(threading.enumerate()) == before
  assert_same_batches(got, batches(squares, 4))
