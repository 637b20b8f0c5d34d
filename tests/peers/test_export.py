"""PyTorch and onnxruntime compute our logits from what we write for them, and torchvision takes it."""

import runpy

import jax
import numpy as np
import pytest

from alexnet_jax import experiment
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.convert import convert
from alexnet_jax.data import augment
from alexnet_jax.evaluation import layer_outputs
from configs import imagenet
from tests.reference import QUICK_TO_COMPILE
from tests.variants import VARIANTS, random_params, settings

torch = pytest.importorskip('torch', reason='PyTorch is not installed')


def make_config(updates):
  """A config of a variant, its images 4 pixels larger than the crops."""
  config = imagenet.get_config()
  model = {name: value for name, value in updates.items() if not name.startswith('augment.')}
  config.model.update(settings(**model))
  config.data.image_size = config.model.input_size + 4
  config.augment.pixel_scale = (1 / 60, 1 / 50, 1 / 40)
  config.augment.crop_offsets = 5
  config.update_from_flattened_dict({name: updates[name] for name in updates.keys() - model})
  return config


def network_of(config):
  """Random parameters, a mean image that differs from pixel to pixel, and colors' axes."""
  params = random_params(experiment.make_network(config))
  rng = np.random.default_rng(7)
  size = config.data.image_size
  statistics = augment.Statistics(
    mean_image=rng.uniform(0, 255, (size, size, 3)).astype(np.float32),
    eigenvalues=rng.uniform(size=3).astype(np.float32),
    eigenvectors=rng.standard_normal((3, 3)).astype(np.float32),
  )
  names = [f'class {label}' for label in range(config.model.num_classes)]
  params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
  return PretrainedNetwork(params, config, statistics, names, 12, 'nowhere')


def our_logits(network, crops):
  """The logits of [N, s, s, 3] uint8."""

  def logits(params, statistics, crops):
    return layer_outputs.intermediates(network.config, params, statistics, crops)['fc8']

  compiled = jax.jit(logits, compiler_options=QUICK_TO_COMPILE)
  return np.asarray(compiled(network.params, network.statistics, crops))


def random_crops(network, count=3):
  size = network.config.model.input_size
  return np.random.default_rng(8).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def channels_first(crops):
  return np.ascontiguousarray(crops.transpose(0, 3, 1, 2))


def torch_model(path):
  """The module and weights of a .pth, as its user has them."""
  model = runpy.run_path(str(path.with_suffix('.py')))['AlexNet']()
  model.load_state_dict(torch.load(path, weights_only=True))
  return model.eval()


def torch_logits(model, crops):
  with torch.no_grad():
    return model(torch.tensor(channels_first(crops))).numpy()


def assert_close(actual, expected):
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


PIXELS = {
  'mean_color': {'augment.mean': 'channel'},
  'source_s_mean': {'augment.mean': 'center', 'augment.pixel_scale': 1 / 64},
}


@pytest.mark.parametrize(
  'updates', [*VARIANTS.values(), *PIXELS.values()], ids=[*VARIANTS, *PIXELS]
)
def test_the_module_s_logits_are_ours(tmp_path, updates):
  network = network_of(make_config(updates))
  convert.write(tmp_path / 'net.pth', network)
  crops = random_crops(network)
  assert_close(torch_logits(torch_model(tmp_path / 'net.pth'), crops), our_logits(network, crops))
