"""torchvision's own network and transforms, and converted ones, from the same image files."""

import io

import numpy as np
import pytest
from PIL import Image

import alexnet_jax
from alexnet_jax.convert import convert
from alexnet_jax.data import imagenet_classes
from alexnet_jax.utils.errors import UserError
from benchmarks import peers
from configs import imagenet_torchvision
from tests.launching import launch

REASON = 'PyTorch or torchvision is not installed: pip install -e ".[peers]"'
# When tests are collected, for PyTorch that is imported after TensorFlow ends the process.
torch = pytest.importorskip('torch', reason=REASON)
torchvision = pytest.importorskip('torchvision', reason=REASON)
safetensors_torch = pytest.importorskip('safetensors.torch', reason=REASON)


@pytest.fixture(scope='module')
def network():
  return peers.torchvision_alexnet()


@pytest.fixture(scope='module')
def checkpoint(network, tmp_path_factory):
  """What the ImageNet example of PyTorch writes."""
  path = tmp_path_factory.mktemp('torchvision') / 'model_best.pth.tar'
  optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
  content = {
    'epoch': 90,
    'arch': 'alexnet',
    'state_dict': torch.nn.DataParallel(network).state_dict(),
    'best_acc1': torch.tensor(56.5),
    'optimizer': optimizer.state_dict(),
    'scheduler': torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict(),
  }
  torch.save(content, path)
  return path


def photographs():
  """JPEG files of many sizes, one of them gray and one that EXIF rotates."""
  rng = np.random.default_rng(0)
  exif = Image.Exif()
  exif[0x0112] = 6
  for width, height in ((500, 375), (333, 500), (331, 384), (411, 120), (259, 256), (170, 170)):
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    shown = image.convert('L') if width == 500 else image
    shown.save(file, 'JPEG', **({'exif': exif} if width == 331 else {}))
    yield file.getvalue()


def test_logits_are_torchvision_s_from_the_same_jpeg_files(network, checkpoint):
  with pytest.warns(UserWarning, match="the weights are those of 'state_dict'; not used: epoch"):
    classifier = alexnet_jax.load(checkpoint)
  files = list(photographs())
  expected = peers.torch_logits(network, peers.torchvision_pixels(files))
  assert expected.std() > 1
  np.testing.assert_allclose(classifier.logits(files), expected, rtol=0, atol=1e-3)


def test_the_order_of_the_classes_is_torchvision_s():
  words = list(imagenet_classes.words().values())
  named = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.meta['categories']
  differ = [(ours, theirs) for ours, theirs in zip(words, named, strict=True) if theirs not in ours]
  assert differ == [('crane (bird)', 'crane bird'), ('maillot, tank suit', 'maillot tank suit')]


@pytest.mark.filterwarnings('ignore:`torch.jit:FutureWarning')
@pytest.mark.filterwarnings('ignore:`torch.jit:DeprecationWarning')
def test_the_commands_that_messages_say_save_weights_that_are_read(tmp_path, monkeypatch):
  module = torch.nn.Linear(2, 3)
  torch.save(module, tmp_path / 'whole.pth')
  torch.save(module, tmp_path / 'legacy.pth', _use_new_zipfile_serialization=False)
  torch.save({'epoch': 1, 'model': module}, tmp_path / 'within.pth')
  torch.jit.script(module).save(tmp_path / 'script.pth')
  monkeypatch.chdir(tmp_path)
  for name in ('whole', 'legacy', 'within', 'script'):
    with pytest.raises(UserError, match=r'none of (it|which) was run') as refused:
      convert.read(f'{name}.pth', imagenet_torchvision.get_config())
    command = str(refused.value).splitlines()[1]
    exec(command.removeprefix('python -c "').removesuffix('"'), {})
    with pytest.raises(UserError, match=r'_weights\.pth has 0 and 1$'):
      convert.read(f'{name}_weights.pth', imagenet_torchvision.get_config())


def test_numbers_that_numpy_would_not_have_as_they_are_are_refused(tmp_path):
  bias = torch.full((10,), 3.0)
  torch.save({'classifier.6.bias': torch._neg_view(bias)}, tmp_path / 'x.pth')
  with pytest.raises(UserError, match=r'save its \.resolve_neg\(\)'):
    convert.read(tmp_path / 'x.pth')
  eights = {'classifier.6.bias': bias.to(torch.float8_e4m3fn)}
  safetensors_torch.save_file(eights, tmp_path / 'x.safetensors')
  with pytest.raises(UserError, match=r'type that NumPy does not have .* save them as float32'):
    convert.read(tmp_path / 'x.safetensors')


def test_a_run_starts_from_torchvision_s_layers_that_fit(network, checkpoint, tmp_path):
  fields = {
    'train.init_from': checkpoint,
    'train.num_steps': 2,
    'model.conv1.features': 64,
    'model.conv1.kernel_size': 11,
    'model.conv1.padding': 5,
    'optimizer.lr_multipliers.conv1': '((0,0.0),)',  # it stays as it is
  }
  options = [f'--config.{name}={value}' for name, value in fields.items()]
  code, _, err = launch('--config=configs/digits.py', f'--workdir={tmp_path}', *options)
  assert code == 0, err
  assert f'from {checkpoint}: conv1\n' in err
  kernel = convert.read(tmp_path).params['conv1']['kernel']
  expected = network.features[0].weight.detach().numpy().transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(kernel, expected)
