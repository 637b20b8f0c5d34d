"""One step of training: augmentation, loss and gradient, update."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from alexnet_jax import optimizer
from alexnet_jax.data import augment
from alexnet_jax.evaluation import metrics
from alexnet_jax.models.alexnet import AlexNet, initial_parameters
from alexnet_jax.models.params import Params
from alexnet_jax.parallel import compat, xla
from alexnet_jax.parallel import mesh as mesh_lib

Array = jax.Array


class TrainState(NamedTuple):
  """The state that a step updates.

  Attributes:
    step: steps done, int32.
    params: {layer: {'kernel', 'bias'}}, of global shape.
    opt_state: velocity and learning rates.
    sums: `metrics.batch_sums` since the last training line of metrics.jsonl.
  """

  step: Array
  params: Params
  opt_state: optimizer.PaperSGDState
  sums: dict[str, Array]


TrainStep = Callable[
  [TrainState, Mapping[str, Array], augment.Statistics, Array], tuple[TrainState, Array]
]


def _init(net: AlexNet, tx: optax.GradientTransformation, key: Array) -> TrainState:
  params = initial_parameters(net, key)
  return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), metrics.empty())


def state_specs(net: AlexNet, tx: optax.GradientTransformation) -> tuple[Any, Any]:
  """The shapes of a TrainState, and the PartitionSpec of each part."""
  shapes = jax.eval_shape(functools.partial(_init, net, tx), jax.random.key(0))
  of_params = mesh_lib.parameter_specs(shapes.params)
  replicated = jax.tree.map(lambda _: mesh_lib.REPLICATED, shapes)
  opt_specs = replicated.opt_state._replace(velocity=of_params)
  specs = replicated._replace(params=of_params, opt_state=opt_specs)
  return shapes, specs


def init_state(net: AlexNet, tx: optax.GradientTransformation, mesh: Mesh, seed: int) -> TrainState:
  """A new state, its parameters drawn from the seed alone, each part where it belongs."""
  _, specs = state_specs(net, tx)
  init = jax.jit(functools.partial(_init, net, tx), out_shardings=mesh_lib.shardings(mesh, specs))
  state: TrainState = init(jax.random.key(seed))
  return state


def augment_batch(
  key: Array,
  batch: Mapping[str, Array],
  positions: Array,
  statistics: augment.Statistics,
  lighting_std: Array,
  options: augment.Options,
  precision: str,
) -> Array:
  """The pixels that the network is trained on: [images, size, size, 3], of `precision`.

  Args:
    key: of the step; an image's draws follow from it and the image's position.
    batch: 'image', uint8 [images, height, width, 3], and 'offset', int32 [images, 2].
    positions: the images' places in the global batch, int32 [images].
    statistics: of the training images.
    lighting_std: standard deviation of the change of lighting, a float32 scalar.
    options: how pixels are prepared.
    precision: one of `xla.PRECISIONS`.
  """
  pixels = augment.training_pixels(
    key, batch['image'], batch['offset'], positions, statistics, lighting_std, options
  )
  return pixels.astype(precision)


def loss_and_gradient(
  net: AlexNet,
  params: Params,
  pixels: Array,
  labels: Array,
  dropout_key: Array,
  positions: Array,
  global_batch_size: int,
) -> tuple[tuple[Array, dict[str, Array]], Params]:
  """The images' share of the global batch's mean loss, their sums, and the share's gradient.

  Args:
    net: the network as one device computes it.
    params: {layer: {'kernel', 'bias'}}, this device's part.
    pixels: [images, size, size, 3], from `augment_batch`.
    labels: int32 [images].
    dropout_key: of the step.
    positions: the images' places in the global batch, int32 [images].
    global_batch_size: images of the whole batch, over all devices and microbatches.

  Returns:
    ((float32 scalar, `metrics.batch_sums`), gradient in the tree of params).
  """

  def loss_fn(params: Params) -> tuple[Array, dict[str, Array]]:
    logits, _ = net.apply({'params': params}, pixels, dropout_key, positions)
    sums = metrics.batch_sums(logits, labels)
    # A share of the global mean: shard_map sums the gradients of what it replicated.
    return sums['loss'] / global_batch_size, sums

  return jax.value_and_grad(loss_fn, has_aux=True)(params)


def accumulate(
  function: Callable[[Any, slice], tuple[Any, Any]], params: Params, images: int, size: int
) -> tuple[Any, Any]:
  """Sums a function's results over microbatches, computed one after the other.

  Args:
    function: from the parameters and a microbatch's rows to (auxiliary values, gradients), the
      latter in the tree of params.
    params: the parameters.
    images: images in all.
    size: images of a microbatch; divides `images`.
  """
  total: Any = None
  # Not lax.scan: XLA's CPU backend runs convolutions inside a loop a hundred times slower.
  for first in range(0, images, size):
    if total is not None:
      # One microbatch after the other: all at once, they would need the whole batch's memory.
      auxiliary, gradients = total
      pairs = jax.tree.map(lambda *pair: lax.optimization_barrier(pair), params, gradients)
      params, gradients = jax.tree.transpose(jax.tree.structure(params), None, pairs)
      total = auxiliary, gradients
    one = function(params, slice(first, first + size))
    total = one if total is None else jax.tree.map(jnp.add, total, one)
  return total


def update(
  tx: optax.GradientTransformation, state: TrainState, gradients: Params, sums: dict[str, Array]
) -> TrainState:
  """The next state, from the gradients and `metrics.batch_sums` of the global batch."""
  updates, opt_state = tx.update(gradients, state.opt_state, state.params)
  return TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
    sums=metrics.merge(state.sums, sums),
  )


def make_train_step(
  net: AlexNet,
  tx: optax.GradientTransformation,
  mesh: Mesh,
  options: augment.Options,
  seed: int,
  *,
  precision: str = 'float32',
  library_fusions: bool = True,
  accumulation_steps: int = 1,
) -> TrainStep:
  """A compiled function from (state, batch, statistics, lighting_std) to the next state and loss.

  The state is donated. The batch is spread over the mesh's 'data' axis.

  Args:
    net: the global network.
    tx: the update rule.
    mesh: on which it runs.
    options: how pixels are prepared.
    seed: of dropout and augmentation; their draws follow from it, the step and an image's place
      in the global batch, whatever the mesh.
    precision: what the network computes in, one of `xla.PRECISIONS`; parameters, their
      gradients' sums, velocity, norms' sums, logits and loss are float32 in either.
    library_fusions: see `xla.options`.
    accumulation_steps: into how many microbatches, one after the other, each device's part of a
      batch is split; their gradients' sum is the batch's, to rounding, in less memory.
  """
  local = net.local(mesh_lib.COLUMN, mesh.shape[mesh_lib.COLUMN])
  _, specs = state_specs(net, tx)

  def on_device(
    params: Params,
    step: Array,
    batch: Mapping[str, Array],
    statistics: augment.Statistics,
    lighting_std: Array,
  ) -> tuple[Array, dict[str, Array], Params]:
    key = jax.random.fold_in(jax.random.key(seed), step)
    augment_key, dropout_key = jax.random.split(key)
    images = batch['image'].shape[0]
    positions = lax.axis_index(mesh_lib.DATA) * images + jnp.arange(images)

    def per_device(params: Params) -> Params:
      return jax.tree.map(lambda w: compat.varying(w, mesh_lib.DATA), params)

    # Per device from here on: gradients are summed over devices once, after those of the
    # microbatches, and before any is rounded.
    params, sum_over_devices = jax.vjp(per_device, params)

    def microbatch(params: Params, rows: slice) -> tuple[Any, Any]:
      part = {name: array[rows] for name, array in batch.items()}
      where = positions[rows]
      # Outside the differentiated function, one microbatch at a time: the compiled program, its
      # memory included, is the same as with the augmentation inside.
      pixels = augment_batch(augment_key, part, where, statistics, lighting_std, options, precision)
      return loss_and_gradient(
        local,
        params,
        pixels,
        part['label'],
        dropout_key,
        where,
        images * mesh.shape[mesh_lib.DATA],
      )

    (loss, sums), gradients = accumulate(microbatch, params, images, images // accumulation_steps)
    loss, sums = lax.psum((loss, sums), mesh_lib.DATA)
    return loss, sums, sum_over_devices(gradients)[0]

  gradient_fn = jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=(
      specs.params, mesh_lib.REPLICATED, mesh_lib.BATCH, mesh_lib.REPLICATED, mesh_lib.REPLICATED
    ),
    out_specs=(mesh_lib.REPLICATED, mesh_lib.REPLICATED, specs.params),
    check_vma=True,
  )  # fmt: skip

  def step(
    state: TrainState,
    batch: Mapping[str, Array],
    statistics: augment.Statistics,
    lighting_std: Array,
  ) -> tuple[TrainState, Array]:
    loss, sums, gradients = gradient_fn(state.params, state.step, batch, statistics, lighting_std)
    return update(tx, state, gradients, sums), loss

  placed = mesh_lib.shardings(mesh, specs)
  platform = mesh.devices.flat[0].platform
  return jax.jit(
    step,
    donate_argnums=0,
    out_shardings=(placed, mesh_lib.shardings(mesh, mesh_lib.REPLICATED)),
    compiler_options={
      **xla.options(platform, library_fusions),
      **(xla.ordered(platform) if accumulation_steps > 1 else {}),
    },
  )
