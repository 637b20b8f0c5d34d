"""Converted networks compute the original's logits, conversion is lossless, and bad files are named."""

import ast
import dataclasses
import functools
import json
import os
import pickle
import struct
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from alexnet_jax import experiment, load
from alexnet_jax.checkpoints import pretrained, safetensors_file
from alexnet_jax.convert import convert, layouts
from alexnet_jax.data import augment
from alexnet_jax.models.alexnet import parameter_shapes
from alexnet_jax.utils.errors import UserError
from benchmarks import caffe_files
from configs import imagenet, imagenet_caffe, imagenet_torchvision
from tests.launching import assert_message, launch
from tests.other_formats import (
  CLASSES,
  NARROW,
  as_npy,
  caffe_blobs,
  caffe_config,
  pickled,
  pickled_by_python_2,
  random_network,
  random_statistics,
  state_dict,
  tensorflow_layers,
  torchvision_config,
  write_pth,
  write_state_dict,
  write_zip,
)
from tests.reference import QUICK_TO_COMPILE
from tests.small import small_config

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 98, 98, 3), dtype=np.uint8)  # RGB


def conv_nchw(x, weights, biases, stride=1, padding=0, groups=1):
  y = lax.conv_general_dilated(
    x,
    weights,
    (stride, stride),
    [(padding, padding)] * 2,
    dimension_numbers=('NCHW', 'OIHW', 'NCHW'),
    feature_group_count=groups,
  )
  return jax.nn.relu(y + biases.reshape(1, -1, 1, 1))


def pool_nchw(x, overhang):
  """3x3 at stride 2; overhanging windows are clipped (Caffe) or left out (PyTorch)."""
  odd = (x.shape[2] - 3) % 2
  pads = [(0, 0), (0, 0), *[(0, odd if overhang else 0)] * 2]
  return lax.reduce_window(x, -np.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), pads)


def lrn_nchw(x, alpha, beta=0.75, n=5, k=1.0):
  squares = lax.reduce_window(
    x * x, 0.0, lax.add, (1, n, 1, 1), (1, 1, 1, 1), [(0, 0), (2, 2), (0, 0), (0, 0)]
  )
  return x * (k + alpha / n * squares) ** -beta


@functools.partial(jax.jit, compiler_options=QUICK_TO_COMPILE)
def caffe_net(blobs, images):
  """deploy.prototxt, in Caffe's terms: BGR, NCHW, groups of two.

  Args:
    blobs: {layer: [weights, biases]}.
    images: [N, 3, 95, 95], the mean subtracted.
  """
  x = conv_nchw(images, *blobs['conv1'], stride=4)
  x = pool_nchw(lrn_nchw(x, 0.5), overhang=True)
  x = conv_nchw(x, *blobs['conv2'], padding=2, groups=2)
  x = pool_nchw(lrn_nchw(x, 0.5), overhang=True)
  x = conv_nchw(x, *blobs['conv3'], padding=1)
  x = conv_nchw(x, *blobs['conv4'], padding=1, groups=2)
  x = conv_nchw(x, *blobs['conv5'], padding=1, groups=2)
  x = pool_nchw(x, overhang=True).reshape(len(x), -1)
  for layer in ('fc6', 'fc7'):
    weights, biases = blobs[layer]
    x = jax.nn.relu(x @ weights.T + biases[None])
  weights, biases = blobs['fc8']
  return x @ weights.T + biases[None]


@functools.partial(jax.jit, compiler_options=QUICK_TO_COMPILE)
def torchvision_net(state, images):
  """torchvision's AlexNet at test time; its adaptive pool changes nothing at this size of maps."""

  def conv(x, number, **geometry):
    return conv_nchw(
      x, state[f'features.{number}.weight'], state[f'features.{number}.bias'], **geometry
    )

  def linear(x, number):
    weights, biases = (state[f'classifier.{number}.{kind}'] for kind in ('weight', 'bias'))
    return x @ weights.T + biases[None]

  x = pool_nchw(conv(images, 0, stride=4, padding=2), overhang=False)
  x = pool_nchw(conv(x, 3, padding=2), overhang=False)
  x = conv(conv(x, 6, padding=1), 8, padding=1)
  x = pool_nchw(conv(x, 10, padding=1), overhang=False).reshape(len(x), -1)
  x = jax.nn.relu(linear(x, 1))
  return linear(jax.nn.relu(linear(x, 4)), 6)


