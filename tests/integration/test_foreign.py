"""Networks in the files that people have are read, or refused with what to do."""

import argparse
import collections
import functools
import pathlib
import pickle
import tarfile
import zipfile

import jax
import numpy as np
import pytest
from etils import epath

from alexnet_jax import experiment
from alexnet_jax.convert import convert, foreign, layouts, names
from alexnet_jax.data import augment
from alexnet_jax.models.alexnet import parameter_shapes
from alexnet_jax.utils.errors import UserError
from benchmarks import caffe_files
from configs import imagenet, imagenet_caffe, imagenet_caffenet, imagenet_torchvision
from tests import onnx_files
from tests.other_formats import (
  NARROW,
  as_npy,
  caffe_blobs,
  caffe_config,
  pickled,
  random_network,
  state_dict,
  tensorflow_layers,
  torchvision_config,
  write_legacy_pth,
  write_pth,
  write_state_dict,
  write_zip,
)


def assert_read(network):
  """That a network has the arrays of `state_dict`, the first and the last of them."""
  kernel = state_dict()['features.0.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(network.params['conv1']['kernel'], kernel)
  np.testing.assert_array_equal(network.params['fc8']['bias'], state_dict()['classifier.6.bias'])


def without_mean(lines):
  """Lines but the last, which says what mean color is assumed."""
  assert [index for index, line in enumerate(lines) if 'no mean image' in line] == [len(lines) - 1]
  return lines[:-1]


def checkpoint_of(state):
  """What programs for training keep beside a network."""
  momentum = {0: {'momentum_buffer': state['features.0.weight'], 'step': 3}}
  return {
    'epoch': 3,
    'best_error': np.float64(0.5),
    'args': argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath('data')),
    'state_dict': state,
    'optimizer': {'state': momentum, 'param_groups': [{'lr': 0.1, 'params': [0, 1]}]},
    'scheduler': {'milestones': collections.Counter([30, 60]), '_step_count': 4, 'last': None},
    'numpy_state': np.random.default_rng(0).bytes(3),
    'classes': collections.defaultdict(list, {'a': [1]}),
  }


@pytest.mark.parametrize('ending', ['.pth.tar', '.ckpt', '.pkl', '.bin', ''])
def test_a_state_dict_is_found_in_a_checkpoint_whatever_its_ending(tmp_path, monkeypatch, ending):
  source, lines = tmp_path / f'model_best{ending}', []
  write_pth(source, state_dict(), monkeypatch, wrap=checkpoint_of)
  assert_read(convert.read(source, torchvision_config(), lines.append))
  assert [line.removeprefix(str(source)) for line in without_mean(lines)] == [
    ": the weights are those of 'state_dict'; not used: epoch, best_error, args, optimizer,"
    ' scheduler, numpy_state, classes'
  ]


def test_of_two_networks_in_a_checkpoint_the_usual_place_is_taken(tmp_path, monkeypatch):
  lines = []
  write_pth(
    tmp_path / 'x.pth',
    state_dict(),
    monkeypatch,
    wrap=lambda state: {'ema': dict(state), 'model': state},
  )
  convert.read(tmp_path / 'x.pth', torchvision_config(), lines.append)
  told = f"{tmp_path / 'x.pth'}: the weights are those of 'model'; not used: ema"
  assert without_mean(lines) == [told]


def test_a_state_dict_alone_in_its_place_has_nothing_that_is_not_used(tmp_path, monkeypatch):
  lines = []
  for name, wrap in (
    ('x.pth', lambda state: {'state_dict': state}),
    ('y.pth', lambda state: {'checkpoint': {'a.b': state, 'optimizer': {}}}),
  ):
    write_pth(tmp_path / name, state_dict(), monkeypatch, wrap=wrap)
    convert.read(tmp_path / name, torchvision_config(), lines.append)
  assert [line for line in lines if 'no mean image' not in line] == [
    f"{tmp_path / 'x.pth'}: the weights are those of 'state_dict'",
    f"{tmp_path / 'y.pth'}: the weights are those of 'checkpoint.a.b'; not used: checkpoint.optimizer",
  ]


