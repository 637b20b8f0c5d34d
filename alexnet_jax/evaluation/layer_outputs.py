"""The outputs of a network's layers, by the names that users give."""

import contextlib
from collections.abc import Callable, Generator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.data import augment, pipeline, splits
from alexnet_jax.models.params import Params
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.parallel import xla
from alexnet_jax.utils.errors import UserError

Array = jax.Array
OutputsStep = Callable[[Params, augment.Statistics, Array | np.ndarray], dict[str, Array]]


def intermediates(
  config: ConfigDict, params: Params, statistics: augment.Statistics, crops: Array
) -> dict[str, Array]:
  """Computes all intermediate arrays of a network for center crops.

  Args:
    config: the network's complete config.
    params: its parameters.
    statistics: of its training images.
    crops: [N, s, s, 3] uint8 with s = model.input_size; their pixels are prepared as in training's
      evaluation.

  Returns:
    Arrays [N, ...] by the network's own names; 'fc8' has the logits, float32.
  """
  border = (config.data.image_size - config.model.input_size) // 2
  offsets = jnp.full((crops.shape[0], 2), border, jnp.int32)
  options = experiment.augment_options(config)
  pixels = augment.evaluation_pixels(crops, offsets, statistics, options)
  net = experiment.make_network(config)
  _, outputs = net.apply({'params': params}, pixels.astype(config.train.precision))
  return dict(outputs)


def output_names(config: ConfigDict) -> list[str]:
  """The network's own names of its intermediate arrays, in the order of computation."""
  net, names = experiment.make_network(config), list[str]()

  def run(images: Array) -> None:
    (_, outputs), _ = net.init_with_output(jax.random.key(0), images)
    names.extend(outputs)  # here, for eval_shape would return them sorted

  jax.eval_shape(run, jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), jnp.float32))
  return names


def layer_names(config: ConfigDict) -> dict[str, str]:
  """The names of a network's outputs for users, and the network's own name of each.

  A layer's name means the output of its activation ('fc7' is that of the paper's figure 4: after
  the ReLU, before dropout), or for fc8 the logits. 'fc7_linear' is the input of the activation,
  which the network itself calls 'fc7'; 'conv1_norm', 'conv1_pool' and 'fc7_dropout' come after it.
  """
  own_names, names = output_names(config), dict[str, str]()
  for own in own_names:
    if f'{own}_activation' in own_names:
      names |= {own: f'{own}_activation', f'{own}_linear': own}
    else:
      names[own] = own
  return names


def make_outputs_step(config: ConfigDict, layers: Sequence[str]) -> OutputsStep:
  """Makes a compiled function from (params, statistics, crops) to layers by name, on one device.

  Crops are [N, s, s, 3] uint8, as `intermediates` takes them; outputs are [N, ...] float32.

  Args:
    config: the network's complete config.
    layers: names in `layer_names`; only what they need is computed.

  Raises:
    UserError: there is no such layer; the message lists all.
  """
  names = layer_names(config)
  for layer in layers:
    if layer not in names:
      raise UserError(f'there is no layer {layer!r}; there are {", ".join(names)}')

  def step(params: Params, statistics: augment.Statistics, crops: Array) -> dict[str, Array]:
    outputs = intermediates(config, params, statistics, crops)
    return {layer: outputs[names[layer]].astype(jnp.float32) for layer in layers}

  platform = mesh_lib.devices()[0].platform
  options = xla.options(platform, config.train.library_fusions)
  return jax.jit(step, compiler_options=options)


def split_outputs(
  step: OutputsStep,
  params: Params,
  statistics: augment.Statistics,
  split: splits.Split,
  *,
  batch_size: int,
  crop_size: int,
  progress: Callable[[int], None] = lambda images: None,
) -> Generator[tuple[np.ndarray, dict[str, Array]]]:
  """Computes layers' outputs for the center crop of every image of a split, in order.

  Args:
    step: from `make_outputs_step`.
    params: the network's, on the first device.
    statistics: of the training images.
    split: the images.
    batch_size: images per batch.
    crop_size: the network's input size in pixels.
    progress: called with the number of images of each batch.

  Yields:
    For each batch its labels [n] int32, and arrays [n, ...] float32 by layer.
  """
  read = pipeline.evaluation_batches(split, batch_size, crop_size)
  with contextlib.closing(pipeline.prefetch(read)) as batches:
    for batch in batches:
      count = int(batch['mask'].sum())  # what fills up the last batch comes after its images
      outputs = step(params, statistics, batch['image'])
      progress(count)
      yield batch['label'][:count], {layer: output[:count] for layer, output in outputs.items()}