def network_logits(network):
  """Logits of the central crops of IMAGES."""
  net = experiment.make_network(network.config)
  border = (IMAGES.shape[1] - net.input_size) // 2
  crops = jnp.asarray(IMAGES[:, border:, border:][:, : net.input_size, : net.input_size])
  offsets = jnp.full((len(crops), 2), border, jnp.int32)

  @functools.partial(jax.jit, compiler_options=QUICK_TO_COMPILE)
  def apply(params, statistics):
    options = experiment.augment_options(network.config)
    pixels = augment.evaluation_pixels(crops, offsets, statistics, options)
    return net.apply({'params': params}, pixels)[0]

  return np.asarray(apply(network.params, network.statistics))


def caffe_logits(blobs, mean):
  """Caffe's logits of the same; mean is [3, 98, 98] or [3, 1, 1], blue, green and red."""
  bgr = IMAGES[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - mean.astype(np.float32)
  return np.asarray(caffe_net(blobs, bgr[:, :, 1:96, 1:96]))


CAFFE_MEAN = np.array([104.00699, 116.66877, 122.67891]).reshape(3, 1, 1)  # blue, green and red


def assert_close(actual, expected):
  assert np.abs(expected).max() > 0.3
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


CAFFEMODELS = {
  'old': caffe_files.old_caffemodel,
  'new': caffe_files.caffemodel,
  'unpacked': functools.partial(caffe_files.caffemodel, encode=caffe_files.unpacked_blob),
  'doubles': functools.partial(caffe_files.caffemodel, encode=caffe_files.double_blob),
}


@pytest.mark.parametrize('encode', CAFFEMODELS.values(), ids=CAFFEMODELS)
def test_a_caffemodel_gives_caffe_s_logits(tmp_path, encode):
  source = tmp_path / 'bvlc_alexnet.caffemodel'
  source.write_bytes(encode(caffe_blobs()))
  network = convert.read(source, caffe_config())
  assert_close(network_logits(network), caffe_logits(caffe_blobs(), CAFFE_MEAN))
  assert list(network.class_names) == list('0123456')
  assert network.step is None


def test_caffe_s_mean_image_is_subtracted_where_the_crop_lies(tmp_path):
  mean = np.random.default_rng(3).uniform(0, 255, (3, 98, 98))
  (tmp_path / 'mean.binaryproto').write_bytes(caffe_files.binaryproto(mean))
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.old_caffemodel(caffe_blobs()))
  source, target, lines = tmp_path / 'x.caffemodel', tmp_path / 'x.safetensors', []
  convert.convert(
    source, target, caffe_config(), mean=tmp_path / 'mean.binaryproto', log=lines.append
  )
  assert lines == []  # of a mean that is assumed
  assert_close(network_logits(pretrained.read(target)), caffe_logits(caffe_blobs(), mean))


@pytest.mark.parametrize(
  'pickled_by',
  [pickled, functools.partial(pickled, protocol=2), pickled_by_python_2],
  ids=['now', 'protocol 2', 'python 2'],
)
def test_an_npy_gives_caffe_s_logits(tmp_path, pickled_by):
  source = tmp_path / 'bvlc_alexnet.npy'
  source.write_bytes(as_npy(pickled_by(tensorflow_layers())))
  assert np.load(source, allow_pickle=True, encoding='latin1').item().keys() == caffe_blobs().keys()
  network = convert.read(source, caffe_config())
  assert_close(network_logits(network), caffe_logits(caffe_blobs(), CAFFE_MEAN))


TORCHVISION_MEAN = np.array([0.485, 0.456, 0.406])
TORCHVISION_STD = np.array([0.229, 0.224, 0.225])


def torchvision_images():
  """As torchvision's transforms make them of IMAGES."""
  pixels = (IMAGES / 255 - TORCHVISION_MEAN) / TORCHVISION_STD
  return pixels.transpose(0, 3, 1, 2).astype(np.float32)


def test_torchvision_s_state_dict_gives_its_logits(tmp_path):
  network = convert.read(write_state_dict(tmp_path / 'x.safetensors'), torchvision_config())
  expected = torchvision_net(state_dict(), torchvision_images())
  assert_close(network_logits(network), np.asarray(expected))


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_a_pth_is_read_without_pytorch(tmp_path, monkeypatch, dtype):
  source = write_pth(tmp_path / 'alexnet.pth', state_dict(), monkeypatch, dtype)
  monkeypatch.setitem(sys.modules, 'torch', None)  # importing it would fail
  network = convert.read(source, torchvision_config())
  convert.write(tmp_path / 'x.torch.safetensors', network)
  back = safetensors_file.read_arrays(tmp_path / 'x.torch.safetensors')
  assert back.keys() == state_dict().keys()
  for name, array in state_dict().items():
    np.testing.assert_array_equal(back[name], array.astype(dtype).astype(np.float32))


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, (a.params, a.statistics), (b.params, b.statistics))
  assert a.config.to_dict() == b.config.to_dict()
  assert (list(a.class_names), a.step) == (list(b.class_names), b.step)


