"""Refuses a batch for which there is not enough memory, before the first step."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alexnet_jax.data import augment
from alexnet_jax.parallel import memory
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.training import step as step_lib
from alexnet_jax.utils.errors import UserError


def check_memory(
  train_step: Any,
  state: step_lib.TrainState,
  statistics: augment.Statistics,
  mesh: Mesh,
  *,
  input_size: int,
  batch_size: int,
  accumulation_steps: int,
) -> None:
  """Raises UserError where training takes more memory than is free, naming a batch that fits.

  Args:
    train_step: from `step.make_train_step`.
    state: the state that it is to change.
    statistics: of the training images.
    mesh: of the step.
    input_size: side of the network's input in pixels.
    batch_size: images of the global batch.
    accumulation_steps: microbatches of each device's part of it.
  """
  spread, replicated = mesh_lib.shardings(mesh, (mesh_lib.BATCH, mesh_lib.REPLICATED))

  def needed(size: int) -> int | None:
    shapes = {
      'image': ((input_size, input_size, 3), jnp.uint8),
      'offset': ((2,), jnp.int32),
      'label': ((), jnp.int32),
    }
    batch = {
      name: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=spread)
      for name, (shape, dtype) in shapes.items()
    }
    lighting_std = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated)
    return memory.needed(train_step, (state, batch, statistics, lighting_std), mesh)

  of_batch, free = needed(batch_size), memory.free(mesh)
  if of_batch is None or free is None or of_batch <= free:
    return
  message = (
    f'training with train.batch_size={batch_size} needs {of_batch / 1e6:,.0f} MB besides'
    f' parameters and velocity, but only {free / 1e6:,.0f} MB are free; '
  )
  advice = (
    'The same batch needs less with more --config.train.gradient_accumulation_steps (now'
    f' {accumulation_steps}), or on more devices with memory of their own.'
  )
  if jax.process_count() > 1 and mesh.devices.flat[0].platform == 'gpu':
    # Processes share XLA's trials of kernels: one that compiles alone waits for the others.
    raise UserError(f'{message}set a smaller --config.train.batch_size\n{advice}')
  multiple = mesh.shape[mesh_lib.DATA] * accumulation_steps
  # A tenth remains for what else there is when the command is given again.
  fits = memory.batch_that_fits(needed, batch_size, of_batch, multiple, int(0.9 * free))
  if not fits:
    advice = 'It takes more devices, with memory of their own, or a smaller network.'
    raise UserError(f'{message}no batch fits\n{advice}')
  raise UserError(f'{message}--config.train.batch_size={fits} fits\n{advice}')
