"""Drawn road signs are the same every time, differ in shape and color, and share no background."""

import numpy as np
import pytest

from alexnet_jax.data import included, road_signs
from alexnet_jax.utils.errors import UserError

PER_CLASS = {'train': 3, 'validation': 2}


def test_pictures_are_in_color_and_the_same_every_time():
  first, again = (road_signs.split(road_signs.SIGNS, 'train', 32, PER_CLASS) for _ in range(2))
  assert (first.images.shape, first.images.dtype) == ((24, 32, 32, 3), np.uint8)
  assert first.class_names == tuple(road_signs.SIGNS)
  assert np.bincount(first.labels).tolist() == 8 * [3]
  assert np.ptp(first.images, axis=-1).max() > 100
  np.testing.assert_array_equal(first.images, again.images)
  assert len(np.unique(first.images, axis=0)) == 24


def test_no_picture_of_validation_is_one_of_training():
  train, validation = (
    road_signs.split(road_signs.SIGNS, name, 16, PER_CLASS).images for name in PER_CLASS
  )
  assert not (train[:, None] == validation[None]).all(axis=(2, 3, 4)).any()


def test_every_sign_lies_within_its_circle_and_looks_like_no_other():
  signs = {**road_signs.SIGNS, **road_signs.RARE_SIGNS}
  for layers in signs.values():
    for _, corners in layers:
      assert np.linalg.norm(corners, axis=1).max() <= 1 + 1e-9
  assert len({repr(layers) for layers in signs.values()}) == 12


def test_a_split_that_is_not_there_is_refused():
  with pytest.raises(UserError, match=r"the splits 'train', 'validation', not 'test'"):
    road_signs.split(road_signs.SIGNS, 'test', 16, PER_CLASS)


def test_there_are_few_rare_signs_to_learn_from_and_many_to_judge_by():
  rare = included.INCLUDED['rare_road_signs'](16)
  assert not {*rare.class_names} & {*road_signs.SIGNS}
  assert rare.load_split('train').num_examples == 40
  assert rare.load_split('validation').num_examples == 400