def caffe_config_with(**updates):
  config = caffe_config()
  config.model.update_from_flattened_dict(updates)
  return config


NETWORKS = {
  'two columns': caffe_config,
  'one column': torchvision_config,
  'conv3 reads its own column': lambda: caffe_config_with(cross_column=('fc6', 'fc7')),
  'dense layers of one column': lambda: caffe_config_with(
    **{'cross_column': (), 'conv5.features': 0, 'bottleneck.features': 6}
  ),
  'a sixth convolution, locally connected, and no hidden dense layer': lambda: caffe_config_with(
    **{
      'conv6.features': 10,
      'locally_connected': ('conv5', 'conv6'),
      'fc6.features': 0,
      'fc7.features': 0,
    }
  ),
}


@pytest.mark.parametrize('make_config', NETWORKS.values(), ids=NETWORKS)
def test_a_network_converted_to_a_state_dict_and_back_is_the_same(tmp_path, make_config):
  network = random_network(make_config())
  statistics = random_statistics(network.config.data.image_size)
  network = dataclasses.replace(network, statistics=statistics)
  pretrained.write(tmp_path / 'x.safetensors', network)
  convert.convert(tmp_path / 'x.safetensors', tmp_path / 'x.torch.safetensors')
  with pytest.raises(UserError, match='convert it first'):
    pretrained.read(tmp_path / 'x.torch.safetensors')
  convert.convert(tmp_path / 'x.torch.safetensors', tmp_path / 'back.safetensors')
  assert_same(network, pretrained.read(tmp_path / 'back.safetensors'))


@pytest.mark.parametrize('layout', [layouts.CAFFE, layouts.TENSORFLOW, layouts.TORCHVISION])
@pytest.mark.parametrize('make_config', NETWORKS.values(), ids=NETWORKS)
def test_decoding_undoes_encoding(layout, make_config):
  network = random_network(make_config())
  net = experiment.make_network(network.config)
  arrays = layouts.encode(network.params, net, layout)
  jax.tree.map(np.testing.assert_array_equal, layouts.decode(arrays, net, layout), network.params)


def test_a_state_dict_has_torchvision_s_names_and_groups_for_columns(tmp_path):
  convert.write(tmp_path / 'x.torch.safetensors', random_network(caffe_config()))
  arrays, metadata = (
    safetensors_file.read_arrays(tmp_path / 'x.torch.safetensors'),
    safetensors_file.read_metadata(tmp_path / 'x.torch.safetensors'),
  )
  expected = dict(
    zip(state_dict(), (a.shape for p in caffe_blobs().values() for a in p), strict=True)
  )
  expected['mean_image'] = (3, 98, 98)
  assert {name: array.shape for name, array in arrays.items()} == expected
  np.testing.assert_allclose(json.loads(metadata['mean_color']), [120.3, 110.2, 100.1], rtol=1e-6)


FULL = {  # weights, by Caffe's deploy.prototxt and torchvision's alexnet.py
  'caffe': [
    (96, 3, 11, 11),
    (256, 48, 5, 5),
    (384, 256, 3, 3),
    (384, 192, 3, 3),
    (256, 192, 3, 3),
    (4096, 9216),
    (4096, 4096),
    (1000, 4096),
  ],
  'torchvision': [
    (64, 3, 11, 11),
    (192, 64, 5, 5),
    (384, 192, 3, 3),
    (256, 384, 3, 3),
    (256, 256, 3, 3),
    (4096, 9216),
    (4096, 4096),
    (1000, 4096),
  ],
}


@pytest.mark.parametrize(
  ('config', 'layout', 'name'),
  [
    (imagenet_caffe, layouts.CAFFE, 'caffe'),
    (imagenet_torchvision, layouts.TORCHVISION, 'torchvision'),
    (imagenet, layouts.TORCHVISION, 'caffe'),  # the paper's network in groups
  ],
  ids=['caffe', 'torchvision', 'paper'],
)
def test_the_full_networks_have_the_published_shapes(config, layout, name):
  net = experiment.make_network(config.get_config())
  shapes = parameter_shapes(net)
  encoded = jax.eval_shape(functools.partial(layouts.encode, net=net, layout=layout), shapes)
  expected = [part for shape in FULL[name] for part in (shape, shape[:1])]
  names = [name for pair in layout.names.values() for name in pair if name in encoded]
  assert [encoded[name].shape for name in names] == expected


