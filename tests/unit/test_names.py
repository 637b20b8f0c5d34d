"""Layers are found by name behind any wrappers, or by order; what is ambiguous is refused."""

import re

import pytest

from alexnet_jax.convert import names
from alexnet_jax.convert.layouts import CAFFE, TENSORFLOW, TORCHVISION
from alexnet_jax.utils.errors import UserError

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
WEIGHTS = ((8, 3, 11, 11), (12, 8, 5, 5), (16, 12, 3, 3), (12, 16, 3, 3), (8, 12, 3, 3),
           (20, 32), (16, 20), (7, 16))  # fmt: skip


def shapes(modules, kinds=('.weight', '.bias')):
  """The shapes of layers' weights and biases under these modules' names."""
  return {
    module + kind: shape if kind == kinds[0] else shape[:1]
    for module, shape in zip(modules, WEIGHTS, strict=True)
    for kind in kinds
  }


MODULES = [pair[0].removesuffix('.weight') for pair in TORCHVISION.of_layers(LAYERS).names.values()]
OWN = shapes(MODULES)


def find(of_file, layout=TORCHVISION):
  lines = []
  found = names.find('x.pth', of_file, layout.of_layers(LAYERS), lines.append)
  return found, lines


@pytest.mark.parametrize(
  'wrapped',
  [
    lambda name: f'module.{name}',
    lambda name: name.replace('features.', 'features.module.'),
    lambda name: f'_orig_mod.{name}',
    lambda name: f'model.{name}',
    lambda name: f'module._orig_mod.model.net.{name}',
  ],
)
def test_wrappers_are_no_part_of_a_name(wrapped):
  found, lines = find({wrapped(name): shape for name, shape in OWN.items()})
  assert found.names == {name: wrapped(name) for name in OWN}
  assert (found.by_name, found.has_own_last_layer) == (True, True)
  assert not lines


def test_the_layers_own_names_are_known():
  found, lines = find(shapes([f'net.{layer}' for layer in LAYERS]))
  assert found.names['classifier.1.weight'] == 'net.fc6.weight'
  assert (found.by_name, found.has_own_last_layer) == (False, True)
  assert not lines


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    (
      'features.1.weight',
      'parameters among its layers that AlexNet does not have: features.1.weight',
    ),
    ('classifier.6.0.weight', 'among its layers that AlexNet does not have: classifier.6.0.weight'),
    ('classifier.6.lora_A', r'adapters beside its weights \(classifier.6.lora_A\); merge them'),
    ('head.lora_A.weight', 'adapters beside its weights'),
  ],
)
def test_parameters_that_change_what_the_layers_compute_are_refused(name, words):
  with pytest.raises(UserError, match=words):
    find({**OWN, name: (8,)})


def test_a_last_layer_beside_the_network_is_found_where_it_is_the_only_one():
  whole = {f'backbone.{name}': shape for name, shape in OWN.items() if 'classifier.6' not in name}
  whole |= {'fc.weight': (7, 16), 'fc.bias': (7,)}
  found, lines = find(whole)
  assert found.names['classifier.6.weight'] == 'fc.weight'
  assert lines == ['x.pth: the last layer is fc']
  found, _ = find({**whole, 'g.weight': (7, 16), 'g.bias': (7,)})
  assert found.names['classifier.6.weight'] == 'classifier.6.weight'  # which is missing
  with pytest.raises(UserError, match='batch norms'):
    find({**whole, 'bn.running_mean': (16,)})


def test_what_is_not_used_is_told():
  found, lines = find({**OWN, 'criterion.weight': (7,), 'ema.features.0.weight': WEIGHTS[0]})
  assert found.names == {name: name for name in OWN}
  assert lines == ['x.pth: not used: criterion.weight, ema.features.0.weight']


def test_modules_that_are_shifted_are_found_by_their_order():
  modules = ['features.0', 'features.4', 'features.8', 'features.10', 'features.12', '1', '3', '5']
  found, lines = find(shapes(modules))
  assert found.names['features.10.bias'] == 'features.12.bias'
  assert found.names['classifier.6.weight'] == '5.weight'
  assert not found.has_own_last_layer
  assert not found.by_name
  [line] = lines
  assert line.startswith(
    f'x.pth: layers are matched by their order, as {", ".join(LAYERS)}: {", ".join(modules)}; the file'
  )


@pytest.mark.parametrize(
  'kinds', [('_W', '_b'), ('/weights', '/biases'), ('/kernel:0', '/bias:0'), ('.w', '.b')]
)
def test_arrays_of_any_usual_names_are_found_by_their_order(kinds):
  found, _ = find(shapes([f'layer{i}' for i in range(8)], kinds))
  assert found.names['features.3.bias'] == f'layer1{kinds[1]}'


@pytest.mark.parametrize('layout', [CAFFE, TENSORFLOW])
def test_a_last_layer_of_another_name_is_found_and_told(layout):
  of_file = shapes([*LAYERS[:7], 'fc8_flickr'], ('[0]', '[1]'))
  if layout is TENSORFLOW:
    of_file = {name: shape[::-1] for name, shape in of_file.items()}
  found, lines = find(of_file, layout)
  assert (found.names['fc8[0]'], found.names['fc8[1]']) == ('fc8_flickr[0]', 'fc8_flickr[1]')
  assert (found.by_name, found.has_own_last_layer) == (True, False)
  assert lines == ['x.pth: the last layer is fc8_flickr']


def without_last(*added):
  modules = {name: shape for name, shape in OWN.items() if not name.startswith('classifier.6')}
  return modules | {f'{name}{kind}': s for name, shape in added for kind, s in shape.items()}


@pytest.mark.parametrize(
  ('of_file', 'words'),
  [
    (
      without_last(
        ('classifier.6.0', {'.weight': (9, 16), '.bias': (9,)}),
        ('classifier.6.3', {'.weight': (7, 9), '.bias': (7,)}),
      ),
      "x.pth has 2 layers after fc7, 'classifier.6.0', 'classifier.6.3'; AlexNet has one",
    ),
    (
      {**OWN, 'classifier.8.weight': (3, 7), 'classifier.8.bias': (3,)},
      'x.pth has a layer after fc8, classifier.8; AlexNet has none',
    ),
    (
      {'body.weight': (8, 3, 3, 3), 'body.bias': (8,), 'head.weight': (7, 8), 'head.bias': (7,)},
      'layers with weights and biases; x.pth has 1 and 1',
    ),
    ({**OWN, 'features.1.running_mean': (8,)}, 'has batch norms (features.1.running_mean)'),
    (
      {**shapes([f'l{i}' for i in range(8)]), 'norm.weight': (8,), 'norm.bias': (8,)},
      'has the layer norm with 8 weights, a norm or the like, which AlexNet does not have',
    ),
    ({**OWN, 'module.features.0.weight': (1,)}, 'has both features.0.weight and module.features'),
  ],
  ids=['two layers', 'one more', 'another network', 'batch norm', 'another norm', 'twice'],
)
def test_what_alexnet_does_not_have_is_refused(of_file, words):
  with pytest.raises(UserError, match=re.escape(words)):
    find(of_file)


def test_what_is_missing_stands_under_the_layout_s_name():
  of_file = {name: shape for name, shape in OWN.items() if name != 'features.6.bias'}
  found, lines = find(of_file)
  assert found.names == {name: name for name in OWN}
  assert not lines
