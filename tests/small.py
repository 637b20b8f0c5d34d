"""Small configs that train in a second or two, parameters without training, and comparisons."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.checkpoints import workdir
from alexnet_jax.models.alexnet import AlexNet, parameter_shapes
from configs import digits


def small_config(overrides: Mapping[str, Any] | None = None) -> ConfigDict:
  """A narrow two-column net on the digits, with crops, mirror images, lighting and dropout on."""
  config = digits.get_config()
  for layer, features in (
    ('conv1', 16),
    ('conv2', 32),
    ('conv3', 32),
    ('conv4', 32),
    ('conv5', 32),
  ):
    config.model[layer].features = features
  config.model.fc6.features = 64
  config.model.fc7.features = 64
  config.model.dropout.rate = 0.2
  config.model.input_size = 7
  config.augment.crop_offsets = 2
  config.augment.flip = True
  config.augment.pixel_scale = 1 / 32
  config.augment.lighting.std = ((0, 0.1),)
  config.train.num_epochs = 2
  config.train.log_every_steps = 10
  config.update_from_flattened_dict(dict(overrides or {}))
  return config


def tiny_config(overrides: Mapping[str, Any] | None = None) -> ConfigDict:
  """`small_config` without four of its layers, where the network does not matter."""
  left_out = {f'model.{layer}.features': 0 for layer in ('conv2', 'conv4', 'conv5', 'fc7')}
  return small_config({**left_out, **(overrides or {})})


def random_params(net: AlexNet) -> Any:
  """Parameters without the seconds that compiling the initializers takes."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: (0.1 * rng.normal(size=leaf.shape)).astype(np.float32),
    parameter_shapes(net),
  )


def lines(path):
  """metrics.jsonl without timings."""
  records = workdir.read_metrics(path)
  return [{k: v for k, v in r.items() if k != 'images_per_second'} for r in records]


def assert_close(a, b, tolerance):
  """Every array differs by less than `tolerance` of its own norm."""
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    assert np.linalg.norm(x - y) <= tolerance * np.linalg.norm(x)
