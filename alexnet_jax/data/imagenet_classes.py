"""The 1,000 classes of ImageNet 2012: synsets of WordNet, and their words."""

import functools
import types
from collections.abc import Mapping, Sequence
from pathlib import Path


@functools.cache
def words() -> Mapping[str, str]:
  """What each class is called, by its synset: {'n01440764': 'tench, Tinca tinca', ...}.

  The synsets are sorted, which is the order of the labels in tfds, Caffe and torchvision. They and the
  words, which are those of ImageNet's synset_words.txt but for two cranes told apart, are as
  tensorflow_datasets has them (imagenet2012/labels.txt, siscore/labels.py; Apache-2.0).
  """
  lines = Path(__file__).with_suffix('.txt').read_text('utf-8').splitlines()
  pairs = (line.split(' ', 1) for line in lines)
  return types.MappingProxyType(dict(pairs))


def display_names(class_names: Sequence[str]) -> list[str]:
  """Names of classes as people read them: of ImageNet's synsets their words, others as they are."""
  return [words().get(name, name) for name in class_names]