def test_mean_and_class_names_come_from_files(tmp_path):
  lines = ''.join(f'sort {label} \n' for label in range(CLASSES))
  (tmp_path / 'names.txt').write_text(lines, encoding='utf-8-sig')  # as Windows writes it
  mean = np.random.default_rng(3).uniform(0, 255, (3, 98, 98)).astype(np.float32)
  (tmp_path / 'mean.binaryproto').write_bytes(caffe_files.binaryproto(mean))
  network = convert.convert(
    write_state_dict(tmp_path / 'x.safetensors'),
    tmp_path / 'y.safetensors',
    torchvision_config(),
    mean=tmp_path / 'mean.binaryproto',
    class_names=tmp_path / 'names.txt',
  )
  assert_same(network, pretrained.read(tmp_path / 'y.safetensors'))
  assert network.class_names == [f'sort {label}' for label in range(CLASSES)]
  np.testing.assert_array_equal(network.statistics.mean_image[..., 0], mean[2])  # red
  np.testing.assert_array_equal(network.statistics.eigenvalues, np.zeros(3))


class Code:
  """Pickles as a call that makes a file when it is run."""

  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return os.system, (f'touch {self.marker}',)


def test_code_in_an_npy_is_not_run(tmp_path):
  marker = tmp_path / 'ran'
  source = tmp_path / 'x.npy'
  source.write_bytes(as_npy(pickled({'conv1': [Code(marker), np.zeros(2)]})))
  with pytest.raises(UserError, match=r'asks for posix\.system, which may be code; none of it'):
    convert.read(source, caffe_config())
  assert not marker.exists()
  np.load(source, allow_pickle=True)
  assert marker.exists()  # numpy would have run it


def test_code_in_a_pth_is_not_run(tmp_path):
  marker = tmp_path / 'ran'
  content = pickle.dumps({'features.0.weight': Code(marker)}, protocol=2)
  source = write_zip(tmp_path / 'x.pth', {'data.pkl': content})
  with pytest.raises(UserError, match=r'asks for posix\.system, which may be code; none of it'):
    convert.read(source, torchvision_config())
  assert not marker.exists()


@pytest.mark.parametrize(
  'attribute', ['builtins\neval', 'os\nsystem', 'numpy\nload', 'torch\nload']
)
def test_the_unpickler_allows_only_what_arrays_need(tmp_path, attribute):
  content = b'c' + attribute.encode() + b'\n(tR.'
  (tmp_path / 'x.npy').write_bytes(as_npy(content))
  write_zip(tmp_path / 'x.pth', {'data.pkl': content})
  for name in ('x.npy', 'x.pth'):
    with pytest.raises(UserError, match='none of it was run'):
      convert.read(tmp_path / name, caffe_config())


HUGE = 2**40
DAMAGED_PICKLES = {
  'empty': b'',
  'an object outside': b'\x80\x02X\x01\x00\x00\x00aQ.',
  'missing bytes': b'\x80\x04\x8e' + struct.pack('<Q', HUGE) + b'x.',
  'a missing bytearray': b'\x80\x05\x96' + struct.pack('<Q', HUGE) + b'x.',
  'a huge memo': b'\x80\x02Nr\xff\xff\xff\x7f.',
  'a number': b'\x80\x02K\x01.',
  'a list': b'\x80\x02].',
  'a dictionary of numbers': b'\x80\x02}K\x01K\x02s.',
}


@pytest.mark.parametrize('content', DAMAGED_PICKLES.values(), ids=DAMAGED_PICKLES)
def test_a_pickle_that_is_no_dictionary_of_arrays_is_refused(tmp_path, content):
  (tmp_path / 'x.npy').write_bytes(as_npy(content))
  write_zip(tmp_path / 'x.pth', {'data.pkl': content})
  for name in ('x.npy', 'x.pth'):
    with pytest.raises(UserError, match=f'{name} is not .*, or is incomplete'):
      convert.read(tmp_path / name, caffe_config())


DOUBLED = b')\x94' + b''.join(
  b'h' + bytes([i]) + b'h' + bytes([i]) + b'\x86\x94' for i in range(60)
)
ENDLESS_PICKLES = {
  'a name to hash': b'\x80\x04' + DOUBLED + b'}h\x3cK\x01s.',
  'a set': b'\x80\x04' + DOUBLED + b'\x8f(h\x3c\x90.',
  'an object outside': b'\x80\x04' + DOUBLED + b'h\x3cQ.',
  'a storage': b'\x80\x04' + DOUBLED + b'(Nctorch\nFloatStorage\nh\x3ctQ.',
}


@pytest.mark.parametrize('content', ENDLESS_PICKLES.values(), ids=ENDLESS_PICKLES)
def test_a_small_pickle_of_2_to_the_60_tuples_ends_at_once(tmp_path, content):
  (tmp_path / 'x.npy').write_bytes(as_npy(content))
  write_zip(tmp_path / 'x.pth', {'data.pkl': content})
  for name in ('x.npy', 'x.pth'):
    with pytest.raises(UserError, match=f'{name} (is not|asks for) .*'):
      convert.read(tmp_path / name, caffe_config())


