"""Mean image and color axes: numpy's, in whole numbers until the end, kept in a file."""

import contextlib
import io
import re
import zipfile

import numpy as np
import pytest

from alexnet_jax.data import included, pipeline, splits, statistics
from alexnet_jax.utils.errors import UserError
from tests import stored
from tests.stored import BLOCK, SIZE, TRAIN, open_records


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  stored.store_numbers(folder)
  return folder


def by_numpy(images):
  """The same, in float64, from [N, S, S, 3]."""
  colors = images.reshape(-1, 3) / 255
  return images.mean(axis=0, dtype=np.float64), np.cov(colors.T, bias=True)


def assert_are_numpys(found, images):
  mean_image, covariance = by_numpy(images)
  values, vectors = found['eigenvalues'], found['eigenvectors']
  assert {array.dtype for array in found.values()} == {np.dtype(np.float64)}
  np.testing.assert_allclose(found['mean_image'], mean_image, rtol=0, atol=1e-9)
  np.testing.assert_allclose(values, np.linalg.eigvalsh(covariance), rtol=0, atol=1e-9)
  np.testing.assert_allclose((vectors * values) @ vectors.T, covariance, rtol=0, atol=1e-9)
  np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), rtol=0, atol=1e-9)
  assert np.all(vectors[np.abs(vectors).argmax(axis=0), range(3)] > 0)


@pytest.mark.parametrize('block', [None, BLOCK])
def test_statistics_of_a_split_are_numpys(data_dir, block):
  split, seen = open_records(data_dir, block=block), []
  found = pipeline.statistics(split, progress=seen.append)
  with contextlib.closing(pipeline.whole_images(split)) as batches:
    images = np.concatenate([batch['image'] for batch in batches])
  assert sum(seen) == len(images) == TRAIN
  assert_are_numpys(found, images)


def test_colors_that_go_together_have_the_axis_of_numpy():
  gray = np.random.default_rng(0).integers(0, 200, (5, 6, 6, 1))
  images = (gray * [0.9, 1.0, 1.1] + np.random.default_rng(1).normal(0, 9, (5, 6, 6, 3))).clip(0)
  images = images.astype(np.uint8)
  found = pipeline.statistics(splits.ArraySplit(images, np.zeros(5, np.int32), ['a']))
  assert_are_numpys(found, images)
  assert found['eigenvalues'][2] > 10 * found['eigenvalues'][1]
  assert np.all(found['eigenvectors'][:, 2] > 0)


def test_statistics_of_gray_images_have_no_negative_variance():
  split = included.digits('train')
  found = pipeline.statistics(split)
  assert np.all(found['eigenvalues'] >= 0)
  assert_are_numpys(found, split.images)


def test_sums_do_not_depend_on_order_and_parts():
  images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
  forth, back = statistics.Sums.zero(4), statistics.Sums.zero(4)
  for image in images:
    forth.add(image)
  for image in images[::-1]:
    back.add(image, statistics.color_products(image))
  assert forth.count == back.count == 8
  np.testing.assert_array_equal(forth.pixels, images.sum(axis=0, dtype=np.int64))
  np.testing.assert_array_equal(forth.pixels, back.pixels)
  np.testing.assert_array_equal(forth.products, back.products)
  rows = images.reshape(-1, 3).astype(np.int64)
  np.testing.assert_array_equal(forth.products, rows.T @ rows)


def test_products_of_the_largest_images_are_exact():
  white = np.full((1024, 1024, 3), 255, np.uint8)
  assert np.all(statistics.color_products(white) == 255**2 * 1024**2)


@pytest.fixture
def saved(tmp_path):
  """A file, and what is in it."""
  found = pipeline.statistics(included.digits('validation'))
  path = tmp_path / 'statistics.npz'
  statistics.save(path, found)
  return path, found


def test_what_is_saved_is_loaded_and_nothing_is_left_beside_it(saved):
  path, found = saved
  again = statistics.load(path, 8)
  assert again.keys() == found.keys()
  for name in found:
    assert again[name].dtype == np.float64
    np.testing.assert_array_equal(again[name], found[name])
  assert list(path.parent.iterdir()) == [path]


def test_statistics_of_another_resolution_are_refused(saved):
  path, _ = saved
  with pytest.raises(UserError, match=re.escape(f'{path} is of images of 8 x 8 pixels')) as refused:
    statistics.load(path, SIZE)
  assert f'data.image_size is {SIZE}; set it to these' in str(refused.value)


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'empty', 'text', 'other arrays', 'gone'])
def test_damaged_files_are_refused(saved, damage):
  path, _ = saved
  content = path.read_bytes()
  if damage == 'cut':
    path.write_bytes(content[: len(content) // 2])
  elif damage == 'flipped':
    middle = len(content) // 3
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
  elif damage == 'empty':
    path.write_bytes(b'')
  elif damage == 'text':
    path.write_text('no statistics')
  elif damage == 'other arrays':
    np.savez(path, mean_image=np.zeros((8, 8, 3)))
  else:
    path.unlink()
  with pytest.raises(UserError, match=re.escape(f'{path} cannot be read: ')) as refused:
    statistics.load(path, 8)
  assert len(str(refused.value).splitlines()) <= 2


def hostile_npz(path, descr='<f8', shape=(8, 8, 3), compression=zipfile.ZIP_STORED):
  """A .npz whose header says what is not there."""
  file = io.BytesIO()
  header = {'descr': descr, 'fortran_order': False, 'shape': shape}
  np.lib.format.write_array_header_1_0(file, header)
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name in ('mean_image', 'eigenvalues', 'eigenvectors'):
      archive.writestr(f'{name}.npy', file.getvalue() + bytes(100))


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'shape': (10**6, 10**6)}, 'mean_image.npy is to have the shape'),
    ({'shape': (10**12,), 'descr': '<U0'}, 'mean_image.npy is to have the shape'),
    ({'descr': '|O'}, 'mean_image.npy is to have the shape'),
    ({'compression': zipfile.ZIP_DEFLATED}, 'mean_image.npy is compressed'),
  ],
)
def test_what_a_header_declares_is_not_believed(tmp_path, changes, words):
  hostile_npz(tmp_path / 'statistics.npz', **changes)
  with pytest.raises(UserError, match=words):
    statistics.load(tmp_path / 'statistics.npz', 8)


def test_a_length_that_the_file_has_not_is_not_asked_for(tmp_path):
  path = tmp_path / 'statistics.npz'
  hostile_npz(path)
  content = path.read_bytes()
  at = content.index(b'PK\x01\x02') + 20  # the first member's compressed size, in the directory
  path.write_bytes(content[:at] + (2**30).to_bytes(4, 'little') + content[at + 4 :])
  with pytest.raises(UserError, match=r'mean_image.npy is to have 1,073,741,824 bytes'):
    statistics.load(path, 8)


@pytest.mark.parametrize(
  ('name', 'array'),
  [
    ('mean_image', np.zeros((8, 8, 3), np.float32)),
    ('mean_image', np.full((8, 8, 3), np.nan)),
    ('eigenvalues', np.zeros(2)),
    ('eigenvectors', np.zeros(9)),
  ],
)
def test_statistics_that_are_none_are_refused(saved, name, array):
  path, found = saved
  np.savez(path, **(found | {name: array}))
  with pytest.raises(
    UserError, match=f'cannot be read: its {name} has another shape or type, or is not finite'
  ):
    statistics.load(path, 8)