def test_the_mean_image_of_a_module_within_another_is_read(tmp_path):
  size = torchvision_config().data.image_size
  mean = np.full((3, size, size), 7, np.float32)
  state = {f'module.{name}': array for name, array in {**state_dict(), 'mean_image': mean}.items()}
  network = convert.read(write_state_dict(tmp_path / 'x.safetensors', state), torchvision_config())
  assert np.all(np.asarray(network.statistics.mean_image) == 7)


def test_a_network_without_its_last_layer_says_what_is_missing(tmp_path):
  state = {
    name: array for name, array in state_dict().items() if not name.startswith('classifier.6')
  }
  config = torchvision_config()
  config.model.num_classes = None
  with pytest.raises(UserError, match=r'classifier\.6'):
    convert.read(write_state_dict(tmp_path / 'x.safetensors', state), config)


@pytest.mark.parametrize(
  ('member', 'words'),
  [('model.weights.h5', "Keras's, which"), ('alexnet.pth', 'not written by PyTorch')],
)
def test_a_zip_file_of_another_program_is_refused(tmp_path, member, words):
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
    archive.writestr(member, b'')
  with pytest.raises(UserError, match=f'is a zip file, {words}'):
    convert.read(tmp_path / 'x.zip', torchvision_config())


def test_a_file_without_tensors_says_what_it_has(tmp_path, monkeypatch):
  write_pth(tmp_path / 'x.pth', {}, monkeypatch, wrap=lambda _: {'epoch': 3, 'loss': 0.1})
  with pytest.raises(UserError, match='it holds no tensors, but epoch, loss'):
    convert.read(tmp_path / 'x.pth', torchvision_config())


def test_integers_are_no_weights(tmp_path, monkeypatch):
  source = write_pth(tmp_path / 'x.pth', state_dict(), monkeypatch, np.int64)
  with pytest.raises(UserError, match=r'features\.0\.weight is of int64, not of floating-point'):
    convert.read(source, torchvision_config())


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize(
  ('module', 'advice'),
  [
    ('torchvision.models.alexnet', r'\npython -c "import torch; .*c\.state_dict\(\), .*x_weights'),
    ('__main__', r'In the program that has this class: torch\.save\(model\.state_dict'),
  ],
)
def test_a_whole_pickled_network_is_not_run_and_says_how_to_save_its_weights(
  tmp_path, protocol, module, advice
):
  network = {
    2: f'\x80\x02c{module}\nAlexNet\n)\x81.',
    4: f'\x80\x04\x8c{chr(len(module))}{module}\x8c\x07AlexNet\x93)\x81.',
  }[protocol]
  write_zip(tmp_path / 'x.pth', {'data.pkl': network.encode('latin1')})
  words = rf'pickled whole, of {module}\.AlexNet, which may be code; none of it was run.*{advice}'
  with pytest.raises(UserError, match=f'(?s){words}'):
    convert.read(tmp_path / 'x.pth', torchvision_config())


def test_a_program_of_torchscript_says_how_to_save_its_weights(tmp_path):
  write_zip(tmp_path / 'x.pt', {'data.pkl': b'', 'constants.pkl': b'', 'code/x.py': b''})
  with pytest.raises(UserError, match=r'TorchScript, none of which was run.*\n.*torch\.jit\.load'):
    convert.read(tmp_path / 'x.pt', torchvision_config())


def test_a_pth_from_before_pytorch_1_6_is_read(tmp_path, monkeypatch):
  source = write_legacy_pth(tmp_path / 'x.pth', state_dict(), monkeypatch)
  assert_read(convert.read(source, torchvision_config()))


@pytest.mark.parametrize('cut', [14, 150, 3000, -4])
def test_a_truncated_pth_from_before_pytorch_1_6_is_incomplete(tmp_path, monkeypatch, cut):
  whole = write_legacy_pth(tmp_path / 'whole.pth', state_dict(), monkeypatch).read_bytes()
  (tmp_path / 'x.pth').write_bytes(whole[:cut])
  with pytest.raises(UserError, match=r'x\.pth is not .*, or is incomplete'):
    convert.read(tmp_path / 'x.pth', torchvision_config())


