"""The nearest images, and the layer by which they are."""

import jax
import numpy as np
import pytest

from alexnet_jax import experiment
from alexnet_jax.data import included, splits
from alexnet_jax.data.augment import Statistics
from alexnet_jax.evaluation import layer_outputs, retrieval
from alexnet_jax.utils.errors import UserError
from configs import cifar10, imagenet
from tests.small import random_params, small_config


def plain_nearest(features, queries, k):
  """One distance at a time, sorted by distance and then by number."""
  numbers, squares = [], []
  for query in queries:
    pairs = sorted(
      (float(np.sum((row.astype(np.float64) - query.astype(np.float64)) ** 2)), i)
      for i, row in enumerate(features)
    )[:k]
    numbers.append([i for _, i in pairs])
    squares.append([square for square, _ in pairs])
  return np.array(numbers), np.array(squares)


@pytest.fixture(scope='module')
def features():
  """600 rows, more than are compared at a time; far from zero, where products would lose digits."""
  features = 1000 + np.random.default_rng(0).normal(size=(600, 40)).astype(np.float32)
  features[[3, 299, 599]] = features[100]
  return features


def test_the_nearest_are_those_of_a_plain_loop(features):
  queries = np.concatenate([features[100:103], features[7:9] + 0.25])
  near, squares = retrieval.nearest(features, queries, 6)
  expected, expected_squares = plain_nearest(features, queries, 6)
  np.testing.assert_array_equal(near, expected)
  np.testing.assert_allclose(squares, expected_squares, rtol=1e-12)
  assert near[0, :4].tolist() == [3, 100, 299, 599]  # equally near: the lowest number first
  assert squares[0, :4].tolist() == [0, 0, 0, 0]


def test_features_may_come_in_parts_and_from_jax(features):
  expected = retrieval.nearest(features, features[:2], 5)
  parts = (part for part in np.split(features, [1, 300, 300, 580]))
  for same in (parts, jax.numpy.asarray(features)):
    for a, b in zip(retrieval.nearest(same, features[:2], 5), expected, strict=True):
      np.testing.assert_array_equal(a, b)


def test_of_two_images_there_are_two(features):
  near, squares = retrieval.nearest(features[:2], features[:3], 6)
  assert near.shape == squares.shape == (3, 2)
  assert near[0].tolist() == [0, 1]


@pytest.mark.parametrize(
  ('features', 'k', 'words'),
  [
    (np.zeros((0, 3)), 6, 'no images'),
    ([], 6, 'no images'),
    (np.zeros((4, 3)), 0, 'at least 1'),
    (np.zeros((4, 1)), 1, 'both must be of the same layer'),
  ],
)
def test_what_cannot_be_looked_for_is_named(features, k, words):
  with pytest.raises(UserError, match=words):
    retrieval.nearest(features, np.zeros((2, 3)), k)


@pytest.mark.parametrize(
  ('config', 'overrides', 'last'),
  [
    (imagenet, {}, 'fc7'),
    (imagenet, {'model.fc7.features': 0}, 'fc6'),
    (cifar10, {}, 'conv3_pool'),
  ],
)
def test_the_last_hidden_layer_is_what_the_classifier_reads_before_dropout(config, overrides, last):
  config = config.get_config()
  config.update_from_flattened_dict(overrides)
  names = layer_outputs.output_names(config)
  assert names[:2] == ['conv1', 'conv1_activation']
  assert names[-1] == 'fc8'
  assert retrieval.last_hidden(names) == last


@pytest.fixture(scope='module')
def small():
  """A small network, its config, parameters and statistics, and digits that do not fill batches."""
  config = small_config()
  net = experiment.make_network(config)
  params = random_params(net)
  statistics = Statistics(np.full((8, 8, 3), 70, np.float32), np.ones(3), np.eye(3))
  expected = included.digits('validation')
  split = splits.ArraySplit(expected.images[:21], expected.labels[:21], expected.class_names)
  return net, config, params, statistics, split


def test_features_are_the_networks_output_for_every_center_crop(small):
  net, config, params, statistics, split = small
  step = layer_outputs.make_outputs_step(config, ['conv5_pool'])
  moved = []
  parts = layer_outputs.split_outputs(
    step, params, statistics, split, batch_size=8, crop_size=7, progress=moved.append
  )
  labels, outputs_of_parts = zip(*parts, strict=True)
  features = [
    np.asarray(one).reshape(len(one), -1) for part in outputs_of_parts for one in part.values()
  ]
  assert np.concatenate(labels).tolist() == split.labels.tolist()
  assert moved == [8, 8, 5]
  assert [part.shape for part in features] == [(8, 32), (8, 32), (5, 32)]
  pixels = (split.images[:, :7, :7].astype(np.float32) - 70) / 32
  _, outputs = jax.jit(net.apply)({'params': params}, pixels)
  expected = np.asarray(outputs['conv5_pool']).reshape(21, -1)
  np.testing.assert_allclose(np.concatenate(features), expected, rtol=1e-5, atol=1e-6)


def test_an_output_that_is_not_there_is_answered_with_those_that_are(small):
  _, config, *_ = small
  with pytest.raises(UserError, match=r"no layer 'fc9'; there are conv1, .*fc7_linear, .*fc8"):
    layer_outputs.make_outputs_step(config, ['fc9'])
