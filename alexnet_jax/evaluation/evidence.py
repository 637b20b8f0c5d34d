"""Where in an image a class's evidence lies, and which patches of images a map responds to most."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from alexnet_jax.models import receptive
from alexnet_jax.utils.errors import UserError, number_of

Array = jax.Array


def occlusion(
  scores: Callable[[np.ndarray], np.ndarray],
  image: np.ndarray,
  label: int,
  *,
  size: int,
  stride: int,
  color: np.ndarray,
) -> np.ndarray:
  """How much lower a class's log-odds are when a square covers a part of the image.

  Zeiler and Fergus, Visualizing and Understanding Convolutional Networks (2014), section 4.2, but for
  the scale: they show the probability p, which stays near 1 where a network is sure. Its log-odds,
  log(p / (1 - p)), do not.

  Args:
    scores: from crops [M, S, S, 3] uint8 to fc8's outputs [M, classes].
    image: [S, S, 3] uint8.
    label: the class.
    size: side of the square in pixels, 1 to S.
    stride: pixels from one place of the square to the next; the last lies at the edge.
    color: [3], of the square, 0 to 255.

  Returns:
    [S, S] float64: at each pixel the mean loss of log-odds over the squares that cover it;
    negative where the class gains. Where `stride` is above `size`, pixels that none covers have 0.

  Raises:
    UserError: the square does not fit the image, or the color or the class is out of range.
  """
  image = np.asarray(image)
  side = image.shape[0]
  if np.min(color) < 0 or np.max(color) > 255:
    raise UserError(f'the color is {list(color)}; its values must be from 0 to 255')
  if not 1 <= size <= side:
    raise UserError(f'the square has {size} pixels a side; it must have 1 to {side}')
  starts = sorted({*range(0, side - size + 1, stride), side - size})
  places = [
    (slice(row, row + size), slice(column, column + size)) for row in starts for column in starts
  ]
  covered = np.repeat(image[None], len(places) + 1, axis=0)  # the last one is not covered
  for one, place in zip(covered, places, strict=False):
    one[place] = color
  found = np.asarray(scores(covered), np.float64)
  _check_labels(label, found.shape[1])
  log_odds = _log_odds(found, label)
  total, count = np.zeros((side, side)), np.zeros((side, side))
  for place, of_covered in zip(places, log_odds, strict=False):
    total[place] += log_odds[-1] - of_covered
    count[place] += 1
  return total / np.maximum(count, 1)


def _log_odds(scores: np.ndarray, label: int) -> np.ndarray:
  """The log-odds [M] of a class, from fc8's outputs [M, classes]: finite where its p rounds to 1."""
  return scores[:, label] - special.logsumexp(np.delete(scores, label, axis=1), axis=1)


def _check_labels(labels: np.ndarray | int, classes: int) -> None:
  if np.min(labels) < 0 or np.max(labels) >= classes:
    raise UserError(f'labels are {labels}; they must be from 0 to {classes - 1}')


def saliency(
  scores: Callable[[Any, Array], Array], params: Any, images: np.ndarray, labels: np.ndarray
) -> np.ndarray:
  """How much a class's score changes with each pixel: the gradient's size, of the largest color.

  Simonyan, Vedaldi and Zisserman, Deep Inside Convolutional Networks (2014), section 3.

  Args:
    scores: from `params` and crops [N, S, S, 3] float32, 0 to 255, to fc8's outputs [N, classes], each
      image's of itself alone.
    params: a tree of arrays, with all large ones that `scores` uses: as constants of a program they
      would take XLA long to compile.
    images: [N, S, S, 3] uint8.
    labels: [N] int, the class of each.

  Returns:
    [N, S, S] float32, per unit of a pixel's 0 to 255.

  Raises:
    UserError: a class is out of range, or there is not one for each image.
  """
  labels = np.asarray(labels)
  if labels.shape != (len(images),):
    raise UserError(
      f'labels are of shape {list(labels.shape)}; pass one for each of {number_of(len(images), "image")}'
    )

  def total(pixels: Array, params: Any) -> Array:
    found = scores(params, pixels)
    _check_labels(labels, found.shape[1])
    return jnp.take_along_axis(found, labels[:, None], axis=1).sum()

  gradient = jax.jit(jax.grad(total))(jnp.asarray(images, jnp.float32), params)
  return np.asarray(jnp.abs(gradient).max(axis=-1))


class BestPatches(NamedTuple):
  """The images and places at which maps are strongest, the strongest first.

  Attributes:
    values: [U, K], how strong.
    images: [U, K] int, the images' numbers.
    places: [U, K, 2] int, rows and columns of the maps.
  """

  values: np.ndarray
  images: np.ndarray
  places: np.ndarray


def best_patches(
  maps: np.ndarray, count: int, first: int = 0, before: BestPatches | None = None
) -> BestPatches:
  """Finds the images in which each map is strongest somewhere, and where.

  An image counts once for a map, by its strongest place. Images may come in parts, each merged into
  what was found before.

  Args:
    maps: [N, H, W, U], of N images.
    count: how many to keep of each map; fewer where there are fewer images.
    first: the number of the first of these images.
    before: what was found in the images before these.

  Returns:
    The best of all images so far; of equally strong ones those with the lower numbers.
  """
  images, height, width, units = maps.shape
  flat = maps.reshape(images, height * width, units)
  strongest = flat.argmax(axis=1).T  # [U, N]
  found = BestPatches(
    flat.max(axis=1).T,
    np.broadcast_to(np.arange(first, first + images), (units, images)),
    np.stack(np.divmod(strongest, width), axis=-1),
  )
  if before is not None:
    found = BestPatches(*map(lambda a, b: np.concatenate([a, b], axis=1), before, found))
  order = np.argsort(-found.values, axis=1, kind='stable')[:, :count]
  return BestPatches(*(array[np.arange(units)[:, None], order] for array in found))


def cut(crops: np.ndarray, places: np.ndarray, field: receptive.Field) -> np.ndarray:
  """Cuts out what places of a layer's maps depend on.

  Args:
    crops: [K, S, S, 3], as the network sees them.
    places: [K, 2] int, a row and a column of the maps for each.
    field: the layer's, from `receptive.fields`.

  Returns:
    [K, h, h, 3]; see `receptive.Field.window` for the edges.
  """
  side = crops.shape[1]
  return np.stack(
    [
      crop[field.window(row, side), field.window(column, side)]
      for crop, (row, column) in zip(crops, places.tolist(), strict=True)
    ]
  )
