"""Occlusion, gradients and best patches of made-up networks whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import experiment
from alexnet_jax.evaluation import evidence
from alexnet_jax.models import receptive
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.utils.errors import UserError
from tests.small import random_params, small_config


def of_one_pixel(crops):
  """fc8's outputs of two classes, float32: the second one's is the brightness of pixel (1, 2), 0 to 100."""
  second = 100 * crops[:, 1, 2].mean(axis=-1, dtype=np.float32) / 255
  return np.stack([np.zeros_like(second), second], axis=1)


def test_a_class_loses_where_its_evidence_is_covered_and_gains_where_anothers_is():
  image = np.full((4, 4, 3), 204, np.uint8)
  cover = {'size': 2, 'stride': 2, 'color': np.array([51, 51, 51])}
  expected = np.zeros((4, 4))
  expected[:2, 2:] = 60  # of 80, where both probabilities round to 1
  np.testing.assert_allclose(evidence.occlusion(of_one_pixel, image, 1, **cover), expected)
  np.testing.assert_allclose(evidence.occlusion(of_one_pixel, image, 0, **cover), -expected)
  assert (image == 204).all()


def test_squares_that_overlap_are_averaged_and_the_last_one_lies_at_the_edge():
  image = np.full((3, 3, 3), 255, np.uint8)
  drops = evidence.occlusion(of_one_pixel, image, 1, size=2, stride=2, color=np.zeros(3))
  expected = np.zeros((3, 3))  # two of the four squares cover the pixel
  expected[0, 1:], expected[1, 1:], expected[2, 1:] = (50, 100), (50, 100), (50, 100)
  np.testing.assert_allclose(drops, expected)


def test_evidence_is_the_log_of_how_many_times_lower_the_odds_are():
  covered, whole = [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]
  logits = np.log([covered, whole]) + 7
  drops = evidence.occlusion(
    lambda crops: logits,
    np.zeros((2, 2, 3), np.uint8),
    1,
    size=2,
    stride=1,
    color=np.zeros(3),
  )
  np.testing.assert_allclose(drops, np.log((0.8 / 0.2) / (0.3 / 0.7)))


def test_each_image_has_one_class():
  def scores(params, crops):
    return crops.sum(axis=(1, 2, 3))[:, None] * params

  images, weights = np.ones((2, 3, 3, 3), np.uint8), jnp.array([[1.0, 2.0]])
  labels = jnp.array([1, 0])
  found = evidence.saliency(scores, weights, images, labels)
  np.testing.assert_array_equal(found[:, 0, 0], [2, 1])
  with pytest.raises(UserError, match=r'labels are of shape \[3\]; pass one for each of 2 images'):
    evidence.saliency(scores, weights, images, np.array([0, 1, 0]))


@pytest.mark.parametrize('size', [0, 4])
def test_a_square_that_does_not_fit_is_refused(size):
  image = np.zeros((3, 3, 3), np.uint8)
  with pytest.raises(UserError, match=f'the square has {size} pixels a side; it must have 1 to 3'):
    evidence.occlusion(of_one_pixel, image, 1, size=size, stride=1, color=np.zeros(3))


def test_the_gradient_of_each_images_own_class_is_taken_of_its_largest_color():
  weights = np.random.default_rng(0).normal(size=(2, 3, 3, 3, 4)).astype(np.float32)
  images = np.full((2, 3, 3, 3), 7, np.uint8)

  def scores(weights, pixels):
    return jnp.einsum('nhwc,nhwck->nk', pixels, weights)

  found = evidence.saliency(scores, weights, images, np.array([3, 1]))
  expected = np.abs(np.stack([weights[0, ..., 3], weights[1, ..., 1]])).max(axis=-1)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_class_that_is_not_there_is_refused():
  image = np.zeros((3, 3, 3), np.uint8)
  cover = {'size': 1, 'stride': 1}
  with pytest.raises(UserError, match='labels are -1; they must be from 0 to 1'):
    evidence.occlusion(of_one_pixel, image, -1, color=np.zeros(3), **cover)
  with pytest.raises(UserError, match=r'the color is .*; its values must be from 0 to 255'):
    evidence.occlusion(of_one_pixel, image, 1, color=np.array([0, 0, 300]), **cover)
  with pytest.raises(UserError, match=r'labels are \[2\]; they must be from 0 to 1'):
    evidence.saliency(lambda _, pixels: pixels[:, 0, :2, 0], {}, image[None], np.array([2]))


def test_the_best_patches_of_parts_are_those_of_a_plain_loop():
  maps = np.random.default_rng(0).integers(0, 30, (40, 3, 4, 2)).astype(np.float32)
  best, first = None, 0
  for part in np.split(maps, [1, 7, 30]):
    best = evidence.best_patches(part, 9, first, best)
    first += len(part)
  for unit in range(2):
    strongest = [(-float(one[..., unit].max()), number) for number, one in enumerate(maps)]
    values, numbers = zip(*sorted(strongest)[:9], strict=True)
    assert best.values[unit].tolist() == [-value for value in values]
    assert best.images[unit].tolist() == list(numbers)
    for number, value, (row, column) in zip(
      numbers, best.values[unit], best.places[unit], strict=True
    ):
      assert maps[number, row, column, unit] == value
  assert evidence.best_patches(maps[:2], 9).values.shape == (2, 2)


def test_patches_are_cut_where_their_places_look():
  crops = np.arange(2 * 36 * 3).reshape(2, 6, 6, 3)
  field = receptive.Field(size=3, stride=2, start=-1)
  patches = evidence.cut(crops, np.array([[0, 1], [2, 2]]), field)
  np.testing.assert_array_equal(patches[0], crops[0, 0:3, 1:4])  # moved into the image
  np.testing.assert_array_equal(patches[1], crops[1, 3:6, 3:6])


def test_receptive_fields_are_those_known_of_the_paper():
  fields = receptive.fields(AlexNet())
  assert [(field.size, field.stride) for field in fields.values()] == [
    (11, 4), (51, 8), (99, 16), (131, 16), (163, 16)
  ]  # fmt: skip
  assert fields['conv2'].start == -16  # two places of padding
  assert fields['conv2'].window(10, 224) == slice(64, 115)
  assert fields['conv2'].window(0, 224) == slice(0, 51)  # moved into the image
  assert fields['conv5'].window(12, 224) == slice(61, 224)
  assert fields['conv5'].window(3, 100) == slice(0, 100)


def test_a_place_depends_on_its_receptive_field_alone():
  config = small_config(
    {
      'model.pool.window': 2,
      'model.conv2.padding': 0,
      'model.conv2.kernel_size': 2,
      'model.conv4.features': 0,
      'model.input_size': 17,
      'data.image_size': 18,
    }
  )
  net = experiment.make_network(config)
  fields = receptive.fields(net)
  assert set(fields) == {'conv1', 'conv2', 'conv3', 'conv5'}
  field, image = fields['conv2'], np.random.default_rng(0).normal(size=(1, 17, 17, 3))

  def place(pixels):
    _, outputs = net.apply({'params': random_params(net)}, pixels)
    return outputs['conv2'][0, 3, 4].sum()

  changes = np.abs(np.asarray(jax.jit(jax.grad(place))(jnp.asarray(image, jnp.float32)))).max(
    axis=(0, 3)
  )
  inside = np.zeros((17, 17), bool)
  inside[field.window(3, 17), field.window(4, 17)] = True
  assert changes[inside].any()
  assert not changes[~inside].any()
  rows, columns = np.nonzero(changes)
  assert np.ptp(rows) + 1 > field.size - 2
  assert np.ptp(columns) + 1 > field.size - 2
