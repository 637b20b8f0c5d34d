"""The data sets that come with the program: scikit-learn's digits, and drawn road signs."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from alexnet_jax.data import road_signs, splits
from alexnet_jax.utils.errors import UserError

DIGITS = tuple('0123456789')
"""The classes of scikit-learn's digits."""


def digits(split: str) -> splits.ArraySplit:
  """Loads scikit-learn's 1,797 handwritten digits, 8x8: a fifth is 'validation', the rest 'train'.

  Raises:
    UserError: the split does not exist.
  """
  from sklearn.datasets import load_digits  # takes a second to import

  if split not in ('train', 'validation'):
    raise UserError(f"digits has the splits 'train' and 'validation', not {split!r}")
  bunch = load_digits()
  gray = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # [1797, 8, 8], from 0 to 16
  order = np.random.default_rng(2012).permutation(len(gray))
  held_out = len(gray) // 5
  chosen = order[:held_out] if split == 'validation' else order[held_out:]
  images = np.repeat(gray[chosen, :, :, None], 3, axis=3)
  return splits.ArraySplit(images, bunch.target[chosen].astype(np.int32), DIGITS)


@dataclasses.dataclass(frozen=True)
class IncludedDataSet:
  """A data set that comes with the program, with the splits 'train' and 'validation'; see `datasets.DataSet`.

  Attributes:
    class_names: see DataSet.
    load: loads a split.
  """

  class_names: Sequence[str]
  load: Callable[[str], splits.ArraySplit]
  fingerprint = None
  held_out = False

  def load_split(self, split: str) -> splits.ArraySplit:
    """See DataSet."""
    return self.load(split)

  def stored_statistics(self, split: str) -> None:
    """See DataSet; there are none."""


def open_digits(image_size: int) -> IncludedDataSet:
  """scikit-learn's handwritten digits, see `digits`; raises UserError for another size than theirs."""
  if image_size != 8:
    raise UserError(f'digits are 8x8 pixels; set data.image_size to 8, not {image_size}')
  return IncludedDataSet(DIGITS, digits)


def open_road_signs(
  signs: Mapping[str, Sequence[road_signs.Layer]], train: int, validation: int, image_size: int
) -> IncludedDataSet:
  """Drawn road signs; a split is drawn when it is loaded.

  Args:
    signs: the classes, as `road_signs.SIGNS`.
    train: how many pictures of each class are for training.
    validation: how many for validation.
    image_size: side of the pictures in pixels.
  """
  per_class = {'train': train, 'validation': validation}
  return IncludedDataSet(
    tuple(signs), lambda split: road_signs.split(signs, split, image_size, per_class)
  )


INCLUDED: Mapping[str, Callable[[int], IncludedDataSet]] = {
  'digits': open_digits,
  'road_signs': functools.partial(open_road_signs, road_signs.SIGNS, 200, 50),
  'rare_road_signs': functools.partial(open_road_signs, road_signs.RARE_SIGNS, 10, 100),
}
"""The data sets that come with the program, each opened with the side of its images in pixels."""
