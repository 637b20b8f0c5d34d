"""PyTorch and onnxruntime compute our logits from what we write for them, and torchvision takes it."""

import dataclasses
import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax.convert import convert, layouts
from alexnet_jax.data import included
from alexnet_jax.evaluation import layer_outputs
from alexnet_jax.utils.errors import UserError
from benchmarks import conversion, peers
from configs import imagenet, imagenet_torchvision
from tests.launching import start
from tests.reference import QUICK_TO_COMPILE
from tests.variants import VARIANTS, settings

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


def our_logits(network, crops):
  """The logits of [N, s, s, 3] uint8."""

  def logits(params, statistics, crops):
    return layer_outputs.intermediates(network.config, params, statistics, crops)['fc8']

  compiled = jax.jit(logits, compiler_options=QUICK_TO_COMPILE)
  return np.asarray(compiled(network.params, network.statistics, crops))


def random_crops(network, count=3):
  size = network.config.model.input_size
  return np.random.default_rng(8).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


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
  network = conversion.random_network(make_config(updates))
  convert.write(tmp_path / 'net.pth', network)
  crops = random_crops(network)
  model = peers.torch_module(tmp_path / 'net.pth')
  assert_close(peers.torch_logits(model, crops), our_logits(network, crops))


def test_a_module_of_other_precision_computes_in_it(tmp_path):
  network = conversion.random_network(make_config({}))
  convert.write(tmp_path / 'net.pth', network)
  crops = random_crops(network)
  model = peers.torch_module(tmp_path / 'net.pth').double()
  logits = peers.torch_logits(model, crops)
  assert logits.dtype == np.float64
  np.testing.assert_allclose(logits, our_logits(network, crops), rtol=0, atol=1e-5)


def test_the_module_trains_with_the_paper_s_dropout(tmp_path):
  config = make_config({'fc7.features': 0, 'activation': 'logistic', 'dropout.rate': 0.25})
  convert.write(tmp_path / 'net.pth', conversion.random_network(config))
  model = peers.torch_module(tmp_path / 'net.pth').train()
  seen = {}
  for name in ('logistic6', 'dropout6'):
    part = getattr(model.classifier, name)
    part.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output}))
  torch.manual_seed(0)
  crops = torch.tensor(peers.channels_first(random_crops(conversion.random_network(config), 40)))
  model(crops).sum().backward()
  before, after = seen['logistic6'], seen['dropout6']
  stays = after != 0
  assert 0.7 < stays.double().mean() < 0.8
  torch.testing.assert_close(after[stays], before[stays])  # not divided by 0.75
  assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize('target', ['net.pth', 'net.torch.safetensors', 'net.onnx'])
def test_in_out_and_in_again_is_the_same_bit_for_bit(tmp_path, target):
  network = conversion.random_network(make_config({'conv6.features': 12}))
  lost = []
  convert.write(tmp_path / 'net.safetensors', network)
  convert.convert(tmp_path / 'net.safetensors', tmp_path / target, log=lost.append)
  has_metadata = not target.endswith('.pth')
  back = convert.read(tmp_path / target, None if has_metadata else network.config)
  jax.tree.map(np.testing.assert_array_equal, back.params, network.params)
  np.testing.assert_array_equal(back.statistics.mean_image, network.statistics.mean_image)
  if has_metadata:
    jax.tree.map(np.testing.assert_array_equal, back.statistics, network.statistics)
    assert (lost, back.step, back.class_names) == ([], network.step, network.class_names)
  else:
    [line] = lost
    assert 'net.pth has the weights and the mean image, but not the config, class names,' in line


@pytest.mark.parametrize('biases', [0, 1])
def test_an_onnx_file_of_equal_biases_and_torchvision_s_mean_color_is_read_again(tmp_path, biases):
  pytest.importorskip('onnxscript', reason='onnxscript is not installed')
  network = conversion.random_network(make_config({'cross_column': ('conv3',)}))
  params = {
    layer: {**of_layer, 'bias': np.full_like(of_layer['bias'], biases)}
    for layer, of_layer in network.params.items()
  }
  mean_image = np.empty_like(network.statistics.mean_image)
  mean_image[:] = layouts.TORCHVISION.mean_color
  statistics = network.statistics._replace(mean_image=mean_image)
  network = dataclasses.replace(network, params=params, statistics=statistics)
  convert.write(tmp_path / 'net.onnx', network)
  back = convert.read(tmp_path / 'net.onnx')
  jax.tree.map(np.testing.assert_array_equal, back.params, network.params)
  jax.tree.map(np.testing.assert_array_equal, back.statistics, network.statistics)
  crops = random_crops(network)
  assert_close(peers.onnx_logits(tmp_path / 'net.onnx', crops), our_logits(network, crops))


def test_an_onnx_file_of_locally_connected_layers_is_not_read_again(tmp_path):
  network = conversion.random_network(make_config({'locally_connected': ('conv5',)}))
  convert.write(tmp_path / 'net.onnx', network)
  with pytest.raises(UserError, match=r'net.onnx has the weights of conv5 in another form'):
    convert.read(tmp_path / 'net.onnx')


@pytest.mark.parametrize('target', ['net.pth', 'net.torch.safetensors'])
def test_pytorch_reads_contiguous_tensors_under_the_module_s_names(tmp_path, target):
  convert.write(tmp_path / target, conversion.random_network(make_config({})))
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
  expected = peers.torch_logits(model, peers.torchvision_scaled(crops))
  written = peers.torch_module(tmp_path / 'again.pth')
  logits = peers.torch_logits(written, crops)
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


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
  onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
  network = conversion.random_network(make_config(updates))
  convert.write(tmp_path / 'net.onnx', network)
  assert [path.name for path in tmp_path.iterdir()] == ['net.onnx']
  for count in (1, 5):
    crops = random_crops(network, count)
    assert_close(peers.onnx_logits(tmp_path / 'net.onnx', crops), our_logits(network, crops))
  assert str(Path(torch.__file__).parent).encode() not in (tmp_path / 'net.onnx').read_bytes()
  session = onnxruntime.InferenceSession(tmp_path / 'net.onnx')
  description = session.get_modelmeta().custom_metadata_map['alexnet_jax_state_dict']
  assert json.loads(description)['class_names'] == network.class_names


@pytest.mark.slow
def test_digits_are_told_as_well_by_every_file(tmp_path):
  run = tmp_path / 'run'
  epochs = '--config.train.num_epochs=12'
  with start('--config=configs/digits.py', epochs, f'--workdir={run}') as training:
    _, said = training.communicate()
  assert training.returncode == 0, said
  network = convert.read(run)
  crops = included.digits('validation').images
  expected = our_logits(network, crops)
  labels = included.digits('validation').labels
  assert (expected.argmax(1) == labels).mean() > 0.9
  for _, back in conversion.read_again(network, tmp_path):
    np.testing.assert_array_equal(our_logits(back, crops), expected)
  targets = ('.torch.safetensors', '.pth', '.onnx')
  for _, _, logits in conversion.answers(network, tmp_path, crops, targets):
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))


@pytest.mark.slow
def test_the_paper_s_full_network_has_the_same_logits_everywhere(tmp_path):
  config = imagenet.get_config()
  config.augment.pixel_scale = 1 / 64
  network = conversion.random_network(config)
  crops = random_crops(network)
  expected = our_logits(network, crops)
  for _, _, logits in conversion.answers(network, tmp_path, crops, ('.pth', '.onnx')):
    assert_close(logits, expected)