def test_a_tar_of_pytorch_s_first_months_must_be_saved_again(tmp_path):
  with tarfile.open(tmp_path / 'x.pth', 'w') as archive:
    archive.addfile(tarfile.TarInfo('storages'))
  with pytest.raises(UserError, match=r'is a tar file.*\npython -c "import torch; c = torch\.load'):
    convert.read(tmp_path / 'x.pth', torchvision_config())


@pytest.mark.parametrize(
  ('name', 'content', 'said'),
  [
    (
      'x.h5',
      b'\x89HDF\r\n\x1a\n' + bytes(100),
      'HDF5, which is not read; save its arrays with numpy',
    ),
    ('x.pth.gz', b'\x1f\x8b\x08', 'compressed by gzip; unpack it with gunzip'),
    (
      'x.pth',
      b'version https://git-lfs.github.com/spec/v1\noid',
      'a Git LFS pointer, not the file',
    ),
    (
      'x.caffemodel',
      b'version https://git-lfs.github.com/spec/v1',
      'a Git LFS pointer, not the file',
    ),
    (
      'x.safetensors',
      b'\n<!DOCTYPE html>\n<html lang="en">',
      'a web page, not the file itself: the download failed',
    ),
    ('x.npz', b'<html><head>', 'a web page, not the file itself: the download failed'),
    (
      'x.ckpt',
      pickle.dumps({'Conv_0': {'kernel': np.ones(3)}}),
      "another program's pickle, none of",
    ),
  ],
)
def test_a_file_that_is_called_weights_but_is_not_read_is_told_what_it_is(
  tmp_path, name, content, said
):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=rf'{name} is {said}'):
    convert.read(tmp_path / name, torchvision_config())


def test_a_safetensors_whose_length_reads_as_gzip_is_read(tmp_path):
  source = write_state_dict(tmp_path / 'x.safetensors', state_dict())
  content, length = source.read_bytes(), 0x8B1F
  end = 8 + int.from_bytes(content[:8], 'little')
  assert end < length
  header = length.to_bytes(8, 'little') + content[8:end].ljust(length)
  source.write_bytes(header + content[end:])
  assert_read(convert.read(source, torchvision_config()))


def fine_tuned(layer, classes):
  """A state dict whose last layer has another name and number of classes."""
  arrays = {name: a for name, a in state_dict().items() if not name.startswith('classifier.6')}
  weights = np.random.default_rng(5).standard_normal((classes, 16)).astype(np.float32)
  return {**arrays, f'{layer}.weight': weights, f'{layer}.bias': weights[:, 0]}


@pytest.mark.parametrize('layer', ['classifier.6', 'fc8_flowers'])
def test_the_file_says_how_many_classes_there_are_where_the_config_does_not(tmp_path, layer):
  config = torchvision_config()
  config.model.num_classes = None
  source = write_state_dict(tmp_path / 'x.safetensors', fine_tuned(layer, 3))
  network = convert.read(source, config)
  assert network.config.model.num_classes == 3
  assert list(network.class_names) == ['0', '1', '2']
  assert config.model.num_classes is None
  np.testing.assert_array_equal(
    network.params['fc8']['bias'], fine_tuned(layer, 3)[f'{layer}.bias']
  )


def test_another_number_of_classes_than_the_config_s_is_named(tmp_path):
  source = write_state_dict(tmp_path / 'x.safetensors', fine_tuned('classifier.6', 3))
  with pytest.raises(
    UserError, match=r'classifier\.6\.weight in .* is float32\[3, 16\], not .*\[7, 16\]'
  ):
    convert.read(source, torchvision_config())


def test_a_caffemodel_fine_tuned_on_other_classes_is_read(tmp_path):
  blobs = caffe_blobs()
  blobs['fc8_flickr'] = [part[:5] for part in blobs.pop('fc8')]
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.caffemodel(blobs))
  config, lines = caffe_config(), []
  config.model.num_classes = None
  network = convert.read(tmp_path / 'x.caffemodel', config, lines.append)
  np.testing.assert_array_equal(network.params['fc8']['bias'], blobs['fc8_flickr'][1])
  assert lines == [
    f'{tmp_path / "x.caffemodel"}: the last layer is fc8_flickr',
    f"{tmp_path / 'x.caffemodel'}: it has no mean image; ImageNet's mean color (122.68, 116.67, 104.01),"
    ' which users of the published network subtract, is subtracted from images',
  ]


