"""Exports a trained network with its program into one file (.jaxexport)."""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import export as jax_export

from alexnet_jax.checkpoints import pretrained
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.evaluation import layer_outputs
from alexnet_jax.parallel import compat

Array = jax.Array

PLATFORMS = ('cpu', 'cuda', 'tpu')
"""Platforms on which an exported program runs."""


@compat.default_settings()
def export(network: PretrainedNetwork, target: str | os.PathLike[str]) -> None:
  """Writes a network and its program atomically into one file, which jax runs without this package.

  The file is that of `pretrained.write` with one more array, 'program': the bytes that `jax.export`
  serializes, for PLATFORMS, of a function from all other arrays by name and crops [n, s, s, 3]
  uint8, for any n, to logits [n, classes] float32. Running it needs jax, safetensors and
  flatbuffers, but neither alexnet_jax nor the network's config:

    arrays = safetensors.numpy.load_file(target)
    program = jax.export.deserialize(bytearray(arrays.pop('program')))
    logits = jax.jit(program.call)(arrays, crops)

  Class names and config are JSON in the file's metadata, under 'alexnet_jax'. The parameters are
  stored beside the program, not as constants in it, which XLA would take 10 s to compile for each
  n. `alexnet_jax.load` reads the file like any other. jax runs programs exported by a version up to
  six months older.

  Args:
    network: a trained network.
    target: path of the file.

  Raises:
    UserError: the file cannot be written.
  """
  config, size = network.config, network.config.model.input_size

  def logits(arrays: Mapping[str, Array], crops: Array) -> Array:
    params, statistics = pretrained.unflatten(arrays)
    return layer_outputs.intermediates(config, params, statistics, crops)['fc8']

  arrays = {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for name, leaf in pretrained.flatten(network.params, network.statistics).items()
  }
  (n,) = jax_export.symbolic_shape('n')
  crops = jax.ShapeDtypeStruct((n, size, size, 3), jnp.uint8)
  program = jax_export.export(jax.jit(logits), platforms=PLATFORMS)(arrays, crops)
  pretrained.write(target, network, bytes(program.serialize()))
