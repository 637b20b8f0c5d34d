"""Splits of data sets: an order of their examples, and crops of them as batches."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from alexnet_jax.utils.errors import UserError

Batch = dict[str, np.ndarray]
"""Arrays with one image per row: 'image', 'offset', 'label' and, of evaluation, 'mask'."""

Group = tuple[np.ndarray, np.ndarray]
"""[n] int, examples; and [n, 2] int32, row and column at which each is cropped."""


class Split(Protocol):
  """One split of a data set."""

  @property
  def num_examples(self) -> int:
    """How many images it has."""
    ...

  @property
  def class_names(self) -> Sequence[str]:
    """The classes' names, in the order of the labels."""
    ...

  @property
  def image_size(self) -> int:
    """Side in pixels of the squares that its images are made into."""
    ...

  @property
  def block_size(self) -> int:
    """How many examples are shuffled among each other: all of them, where they fit in memory."""
    ...

  def order(self, rng: np.random.Generator | None = None) -> list[np.ndarray]:
    """All examples, as stored or shuffled by `rng`, in the blocks that are read ahead."""
    ...

  def file_names(self) -> Sequence[str] | None:
    """Each example's file, in the order of `order`, where the data set tells it; else None."""
    ...

  def read(self, groups: Iterable[Group], batch_size: int, size: int) -> Generator[Batch]:
    """Reads crops of examples, in the order given.

    Args:
      groups: [n] int, examples, and [n, 2] int32, row and column at which to cut each. The next
        group is read ahead, so they are best one of `order`'s blocks each.
      batch_size: how many to hand over at a time, across groups.
      size: side of the crops in pixels.

    Yields:
      'image' [batch_size, size, size, 3] uint8, 'offset' [batch_size, 2] int32 and 'label'
      [batch_size] int32; the last ones may be shorter.
    """
    ...


@dataclasses.dataclass(frozen=True)
class ArraySplit:
  """A split held in memory.

  Attributes:
    images: [N, S, S, 3] uint8.
    labels: [N] int32.
    class_names: see Split.
    read_file_names: called by `file_names`; None where the files are not known.
  """

  images: np.ndarray
  labels: np.ndarray
  class_names: Sequence[str]
  read_file_names: Callable[[], Sequence[str] | None] | None = None

  def __post_init__(self) -> None:
    """Raises UserError where the images are not such, or there are more or fewer labels."""
    shape = self.images.shape
    if self.images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
      raise UserError(
        f'images are {self.images.dtype}{list(shape)}; pass uint8 [N, S, S, 3], 0 to 255'
      )
    if len(self.labels) != len(self.images):
      raise UserError(f'there are {len(self.images):,} images, but {len(self.labels):,} labels')

  @property
  def num_examples(self) -> int:
    """See Split."""
    return len(self.labels)

  @property
  def image_size(self) -> int:
    """See Split."""
    return int(self.images.shape[1])

  @property
  def block_size(self) -> int:
    """See Split."""
    return self.num_examples

  def order(self, rng: np.random.Generator | None = None) -> list[np.ndarray]:
    """See Split."""
    return [np.arange(self.num_examples) if rng is None else rng.permutation(self.num_examples)]

  def file_names(self) -> Sequence[str] | None:
    """See Split."""
    return None if self.read_file_names is None else self.read_file_names()

  def read(self, groups: Iterable[Group], batch_size: int, size: int) -> Generator[Batch]:
    """See Split."""
    for examples, offsets in in_batches(groups, batch_size):
      crops = np.empty((len(examples), size, size, 3), np.uint8)
      # Ten times as fast as indexing with arrays of rows and columns.
      for i, (example, (top, left)) in enumerate(
        zip(examples.tolist(), offsets.tolist(), strict=True)
      ):
        crops[i] = self.images[example, top : top + size, left : left + size]
      yield {'image': crops, 'offset': offsets, 'label': self.labels[examples]}


class RelabeledSplit:
  """A split with the labels of other classes, such as those of a network that is evaluated on it."""

  def __init__(self, split: Split, labels: np.ndarray, class_names: Sequence[str]):
    """Takes all but labels and class names from the split.

    Args:
      split: the split.
      labels: [classes of the split] int32, the label that each of its classes gets.
      class_names: of those labels.
    """
    self.num_examples, self.image_size = split.num_examples, split.image_size
    self.block_size, self.order, self.file_names = split.block_size, split.order, split.file_names
    self.class_names, self._split, self._labels = class_names, split, labels

  def read(self, groups: Iterable[Group], batch_size: int, size: int) -> Generator[Batch]:
    """See Split."""
    with contextlib.closing(self._split.read(groups, batch_size, size)) as batches:
      for batch in batches:
        yield batch | {'label': self._labels[batch['label']]}


def in_batches(groups: Iterable[Group], batch_size: int) -> Iterator[Group]:
  """Divides groups, joined in their order, into others of `batch_size`, but for the last one.

  A group is taken only when those before it do not fill the next batch.
  """
  examples, offsets = np.zeros(0, np.int64), np.zeros((0, 2), np.int32)
  for more_examples, more_offsets in groups:
    examples = np.concatenate([examples, more_examples])
    offsets = np.concatenate([offsets, more_offsets])
    while len(examples) >= batch_size:
      yield examples[:batch_size], offsets[:batch_size]
      examples, offsets = examples[batch_size:], offsets[batch_size:]
  if len(examples):
    yield examples, offsets