@pytest.mark.parametrize(
  ('layer', 'first', 'last'),
  [('classifier.6', 'n01440764', 'n15075141'), ('fc8_places', '0', '999')],
)
def test_a_thousand_classes_of_the_published_last_layer_are_imagenet_s(
  tmp_path, layer, first, last
):
  source = write_state_dict(tmp_path / 'x.safetensors', fine_tuned(layer, 1000))
  config = torchvision_config()
  config.model.num_classes = None
  classes = convert.read(source, config).class_names
  assert (len(classes), classes[0], classes[-1]) == (1000, first, last)


def test_a_thousand_classes_beside_a_mean_image_which_only_we_write_are_not_imagenet_s(tmp_path):
  arrays = {**fine_tuned('classifier.6', 1000), 'mean_image': np.zeros((3, 98, 98), np.float32)}
  source = write_state_dict(tmp_path / 'x.safetensors', arrays)
  config = torchvision_config()
  config.model.num_classes = None
  assert convert.read(source, config).class_names == [str(label) for label in range(1000)]


def test_a_file_that_only_we_write_is_not_taken_for_a_published_network(tmp_path):
  arrays = {**fine_tuned('classifier.6', 1000), 'mean_image': np.zeros((3, 98, 98), np.float32)}
  source = write_state_dict(tmp_path / 'x.safetensors', arrays)
  with pytest.raises(UserError, match='written by alexnet_jax, without the config'):
    convert.read(source)


@pytest.mark.parametrize('value', ['configs/imagenet_torchvision.py', {}])
def test_a_config_of_another_type_is_named(tmp_path, value):
  source = write_state_dict(tmp_path / 'x.safetensors')
  with pytest.raises(UserError, match='pass a ConfigDict'):
    convert.read(source, value)


BVLC, CAFFENET = ('ReLU', 'LRN', 'Pooling'), ('ReLU', 'Pooling', 'LRN')


def caffenet_config():
  config = imagenet_caffenet.get_config()
  config.update_from_flattened_dict({**NARROW, 'model.input_size': 95})
  return config


@pytest.mark.parametrize('old', [True, False])
@pytest.mark.parametrize(
  ('order', 'own', 'other', 'advice'),
  [
    (BVLC, caffe_config, caffenet_config, 'imagenet_caffe.py'),
    (CAFFENET, caffenet_config, caffe_config, 'imagenet_caffenet.py'),
  ],
  ids=['bvlc_alexnet', 'caffenet'],
)
def test_a_caffemodel_is_not_taken_for_one_whose_layers_have_another_order(
  tmp_path, order, own, other, advice, old
):
  layers = caffe_files.layers_in_order(caffe_blobs(), order)
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.typed_caffemodel(layers, old))
  assert convert.read(tmp_path / 'x.caffemodel', own()).config == own()
  with pytest.raises(UserError, match=rf'after conv1, but the config has .*configs/{advice}'):
    convert.read(tmp_path / 'x.caffemodel', other())


@pytest.mark.parametrize(
  ('order', 'own', 'other', 'advice'),
  [
    (('Relu', 'LRN', 'MaxPool'), caffe_config, caffenet_config, 'imagenet_caffe.py'),
    (('Relu', 'MaxPool', 'LRN'), caffenet_config, caffe_config, 'imagenet_caffenet.py'),
    (('Relu', 'LRN', 'MaxPool'), caffe_config, torchvision_config, 'imagenet_caffe.py'),
  ],
  ids=['bvlc_alexnet', 'caffenet', 'without norms'],
)
def test_the_onnx_zoo_s_networks_are_caffe_s(tmp_path, order, own, other, advice):
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.caffemodel(caffe_blobs()))
  (tmp_path / 'x.onnx').write_bytes(onnx_files.of_caffe2(caffe_blobs(), order))
  network = convert.read(tmp_path / 'x.onnx', own())
  expected = convert.read(tmp_path / 'x.caffemodel', own())
  jax.tree.map(np.testing.assert_array_equal, network.params, expected.params)
  np.testing.assert_array_equal(network.statistics.mean_image, expected.statistics.mean_image)
  with pytest.raises(UserError, match=rf'after conv1, but the config has .*configs/{advice}'):
    convert.read(tmp_path / 'x.onnx', other())


