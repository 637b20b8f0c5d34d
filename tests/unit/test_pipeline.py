"""Batches that follow from (seed, step) alone, in memory, streamed and for several processes."""

import contextlib
import itertools
import threading

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data import (
  augment,
  datasets,
  included,
  pipeline,
  record_split,
  splits,
  tfds_reader,
)
from alexnet_jax.data.images import fit_square
from alexnet_jax.utils.errors import UserError
from tests import stored
from tests.stored import BLOCK, SIZE, TRAIN, make_image, open_records


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A folder with the tfds data set 'numbers'."""
  folder = tmp_path_factory.mktemp('tfds')
  stored.store_numbers(folder)
  return folder


def open_numbers(data_dir, how, split='train'):
  """'numbers' in memory, streamed and shuffled whole, or in blocks."""
  if how == 'memory':
    return datasets.open_split(tfds_reader.open_builder('numbers', str(data_dir)), split, SIZE, 1)
  return open_records(data_dir, split, block=BLOCK if how == 'blocks' else None)


@pytest.fixture(scope='module', params=['memory', 'streamed', 'blocks'])
def numbers(request, data_dir):
  """The training images of 'numbers', held in each way."""
  return open_numbers(data_dir, request.param)


@pytest.fixture(scope='module')
def stream(numbers):
  """Ten batches of 12: three epochs of 40."""
  return batches(numbers, 10)


def coordinate_split(n=24, size=9):
  """Images whose channels are each pixel's row and column, and the image's number."""
  images = np.zeros((n, size, size, 3), np.uint8)
  images[..., 0] = np.arange(size)[:, None]
  images[..., 1] = np.arange(size)
  images[..., 2] = np.arange(n)[:, None, None]
  return splits.ArraySplit(images, np.arange(n, dtype=np.int32), [str(i) for i in range(n)])


def batches(split, count, first_step=0, **changes):
  """The first so many training batches."""
  arguments = {
    'seed': 5,
    'batch_size': 12,
    'crop_size': split.image_size - 2,
    'crop_offsets': 3,
    'images_per_draw': 1,
  }
  made = pipeline.train_batches(split, first_step=first_step, **(arguments | changes))
  with contextlib.closing(made):
    return list(itertools.islice(made, count))


def evaluation(split, batch_size, crop_size, rows=None):
  with contextlib.closing(pipeline.evaluation_batches(split, batch_size, crop_size, rows)) as made:
    return list(made)


def joined(parts, name):
  return np.concatenate([part[name] for part in parts])


def side_by_side(parts):
  """The global batches of which several processes have these rows."""
  return [
    {name: np.concatenate([part[name] for part in of_step]) for name in of_step[0]}
    for of_step in zip(*parts, strict=True)
  ]


def assert_same_batches(a, b):
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for name in x:
      assert x[name].dtype == y[name].dtype
      np.testing.assert_array_equal(x[name], y[name])


def test_digits_are_all_there_in_two_parts():
  from sklearn.datasets import load_digits

  train, validation = included.digits('train'), included.digits('validation')
  assert (train.num_examples, validation.num_examples) == (1438, 359)
  assert list(train.class_names) == list('0123456789')
  for split in (train, validation):
    assert split.image_size == 8
    assert split.images.shape == (split.num_examples, 8, 8, 3)
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
    assert np.all(split.images == split.images[..., :1])

  def as_rows(gray, labels):
    return sorted(
      (*image.ravel().tolist(), int(label)) for image, label in zip(gray, labels, strict=True)
    )

  bunch = load_digits()
  gray = np.concatenate([train.images, validation.images])[..., 0]
  ours = as_rows(gray, np.concatenate([train.labels, validation.labels]))
  assert ours == as_rows(np.round(bunch.images * 255 / 16).astype(np.uint8), bunch.target)


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_digits_are_the_same_every_time(split):
  first, again = included.digits(split), included.digits(split)
  np.testing.assert_array_equal(first.images, again.images)
  np.testing.assert_array_equal(first.labels, again.labels)


def test_digits_have_two_splits():
  with pytest.raises(UserError, match="'train' and 'validation', not 'test'"):
    included.digits('test')


def test_a_split_that_fits_is_held_in_memory(data_dir):
  builder = tfds_reader.open_builder('numbers', str(data_dir))
  held = datasets.open_split(builder, 'train', 200, 5)  # 40 images of 200x200x3 bytes: 4.8 MB
  assert isinstance(held, splits.ArraySplit)
  assert held.images.shape == (TRAIN, 200, 200, 3)
  assert isinstance(datasets.open_split(builder, 'train', 200, 4), record_split.RecordSplit)


@pytest.mark.parametrize('batch_size', [1, 12, 40, 100])
def test_each_epoch_holds_every_example_once(batch_size):
  split = coordinate_split(TRAIN)
  got = batches(split, 3 * TRAIN // batch_size, batch_size=batch_size)
  labels = joined(got, 'label')
  assert all(len(batch['label']) == batch_size for batch in got)
  for start in range(0, len(labels) // TRAIN * TRAIN, TRAIN):
    assert sorted(labels[start : start + TRAIN]) == list(range(TRAIN))


def test_streams_run_on_across_epochs(stream):
  labels = joined(stream, 'label').reshape(3, TRAIN)
  for epoch in labels:
    assert sorted(epoch) == list(range(TRAIN))
  assert not np.array_equal(labels[0], labels[1])
  assert not np.array_equal(labels[1], labels[2])
  for batch in stream:
    assert batch['image'].shape == (12, SIZE - 2, SIZE - 2, 3)
    assert batch['image'].dtype == np.uint8
    assert (batch['offset'].dtype, batch['label'].dtype) == (np.int32, np.int32)


def test_batches_follow_from_the_seed(numbers, stream):
  again, others = (batches(numbers, 2, seed=seed) for seed in (5, 6))
  assert_same_batches(stream[:2], again)
  for name in ('label', 'offset'):
    assert not np.array_equal(joined(again, name), joined(others, name))


def test_the_order_does_not_depend_on_the_batches(numbers, stream):
  others = batches(numbers, 3, batch_size=20, crop_size=SIZE, crop_offsets=1)
  np.testing.assert_array_equal(joined(others, 'label'), joined(stream, 'label')[:60])


@pytest.mark.parametrize('first_step', [1, 3, 6, 8])  # steps 3 and 6 hold the ends of epochs
def test_a_run_that_starts_at_a_step_skips_what_came_before(numbers, stream, first_step):
  assert_same_batches(batches(numbers, 2, first_step), stream[first_step : first_step + 2])


def test_crops_are_the_examples_cut_at_their_offsets(stream):
  for batch in stream[:5]:
    for image, (row, column), label in zip(*batch.values(), strict=True):
      whole = np.asarray(fit_square(Image.fromarray(make_image(label)), SIZE))
      np.testing.assert_array_equal(image, whole[row : row + SIZE - 2, column : column + SIZE - 2])


def test_memory_and_streamed_give_the_same_batches(data_dir):
  held, streamed = (open_numbers(data_dir, how) for how in ('memory', 'streamed'))
  assert isinstance(held, splits.ArraySplit)
  assert held.block_size == streamed.block_size == TRAIN
  assert held.class_names == streamed.class_names
  assert_same_batches(batches(held, 8), batches(streamed, 8))


@pytest.mark.parametrize('cuts', [(0, 5, 12), (0, 1, 6, 12)])
def test_processes_read_their_rows_of_the_global_batch(numbers, stream, cuts):
  # Steps 3 and 6 hold the ends of epochs.
  rows = itertools.starmap(slice, itertools.pairwise(cuts))
  parts = [batches(numbers, 7, rows=of_process) for of_process in rows]
  assert_same_batches(side_by_side(parts), stream[:7])
  resumed = [batches(numbers, 2, 3, rows=slice(*cut)) for cut in itertools.pairwise(cuts)]
  assert_same_batches(side_by_side(resumed), stream[3:5])


@pytest.mark.parametrize('cuts', [(0, 5, 12), (0, 1, 6, 12)])
def test_processes_evaluate_every_image_once(numbers, cuts):
  # The last of four batches has 4 images: processes that begin later have none of them.
  whole = evaluation(numbers, 12, SIZE - 4)
  parts = [
    evaluation(numbers, 12, SIZE - 4, slice(*of_process)) for of_process in itertools.pairwise(cuts)
  ]
  assert_same_batches(side_by_side(parts), whole)
  assert [len(part) for part in parts] == [4] * len(parts)
  assert not parts[-1][-1]['mask'].any()
  labels = np.concatenate([joined(part, 'label')[joined(part, 'mask')] for part in parts])
  assert sorted(labels) == list(range(TRAIN))


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


@pytest.mark.parametrize('crop_offsets', [32, 33])
def test_the_papers_crops_have_32_offsets_and_the_sources_33(crop_offsets):
  split = splits.ArraySplit(np.zeros((2, 256, 256, 3), np.uint8), np.zeros(2, np.int32), ['a'])
  got = batches(split, 400, batch_size=2, crop_size=224, crop_offsets=crop_offsets)
  offsets = joined(got, 'offset')
  for axis in (0, 1):
    assert set(offsets[:, axis].tolist()) == set(range(crop_offsets))
  with pytest.raises(UserError, match='1 to 33 offsets'):
    batches(split, 1, crop_size=224, crop_offsets=34)


@pytest.mark.parametrize('n', [24, 29])  # 29: batches of later epochs begin within one
def test_consecutive_images_of_a_batch_share_a_draw(n):
  got = batches(coordinate_split(n), 9, batch_size=12, images_per_draw=5)
  draws = np.stack([batch['offset'] for batch in got])  # [9, 12, 2]
  for first in (0, 5, 10):
    group = draws[:, first : first + 5]
    assert np.all(group == group[:, :1])
  assert len(np.unique(draws[:, ::5].reshape(-1, 2), axis=0)) > 6  # of nine


def test_images_that_share_a_crop_share_a_coin():
  batch_size, draw = 200, 8
  [batch] = batches(coordinate_split(), 1, batch_size=batch_size, images_per_draw=draw)
  images = np.zeros((batch_size, 1, 2, 1), np.float32) + np.float32([[0], [1]])
  flipped = augment.flip(jax.random.key(0), images, np.arange(batch_size), draw)
  coins = np.asarray(flipped)[:, 0, 0, 0]
  groups = np.stack([*batch['offset'].T, coins], axis=-1).reshape(-1, draw, 3)
  assert np.all(groups == groups[:, :1])
  assert len(np.unique(groups[:, 0], axis=0)) > 9  # both coins at some of the nine offsets


@pytest.mark.parametrize(
  ('crop_size', 'crop_offsets', 'fits'),
  [(5, 6, '1 to 5 offsets'), (5, 0, '1 to 5 offsets'), (9, 2, '1 to 1 offsets'), (10, 1, 'none')],
)
def test_crops_that_do_not_fit_are_refused(crop_size, crop_offsets, fits):
  with pytest.raises(UserError, match=rf'crop_offsets is {crop_offsets}.*at {fits}'):
    batches(coordinate_split(), 1, crop_size=crop_size, crop_offsets=crop_offsets)


@pytest.mark.parametrize('batch_size', [8, 12, 40, 64])
def test_evaluation_counts_every_image_once_in_order(batch_size):
  got = evaluation(coordinate_split(TRAIN), batch_size, 7)
  assert len(got) == -(-TRAIN // batch_size)
  for batch in got:
    assert {len(array) for array in batch.values()} == {batch_size}
    assert batch['mask'].dtype == bool
  assert all(batch['mask'].all() for batch in got[:-1])
  mask = joined(got, 'mask')
  assert mask.sum() == TRAIN
  assert joined(got, 'label')[mask].tolist() == list(range(TRAIN))


def test_evaluation_cuts_the_center(numbers):
  for batch in evaluation(numbers, 20, SIZE - 4):
    assert np.all(batch['offset'] == 2)
    for image, label in zip(batch['image'], batch['label'], strict=True):
      whole = np.asarray(fit_square(Image.fromarray(make_image(label)), SIZE))
      np.testing.assert_array_equal(image, whole[2:-2, 2:-2])


def test_evaluation_crops_that_do_not_fit_are_refused():
  with pytest.raises(UserError, match=r'10 pixels \(model.input_size\).* 9 \(data.image_size\)'):
    evaluation(coordinate_split(), 8, 10)


def test_whole_images_come_in_order_across_reads():
  got = list(pipeline.whole_images(included.digits('validation')))  # 359, by 256
  np.testing.assert_array_equal(joined(got, 'label'), included.digits('validation').labels)
  np.testing.assert_array_equal(joined(got, 'image'), included.digits('validation').images)


def numbered(count, closed=None):
  """Batches with their number; says when it is closed."""
  try:
    for i in itertools.count() if count is None else range(count):
      yield {'label': np.array([i])}
  finally:
    if closed is not None:
      closed.append(True)


def test_prefetch_hands_on_all_batches_in_order():
  got = list(pipeline.prefetch(numbered(20)))
  assert [int(batch['label'][0]) for batch in got] == list(range(20))


def test_prefetch_hands_on_an_exception_after_the_batches_before():
  def breaking():
    yield from numbered(3)
    raise ValueError('the third is the last')

  ahead = pipeline.prefetch(breaking())
  assert [int(next(ahead)['label'][0]) for _ in range(3)] == [0, 1, 2]
  with pytest.raises(ValueError, match='the third is the last'):
    next(ahead)


@pytest.mark.parametrize('taken', [1, 5])
def test_prefetch_ends_its_thread_when_closed(taken):
  before, closed = set(threading.enumerate()), []
  source = numbered(None, closed)
  ahead = pipeline.prefetch(source)
  for i in range(taken):
    assert int(next(ahead)['label'][0]) == i
  assert len(set(threading.enumerate()) - before) == 1
  ahead.close()
  assert set(threading.enumerate()) == before
  assert closed == [True]


def test_prefetched_training_batches_can_be_left_early(numbers, stream):
  before = set(threading.enumerate())
  made = pipeline.train_batches(
    numbers,
    seed=5,
    batch_size=12,
    first_step=0,
    crop_size=SIZE - 2,
    crop_offsets=3,
    images_per_draw=1,
  )
  with contextlib.closing(pipeline.prefetch(made)) as ahead:
    got = list(itertools.islice(ahead, 4))
  assert set(threading.enumerate()) == before
  assert_same_batches(got, stream[:4])


@pytest.mark.parametrize(
  ('images', 'message'),
  [
    (np.zeros((2, 4, 4, 3), np.float32), r'images are float32\[2, 4, 4, 3\]; pass uint8'),
    (np.zeros((2, 4, 5, 3), np.uint8), r'images are uint8\[2, 4, 5, 3\]; pass uint8'),
    (np.zeros((3, 4, 4, 3), np.uint8), 'there are 3 images, but 2 labels'),
  ],
)
def test_arrays_that_are_not_a_split_are_refused(images, message):
  with pytest.raises(UserError, match=message):
    splits.ArraySplit(images, np.zeros(2, np.int32), ['a'])
