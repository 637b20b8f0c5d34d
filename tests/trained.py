"""Networks and workdirs as training leaves them, without its seconds: their parameters are random."""

import jax
import numpy as np

from alexnet_jax import experiment
from alexnet_jax.checkpoints import checkpoint, pretrained, workdir
from alexnet_jax.data import augment, included, pipeline
from alexnet_jax.models.alexnet import parameter_shapes


def random_network(config, split, seed=0):
  """A network with random parameters of large logits, and the statistics of a split."""
  rng = np.random.default_rng(seed)

  def random(path, leaf):
    layer, kind = (entry.key for entry in path)
    spread = np.sqrt(2 / np.prod(leaf.shape[:-1])) if kind == 'kernel' else 0.1
    return np.float32((4 if layer == 'fc8' else 1) * spread) * rng.standard_normal(
      leaf.shape, np.float32
    )

  shapes = parameter_shapes(experiment.make_network(config))
  statistics = {
    name: np.asarray(array, np.float32) for name, array in pipeline.statistics(split).items()
  }
  return pretrained.PretrainedNetwork(
    jax.tree_util.tree_map_with_path(random, shapes),
    config,
    augment.Statistics(**statistics),
    split.class_names,
    10,
    'random',
  )


def write_run(path, config, seed=0, steps=(10,), class_names=included.DIGITS):
  """Writes a workdir of the digits, with a checkpoint of a network of its own at each step.

  The last one is the best.
  """
  path.mkdir(parents=True, exist_ok=True)
  workdir.write_config(path, experiment.resolved(config))
  for step in steps:
    network = random_network(config, included.digits('validation'), seed)
    add_checkpoint(path, network, step, class_names)


def add_checkpoint(path, network, step, class_names=included.DIGITS):
  """Writes a checkpoint, the best, into a workdir."""
  writer = checkpoint.Writer(path / 'checkpoints', 2)
  description = {
    'step': step,
    'progress': {'best_step': step},
    'config': experiment.resolved(network.config),
    'class_names': list(class_names),
  }
  trees = {'params': network.params, 'statistics': network.statistics._asdict()}
  writer.save(step, trees, description, step)
  writer.close()