def onnx_tensors(arrays, file=None):
  """Initializers, whose numbers are in another file if one is given; and what that has to hold."""
  tensors, content = [], b'before'
  for name, array in arrays.items():
    where = onnx_files.elsewhere(file, len(content), array.nbytes) if file else None
    tensors.append(onnx_files.tensor(name, array, where))
    content += array.tobytes()
  return tensors, content


@pytest.mark.parametrize('name', ['x.onnx', 'weights'])
@pytest.mark.parametrize('beside', [False, True], ids=['within', 'beside'])
def test_an_onnx_file_of_pytorch_is_read_with_its_weights_within_or_beside(tmp_path, name, beside):
  file = 'x.onnx.data' if beside else None
  tensors, content = onnx_tensors(state_dict(), file)
  (tmp_path / name).write_bytes(onnx_files.model(tensors))
  if file:
    (tmp_path / file).write_bytes(content)
  assert_read(convert.read(tmp_path / name, torchvision_config()))


def test_an_onnx_file_with_other_steps_than_the_usual_says_so(tmp_path):
  tensors, _ = onnx_tensors(state_dict())
  nodes = [onnx_files.node(kind, 'x', 'y') for kind in ('Sub', 'Conv', 'Tanh', 'MaxPool')]
  (tmp_path / 'x.onnx').write_bytes(onnx_files.model(tensors, nodes))
  lines = []
  convert.read(tmp_path / 'x.onnx', torchvision_config(), lines.append)
  [line] = without_mean(lines)
  assert "has steps that are not read ('Sub', 'Tanh')" in line


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_an_onnx_file_may_have_numbers_of_two_kinds(tmp_path, dtype):
  arrays = {name: array.astype(dtype) for name, array in state_dict().items()}
  [first, *_] = arrays
  tensors, _ = onnx_tensors(arrays)
  if dtype == np.float32:  # as numbers of protobuf's
    content = caffe_files.counted(4, arrays[first].tobytes())
    tensors[0] = onnx_files.tensor(first, arrays[first], content)
  (tmp_path / 'x.onnx').write_bytes(onnx_files.model(tensors))
  network = convert.read(tmp_path / 'x.onnx', torchvision_config())
  kernel = arrays[first].astype(np.float32).transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(network.params['conv1']['kernel'], kernel)


@pytest.mark.parametrize(
  ('file', 'there', 'words'),
  [
    ('x.data', b'', r'the weights of .*x.onnx are in .*x.data, which is not there'),
    ('../x.data', b'', 'its weights are in ../x.data, which is not beside it'),
    ('x.data', b'short', 'an array of the shape .* has 0 numbers'),
  ],
  ids=['missing', 'outside', 'cut'],
)
def test_an_onnx_file_without_its_weights_says_where_they_should_be(tmp_path, file, there, words):
  tensors, _ = onnx_tensors(state_dict(), file)
  (tmp_path / 'x.onnx').write_bytes(onnx_files.model(tensors))
  if there:
    (tmp_path / file).write_bytes(there)
  with pytest.raises(UserError, match=words):
    convert.read(tmp_path / 'x.onnx', torchvision_config())


def test_an_onnx_file_that_was_quantized_is_refused(tmp_path):
  arrays = {name: array.astype(np.int8) for name, array in state_dict().items()}
  (tmp_path / 'x.onnx').write_bytes(onnx_files.model(onnx_tensors(arrays)[0]))
  with pytest.raises(UserError, match='no floating-point weights; a quantized network is not read'):
    convert.read(tmp_path / 'x.onnx', torchvision_config())


def test_a_caffemodel_without_norms_is_not_taken_for_one_with_them(tmp_path):
  layers = caffe_files.layers_in_order(caffe_blobs(), ('ReLU', 'Pooling'))
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.typed_caffemodel(layers))
  words = 'has activation-pool after conv1, but the config has activation-norm-pool; set --config'
  with pytest.raises(UserError, match=words):
    convert.read(tmp_path / 'x.caffemodel', caffe_config())


