"""Turns, mirror images, lighting and the mean, against numpy and their statistics."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from alexnet_jax import experiment
from alexnet_jax.data import augment
from alexnet_jax.utils.errors import UserError
from tests.small import small_config

turn = jax.jit(augment.rotate_image)
rotate = jax.jit(augment.rotate, static_argnames='degrees')
flip = jax.jit(augment.flip, static_argnames='images_per_draw')
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
  rotation_degrees=0.0,
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


def numpy_centered(images, offsets, mean_image, mean):
  size, border = images.shape[1], (mean_image.shape[0] - images.shape[1]) // 2
  centered = []
  for image, (row, column) in zip(images, offsets, strict=True):
    if mean == 'center':
      row = column = border
    subtracted = mean_image[row : row + size, column : column + size]
    if mean == 'channel':
      subtracted = mean_image.mean(axis=(0, 1))
    centered.append(image.astype(np.float64) - subtracted)
  return np.stack(centered)


@pytest.mark.parametrize('mean', ['pixel', 'center', 'channel'])
def test_subtract_mean_is_numpys(mean):
  images, offsets, mean_image = random_images(9), random_offsets(9), make_statistics().mean_image
  ours = augment.subtract_mean(jnp.asarray(images), jnp.asarray(offsets), mean_image, mean)
  assert ours.dtype == jnp.float32
  expected = numpy_centered(images, offsets, np.asarray(mean_image), mean)
  np.testing.assert_allclose(ours, expected, atol=1e-3)


def numpy_turned(image, angle):
  """Turned clockwise: all pixels of an image, weighted by how near they are to each place."""
  rows, columns = (np.arange(size) for size in image.shape[:2])
  place = columns - columns.mean() + 1j * (rows - rows.mean())[:, None]  # [H, W]
  place = place * np.exp(-1j * angle)
  row = np.clip(place.imag + rows.mean(), 0, rows[-1])
  column = np.clip(place.real + columns.mean(), 0, columns[-1])
  near_row = np.maximum(0, 1 - np.abs(row[..., None] - rows))
  near_column = np.maximum(0, 1 - np.abs(column[..., None] - columns))
  return np.einsum('yxi,yxj,ijc->yxc', near_row, near_column, image.astype(np.float64))


@pytest.mark.parametrize('shape', [(7, 7, 3), (5, 8, 3), (8, 1, 1)])
@pytest.mark.parametrize('degrees', [-180, -90.5, -30, -0.01, 0, 12, 45, 90, 133])
def test_turn_is_numpys(shape, degrees):
  image = np.random.default_rng(5).uniform(0, 255, shape).astype(np.float32)
  angle = math.radians(degrees)
  ours = turn(image, np.float32(angle))
  assert ours.dtype == jnp.float32
  np.testing.assert_allclose(ours, numpy_turned(image, angle), atol=2e-3)


def angles(n, degrees, key=KEY, positions=None):
  """The angles by which n images are turned, read off pixels that hold their own places."""
  places = np.stack(np.mgrid[:3, :3], axis=-1).astype(np.uint8)
  positions = np.arange(n) if positions is None else positions
  turned = np.asarray(rotate(key, np.tile(places, (n, 1, 1, 1)), positions, degrees=degrees))
  right_of_center = turned[:, 1, 2] - 1.0
  return np.degrees(np.arctan2(-right_of_center[:, 0], right_of_center[:, 1]))


@pytest.mark.parametrize('degrees', [0.5, 30.0, 180.0])
def test_angles_are_uniform_up_to_the_one_stated(degrees):
  n = 4000
  drawn = np.sort(angles(n, degrees)) / degrees
  assert np.all(np.abs(drawn) <= 1 + 1e-4)
  # Kolmogorov and Smirnov's distance from the uniform distribution: below this, 999 in 1000.
  assert np.abs(drawn - np.linspace(-1, 1, n)).max() / 2 < 1.95 / np.sqrt(n)
  other = angles(n, degrees, key=jax.random.key(8)) / degrees
  assert abs(np.corrcoef(angles(n, degrees), other)[0, 1]) < 4 / np.sqrt(n)


def test_angles_depend_on_the_place_in_the_global_batch_alone():
  places = np.random.default_rng(4).integers(0, 2000, 40)
  some, every = angles(40, 30.0, positions=places), angles(2000, 30.0)
  np.testing.assert_allclose(some, every[places], atol=1e-4)


@pytest.mark.parametrize('degrees', [-1.0, 180.5, math.inf, math.nan])
def test_an_angle_out_of_range_is_named(degrees):
  with pytest.raises(UserError, match=r'^augment\.rotation_degrees is .*from 0 to 180'):
    experiment.check(small_config({'augment.rotation_degrees': degrees}))


def coins(n, key=KEY, draw=1, positions=None):
  """Which of n images of pixels (0, 1) are mirrored."""
  pixels = np.tile(np.array([0, 1], np.uint8).reshape(1, 1, 2, 1), (n, 1, 1, 1))
  positions = np.arange(n) if positions is None else positions
  return np.asarray(flip(key, pixels, positions, images_per_draw=draw))[:, 0, 0, 0] == 1


def test_half_of_the_images_are_mirrored():
  heads = coins(2000)
  assert abs(heads.mean() - 0.5) < 0.05
  other = coins(2000, key=jax.random.key(8))
  assert 0.4 < np.mean(heads != other) < 0.6


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
  """The colors by which n images are shifted."""
  return np.asarray(light(np.zeros((n, 1, 1, 3), np.float32), 0.1, **arguments))[:, 0, 0]


def test_lighting_shifts_all_pixels_of_an_image_alike():
  images = random_images(20).astype(np.float32)
  shift = np.asarray(light(images, 0.1)) - images
  np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1, :1], shift.shape), atol=1e-4)
  np.testing.assert_allclose(shift[:, 0, 0], shifts(20), atol=1e-4)
  assert len(np.unique(shift[:, 0, 0, 0].round(3))) == 20


def gray_levels(scale):
  """What the shifts' standard deviations along ImageNet's axes should be."""
  values = STANDARD_DEVIATIONS / 255
  return 255 * 0.1 * (values**2 if scale == 'eigenvalues' else values)


@pytest.mark.parametrize('scale', augment.LIGHTING_SCALES)
def test_the_covariance_of_shifts_is_the_formulas(scale):
  n = 100_000
  drawn = shifts(n, scale=scale).astype(np.float64)
  stds = gray_levels(scale)
  expected = EIGENVECTORS @ np.diag(stds**2) @ EIGENVECTORS.T
  variances = np.diag(expected)
  sampling_error = np.sqrt((np.outer(variances, variances) + expected**2) / n)
  assert np.all(np.abs(np.cov(drawn.T) - expected) < 4 * sampling_error)
  # Each axis in its own unit, so that the third, 40 times the first, hides nothing.
  along = drawn @ EIGENVECTORS / stds
  np.testing.assert_allclose(np.cov(along.T), np.eye(3), atol=4 * np.sqrt(2 / n))
  assert np.all(np.abs(along.mean(axis=0)) < 4 / np.sqrt(n))


@pytest.mark.parametrize(
  ('scale', 'rescale', 'third'),
  [
    ('eigenvalues', False, 5.82),  # the paper
    ('standard_deviations', False, 12.18),
    ('standard_deviations', True, 11.07),  # the 2012 code
  ],
)
def test_gray_levels_along_imagenets_third_axis(scale, rescale, third):
  assert gray_levels(scale)[2] / (1.1 if rescale else 1) == pytest.approx(third, abs=0.005)
  along = shifts(100_000, scale=scale, rescale=rescale) @ EIGENVECTORS[:, 2]
  assert along.std() == pytest.approx(third, rel=0.01)


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


def training_pixels(images, offsets, options, std=0.0, positions=None):
  pixels = jitted_training_pixels(
    KEY,
    images,
    offsets,
    np.arange(len(images)) if positions is None else positions,
    make_statistics(),
    np.float32(std),
    options=options,
  )
  return np.asarray(pixels)


@pytest.mark.parametrize('mean', ['pixel', 'center', 'channel'])
def test_training_without_augmentation_is_evaluation(mean):
  images, offsets = random_images(6), random_offsets(6)
  options = replace(mean=mean, pixel_scale=1 / 64, lighting_rescale=True)
  evaluated = augment.evaluation_pixels(
    jnp.asarray(images), jnp.asarray(offsets), make_statistics(), options
  )
  np.testing.assert_array_equal(training_pixels(images, offsets, options), evaluated)
  expected = numpy_centered(images, offsets, np.asarray(make_statistics().mean_image), mean) / 64
  np.testing.assert_allclose(evaluated, expected, atol=1e-4)


def numpy_training_pixels(images, offsets, positions, std, options):
  """`augment.training_pixels` in float64, step by step as the documents have it."""
  # The third key came later: it must not change what the first two draw.
  flip_key, lighting_key = jax.random.split(KEY)
  rotation_key = jax.random.split(KEY, 3)[2]
  statistics = make_statistics()
  mean_image = np.asarray(statistics.mean_image, np.float64)

  def move(image, place):
    if options.rotation_degrees:
      uniform = jax.random.uniform(jax.random.fold_in(rotation_key, place))
      image = numpy_turned(image, math.radians(options.rotation_degrees * (2 * uniform - 1)))
    coin = jax.random.bernoulli(jax.random.fold_in(flip_key, place // options.images_per_draw))
    return image[:, ::-1] if options.flip and coin else image

  def moved(images):
    return np.stack(list(map(move, images, positions)))

  def shift(place):
    normal = np.asarray(jax.random.normal(jax.random.fold_in(lighting_key, place), (3,)))
    variances = np.asarray(statistics.eigenvalues, np.float64)
    values = variances if options.lighting_scale == 'eigenvalues' else np.sqrt(variances)
    return 255 * EIGENVECTORS @ (std * normal * values)

  if options.mean == 'pixel':
    pixels = moved(numpy_centered(images, offsets, mean_image, options.mean))
  else:
    pixels = numpy_centered(moved(images), offsets, mean_image, options.mean)
  lit = pixels + np.stack([shift(place) for place in positions])[:, None, None]
  return options.pixel_scale * (lit / (1 + std) if options.lighting_rescale else lit)


def test_each_color_may_have_a_scale_of_its_own():
  images, offsets = random_images(4), random_offsets(4)
  options = replace(pixel_scale=(0.5, 0.25, 2.0))
  ours = training_pixels(images, offsets, options)
  once = training_pixels(images, offsets, OPTIONS)
  np.testing.assert_array_equal(ours, once * np.float32([0.5, 0.25, 2.0]))
  evaluated = augment.evaluation_pixels(
    jnp.asarray(images), jnp.asarray(offsets), make_statistics(), options
  )
  np.testing.assert_array_equal(ours, evaluated)


@pytest.mark.parametrize(
  ('mean', 'degrees', 'scale', 'rescale'),
  [  # every pair of values of any two
    ('pixel', 0.0, 'eigenvalues', False),
    ('pixel', 30.0, 'standard_deviations', True),
    ('center', 0.0, 'standard_deviations', True),
    ('center', 30.0, 'eigenvalues', False),
    ('channel', 0.0, 'eigenvalues', True),
    ('channel', 30.0, 'standard_deviations', False),
  ],
)
def test_training_pixels_are_numpys(mean, degrees, scale, rescale):
  images, offsets, positions = random_images(12), random_offsets(12), np.arange(100, 112)
  options = augment.Options(
    mean=mean,
    pixel_scale=1 / 64,
    flip=True,
    images_per_draw=2,
    rotation_degrees=degrees,
    lighting_scale=scale,
    lighting_rescale=rescale,
  )
  ours = training_pixels(images, offsets, options, 0.1, positions)
  assert ours.dtype == np.float32
  expected = numpy_training_pixels(images, offsets, positions, 0.1, options)
  np.testing.assert_allclose(ours, expected, atol=1e-4)
  mirrored = coins(12, jax.random.split(KEY)[0], draw=2, positions=positions)
  assert 0 < mirrored.sum() < 12


@pytest.mark.parametrize('mean', augment.MEANS)
def test_training_pixels_do_not_depend_on_the_layout(mean):
  images, offsets, positions = random_images(16), random_offsets(16), np.arange(16)
  options = replace(mean=mean, flip=True, rotation_degrees=30.0)
  statistics, std = make_statistics(), jnp.float32(0.1)

  def on_device(images, offsets, positions):
    return augment.training_pixels(KEY, images, offsets, positions, statistics, std, options)

  mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  spread = jax.jit(jax.shard_map(on_device, mesh=mesh, in_specs=P('data'), out_specs=P('data')))(
    images, offsets, positions
  )
  np.testing.assert_allclose(spread, training_pixels(images, offsets, options, 0.1), atol=1e-3)


@pytest.mark.parametrize(('degrees', 'turned'), [(0.0, False), (30.0, True)])
def test_without_rotation_the_program_holds_nothing_of_it(degrees, turned):
  images, offsets, positions = random_images(4), random_offsets(4), np.arange(4)
  options = replace(flip=True, rotation_degrees=degrees)
  arguments = KEY, images, offsets, positions, make_statistics(), np.float32(0.1)
  program = jitted_training_pixels.lower(*arguments, options=options).as_text()
  assert ('stablehlo.sine' in program) == turned


def test_mirroring_and_lighting_are_drawn_apart():
  # With one key for both, an image's coin would be the sign of one of its shifts.
  images = np.tile(np.arange(6, dtype=np.uint8)[None, None, :, None], (400, 6, 1, 3))
  offsets = np.ones((400, 2), np.int32)
  ours = training_pixels(images, offsets, replace(mean='channel', flip=True), std=0.1)
  heads = ours[:, 0, 0, 0] > ours[:, 0, -1, 0]
  assert 0.4 < heads.mean() < 0.6
  for along in (ours.mean(axis=(1, 2)) @ EIGENVECTORS).T:
    assert abs(np.corrcoef(heads, along)[0, 1]) < 0.2


def test_an_unknown_way_or_sizes_that_do_not_fit_are_named():
  images, offsets, mean = (
    jnp.zeros((1, 4, 4, 3)),
    jnp.zeros((1, 2), jnp.int32),
    jnp.zeros((3, 3, 3)),
  )
  with pytest.raises(UserError, match="mean is 'Channel'; it must be one of 'pixel', 'center'"):
    augment.subtract_mean(images, offsets, mean, 'Channel')
  with pytest.raises(UserError, match='the mean image has 3 pixels a side, the crops have 4'):
    augment.subtract_mean(images, offsets, mean, 'center')
  statistics = augment.Statistics(mean, jnp.ones(3), jnp.eye(3))
  with pytest.raises(UserError, match="scale is 'eigenvalue'; it must be one of 'eigenvalues'"):
    augment.lighting(
      jax.random.key(0),
      images,
      jnp.zeros(1, jnp.int32),
      statistics,
      jnp.ones(()),
      'eigenvalue',
      False,
    )
  with pytest.raises(UserError, match='crops of 8 pixels do not fit images of 6'):
    augment.ten_views(6, 8)
