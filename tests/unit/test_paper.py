"""Numbers of the paper and of the 2012 code's nets, which the configs must reproduce."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.models import summary
from alexnet_jax.models.alexnet import AlexNet
from tests.reference import QUICK_TO_COMPILE

CONVOLUTIONS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
LAYERS = (*CONVOLUTIONS, 'fc6', 'fc7', 'fc8')


def network(config='imagenet', **updates):
  section = importlib.import_module(f'configs.{config}').get_config().model
  section.update_from_flattened_dict(updates)
  return AlexNet.from_config(section.to_dict())


def column(field, config='imagenet', **updates):
  return {row.layer: getattr(row, field) for row in summary.rows(network(config, **updates))}


PAPER_PARAMETERS = {
  'conv1': 34_944,
  'conv2': 307_456,
  'conv3': 885_120,
  'conv4': 663_936,
  'conv5': 442_624,
  'fc6': 37_752_832,
  'fc7': 16_781_312,
  'fc8': 4_097_000,
}
NET_150 = {'cross_column': (), 'conv2.features': 320, 'fc6.features': 8192}


def test_alexnet_without_arguments_is_the_papers():
  assert AlexNet() == network()
  assert sum(row.parameters for row in summary.rows(AlexNet())) == 60_965_224


@pytest.mark.parametrize('config', ['imagenet_source', 'imagenet_torchvision', 'cifar10'])
def test_a_network_is_made_again_from_its_own_config(config):
  assert AlexNet.from_config(network(config).to_config()) == network(config)


def test_paper_s_parameters_by_layer():
  assert column('parameters') == PAPER_PARAMETERS


@pytest.mark.parametrize(
  ('config', 'updates', 'changed'),
  [
    ('imagenet_source', {}, {}),
    (
      'imagenet_one_column',
      {},
      {'conv1': 17_472, 'conv2': 153_728, 'conv3': 221_376, 'conv4': 331_968, 'conv5': 442_624},
    ),
    ('imagenet_conv6', {}, {'conv6': 590_080}),
    ('imagenet', {'pool.window': 2}, {}),
    ('imagenet', {'input_size': 227}, {}),
    ('imagenet_caffe', {}, {}),
    (
      'imagenet_torchvision',
      {},
      {'conv1': 23_296, 'conv2': 307_392, 'conv3': 663_936, 'conv4': 884_992, 'conv5': 590_080},
    ),
  ],
)
def test_variants_parameters_by_layer(config, updates, changed):
  assert column('parameters', config, **updates) == {**PAPER_PARAMETERS, **changed}


@pytest.mark.parametrize(
  ('config', 'updates', 'total'),
  [
    ('imagenet', {'num_columns': 1}, 59_798_312),
    ('imagenet', {'conv6.features': 256}, 61_555_304),
    ('imagenet', {'conv6.features': 256, 'num_classes': 10_184}, 99_182_152),
    ('imagenet', NET_150, 60_714_408),
    ('imagenet_conv6_finetune', {}, 61_555_304),
    ('imagenet_conv6_pretrain', {}, 110_605_267),
    ('imagenet_fall2009', {}, 99_182_152),
    ('cifar10', {}, 89_578),
    ('cifar10_13pct', {}, 1_116_490),
    ('cifar10_11pct', {}, 2_112_970),
  ],
)
def test_networks_have_as_many_parameters_as_published(config, updates, total):
  assert sum(column('parameters', config, **updates).values()) == total


def test_layers_have_as_many_neurons_as_published():
  neurons = column('neurons')
  assert neurons == {
    'conv1': 290_400,  # figure 2 has 253,440, which is 55x48x96
    'conv2': 186_624,
    'conv3': 64_896,
    'conv4': 64_896,
    'conv5': 43_264,
    'fc6': 4_096,
    'fc7': 4_096,
    'fc8': 1_000,
  }
  assert sum(neurons.values()) == 659_272


def test_multiply_adds_by_layer():
  multiply_adds = column('multiply_adds')
  assert multiply_adds == {
    'conv1': 105_415_200,
    'conv2': 223_948_800,
    'conv3': 149_520_384,
    'conv4': 112_140_288,
    'conv5': 74_760_192,
    'fc6': 37_748_736,
    'fc7': 16_777_216,
    'fc8': 4_096_000,
  }
  assert sum(multiply_adds.values()) == 724_406_816


def test_what_each_layer_reads():
  both = ('conv3', 'fc6', 'fc7', 'fc8')
  own = ('conv2', 'conv4', 'conv5')
  expected = {'conv1': 'image', **dict.fromkeys(both, 'both')}
  assert column('reads') == {**expected, **dict.fromkeys(own, 'own')}


def test_kernels_have_the_paper_s_shapes():
  assert column('kernels') == {
    'conv1': '96 of 11x11x3',
    'conv2': '256 of 5x5x48',
    'conv3': '384 of 3x3x256',
    'conv4': '384 of 3x3x192',
    'conv5': '256 of 3x3x192',
    'fc6': '4096 of 9216',
    'fc7': '4096 of 4096',
    'fc8': '1000 of 4096',
  }


@pytest.mark.parametrize('input_size', [224, 227])
def test_every_activation_s_shape(input_size):
  net = network(input_size=input_size)
  image = jax.ShapeDtypeStruct((2, input_size, input_size, 3), jnp.float32)
  (_, outputs), _ = jax.eval_shape(net.init_with_output, jax.random.key(0), image)
  full = {
    'conv1': (55, 55, 96),
    'conv2': (27, 27, 256),
    'conv3': (13, 13, 384),
    'conv4': (13, 13, 384),
    'conv5': (13, 13, 256),
    'fc6': (4096,),
    'fc7': (4096,),
  }
  expected = {'fc8': (1000,)}
  expected |= full
  expected |= {f'{layer}_activation': shape for layer, shape in full.items()}
  expected |= {f'{layer}_norm': full[layer] for layer in ('conv1', 'conv2')}
  expected |= {f'{layer}_dropout': full[layer] for layer in ('fc6', 'fc7')}
  expected |= {'conv1_pool': (27, 27, 96), 'conv2_pool': (13, 13, 256), 'conv5_pool': (6, 6, 256)}
  assert {name: output.shape[1:] for name, output in outputs.items()} == expected


def sides(config='imagenet', **updates):
  """Every convolution's side and, where it is pooled, its pool's."""
  found = []
  for row in summary.rows(network(config, **updates)):
    if row.layer.startswith('conv'):
      found += [row.output[0]] + ([row.pooled[0]] if row.pooled else [])
  return found


@pytest.mark.parametrize(
  ('config', 'updates', 'expected'),
  [
    ('imagenet', {}, [55, 27, 27, 13, 13, 13, 13, 6]),
    ('imagenet', {'pool.window': 2}, [55, 28, 26, 13, 13, 13, 11, 6]),  # net 147
    ('imagenet_caffe', {}, [55, 27, 27, 13, 13, 13, 13, 6]),
    ('imagenet_torchvision', {}, [55, 27, 27, 13, 13, 13, 13, 6]),
    ('imagenet_conv6', {}, [55, 27, 27, 13, 13, 13, 13, 6, 6]),
    ('cifar10', {}, [32, 16, 16, 8, 8, 4]),
    ('cifar10_13pct', {}, [24, 12, 12, 6, 6, 6]),
    ('cifar10_11pct', {}, [24, 12, 12, 6, 6, 6]),
  ],
)
def test_maps_have_the_sides_of_the_paper_and_of_the_2012_code(config, updates, expected):
  assert sides(config, **updates) == expected


def deviations(default, **others):
  return {**dict.fromkeys(LAYERS, default), **others}


def biases(positive):
  return {**dict.fromkeys(LAYERS, positive), 'conv1': 0.0, 'conv3': 0.0, 'fc8': 0.0}


INITIALIZATIONS = {
  'paper': (deviations(0.01), biases(1.0)),
  'source': (deviations(0.01, conv3=0.03, conv4=0.03, conv5=0.03), biases(1.0)),
  'caffe': (deviations(0.01, fc6=0.005, fc7=0.005), biases(0.1)),
  'source_cifar10': (deviations(0.01, conv1=1e-4), biases(0.0)),
}


def initial(net):
  image = jnp.zeros((1, net.input_size, net.input_size, 3))
  init = jax.jit(net.init, compiler_options=QUICK_TO_COMPILE)
  return jax.device_get(init(jax.random.key(0), image)['params'])


@pytest.mark.parametrize('name', INITIALIZATIONS)
def test_each_initialization_has_its_deviations_and_biases(name):
  net = network(
    'digits',
    **{'initialization': name, 'conv1.features': 256, 'num_classes': 40, 'fc6.features': 128},
  )
  params = initial(net)
  expected_deviations, expected_biases = INITIALIZATIONS[name]
  assert params.keys() == expected_deviations.keys()
  for layer, deviation in expected_deviations.items():
    kernel = params[layer]['kernel']
    # Of n draws the deviation is known to 1 / sqrt(2 n), the mean to 1 / sqrt(n) deviations.
    n = kernel.size
    assert kernel.std() == pytest.approx(deviation, rel=4 / np.sqrt(2 * n)), layer
    assert abs(kernel.mean()) < 4 * deviation / np.sqrt(n), layer
    # Gaussian, not cut off at two deviations.
    assert np.mean(np.abs(kernel) > 2 * deviation) == pytest.approx(0.0455, abs=0.015), layer
    np.testing.assert_array_equal(params[layer]['bias'], np.float32(expected_biases[layer]))


@pytest.mark.parametrize(
  ('config', 'layer', 'deviation', 'bias'),
  [
    ('imagenet_conv6', 'conv6', 0.03, 1.0),
    ('cifar10_13pct', 'conv3', 0.04, 0.0),
    ('cifar10_11pct', 'conv4', 0.04, 0.0),
    ('cifar10_13pct', 'conv1', 1e-4, 0.0),
  ],
)
def test_a_layer_s_own_initial_values(config, layer, deviation, bias):
  shrink = {'input_size': 35, 'num_classes': 2, 'fc6.features': 2, 'fc7.features': 2}
  net = network(config, **(shrink if config == 'imagenet_conv6' else {}))
  params = initial(net)[layer]
  assert np.std(params['kernel']) == pytest.approx(deviation, rel=0.03)
  np.testing.assert_array_equal(params['bias'], np.float32(bias))


@pytest.mark.parametrize(
  ('config', 'layer', 'inputs'),
  [
    ('digits', 'conv2', 3 * 3 * 16),
    ('digits', 'conv3', 3 * 3 * 64),
    ('digits', 'fc7', 256),
    ('cifar10_13pct', 'conv4', 3 * 3 * 32),  # a place's own inputs, however many places
  ],
)
def test_he_s_deviation_follows_from_the_number_of_inputs(config, layer, inputs):
  kernel = initial(network(config, initialization='he', **{f'{layer}.weight_std': None}))[layer][
    'kernel'
  ]
  assert np.std(kernel) == pytest.approx(np.sqrt(2 / inputs), rel=0.03)


@pytest.mark.parametrize(
  ('config', 'initialization'),
  [
    ('imagenet', 'paper'),
    ('imagenet_source', 'source'),
    ('imagenet_caffe', 'caffe'),
    ('cifar10', 'source_cifar10'),
  ],
)
def test_configs_name_their_initial_values(config, initialization):
  assert network(config).initialization == initialization