def published(config, layout, orders=None, by_name=True, **changed):
  """The config that is found for the shapes of a config's network, some of them changed."""
  net = experiment.make_network(config)
  encoded = jax.eval_shape(
    functools.partial(layouts.encode, net=net, layout=layout), parameter_shapes(net)
  )
  shapes = {name: array.shape for name, array in encoded.items()} | changed
  own = names.Found({name: name for name in shapes}, by_name, True)
  return foreign.published(epath.Path('x'), shapes, own, layout, orders or {})


ORDERS = {
  imagenet_caffe: {'conv1': 'activation-norm-pool', 'conv3': 'activation'},
  imagenet_caffenet: {'conv1': 'activation-pool-norm', 'conv5': 'activation-pool'},
}


@pytest.mark.parametrize('module', ORDERS)
def test_a_caffemodel_s_order_tells_which_published_network_it_is(module):
  config = published(module.get_config(), layouts.CAFFE, ORDERS[module])
  assert config.model.num_classes is None
  config.model.num_classes = 1000
  assert config == module.get_config()


def test_torchvision_s_shapes_tell_its_network_of_any_number_of_classes():
  torchvision = imagenet_torchvision.get_config()
  changed = {'classifier.6.weight': (5, 4096), 'classifier.6.bias': (5,)}
  assert published(torchvision, layouts.TORCHVISION, **changed).data.resize == 'torchvision'


@pytest.mark.parametrize(
  ('module', 'layout', 'advice'),
  [
    (imagenet, layouts.TORCHVISION, 'imagenet_torchvision'),  # the paper's, in groups
    (imagenet_caffe, layouts.TENSORFLOW, 'imagenet_caffe'),  # or CaffeNet
    (imagenet_caffe, layouts.CAFFE, 'imagenet_caffe'),
  ],
)
def test_where_a_network_is_not_certain_the_command_is_said(module, layout, advice):
  words = (
    rf'has no config; .*\n.* --mode=convert --config=configs/{advice}\.py --source=x --target='
  )
  with pytest.raises(UserError, match=words):
    published(module.get_config(), layout)


def test_torchvision_s_shapes_under_other_names_may_be_another_network():
  with pytest.raises(UserError, match='has no config; convert it'):
    published(imagenet_torchvision.get_config(), layouts.TORCHVISION, by_name=False)


def mmdnn_layers(bias='bias'):
  return {
    layer: {'weights': weights, bias: biases}
    for layer, (weights, biases) in tensorflow_layers().items()
  }


def as_npz(path, layers):
  """Arrays of objects, as numpy.savez made them of lists and dictionaries."""
  arrays = {}
  for layer, parts in layers.items():
    arrays[layer] = np.empty(2 if isinstance(parts, list) else (), object)
    arrays[layer][... if isinstance(parts, dict) else slice(None)] = parts
  np.savez(path, **arrays)


FORMS_OF_NUMPY = {
  'caffe-tensorflow': lambda path: path.write_bytes(as_npy(pickled(mmdnn_layers('biases')))),
  'MMdnn': lambda path: path.write_bytes(as_npy(pickled(mmdnn_layers()))),
  'npz of lists': lambda path: as_npz(path, tensorflow_layers()),
  'npz of dictionaries': lambda path: as_npz(path, mmdnn_layers()),
  'npz of arrays': lambda path: np.savez_compressed(
    path,
    **{
      f'{la}_{k}': a
      for la, ab in tensorflow_layers().items()
      for k, a in zip('Wb', ab, strict=True)
    },
  ),
  'npz of Caffe': lambda path: np.savez(
    path,
    **{f'{la}_{k}': a for la, ab in caffe_blobs().items() for k, a in zip('Wb', ab, strict=True)},
  ),
}


@pytest.mark.parametrize('form', FORMS_OF_NUMPY)
def test_numpy_s_files_are_read_in_all_usual_forms(tmp_path, form):
  source = tmp_path / ('x.npz' if 'npz' in form else 'x.npy')
  FORMS_OF_NUMPY[form](source)
  network = convert.read(source, caffe_config())
  (tmp_path / 'x.caffemodel').write_bytes(caffe_files.caffemodel(caffe_blobs()))
  expected = convert.read(tmp_path / 'x.caffemodel', caffe_config())
  jax.tree.map(np.testing.assert_array_equal, network.params, expected.params)