def test_a_pickle_changes_nothing_outside_itself(tmp_path):
  # BUILD, with a state for numpy's own bfloat16.
  content = b'\x80\x02}(X\x01\x00\x00\x00actorch\nBFloat16Storage\n(K\x03X\x01\x00\x00\x00>NNNK\x09K\x09K\x00tbu.'
  write_zip(tmp_path / 'x.pth', {'data.pkl': content})
  before = np.dtype(jnp.bfloat16).str
  with pytest.raises(UserError, match='it changes an object that it did not make'):
    convert.read(tmp_path / 'x.pth', torchvision_config())
  assert np.dtype(jnp.bfloat16).str == before


def test_the_same_bytes_under_many_names_are_refused(tmp_path):
  array = np.zeros(1000, np.float32)
  layers = {f'conv{i}': [array, array] for i in range(100)}
  (tmp_path / 'x.npy').write_bytes(as_npy(pickled(layers)))
  assert (tmp_path / 'x.npy').stat().st_size < 3 * array.nbytes
  with pytest.raises(UserError, match='its arrays are larger than it is'):
    convert.read(tmp_path / 'x.npy', caffe_config())


def test_names_in_messages_are_short_and_can_be_printed(tmp_path):
  name = '\x1b[2J' + 'x' * 10**5 + '\n' * 10
  blobs = {**caffe_blobs(), name: [np.zeros(1)]}
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.caffemodel(blobs))
  (tmp_path / 'x.npy').write_bytes(as_npy(pickled({**tensorflow_layers(), name: [np.zeros(1)]})))
  write_zip(tmp_path / 'x.pth', {'data.pkl': pickle.dumps({name: 1}, 2)})
  write_state_dict(tmp_path / 'x.safetensors', {**state_dict(), name: np.zeros(1)})
  for suffix in ('caffemodel', 'npy', 'pth', 'safetensors'):
    config = torchvision_config() if suffix in ('pth', 'safetensors') else caffe_config()
    said = []
    if suffix == 'pth':
      with pytest.raises(UserError) as raised:
        convert.read(tmp_path / 'x.pth', config)
      said.append(str(raised.value))
    else:
      convert.read(tmp_path / f'x.{suffix}', config, said.append)
    assert 'xxx' in said[0]
    assert said[0].isprintable()
    assert len(said[0]) < 600


def test_numbers_beyond_float32_are_refused_without_a_warning(tmp_path):
  blobs = caffe_blobs()
  blobs['fc8'][1] = np.full(CLASSES, 1e300)
  file = tmp_path / 'x.caffemodel'
  file.write_bytes(caffe_files.caffemodel(blobs, caffe_files.double_blob))
  with pytest.raises(UserError, match=r'fc8\[1\] in .* has values that are not finite numbers'):
    convert.read(file, caffe_config())
  write_state_dict(tmp_path / 'x.safetensors', {'classifier.6.bias': np.full(CLASSES, 1e300)})
  with pytest.raises(UserError, match=r'has no features\.0\.weight'):
    convert.read(tmp_path / 'x.safetensors', torchvision_config())


def test_a_zip_file_whose_parts_lie_before_its_start_is_not_whole(tmp_path, monkeypatch):
  whole = write_pth(tmp_path / 'whole.pth', {'x': np.zeros(3)}, monkeypatch).read_bytes()
  end = whole.rindex(b'PK\x05\x06')
  start = struct.pack('<I', 2**32 - 2)
  (tmp_path / 'x.pth').write_bytes(whole[: end + 16] + start + whole[end + 20 :])
  with pytest.raises(UserError, match=r'x\.pth is not '):
    convert.read(tmp_path / 'x.pth', torchvision_config())


