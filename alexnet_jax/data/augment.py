"""Augmentation on the device: uint8 crops are rotated, mirrored, centered and lit.

Crops are cut before (`data/pipeline.py`), so that only what is used is transferred. Every draw
follows from a key and an image's position in the global batch, so it is the same on any layout of
devices.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import ndimage

from alexnet_jax.utils.errors import UserError

Array = jax.Array

MEANS = ('pixel', 'center', 'channel')
LIGHTING_SCALES = ('eigenvalues', 'standard_deviations')


@dataclasses.dataclass(frozen=True)
class Options:
  """How pixels are prepared.

  Attributes:
    mean: see `subtract_mean`.
    pixel_scale: multiplies the centered pixels: a number, or one each for red, green and blue.
    flip: whether training images are mirrored with probability 1/2.
    images_per_draw: consecutive images that are mirrored or not together (32 in the 2012 code).
    rotation_degrees: training images are rotated by up to this angle either way; 0: not.
    lighting_scale, lighting_rescale: see `lighting`.
  """

  mean: str
  pixel_scale: float | tuple[float, float, float]
  flip: bool
  images_per_draw: int
  rotation_degrees: float
  lighting_scale: str
  lighting_rescale: bool


class Statistics(NamedTuple):
  """Statistics of the training images' pixels.

  Attributes:
    mean_image: [S, S, 3] float32, each pixel's mean, 0 to 255.
    eigenvalues: [3] float32, of the covariance of RGB values in [0, 1], ascending.
    eigenvectors: [3, 3] float32, in columns.
  """

  mean_image: Array
  eigenvalues: Array
  eigenvectors: Array


def subtract_mean(images: Array, offsets: Array, mean_image: Array, mean: str) -> Array:
  """Centers pixels.

  Args:
    images: [N, s, s, 3] crops, uint8 or float32.
    offsets: [N, 2] int, row and column at which each was cut; [1, 2] where it is the same for all.
    mean_image: [S, S, 3] float32.
    mean: 'pixel': the mean at the crop's own position (paper, section 2; Caffe); 'center': the mean
      image's center, wherever the crop was cut (2012 code); 'channel': the mean color.

  Returns:
    [N, s, s, 3] float32.

  Raises:
    UserError: `mean` is not one of these, or the mean image is smaller than the crops.
  """
  if mean not in MEANS:
    raise UserError(f'mean is {mean!r}; it must be one of {", ".join(map(repr, MEANS))}')
  pixels = images.astype(jnp.float32)
  size = images.shape[1]
  if mean == 'channel':
    return pixels - jnp.mean(mean_image, axis=(0, 1))[None, None, None]
  if mean_image.shape[0] < size:
    raise UserError(
      f'the mean image has {mean_image.shape[0]} pixels a side, the crops have {size}'
    )
  if mean == 'center':
    border = (mean_image.shape[0] - size) // 2
    return pixels - mean_image[None, border : border + size, border : border + size]

  def cut(offset: Array) -> Array:
    return lax.dynamic_slice(mean_image, (offset[0], offset[1], 0), (size, size, 3))

  return pixels - jax.vmap(cut)(offsets)


def rotate_image(image: Array, angle: Array) -> Array:
  """Rotates an image clockwise about its center, with bilinear interpolation.

  What lies outside is the nearest edge pixel's color, as in Keras's ImageDataGenerator.

  Args:
    image: [H, W, C] float32.
    angle: scalar, in radians.
  """
  center = [(size - 1) / 2 for size in image.shape[:2]]
  down = jnp.arange(image.shape[0], dtype=image.dtype)[:, None] - center[0]
  right = jnp.arange(image.shape[1], dtype=image.dtype)[None] - center[1]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  positions = [center[0] + cos * down - sin * right, center[1] + sin * down + cos * right]

  def channel(values: Array) -> Array:
    return ndimage.map_coordinates(values, positions, order=1, mode='nearest')

  return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def rotate(key: Array, pixels: Array, positions: Array, degrees: float) -> Array:
  """Rotates each image by an angle drawn uniformly; the paper does not.

  Args:
    key: this step's key.
    pixels: [N, H, W, C].
    positions: [N] int, positions in the global batch.
    degrees: the largest angle, either way.

  Returns:
    [N, H, W, C] float32.
  """
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(positions)
  angles = jnp.deg2rad(degrees * jax.vmap(lambda k: jax.random.uniform(k, minval=-1.0))(keys))
  return jax.vmap(rotate_image)(pixels.astype(jnp.float32), angles)


def flip(key: Array, pixels: Array, positions: Array, images_per_draw: int = 1) -> Array:
  """Mirrors images with probability 1/2 (paper, section 4.1).

  Args:
    key: this step's key.
    pixels: [N, H, W, C].
    positions: [N] int, positions in the global batch.
    images_per_draw: how many consecutive images share a draw (32 in the 2012 code).
  """
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(positions // images_per_draw)
  heads = jax.vmap(jax.random.bernoulli)(keys)
  return jnp.where(heads[:, None, None, None], pixels[:, :, ::-1], pixels)


def lighting(
  key: Array,
  pixels: Array,
  positions: Array,
  statistics: Statistics,
  std: Array,
  scale: str,
  rescale: bool,
) -> Array:
  """Shifts each image's color along the training pixels' principal axes (paper, section 4.1).

  Args:
    key: this step's key.
    pixels: [N, H, W, 3] float32, 0 to 255, centered.
    positions: [N] int, positions in the global batch.
    statistics: of the training images.
    std: scalar, standard deviation of the draws; 0.1 in the paper, 0 for no lighting.
    scale: what a draw multiplies: 'eigenvalues' of the covariance of pixels in [0, 1] (the paper)
      or 'standard_deviations' along the axes (2012 code), about twice as much on ImageNet.
    rescale: divide by 1 + std, as the 2012 code does to keep the training images' scale.

  Raises:
    UserError: `scale` is not one of these.
  """
  if scale not in LIGHTING_SCALES:
    raise UserError(
      f'scale is {scale!r}; it must be one of {", ".join(map(repr, LIGHTING_SCALES))}'
    )
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(positions)
  draws = std * jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys)
  values = statistics.eigenvalues if scale == 'eigenvalues' else jnp.sqrt(statistics.eigenvalues)
  shifts = 255.0 * (draws * values[None]) @ statistics.eigenvectors.T  # [N, 3]
  pixels = pixels + shifts[:, None, None, :]
  return pixels / (1 + std) if rescale else pixels


def training_pixels(
  key: Array,
  images: Array,
  offsets: Array,
  positions: Array,
  statistics: Statistics,
  lighting_std: Array,
  options: Options,
) -> Array:
  """Prepares a training batch for the network: rotated, mirrored, centered and lit.

  Args:
    key: this step's key.
    images: [N, s, s, 3] uint8 crops.
    offsets: [N, 2] int, where they were cut.
    positions: [N] int, positions in the global batch.
    statistics: of the training images.
    lighting_std: scalar; 0 for no lighting.
    options: the rest.

  Returns:
    [N, s, s, 3] float32.
  """
  flip_key, lighting_key, rotation_key = jax.random.split(key, 3)

  def transform(pixels: Array) -> Array:
    if options.rotation_degrees:
      pixels = rotate(rotation_key, pixels, positions, options.rotation_degrees)
    if options.flip:
      pixels = flip(flip_key, pixels, positions, options.images_per_draw)
    return pixels

  pixels = _center_and_transform(images, offsets, statistics.mean_image, options.mean, transform)
  scale, rescale = options.lighting_scale, options.lighting_rescale
  pixels = lighting(lighting_key, pixels, positions, statistics, lighting_std, scale, rescale)
  return _scaled(pixels, options)


def _center_and_transform(
  images: Array, offsets: Array, mean_image: Array, mean: str, transform: Callable[[Array], Array]
) -> Array:
  """Transforms the mean of the crop's own position with the image, but not the center's."""
  if mean == 'pixel':
    return transform(subtract_mean(images, offsets, mean_image, mean))
  return subtract_mean(transform(images), offsets, mean_image, mean)


def evaluation_pixels(
  images: Array, offsets: Array, statistics: Statistics, options: Options
) -> Array:
  """Prepares a test batch for the network: centered; args as `training_pixels`."""
  centered = subtract_mean(images, offsets, statistics.mean_image, options.mean)
  return _scaled(centered, options)


def _scaled(pixels: Array, options: Options) -> Array:
  return jnp.asarray(options.pixel_scale, pixels.dtype).reshape(1, 1, 1, -1) * pixels


class View(NamedTuple):
  """A view of a test image.

  Attributes:
    offset: row and column at which a crop is cut.
    mirrored: whether it is mirrored.
  """

  offset: tuple[int, int]
  mirrored: bool


def ten_views(image_size: int, crop_size: int) -> list[View]:
  """The crops of the center and the four corners, and their mirror images (paper, section 4.1).

  The offsets are the 2012 code's: 0, 16 and 32 each way for crops of 224 from 256 pixels.

  Args:
    image_size: side of the images in pixels.
    crop_size: side of the crops in pixels.

  Returns:
    Ten views, of which the first is the center crop, not mirrored. Some are equal where there is
    little room.

  Raises:
    UserError: the crops are larger than the images.
  """
  last = image_size - crop_size
  if last < 0:
    raise UserError(f'crops of {crop_size} pixels do not fit images of {image_size}')
  offsets = [(last // 2, last // 2), (0, 0), (0, last), (last, 0), (last, last)]
  return [View(offset, mirrored) for mirrored in (False, True) for offset in offsets]


def view_pixels(
  images: Array, view: View, crop_size: int, statistics: Statistics, options: Options
) -> Array:
  """Prepares one view of a test batch for the network: cropped, mirrored, centered as in training.

  Args:
    images: [N, S, S, 3] uint8, whole.
    view: its fields may be traced.
    crop_size: side of the crops in pixels.
    statistics: of the training images.
    options: how pixels are prepared.

  Returns:
    [N, crop_size, crop_size, 3] float32.
  """
  row, column = view.offset
  shape = (images.shape[0], crop_size, crop_size, images.shape[3])
  crops = lax.dynamic_slice(images, (0, row, column, 0), shape)

  def mirror(pixels: Array) -> Array:
    return jnp.where(view.mirrored, pixels[:, :, ::-1], pixels)

  offsets = jnp.asarray([[row, column]])
  pixels = _center_and_transform(crops, offsets, statistics.mean_image, options.mean, mirror)
  return _scaled(pixels, options)
