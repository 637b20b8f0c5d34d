"""ImageNet's classes are known by synset and by words, in the order of the labels."""

import importlib.util
from pathlib import Path

import pytest

from alexnet_jax.data import imagenet_classes
from alexnet_jax.evaluation.classifier import Prediction


def test_the_order_is_that_of_tfds():
  package = importlib.util.find_spec('tensorflow_datasets')
  if package is None:
    pytest.skip('tensorflow_datasets is not installed')
  labels = Path(package.origin).parent / 'datasets' / 'imagenet2012' / 'labels.txt'
  assert list(imagenet_classes.words()) == labels.read_text().split()


def test_each_class_has_words_of_its_own():
  words = imagenet_classes.words()
  assert len(words) == len(set(words.values())) == 1000
  assert words['n02123045'] == 'tabby, tabby cat'
  assert list(words) == sorted(words)


def test_only_imagenet_s_synsets_are_shown_by_their_words():
  shown = imagenet_classes.display_names(['n01440764', 'tulip', 'n99999999'])
  assert shown == ['tench, Tinca tinca', 'tulip', 'n99999999']


def test_a_prediction_keeps_synsets_and_shows_words():
  prediction = Prediction(('n02123045', 'x'), (0.75, 0.25), 'cat.jpg')
  assert repr(prediction) == 'Prediction(tabby, tabby cat: 75.0%, x: 25.0%)'
  assert prediction.class_names == ('n02123045', 'x')