@pytest.mark.parametrize('cut', [1, 20, 1000, -100, -1])
def test_a_truncated_file_is_incomplete(tmp_path, monkeypatch, cut):
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.old_caffemodel(caffe_blobs())[:cut])
  (tmp_path / 'x.npy').write_bytes(as_npy(pickled(tensorflow_layers()))[:cut])
  whole = write_pth(tmp_path / 'whole.pth', state_dict(), monkeypatch).read_bytes()
  (tmp_path / 'x.pth').write_bytes(whole[:cut])
  for name in ('x.caffemodel', 'x.npy', 'x.pth'):
    with pytest.raises(UserError, match=f'{name} is not '):
      convert.read(tmp_path / name, caffe_config())


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (b'', r'x\.caffemodel is empty'),
    (b'This is no protobuf.', 'not a caffemodel, or is incomplete'),
    (caffe_files.counted(100, caffe_files.counted(1, b'conv1')), 'no layers with weights'),
    (caffe_files.varint(2 << 3 | 2) + caffe_files.varint(HUGE), 'not a caffemodel'),
    (caffe_files.caffemodel({'conv1': [np.zeros((HUGE, 0))]}), 'conv1'),
    (
      caffe_files.caffemodel({'conv1': []}, None)
      + caffe_files.counted(
        100,
        caffe_files.counted(1, b'conv1')
        + caffe_files.counted(
          7, caffe_files.counted(7, caffe_files.counted(1, caffe_files.varint(HUGE)))
        ),
      ),
      r'an array of the shape \[1099511627776\] has 0 numbers',
    ),
    (caffe_files.caffemodel({'conv1': [np.broadcast_to(0, (1,) * 60)]}), 'an array has 60 axes'),
  ],
  ids=['empty', 'text', 'no blobs', 'huge message', 'huge empty blob', 'huge blob', 'huge product'],
)
def test_an_invalid_caffemodel_is_named(tmp_path, content, words):
  (tmp_path / 'x.caffemodel').write_bytes(content)
  with pytest.raises(UserError, match=words):
    convert.read(tmp_path / 'x.caffemodel', caffe_config())


def changed_blobs(change):
  blobs = caffe_blobs()
  change(blobs)
  return blobs


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (
      lambda blobs: blobs.pop('conv3'),
      r'has no conv3\[0\]; pass the config of the network in this file',
    ),
    (lambda blobs: blobs['fc7'].pop(), r'has no fc7\[1\]'),
    (
      lambda blobs: blobs.update(fc8=[np.zeros((9, 16)), np.zeros(9)]),
      r'fc8\[0\] in .* is float32\[9, 16\], not float32\[7, 16\]',
    ),
  ],
)
def test_another_network_than_the_config_s_is_named(tmp_path, change, words):
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.old_caffemodel(changed_blobs(change)))
  with pytest.raises(UserError, match=words):
    convert.read(tmp_path / 'x.caffemodel', caffe_config())


def test_a_state_dict_of_another_network_is_named(tmp_path):
  source = write_state_dict(tmp_path / 'x.safetensors')
  words = r'features\.3\.weight in .* is float32\[12, 8, 5, 5\], not float32\[12, 4, 5, 5\]; pass'
  with pytest.raises(UserError, match=words):
    convert.read(source, caffe_config())


@pytest.mark.parametrize(
  'changes', [{'size': (10**6, 10**6), 'stride': (0, 0)}, {'offset': 9**9}, {'stride': (-1,)}]
)
def test_a_tensor_reaches_no_further_than_its_storage(tmp_path, monkeypatch, changes):
  source = write_pth(tmp_path / 'x.pth', {'features.0.bias': np.zeros(8)}, monkeypatch, **changes)
  with pytest.raises(UserError, match='a tensor reaches beyond its storage'):
    convert.read(source, torchvision_config())


def test_a_compressed_pth_is_refused(tmp_path):
  bomb = {'data.pkl': bytes(10**6)}
  source = write_zip(tmp_path / 'x.pth', bomb, zipfile.ZIP_DEFLATED)
  with pytest.raises(UserError, match='it is compressed'):
    convert.read(source, torchvision_config())


def test_an_npy_of_numbers_is_no_dictionary(tmp_path):
  np.save(tmp_path / 'x.npy', np.zeros((2, 3), np.float32))
  with pytest.raises(UserError, match=r'it is an array, float32\[2, 3\]'):
    convert.read(tmp_path / 'x.npy', caffe_config())


def test_a_source_without_a_config_asks_for_it(tmp_path):
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.old_caffemodel(caffe_blobs()))
  with pytest.raises(
    UserError, match=r'has no config; convert it (.|\n)*--config=configs/imagenet_caffe\.py'
  ):
    convert.read(tmp_path / 'x.caffemodel')
  with pytest.raises(
    UserError, match=r'has no config; convert it (.|\n)*--config=configs/imagenet_torchvision\.py'
  ):
    convert.read(write_state_dict(tmp_path / 'x.safetensors'))


def test_load_takes_the_config_of_a_file_that_has_none(tmp_path):
  source = write_state_dict(tmp_path / 'x.safetensors')
  with pytest.warns(UserWarning, match=r"no mean image; ImageNet's mean color \(123\.6"):
    loaded = load(source, torchvision_config())
  assert_same(loaded, convert.read(source, torchvision_config()))


