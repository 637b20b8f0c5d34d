"""From a whole config to its parts: network, mesh, update rule, data."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import augment, dataset, optimizer
from alexnet_jax import mesh as mesh_lib
from alexnet_jax.errors import UserError
from alexnet_jax.model import AlexNet, alexnet


def resolved(config: ConfigDict) -> dict[str, Any]:
  """A config as JSON has it: what is compared, and written into workdir and checkpoints."""
  value: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
  return value


def from_resolved(value: dict[str, Any]) -> ConfigDict:
  """The config of which `resolved` made this; JSON's lists are tuples again."""

  def tuples(part: Any) -> Any:
    if isinstance(part, dict):
      return {name: tuples(inner) for name, inner in part.items()}
    return tuple(map(tuples, part)) if isinstance(part, list) else part

  return ConfigDict(tuples(value))


def check(config: ConfigDict) -> None:
  """Raises UserError, naming the field, for a value that training cannot use."""
  at_least = {
    'train.log_every_steps': (config.train.log_every_steps, 1),
    'train.batch_size': (config.train.batch_size, 1),
    'train.seed': (config.train.seed, 0),
    'augment.images_per_draw': (config.augment.images_per_draw, 1),
    'augment.crop_offsets': (config.augment.crop_offsets, 1),
    'data.image_size': (config.data.image_size, 1),
    'checkpoint.keep': (config.checkpoint.keep, 1),
  }
  for field, (value, least) in at_least.items():
    if value < least:
      raise UserError(f'{field} is {value}; it must be at least {least}')
  one_of = {
    'augment.mean': (config.augment.mean, augment.MEANS),
    'augment.lighting.scale': (config.augment.lighting.scale, augment.LIGHTING_SCALES),
  }
  for field, (choice, choices) in one_of.items():
    if choice not in choices:
      raise UserError(f'{field} is {choice!r}; it may be {", ".join(map(repr, choices))}')
  dataset.check_crops(config.data.image_size, config.model.input_size, config.augment.crop_offsets)
  if not 0 <= config.augment.rotation_degrees <= 180:
    raise UserError(
      f'augment.rotation_degrees is {config.augment.rotation_degrees}; it must be from 0 to 180'
    )
  if config.optimizer.cut_factor <= 0:
    raise UserError(f'optimizer.cut_factor is {config.optimizer.cut_factor}; it must be above 0')
  if not all(isinstance(epoch, int | float) for epoch in config.optimizer.cut_epochs):
    raise UserError(
      f'optimizer.cut_epochs is {config.optimizer.cut_epochs!r}; it must hold epochs, as (25, 51)'
    )
  schedules = {
    f'optimizer.rate_multipliers.{layer}': schedule
    for layer, schedule in config.optimizer.rate_multipliers.items()
  }
  for field, schedule in {**schedules, 'augment.lighting.std': config.augment.lighting.std}.items():
    if not all(_is_pair(pair) for pair in schedule):
      raise UserError(
        f'{field} is {schedule!r}; it must hold pairs of (from epoch, value), as'
        ' ((0, 0.1), (50, 0.0))'
      )


def _is_pair(value: Any) -> bool:
  return (
    isinstance(value, tuple)
    and len(value) == 2
    and all(isinstance(part, int | float) for part in value)
  )


def make_network(config: ConfigDict) -> AlexNet:
  """The network; raises UserError as `alexnet` does."""
  return alexnet(config.model.to_dict())


def make_mesh(config: ConfigDict) -> Mesh:
  """The mesh, its CPU devices emulated if need be.

  Raises:
    UserError: devices, columns and batch size do not fit each other.
  """
  arguments = (config.model.num_columns, config.mesh.column_devices, config.mesh.data_devices)
  mesh_lib.emulate_cpu_devices(*arguments)
  mesh = mesh_lib.make_mesh(*arguments)
  parts = mesh.shape[mesh_lib.DATA]
  if config.train.batch_size % parts:
    raise UserError(
      f'train.batch_size={config.train.batch_size} does not divide over {parts} data-parallel'
      f' devices; set it to a multiple of {parts}, or set mesh.data_devices'
    )
  return mesh


def augment_options(config: ConfigDict) -> augment.Options:
  """How pixels are prepared."""
  return augment.Options(
    mean=config.augment.mean,
    pixel_scale=config.augment.pixel_scale,
    flip=config.augment.flip,
    images_per_draw=config.augment.images_per_draw,
    rotation_degrees=config.augment.rotation_degrees,
    lighting_scale=config.augment.lighting.scale,
    lighting_rescale=config.augment.lighting.rescale,
  )


def make_optimizer(config: ConfigDict, net: AlexNet) -> optax.GradientTransformation:
  """The update rule."""
  pixels = jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), jnp.float32)
  params = jax.eval_shape(net.init, jax.random.key(0), pixels)['params']
  return optimizer.paper_sgd(
    config.optimizer.momentum,
    optimizer.weight_decays(
      params, config.optimizer.weight_decay, config.optimizer.decay_multipliers
    ),
  )


def load_split(config: ConfigDict, split: str) -> dataset.Split:
  """A split of the data set.

  Raises:
    UserError: it is not there, or does not have the network's classes.
  """
  loaded = dataset.load_split(
    config.data.name,
    split,
    config.data.data_dir,
    config.data.image_size,
    config.data.memory_megabytes,
  )
  classes = len(loaded.class_names)
  if classes != config.model.num_classes:
    raise UserError(
      f'{config.data.name} has {classes} classes but model.num_classes is'
      f' {config.model.num_classes}; set --config.model.num_classes={classes}'
    )
  return loaded