def test_an_npz_under_the_names_of_pytorch_has_its_axes_and_colors(tmp_path):
  own = [f'{layer}.{kind}' for layer in layouts.PUBLISHED for kind in ('weight', 'bias')]
  np.savez(tmp_path / 'x.npz', **dict(zip(own, state_dict().values(), strict=True)))
  assert_read(convert.read(tmp_path / 'x.npz', torchvision_config()))


def test_an_npz_that_would_fill_the_memory_is_refused(tmp_path):
  np.savez_compressed(tmp_path / 'x.npz', conv1_W=np.zeros(10**6))
  with pytest.raises(UserError, match='it is compressed too much to be weights'):
    convert.read(tmp_path / 'x.npz', caffe_config())


def caffe_network():
  return random_network(caffe_config())  # images of 98 pixels, crops of 95


MEAN = np.random.default_rng(3).uniform(0, 255, (3, 98, 98)).astype(np.float32)  # blue first
FILES_OF_MEANS = {
  'npy': lambda path: np.save(path, MEAN.astype(np.float64)),
  '4-d npy': lambda path: np.save(path, MEAN[None]),
  '4-d binaryproto': lambda path: path.write_bytes(caffe_files.blob(MEAN[None])),
}


@pytest.mark.parametrize('form', FILES_OF_MEANS)
def test_a_mean_image_is_read_in_all_usual_forms(tmp_path, form):
  path = tmp_path / ('mean.npy' if 'npy' in form else 'mean.binaryproto')
  FILES_OF_MEANS[form](path)
  network = convert.with_mean(caffe_network(), path)
  np.testing.assert_array_equal(network.statistics.mean_image, MEAN[::-1].transpose(1, 2, 0))
  assert network.config.augment.mean == 'pixel'


def test_a_mean_as_large_as_a_crop_is_subtracted_from_every_crop(tmp_path):
  lines = []
  np.save(tmp_path / 'mean.npy', MEAN[:, :95, :95])
  network = convert.with_mean(caffe_network(), tmp_path / 'mean.npy', lines.append)
  assert network.config.augment.mean == 'center'
  assert lines == [
    f'{tmp_path / "mean.npy"} is as large as a crop, and subtracted from every crop: augment.mean is'
    ' now center'
  ]
  crops = np.full((2, 95, 95, 3), 255, np.uint8)
  subtracted = augment.subtract_mean(
    crops, np.array([[0, 3], [2, 1]]), network.statistics.mean_image, 'center'
  )
  expected = 255 - MEAN[::-1, :95, :95].transpose(1, 2, 0)
  np.testing.assert_allclose(subtracted, np.broadcast_to(expected, crops.shape), rtol=1e-6)


def test_three_numbers_are_a_mean_color(tmp_path):
  np.save(tmp_path / 'mean.npy', [104.0, 117.0, 123.0])
  mean = convert.with_mean(caffe_network(), tmp_path / 'mean.npy').statistics.mean_image
  np.testing.assert_array_equal(mean, np.broadcast_to(np.float32([123, 117, 104]), (98, 98, 3)))


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])  # the last is infinity in float32
def test_a_mean_of_no_finite_numbers_is_refused_without_a_warning(tmp_path, value):
  np.save(tmp_path / 'mean.npy', [value, 0.0, 0.0])
  with pytest.raises(UserError, match=r'the mean in .*mean\.npy has values that are not finite'):
    convert.with_mean(caffe_network(), tmp_path / 'mean.npy')


def test_a_mean_that_is_none_is_named(tmp_path):
  np.save(tmp_path / 'mean.npy', np.array([['x']]))
  with pytest.raises(UserError, match=r'is 1 x 1, but data\.image_size requires 3 x 98 x 98, or'):
    convert.with_mean(caffe_network(), tmp_path / 'mean.npy')
  np.save(tmp_path / 'mean.npy', np.array({}, object))
  with pytest.raises(
    UserError, match=r'is not a \.npy of numbers, or is incomplete: it holds objects'
  ):
    convert.with_mean(caffe_network(), tmp_path / 'mean.npy')