def test_weights_that_are_not_finite_are_refused(tmp_path):
  blobs = caffe_blobs()
  blobs['conv2'][0].flat[3] = np.nan
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.old_caffemodel(blobs))
  words = r'conv2\[0\] in .*x\.caffemodel has values that are not finite numbers'
  with pytest.raises(UserError, match=words):
    convert.read(tmp_path / 'x.caffemodel', caffe_config())
  file = tmp_path / 'x.safetensors'
  pretrained.write(file, random_network(caffe_config()))
  arrays, metadata = safetensors_file.read_arrays(file), safetensors_file.read_metadata(file)
  safetensors_file.write(file, {**arrays, 'fc7.kernel': np.inf * arrays['fc7.kernel']}, metadata)
  with pytest.raises(UserError, match=r'fc7\.kernel in .* has values that are not finite'):
    load(file)


def test_a_source_with_a_config_takes_no_other(tmp_path):
  pretrained.write(tmp_path / 'x.safetensors', random_network(caffe_config()))
  with pytest.raises(UserError, match='has a config of its own; leave --config out'):
    convert.read(tmp_path / 'x.safetensors', caffe_config())


def test_a_missing_source_or_one_of_unknown_kind_is_named(tmp_path):
  with pytest.raises(UserError, match=r'there is no .*nowhere\.pth'):
    convert.read(tmp_path / 'nowhere.pth', caffe_config())
  (tmp_path / 'x.h5').write_bytes(b'\x89HDF')
  with pytest.raises(UserError, match=r'x\.h5 is of an unknown kind; it must be .*\.caffemodel'):
    convert.read(tmp_path / 'x.h5', caffe_config())


def test_a_target_is_refused_before_the_source_is_read(tmp_path, monkeypatch):
  with pytest.raises(UserError, match=r'cannot write .*x\.h5: its name must end in'):
    convert.convert('nowhere', tmp_path / 'x.h5')
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(UserError, match=r'pip install torch, or write a \.torch\.safetensors'):
    convert.convert('nowhere', tmp_path / 'x.pth')
  monkeypatch.setitem(sys.modules, 'onnx', None)
  monkeypatch.setitem(sys.modules, 'onnxscript', None)
  with pytest.raises(UserError, match='pip install torch onnx onnxscript, or'):
    convert.convert('nowhere', tmp_path / 'x.onnx')


def test_a_state_dict_comes_with_code_for_it(tmp_path):
  names = ['"""', "'\\n", 'x\ny', '{0}', 'é', 'f', 'g']
  network = dataclasses.replace(random_network(caffe_config()), class_names=names)
  convert.write(tmp_path / 'x.torch.safetensors', network)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['x.py', 'x.torch.safetensors']
  parsed = ast.parse((tmp_path / 'x.py').read_text())
  [listed] = [node.value for node in parsed.body if isinstance(node, ast.Assign)]
  assert ast.literal_eval(listed) == names
  imported = {name for node in parsed.body for name in getattr(node, 'names', ())}
  assert {alias.name for alias in imported} == {'OrderedDict', 'torch', 'nn'}
  classes = [node.name for node in parsed.body if isinstance(node, ast.ClassDef)]
  assert classes == ['AlexNet']  # Caffe's norms are over both columns, and its dropout is inverted


def test_code_beside_a_state_dict_replaces_none_but_its_own(tmp_path):
  network = random_network(caffe_config())
  target = tmp_path / 'x.torch.safetensors'
  (tmp_path / 'x.py').write_text('mine = 1\n')
  with pytest.raises(UserError, match=r'x\.py, which this program has not written'):
    convert.write(target, network)
  assert [path.name for path in tmp_path.iterdir()] == ['x.py']
  (tmp_path / 'x.py').unlink()
  convert.write(target, network)
  first = (tmp_path / 'x.py').read_text()
  convert.write(target, random_network(torchvision_config()))
  assert (tmp_path / 'x.py').read_text() != first


def rewritten(path, arrays=None, metadata=None):
  """Writes a file anew with some of its arrays and metadata changed."""
  old = safetensors_file.read_arrays(path), safetensors_file.read_metadata(path)
  safetensors_file.write(path, {**old[0], **(arrays or {})}, {**old[1], **(metadata or {})})
  return path


def test_a_state_dict_with_a_mean_color_alone_has_it_everywhere(tmp_path):
  convert.write(tmp_path / 'x.torch.safetensors', random_network(torchvision_config()))
  arrays = safetensors_file.read_arrays(tmp_path / 'x.torch.safetensors')
  del arrays['mean_image']
  metadata = safetensors_file.read_metadata(tmp_path / 'x.torch.safetensors')
  safetensors_file.write(tmp_path / 'x.torch.safetensors', arrays, metadata)
  mean = convert.read(tmp_path / 'x.torch.safetensors').statistics.mean_image
  np.testing.assert_array_equal(
    mean, np.broadcast_to(np.float32([120.3, 110.2, 100.1]), mean.shape)
  )


