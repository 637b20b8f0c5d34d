"""A step of a config's network, ready to be compiled and run again and again on random images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.data import augment
from alexnet_jax.evaluation import inference, metrics
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.training import step as step_lib


class Prepared(NamedTuple):
  """A step that is not yet compiled.

  Attributes:
    net: its network.
    mesh: on which it runs.
    jitted: the step.
    arguments: makes its first arguments.
    advance: runs the compiled step on its arguments; returns the next arguments, and the loss (or, of
      evaluation, the sums).
  """

  net: AlexNet
  mesh: Mesh
  jitted: Any
  arguments: Callable[[], tuple[Any, ...]]
  advance: Callable[[Any, tuple[Any, ...]], tuple[tuple[Any, ...], Any]]


def prepare(config: ConfigDict, mode: str, batch_size: int, **computing: Any) -> Prepared:
  """A step of training or of evaluation, of random images and labels.

  Args:
    config: of the network and the mesh.
    mode: 'train' or 'predict'.
    batch_size: images per step.
    **computing: precision and library_fusions, as `step.make_train_step` takes them.
  """
  mesh, net = experiment.make_mesh(config), experiment.make_network(config)
  tx, augmenting = experiment.make_optimizer(config, net), experiment.augment_options(config)
  rng, side = np.random.default_rng(0), net.input_size
  batch: Any = {
    'image': rng.integers(0, 256, (batch_size, side, side, 3), np.uint8),
    'label': rng.integers(0, net.num_classes, batch_size).astype(np.int32),
    'offset': np.zeros((batch_size, 2), np.int32),
  }
  if mode == 'predict':
    batch['mask'] = np.ones(batch_size, bool)
  batch = jax.device_put(batch, mesh_lib.shardings(mesh, mesh_lib.BATCH))
  mean = jnp.full((config.data.image_size, config.data.image_size, 3), 127.0)
  known = mesh_lib.replicate(mesh, augment.Statistics(mean, jnp.full(3, 0.1), jnp.eye(3)))
  if mode == 'train':
    jitted: Any = step_lib.make_train_step(net, tx, mesh, augmenting, 0, **computing)
    last = jnp.asarray(0.1, jnp.float32)  # the lighting's standard deviation
  else:
    jitted = inference.make_evaluation_step(net, mesh, augmenting, **computing)
    last = mesh_lib.replicate(mesh, metrics.empty())

  def arguments() -> tuple[Any, ...]:
    state = step_lib.init_state(net, tx, mesh, 0)
    return (state if mode == 'train' else state.params), batch, known, last

  def advance(program: Any, before: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
    if mode == 'train':
      state, loss = program(*before)
      return (state, *before[1:]), loss
    sums = program(*before)
    return (*before[:3], sums), sums

  return Prepared(net, mesh, jitted, arguments, advance)
