"""PyTorch and onnxruntime compute our logits from what we write for them, and torchvision takes it."""

import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax import experiment
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.convert import convert
from alexnet_jax.data import datasets
from alexnet_jax.evaluation import layer_outputs
from alexnet_jax.training import loop
from configs import digits, imagenet, imagenet_torchvision
from tests.other_formats import random_statistics
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
  """Random parameters, with which every layer matters, and statistics."""
  net = experiment.make_network(config)
  params = jax.tree.map(lambda leaf: leaf.astype(np.float32), random_params(net))
  statistics = random_statistics(config.data.image_size)
  names = [f'class {label}' for label in range(net.num_classes)]
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


def test_a_module_of_other_precision_computes_in_it(tmp_path):
  network = network_of(make_config({}))
  convert.write(tmp_path / 'net.pth', network)
  crops = random_crops(network)
  logits = torch_logits(torch_model(tmp_path / 'net.pth').double(), crops)
  assert logits.dtype == np.float64
  np.testing.assert_allclose(logits, our_logits(network, crops), rtol=0, atol=1e-5)


def test_the_module_trains_with_the_paper_s_dropout(tmp_path):
  config = make_config({'fc7.features': 0, 'activation': 'logistic', 'dropout.rate': 0.25})
  convert.write(tmp_path / 'net.pth', network_of(config))
  model = torch_model(tmp_path / 'net.pth').train()
  seen = {}
  for name in ('logistic6', 'dropout6'):
    part = getattr(model.classifier, name)
    part.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output}))
  torch.manual_seed(0)
  crops = torch.tensor(channels_first(random_crops(network_of(config), 40)))
  model(crops).sum().backward()
  before, after = seen['logistic6'], seen['dropout6']
  stays = after != 0
  assert 0.7 < stays.double().mean() < 0.8
  torch.testing.assert_close(after[stays], before[stays])  # not divided by 0.75
  assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize('target', ['net.pth', 'net.torch.safetensors'])
def test_in_out_and_in_again_is_the_same_bit_for_bit(tmp_path, target):
  network = network_of(make_config({'conv6.features': 12}))
  lost = []
  convert.write(tmp_path / 'net.safetensors', network)
  convert.convert(tmp_path / 'net.safetensors', tmp_path / target, log=lost.append)
  has_metadata = target.endswith('.safetensors')
  back = convert.read(tmp_path / target, None if has_metadata else network.config)
  jax.tree.map(np.testing.assert_array_equal, back.params, network.params)
  np.testing.assert_array_equal(back.statistics.mean_image, network.statistics.mean_image)
  if has_metadata:
    jax.tree.map(np.testing.assert_array_equal, back.statistics, network.statistics)
    assert (lost, back.step, back.class_names) == ([], network.step, network.class_names)
  else:
    [line] = lost
    assert 'net.pth has the weights and the mean image, but not the config' in line


@pytest.mark.parametrize('target', ['net.pth', 'net.torch.safetensors'])
def test_pytorch_reads_contiguous_tensors_under_the_module_s_names(tmp_path, target):
  convert.write(tmp_path / target, network_of(make_config({})))
  if target.endswith('.pth'):
    tensors = torch.load(tmp_path / target, weights_only=True)
  else:
    tensors = pytest.importorskip('safetensors.torch').load_file(tmp_path / target)
  model = runpy.run_path(str(tmp_path / 'net.py'))['AlexNet']()
  assert tensors.keys() == model.state_dict().keys()
  assert all(tensor.is_contiguous() for tensor in tensors.values())


