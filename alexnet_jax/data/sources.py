"""Original images, as `prepare` reads them: files in folders, ImageNet's tar files, or tfds's examples.

The order of a split is fixed, so that reading can resume at any image; that of files is a
permutation, so that neighbors are of different classes.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from alexnet_jax.utils.errors import UserError, listed

SPLITS = ('train', 'validation', 'test')
"""The names of splits that a source may have."""

SEED = 2012
"""Of the order of splits."""

GIVE_NAMES = (
  'name them with --mode=convert --class_names=FILE, one name per line in the order of the labels (of a'
  ' data set in the same order its label.labels.txt)'
)
"""What to do where a network's classes have no names."""

_Member = TypeVar('_Member')


class Example(NamedTuple):
  """An original image.

  Attributes:
    file_name: its path within the source, for messages.
    label: its class, an index into the source's `class_names`.
    read: reads the file's content, in any thread; raises `images.UnreadableError` where this file
      cannot be read, UserError where the source cannot.
  """

  file_name: str
  label: int
  read: Callable[[], bytes]


class LeftOut(NamedTuple):
  """A file that is not used.

  Attributes:
    split: the split that it lies in; '' where it lies in none.
    class_name: the class that it lies in; '' where it lies in none.
    file_name: its path within the source.
    reason: why, in one line.
    is_photograph: it is an image of a class, of a kind that Pillow does not read.
  """

  split: str
  class_name: str
  file_name: str
  reason: str
  is_photograph: bool = False


class Source(Protocol):
  """A data set of original images."""

  @property
  def name(self) -> str:
    """The data set's name: lower-case letters, digits and underscores."""
    ...

  @property
  def version(self) -> str:
    """The data set's version, such as '1.0.0'."""
    ...

  @property
  def class_names(self) -> Sequence[str]:
    """The classes' names, in the order of the labels."""
    ...

  @property
  def splits(self) -> Mapping[str, int]:
    """The number of images of each split."""
    ...

  @property
  def description(self) -> Mapping[str, Any]:
    """A description of where the images come from; of JSON's types."""
    ...

  def examples(self, split: str, start: int) -> Generator[Example]:
    """The examples of a split from number `start` on, in the same order every time.

    Raises:
      UserError: they cannot be read.
    """
    ...


def unknown_classes(where: str, unknown: Sequence[str], class_names: Sequence[str]) -> UserError:
  """What to tell the user of classes that a network does not have.

  Args:
    where: a data set or folder that has them.
    unknown: their names.
    class_names: the network's.
  """
  if is_numbered(class_names):
    return UserError(
      f'{where} has {listed(unknown)}, but the classes of the network are called 0 to'
      f' {len(class_names) - 1}: {GIVE_NAMES}'
    )
  return UserError(
    f'{where} has a class that the network does not have: {listed(unknown)}; the network has'
    f' {listed(class_names)}'
  )


def is_numbered(class_names: Sequence[str]) -> bool:
  """Whether classes have their labels for names, as those of networks from files without names."""
  return list(class_names) == list(map(str, range(len(class_names))))


def shuffled(members: Sequence[_Member], split: str, start: int) -> Iterator[_Member]:
  """The members of a split from number `start` on, in its order."""
  order = np.random.default_rng([SEED, SPLITS.index(split)]).permutation(len(members))
  return (members[i] for i in order[start:])
