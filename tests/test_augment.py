"""Mirror images, lighting and the mean, against numpy and their statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import augment
from alexnet_jax.errors import UserError

flip = jax.jit(augment.flip, static_argnames='draw')
lighting = jax.jit(augment.lighting, static_argnames=('scale', 'rescale'))
jitted_training_pixels = jax.jit(augment.training_pixels, static_argnames='options')

KEY = jax.random.key(7)
# ImageNet's, from cuda-convnet2's make-data/input_meta: standard deviations on 0 to 255, and axes.
STANDARD_DEVIATIONS = np.array([19.7208, 37.0939, 121.7801])
EIGENVECTORS = np.array(
  [
    [0.41796, -0.81698, 0.39731],
    [-0.71258, -0.02354, 0.70120],
    [-0.56351, -0.57618, -0.59200],
  ]
).T
OPTIONS = augment.Options(
  mean='pixel',
  pixel_scale=1.0,
  flip=False,
  images_per_draw=1,
  lighting_scale='eigenvalues',
  lighting_rescale=False,
)


def make_statistics(size=8, eigenvalues=(STANDARD_DEVIATIONS / 255) ** 2):
  rng = np.random.default_rng(1)
  return augment.Statistics(
    mean_image=jnp.asarray(rng.uniform(0, 255, (size, size, 3)), jnp.float32),
    eigenvalues=jnp.asarray(eigenvalues, jnp.float32),
    eigenvectors=jnp.asarray(EIGENVECTORS, jnp.float32),
  )


def random_images(n, size=6):
  return np.random.default_rng(2).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def random_offsets(n, room=3):
  return np.random.default_rng(3).integers(0, room, (n, 2), dtype=np.int32)


def replace(options=OPTIONS, **changes):
  return augment.Options(**{**vars(options), **changes})


def numpy_centred(images, offsets, mean_image, mean):
  size, border = images.shape[1], (mean_image.shape[0] - images.shape[1]) // 2
  centred = []
  for image, (row, column) in zip(images, offsets, strict=True):
    if mean == 'centre':
      row = column = border
    subtracted = mean_image[row : row + size, column : column + size]
    if mean == 'channel':
      subtracted = mean_image.mean(axis=(0, 1))
    centred.append(image.astype(np.float64) - subtracted)
  return np.stack(centred)


@pytest.mark.parametrize('mean', ['pixel', 'centre', 'channel'])
def test_subtract_mean_is_numpys(mean):
  images, offsets, mean_image = random_images(9), random_offsets(9), make_statistics().mean_image
  ours = augment.subtract_mean(jnp.asarray(images), jnp.asarray(offsets), mean_image, mean)
  assert ours.dtype == jnp.float32
  expected = numpy_centred(images, offsets, np.asarray(mean_image), mean)
  np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_unknown_mean_is_refused():
  images, offsets = jnp.asarray(random_images(1)), jnp.zeros((1, 2), jnp.int32)
  with pytest.raises(UserError, match=r"augment\.mean is 'median'.*'pixel', 'centre', 'chan"):
    augment.subtract_mean(images, offsets, make_statistics().mean_image, 'median')


def test_unknown_lighting_scale_is_refused():
  pixels = np.zeros((1, 2, 2, 3), np.float32)
  with pytest.raises(UserError, match=r"lighting\.scale is 'variance'.*'eigenvalues', 'stand"):
    light(pixels, 0.1, scale='variance')


def coins(n, key=KEY, draw=1, positions=None):
  """Which of n images of pixels (0, 1) are mirrored."""
  pixels = np.tile(np.array([0, 1], np.uint8).reshape(1, 1, 2, 1), (n, 1, 1, 1))
  positions = np.arange(n) if positions is None else positions
  return np.asarray(flip(key, pixels, positions, draw=draw))[:, 0, 0, 0] == 1


def test_half_of_the_images_are_mirrored():
  heads = coins(2000)
  assert abs(heads.mean() - 0.5) < 0.05
  other = coins(2000, key=jax.random.key(8))
  assert 0.4 < np.mean(heads != other) < 0.6


def test_each_image_is_itself_or_its_mirror():
  images = random_images(40)
  flipped = np.asarray(flip(KEY, images, np.arange(40)))
  heads = coins(40)
  np.testing.assert_array_equal(flipped[heads], images[heads][:, :, ::-1])
  np.testing.assert_array_equal(flipped[~heads], images[~heads])
  assert heads.any()
  assert not heads.all()


def test_mirroring_depends_on_the_place_in_the_global_batch_alone():
  places = np.random.default_rng(4).integers(0, 2000, 40)
  np.testing.assert_array_equal(coins(40, positions=places), coins(2000)[places])


def test_32_images_share_a_coin():
  heads = coins(32 * 40, draw=32).reshape(40, 32)
  assert np.all(heads == heads[:, :1])
  assert 0.2 < heads[:, 0].mean() < 0.8


def light(pixels, std, scale='eigenvalues', rescale=False, eigenvalues=None, positions=None):
  statistics = make_statistics(2, *([] if eigenvalues is None else [eigenvalues]))
  positions = np.arange(len(pixels)) if positions is None else positions
  return lighting(KEY, pixels, positions, statistics, np.float32(std), scale=scale, rescale=rescale)


def shifts(n, **arguments):
  """The colours by which n images are shifted."""
  return np.asarray(light(np.zeros((n, 1, 1, 3), np.float32), 0.1, **arguments))[:, 0, 0]


def test_lighting_shifts_all_pixels_of_an_image_alike():
  images = random_images(20).astype(np.float32)
  shift = np.asarray(light(images, 0.1)) - images
  np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1, :1], shift.shape), atol=1e-4)
  np.testing.assert_allclose(shift[:, 0, 0], shifts(20), atol=1e-4)
  assert len(np.unique(shift[:, 0, 0, 0].round(3))) == 20


@pytest.mark.parametrize(
  ('scale', 'third'),
  # Along ImageNet's third axis, eigenvalue 0.228: grey levels in the paper and in its source.
  [('eigenvalues', 5.8), ('standard_deviations', 12.2)],
)
def test_lighting_follows_the_principal_axes(scale, third):
  n = 8000
  along = shifts(n, scale=scale) @ EIGENVECTORS
  values = STANDARD_DEVIATIONS / 255
  stds = 0.1 * 255 * (values**2 if scale == 'eigenvalues' else values)
  np.testing.assert_allclose(along.std(axis=0), stds, rtol=0.04)
  assert along[:, 2].std() == pytest.approx(third, rel=0.04)
  assert np.all(np.abs(along.mean(axis=0)) < 4 * stds / np.sqrt(n))
  assert np.all(np.abs(np.corrcoef(along.T) - np.eye(3)) < 4 / np.sqrt(n))


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_an_axis_without_variance_is_left_alone(axis):
  eigenvalues = np.eye(3)[axis] * 0.2
  shift = shifts(20, eigenvalues=eigenvalues)
  lengths = shift @ EIGENVECTORS[:, axis]
  np.testing.assert_allclose(shift, lengths[:, None] * EIGENVECTORS[:, axis], atol=1e-3)
  assert np.abs(lengths).max() > 1


def test_lighting_depends_on_the_place_in_the_global_batch_alone():
  places = np.random.default_rng(4).integers(0, 8000, 20)
  np.testing.assert_allclose(shifts(20, positions=places), shifts(8000)[places], rtol=1e-5)


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('scale', ['eigenvalues', 'standard_deviations'])
def test_std_0_changes_nothing(scale, rescale):
  pixels = random_images(20).astype(np.float32) - 100
  np.testing.assert_array_equal(light(pixels, 0.0, scale, rescale), pixels)


def test_rescale_divides_by_1_1():
  pixels = random_images(20).astype(np.float32) - 100
  np.testing.assert_allclose(
    light(pixels, 0.1, rescale=True), np.asarray(light(pixels, 0.1)) / 1.1, rtol=1e-5, atol=1e-4
  )


def training_pixels(images, offsets, options, std=0.0):
  pixels = jitted_training_pixels(
    KEY,
    images,
    offsets,
    np.arange(len(images)),
    make_statistics(),
    np.float32(std),
    options=options,
  )
  return np.asarray(pixels)


@pytest.mark.parametrize('mean', ['pixel', 'centre', 'channel'])
def test_training_without_augmentation_is_evaluation(mean):
  images, offsets = random_images(6), random_offsets(6)
  options = replace(mean=mean, pixel_scale=1 / 64, lighting_rescale=True)
  evaluated = augment.evaluation_pixels(
    jnp.asarray(images), jnp.asarray(offsets), make_statistics(), options
  )
  np.testing.assert_array_equal(training_pixels(images, offsets, options), evaluated)
  expected = numpy_centred(images, offsets, np.asarray(make_statistics().mean_image), mean) / 64
  np.testing.assert_allclose(evaluated, expected, atol=1e-4)


@pytest.mark.parametrize('mean', ['pixel', 'centre', 'channel'])
def test_the_mean_at_a_crops_place_is_mirrored_with_it_and_others_not(mean):
  images, offsets = random_images(40), random_offsets(40)
  mean_image = np.asarray(make_statistics().mean_image)
  as_is = numpy_centred(images, offsets, mean_image, mean)
  if mean == 'pixel':
    mirrored = as_is[:, :, ::-1]
  else:
    mirrored = numpy_centred(images[:, :, ::-1], offsets, mean_image, mean)
  ours = training_pixels(images, offsets, replace(mean=mean, flip=True))
  same, mirror = (np.abs(ours - other).max(axis=(1, 2, 3)) < 1e-3 for other in (as_is, mirrored))
  assert np.all(same ^ mirror)
  assert same.any()
  assert mirror.any()


def test_mirroring_and_lighting_are_drawn_apart():
  # With one key for both, an image's coin would be the sign of one of its shifts.
  images = np.tile(np.arange(6, dtype=np.uint8)[None, None, :, None], (400, 6, 1, 3))
  offsets = np.ones((400, 2), np.int32)
  ours = training_pixels(images, offsets, replace(mean='channel', flip=True), std=0.1)
  heads = ours[:, 0, 0, 0] > ours[:, 0, -1, 0]
  assert 0.4 < heads.mean() < 0.6
  for along in (ours.mean(axis=(1, 2)) @ EIGENVECTORS).T:
    assert abs(np.corrcoef(heads, along)[0, 1]) < 0.2


def test_training_pixels_are_scaled_after_lighting():
  images, offsets = random_images(20), random_offsets(20)
  options = replace(flip=True, lighting_scale='standard_deviations')
  full = training_pixels(images, offsets, options, std=0.1)
  scaled = training_pixels(images, offsets, replace(options, pixel_scale=1 / 64), std=0.1)
  np.testing.assert_allclose(scaled, full / 64, rtol=1e-6)
  plain = training_pixels(images, offsets, options)
  assert np.abs(full - plain).max() > 1