def test_torchvision_s_own_weights_come_back_as_they_were(tmp_path):
  torchvision = pytest.importorskip('torchvision', reason='torchvision is not installed')
  torch.manual_seed(0)
  model = torchvision.models.alexnet(num_classes=10).eval()
  torch.save(model.state_dict(), tmp_path / 'alexnet.pth')
  config = imagenet_torchvision.get_config()
  config.model.num_classes = 10
  network = convert.convert(tmp_path / 'alexnet.pth', tmp_path / 'again.pth', config)
  back = torch.load(tmp_path / 'again.pth', weights_only=True)
  assert back.keys() == model.state_dict().keys()
  for name, tensor in model.state_dict().items():
    assert torch.equal(back[name], tensor)

  crops = random_crops(network)
  pixels = torch.tensor(channels_first(crops)) / 255
  mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  with torch.no_grad():
    expected = model(torchvision.transforms.functional.normalize(pixels, mean, std)).numpy()
  written = torch_model(tmp_path / 'again.pth')
  np.testing.assert_allclose(torch_logits(written, crops), expected, rtol=0, atol=1e-5)


def onnx_session(path):
  onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
  return onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])


ON_ONNX = {
  'paper': {},
  'the_rest': {
    'conv6.features': 12,
    'locally_connected': ('conv5',),
    'pool.average': ('conv2',),
    'within_norm.layers': ('conv2',),
    'response_norm.over': 'all_channels',
    'cross_column': ('conv3',),
    'activation': 'tanh',
    'augment.mean': 'channel',
  },
}


@pytest.mark.parametrize('updates', ON_ONNX.values(), ids=ON_ONNX)
def test_onnxruntime_s_logits_are_ours_at_any_batch_size(tmp_path, updates):
  pytest.importorskip('onnxscript', reason='onnxscript is not installed')
  network = network_of(make_config(updates))
  convert.write(tmp_path / 'net.onnx', network)
  assert [path.name for path in tmp_path.iterdir()] == ['net.onnx']
  session = onnx_session(tmp_path / 'net.onnx')
  for count in (1, 5):
    crops = random_crops(network, count)
    [logits] = session.run(['logits'], {'crops': channels_first(crops)})
    assert_close(logits, our_logits(network, crops))
  assert str(Path(torch.__file__).parent).encode() not in (tmp_path / 'net.onnx').read_bytes()
  [text] = session.get_modelmeta().custom_metadata_map.values()
  assert json.loads(text)['class_names'] == network.class_names


def onnx_logits(path, crops):
  return onnx_session(path).run(['logits'], {'crops': channels_first(crops)})[0]


@pytest.mark.slow
def test_digits_are_told_as_well_by_every_file(tmp_path):
  config = digits.get_config()
  config.train.num_epochs = 12
  loop.train_and_evaluate(config, tmp_path / 'run')
  network = convert.read(tmp_path / 'run')
  crops = datasets.digits('validation').images
  expected = our_logits(network, crops)
  labels = datasets.digits('validation').labels
  assert (expected.argmax(1) == labels).mean() > 0.9
  for target in ('x.safetensors', 'x.jaxexport', 'x.torch.safetensors', 'x.pth', 'x.onnx'):
    convert.write(tmp_path / target, network)
  for target in ('x.safetensors', 'x.jaxexport', 'x.torch.safetensors', 'x.pth'):
    back = convert.read(tmp_path / target, config if target == 'x.pth' else None)
    np.testing.assert_array_equal(our_logits(back, crops), expected)
  scale = np.abs(expected).max()
  for logits in (
    torch_logits(torch_model(tmp_path / 'x.pth'), crops),
    onnx_logits(tmp_path / 'x.onnx', crops),
  ):
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6 * scale)
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))


@pytest.mark.slow
def test_the_paper_s_full_network_has_the_same_logits_everywhere(tmp_path):
  config = imagenet.get_config()
  config.augment.pixel_scale = 1 / 64
  network = network_of(config)
  crops = random_crops(network)
  for target in ('net.pth', 'net.onnx'):
    convert.write(tmp_path / target, network)
  expected = our_logits(network, crops)
  assert_close(torch_logits(torch_model(tmp_path / 'net.pth'), crops), expected)
  assert_close(onnx_logits(tmp_path / 'net.onnx', crops), expected)
