"""A trained network and its program in one file (.jaxexport)."""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import export as jax_export

from alexnet_jax.checkpoints import pretrained
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.evaluation import inference

Array = jax.Array

PLATFORMS = ('cpu', 'cuda', 'tpu')
"""Where an exported program runs."""


def export(
  network: PretrainedNetwork | str | os.PathLike[str], target: str | os.PathLike[str]
) -> None:
  """Writes a network and its program into one file, which jax runs without this package.

  The file is in the safetensors format, `pretrained.write`'s, with one more array, 'program':
  `jax.export`'s serialised bytes, for PLATFORMS, of a function from all the other arrays, by name,
  and crops [n, s, s, 3] uint8, for any n, to logits [n, classes] float32. So neither alexnet_jax
  nor the network's config is needed to run it, only jax, safetensors and flatbuffers:

    arrays = safetensors.numpy.load_file(target)
    program = jax.export.deserialize(bytearray(arrays.pop('program')))
    logits = jax.jit(program.call)(arrays, crops)

  Class names and config are JSON in the file's metadata, under 'alexnet_jax'. The parameters are
  beside the program, not constants in it: XLA takes 10 s to compile AlexNet's as constants, and
  again for each n. `load` opens the file as any other. jax runs programs exported by a version up
  to six months older.

  Args:
    network: a trained network, or where to `pretrained.read` it.
    target: path of the file.

  Raises:
    UserError: the network cannot be read, or the file cannot be written.
  """
  if not isinstance(network, PretrainedNetwork):
    network = pretrained.read(network)
  config, size = network.config, network.config.model.input_size

  def logits(arrays: Mapping[str, Array], crops: Array) -> Array:
    params, statistics = pretrained.unflatten(arrays)
    return inference.intermediates(config, params, statistics, crops)['fc8']

  arrays = {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for name, leaf in pretrained.flatten(network.params, network.statistics).items()
  }
  (n,) = jax_export.symbolic_shape('n')
  crops = jax.ShapeDtypeStruct((n, size, size, 3), jnp.uint8)
  program = jax_export.export(jax.jit(logits), platforms=PLATFORMS)(arrays, crops)
  pretrained.write(target, network, bytes(program.serialize()))
