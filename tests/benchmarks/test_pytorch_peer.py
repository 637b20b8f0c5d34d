"""The PyTorch network of the benchmarks does the work of ours, and its process keeps its word."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.models import summary
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.options import LAYERS
from configs import (
  cifar10,
  cifar10_11pct,
  cifar10_alexnet,
  digits,
  imagenet,
  imagenet_source,
  imagenet_torchvision,
)

torch = pytest.importorskip('torch', reason='PyTorch is not installed')
peer = importlib.import_module('benchmarks.pytorch_peer')

ROOT = Path(__file__).parents[2]
PEER = ROOT / 'benchmarks' / 'pytorch_peer.py'

# The paper's net on 34x34 pixels, with constants that make the norms matter, a norm over all maps
# and inverted dropout: PyTorch has no others.
NARROW = {
  'num_classes': 7,
  'input_size': 34,
  'conv1.features': 8,  # 16x16, for which a pixel is missing, pooled to 8x8
  'conv1.kernel_size': 5,
  'conv1.stride': 2,
  'conv2.features': 12,  # 8x8, pooled to 4x4
  'conv3.features': 16,
  'conv4.features': 12,
  'conv5.features': 8,  # 4x4, pooled to 2x2
  'fc6.features': 16,
  'fc7.features': 12,
  'response_norm.alpha': 0.05,
  'response_norm.over': 'all_channels',
  'within_norm.alpha': 0.5,
  'dropout.inverted': True,
}


def section(config, updates):
  """The model section of a config, and our network of it."""
  model = config.get_config().model
  model.update_from_flattened_dict(updates)
  return model, AlexNet.from_config(model.to_dict())


VARIANTS = [
  pytest.param(imagenet, {}, id='paper'),
  pytest.param(imagenet_source, {}, id='source'),
  pytest.param(imagenet, {'num_columns': 1}, id='one column'),
  pytest.param(imagenet_torchvision, {}, id='torchvision'),
  pytest.param(imagenet, {'pool.window': 2}, id='pools that do not overlap'),
  pytest.param(imagenet, {'conv5.features': 0, 'fc7.features': 0}, id='layers left out'),
  pytest.param(imagenet, {'cross_column': ('conv3',)}, id='fc6 and fc7 read their own column'),
  pytest.param(cifar10, {}, id='cifar10'),
  pytest.param(cifar10_alexnet, {}, id='cifar10_alexnet'),
  pytest.param(digits, {'input_size': 4}, id='a pool of one pixel'),
]


@pytest.mark.parametrize(('config', 'updates'), VARIANTS)
def test_shapes_and_parameters_are_ours(config, updates):
  model, ours = section(config, updates)
  rows = summary.rows(ours)
  with torch.device('meta'):
    net, side = peer.network(model)
    x, shapes = torch.empty(2, 3, side, side), {}
    for name, part in net.named_children():
      x = part(x)
      shapes[name] = tuple(x.shape[1:])

  assert sum(p.numel() for p in net.parameters()) == sum(row.parameters for row in rows)
  assert x.shape == (2, model.num_classes)
  pooled = {row.layer: (row.pooled[2], *row.pooled[:2]) for row in rows if row.pooled is not None}
  assert {name: shapes[f'{name}_pool'] for name in pooled} == pooled


def draw_parameters(ours, net):
  """Draws parameters with He's deviation, copies them to PyTorch's network, and returns ours."""
  image = jnp.zeros((1, ours.input_size, ours.input_size, 3))
  params = jax.eval_shape(ours.init, jax.random.key(0), image)['params']
  rng = np.random.default_rng(3)
  drawn = {}
  maps = None  # of a column, where they are yet to be flattened
  for name in filter(params.__contains__, LAYERS):
    shapes = params[name]
    kernel = rng.standard_normal(shapes['kernel'].shape, np.float32)
    kernel *= np.sqrt(2 / np.prod(kernel.shape[:-1]))
    bias = 0.1 * rng.standard_normal(shapes['bias'].shape, np.float32)
    drawn[name] = {'kernel': jnp.asarray(kernel), 'bias': jnp.asarray(bias)}
    part = getattr(net, name)
    if kernel.ndim == 4:
      weight = kernel.transpose(3, 2, 0, 1)
      maps = kernel.shape[3] // ours.num_columns
    elif maps is not None:
      # Ours reads [column, y, x, map], PyTorch's [column, map, y, x].
      side = round((kernel.shape[0] / ours.num_columns / maps) ** 0.5)
      weight = kernel.reshape(-1, side, side, maps, kernel.shape[1]).transpose(4, 0, 3, 1, 2)
      maps = None
    else:
      weight = kernel.T
    with torch.no_grad():
      part.weight.copy_(torch.from_numpy(weight.reshape(part.weight.shape).copy()))
      part.bias.copy_(torch.from_numpy(bias))
  return drawn


@pytest.mark.parametrize(
  ('config', 'updates'),
  [
    pytest.param(cifar10, {'within_norm.alpha': 0.5}, id='cifar10'),
    pytest.param(imagenet, NARROW, id='paper'),
    pytest.param(imagenet_source, {**NARROW, 'pool.average': ('conv2',)}, id='source'),
  ],
)
def test_logits_are_ours(config, updates):
  model, ours = section(config, updates)
  net, side = peer.network(model)
  net.eval()
  size = ours.input_size
  images = np.random.default_rng(4).standard_normal((4, size, size, 3), np.float32)
  params = draw_parameters(ours, net)

  expected, _ = jax.jit(ours.apply)({'params': params}, images)
  grown = np.pad(images, ((0, 0), (0, side - size), (0, side - size), (0, 0)))
  with torch.no_grad():
    logits = net(torch.from_numpy(grown.transpose(0, 3, 1, 2).copy())).numpy()

  assert np.abs(logits).max() > 0.1
  np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_locally_connected_layers_are_refused():
  with pytest.raises(SystemExit, match='conv3 is locally connected'):
    peer.network(cifar10_11pct.get_config().model)


CONFIG = """
from configs import digits


def get_config():
  config = digits.get_config()
  config.model.fc6.features = 16
  config.model.fc7.features = 16
  return config
"""


@pytest.mark.parametrize(
  'options',
  [
    ('--mode=train', '--threads=1'),
    ('--mode=predict', '--precision=bfloat16', '--channels_last'),
  ],
)
def test_process_runs_steps_when_asked(tmp_path, options):
  (tmp_path / 'narrow.py').write_text(CONFIG)
  config = f'--config={tmp_path / "narrow.py"}'
  command = [sys.executable, '-W', 'error', PEER, config, '--batch_size=4', '--no-compile']
  done = subprocess.run(
    [*command, *options], input='2\n1\n', cwd=tmp_path, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  ready, two, one, memory = map(json.loads, done.stdout.splitlines())

  assert ready['ready'] is True
  assert ready['version'] == torch.__version__
  assert ready['first_step_seconds'] > 0
  assert ready['threads'] >= 1
  assert [len(said['seconds']) for said in (two, one)] == [1, 1]
  assert min(two['seconds'] + one['seconds']) > 0
  assert memory['peak_memory_bytes'] > 10**7
  assert done.stderr == ''


def test_without_pytorch_it_says_so(tmp_path):
  (tmp_path / 'torch.py').write_text('raise ImportError\n')
  done = subprocess.run(
    [sys.executable, PEER], env={'PYTHONPATH': str(tmp_path)}, capture_output=True, text=True
  )

  assert done.returncode == 1
  assert done.stdout == ''
  assert done.stderr == 'pytorch_peer.py: PyTorch is not installed; pip install torch\n'
