"""Classes' names cut to what a picture has room for, and still told apart."""

import collections
import unicodedata
from collections.abc import Sequence

import numpy as np

from alexnet_jax.data import imagenet_classes
from alexnet_jax.reports import canvas


def short_names(
  class_names: Sequence[str], length: int, labels: Sequence[int] | None = None
) -> list[str]:
  """Names of classes for a picture: short, and all different where the classes' names are.

  An ImageNet class has the first of its names ('tench' of 'tench, Tinca tinca') where no other class has
  the same one, else all of them; a class of other data has its whole name. What is too long is cut at
  its end or, where that makes it like another, in its middle. Where both do, the label is put behind.

  Args:
    class_names: of all classes that are shown together.
    length: how long a name may be, in Latin letters; a Chinese character is as wide as two.
    labels: the classes' labels; None: they are all classes, in the order of their labels.
  """
  of_several = set(imagenet_classes.words().values())
  ways = (
    lambda name: _cut(name.split(',')[0] if name in of_several else name, length),
    lambda name: _cut(name, length),
    lambda name: _cut_middle(name, length),
  )
  short: dict[int, str] = {}
  taken: set[str] = set()
  for way in ways:
    tried = [way(name) for name in class_names]
    count = collections.Counter(tried)
    for i, name in enumerate(tried):
      if i not in short and count[name] == 1 and name not in taken:
        short[i] = name
        taken.add(name)
  for i, name in enumerate(class_names):
    if i not in short:
      number = f' [{i if labels is None else labels[i]}]'
      short[i] = _cut(name, length - len(number)) + number
  return [canvas.plain(short[i]) for i in range(len(class_names))]


def short_names_of(
  labels: Sequence[int] | np.ndarray, class_names: Sequence[str], length: int
) -> dict[int, str]:
  """`short_names` of those classes that are shown, by label."""
  shown = sorted(set(labels))
  names = short_names([class_names[label] for label in shown], length, shown)
  return dict(zip(shown, names, strict=True))


def _width(text: str) -> int:
  """How wide a text is drawn, in Latin letters."""
  return sum(2 if unicodedata.east_asian_width(letter) in 'WF' else 1 for letter in text)


def _cut(text: str, length: int) -> str:
  """A text's beginning, up to a width."""
  if _width(text) <= length:
    return text
  while text and _width(text) > length - 1:
    text = text[:-1]
  return text + '…'


def _cut_middle(text: str, length: int) -> str:
  """A text's beginning and end, up to a width."""
  if _width(text) <= length:
    return text
  end = text
  while end and _width(end) > length // 2:
    end = end[1:]
  return _cut(text, length - _width(end)) + end
