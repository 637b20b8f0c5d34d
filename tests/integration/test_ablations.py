"""Every entry of the ablations takes two steps of training with the paper's network."""

import jax
import numpy as np
import pytest

from alexnet_jax import experiment
from alexnet_jax.data import augment
from alexnet_jax.parallel import mesh
from alexnet_jax.sweeps import planning, spec
from alexnet_jax.training import step as step_lib
from configs import imagenet
from configs.sweeps import ablations

ABLATIONS = [
  spec.BASE, *(variant.name for variant in ablations.get_sweep(imagenet.get_config()).variants)
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('name', ABLATIONS)
def test_every_ablation_takes_two_steps_of_the_papers_network(name, tmp_path):
  config = imagenet.get_config()
  planned = planning.plan(
    'ablations', ablations.get_sweep(config), config, tmp_path, config_file='x.py', overrides={}
  )
  variants = {run.variant: run.config for run in planned.runs}
  if name not in variants:  # the paper's initialization is the base's
    assert name in planned.not_applying == ('paper_initialization',)
    return
  config = variants[name]
  net = experiment.make_network(config)
  devices = mesh.make_mesh(config.model.num_columns, 1, 1)
  tx = experiment.make_optimizer(config, net)
  step = step_lib.make_train_step(net, tx, devices, experiment.augment_options(config), seed=0)
  state = step_lib.init_state(net, tx, devices, seed=0)
  rates = jax.tree.map(lambda leaf: np.float32(config.optimizer.learning_rate), state.params)
  state = state._replace(opt_state=state.opt_state._replace(learning_rates=rates))
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8),
    'offset': np.zeros((2, 2), np.int32),
    'label': np.array([3, 997], np.int32),
  }
  found = augment.Statistics(
    mean_image=np.full((256, 256, 3), 120, np.float32),
    eigenvalues=np.array([0.2, 0.02, 0.005], np.float32),
    eigenvectors=np.eye(3, dtype=np.float32),
  )
  before = jax.tree.map(np.asarray, state.params)
  for _ in range(2):
    state, loss = step(state, batch, found, np.float32(0.1))
    assert np.isfinite(float(loss))
  assert int(state.step) == 2
  assert not np.array_equal(state.params['fc8']['bias'], before['fc8']['bias'])