def test_a_mean_image_of_another_size_is_named(tmp_path):
  convert.write(tmp_path / 'x.torch.safetensors', random_network(small_config()))
  rewritten(tmp_path / 'x.torch.safetensors', {'mean_image': np.zeros((3, 9, 9), np.float32)})
  with pytest.raises(UserError, match=r'mean_image in .* is float32\[3, 9, 9\], not .*3, 8, 8\]'):
    convert.read(tmp_path / 'x.torch.safetensors')


@pytest.mark.parametrize(
  'text', ['', '[]', '{"eigenvalues": [1, 2, 3]}', '{"eigenvalues": [1], "eigenvectors": [[1]]}']
)
def test_damaged_axes_of_the_colors_are_named(tmp_path, text):
  convert.write(tmp_path / 'x.torch.safetensors', random_network(small_config()))
  rewritten(tmp_path / 'x.torch.safetensors', metadata={'lighting': text})
  with pytest.raises(UserError, match='has a lighting that cannot be read'):
    convert.read(tmp_path / 'x.torch.safetensors')


@pytest.mark.parametrize('text', ['', '[1, 2]', '[1, 2, "x"]', 'null'])
def test_a_damaged_mean_color_is_named(tmp_path, text):
  convert.write(tmp_path / 'x.torch.safetensors', random_network(small_config()))
  rewritten(tmp_path / 'x.torch.safetensors', metadata={'mean_color': text})
  with pytest.raises(UserError, match='has a mean_color that cannot be read'):
    convert.read(tmp_path / 'x.torch.safetensors')


def test_a_mean_or_names_that_do_not_fit_are_named(tmp_path):
  source, target = write_state_dict(tmp_path / 'x.safetensors'), tmp_path / 'y.safetensors'
  convert_it = functools.partial(convert.convert, source, target, torchvision_config())
  file = tmp_path / 'file'
  for argument in ('mean', 'class_names'):
    with pytest.raises(UserError, match=rf'there is no .*file \(--{argument}\)'):
      convert_it(**{argument: file})
  file.write_bytes(caffe_files.binaryproto(np.zeros((3, 5, 5))))
  with pytest.raises(UserError, match=r'3 x 5 x 5, but data\.image_size requires 3 x 98 x 98'):
    convert_it(mean=file)
  file.write_bytes(b'\xff\xfe')
  with pytest.raises(UserError, match='not a binaryproto, or is incomplete'):
    convert_it(mean=file)
  with pytest.raises(UserError, match='not text in UTF-8'):
    convert_it(class_names=file)
  file.write_text('one\ntwo\n')
  with pytest.raises(UserError, match='has 2 lines, but the network has 7 classes'):
    convert_it(class_names=file)
  file.write_text('crane\n\ncat\newe\nox\nowl\nhen\n')
  with pytest.raises(UserError, match='has no name in line 2'):
    convert_it(class_names=file)
  file.write_text('crane\ndog\ncat\ncrane\nox\nowl\nhen\n')
  with pytest.raises(UserError, match=r"has 'crane' in lines 1 and 4; .* needs its own"):
    convert_it(class_names=file)
  assert not target.exists()


def test_launch_converts_and_says_what(tmp_path):
  pretrained.write(tmp_path / 'x.safetensors', random_network(small_config()))
  target = tmp_path / 'x.torch.safetensors'
  code, out, _ = launch(
    '--mode=convert', f'--source={tmp_path / "x.safetensors"}', f'--target={target}'
  )
  assert code == 0
  read, classes, written = out.splitlines()
  assert 'x.safetensors: ' in read
  assert "10 classes, 'class 0' to 'class 9'; mean color 120.30, 110.20, 100.10" in classes
  assert written == f'written       {target}, {tmp_path / "x.py"}'
  assert target.exists()


def test_launch_says_what_to_give():
  assert_message(launch('--mode=convert', '--source=runs/digits'), 1, '--source', '--target')


def test_launch_takes_the_number_of_classes_from_the_file(tmp_path):
  flowers = {name: a[:3] if 'classifier.6' in name else a for name, a in state_dict().items()}
  source = write_state_dict(tmp_path / 'flowers.safetensors', flowers)
  narrow = {field: value for field, value in NARROW.items() if field != 'model.num_classes'}
  code, out, err = launch(
    '--mode=convert',
    '--config=configs/imagenet_torchvision.py',
    f'--source={source}',
    f'--target={tmp_path / "x.safetensors"}',
    *(f'--config.{field}={value}' for field, value in {**narrow, 'model.input_size': 98}.items()),
  )
  assert code == 0
  assert err.count('\n') == 1
  assert 'it has no mean image' in err
  assert "3 classes, '0' to '2'" in out
