"""The network against the plain one of reference.py, on any mesh, and what it refuses."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils.errors import UserError
from configs import imagenet
from tests import reference
from tests.reference import QUICK_TO_COMPILE

IMAGES = 4
CLASSES = 7
SEED = 5


def settings(**updates):
  """The paper's model section shrunk to 35x35 pixels; updates are 'pool.window': 2 and so on."""
  section = imagenet.get_config().model
  small = {
    'num_classes': CLASSES,
    'input_size': 35,
    'conv1.features': 8,  # 16x16, pooled to 8x8, each pool overhanging
    'conv1.kernel_size': 5,
    'conv1.stride': 2,
    'conv2.features': 12,  # 8x8, pooled to 4x4
    'conv3.features': 16,
    'conv4.features': 12,
    'conv5.features': 8,  # 4x4, pooled to 2x2
    'fc6.features': 16,
    'fc7.features': 12,
    'response_norm.alpha': 0.05,  # large, so that the norm matters
    'within_norm.alpha': 0.5,
  }
  section.update_from_flattened_dict({**small, **updates})
  return section.to_dict()


def network(updates):
  return AlexNet.from_config(settings(**updates))


def random_params(net):
  rng = np.random.default_rng(SEED)
  image = jnp.zeros((1, net.input_size, net.input_size, 3))
  shapes = jax.eval_shape(net.init, jax.random.key(0), image)['params']

  def draw(path, leaf):
    # He's deviation: signals of size one throughout, so that every layer matters.
    fan_in = np.prod(leaf.shape[-4:-1]) if path[-1].key == 'kernel' else 25
    return np.sqrt(2 / fan_in) * rng.standard_normal(leaf.shape)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def random_images(net):
  rng = np.random.default_rng(SEED + 1)
  images = rng.standard_normal((IMAGES, net.input_size, net.input_size, 3))
  return images, rng.standard_normal((IMAGES, net.num_classes))


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK_TO_COMPILE)
def value_and_gradients(net, params, images, weights):
  def apply(params):
    return net.apply({'params': params}, images)

  logits, pullback, outputs = jax.vjp(apply, params, has_aux=True)
  del outputs
  return logits, pullback(weights)[0]


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK_TO_COMPILE)
def value_and_gradients_on_mesh(net, mesh, params, images, weights):
  local = net.local(mesh_lib.COLUMN, mesh.shape[mesh_lib.COLUMN])
  specs = mesh_lib.parameter_specs(params)

  @functools.partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=(specs, mesh_lib.BATCH, mesh_lib.BATCH),
    out_specs=(mesh_lib.BATCH, specs),
    check_vma=True,
  )
  def on_device(params, images, weights):
    def functional(params):
      logits, _ = local.apply({'params': params}, images)
      return (weights * logits).sum(), logits

    gradients, logits = jax.grad(functional, has_aux=True)(params)
    return logits, gradients

  return on_device(params, images, weights)


def assert_same(actual, expected):
  """Each array to 1e-9 of its largest entry, which must not be next to nothing."""
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
  ):
    scale = np.abs(b).max()
    assert scale > 1e-6, path
    assert a.dtype == b.dtype == np.float64
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * scale, err_msg=str(path))


ORDERS = {
  'orders_1': {
    'conv1.order': 'norm-pool-activation',
    'conv2.order': 'activation-pool-norm',
    'conv5.order': 'norm-activation-pool',
    'response_norm.layers': ('conv1', 'conv2', 'conv5'),
  },
  'orders_2': {
    'conv1.order': 'pool-activation-norm',
    'conv2.order': 'pool-norm-activation',
    'within_norm.layers': ('conv1', 'conv2'),
  },
}

ON_A_MESH = {
  'paper': {},
  'net_145': {
    'conv1.order': 'norm-pool-activation',
    'response_norm.divide_alpha': True,
    'within_norm.layers': ('conv2',),
  },
  'norm_over_all_channels': {'response_norm.over': 'all_channels'},
  'own_column_up_to_fc8': {'cross_column': ()},
  'conv6_locally_connected': {
    'conv6.features': 12,
    'locally_connected': ('conv5', 'conv6'),
    'pool.average': ('conv2',),
  },
  'bottleneck': {'bottleneck.features': 6},
}

VARIANTS = {
  **ON_A_MESH,
  **ORDERS,
  'one_column': {'num_columns': 1},
  'every_layer_reads_both_columns': {
    'cross_column': ('conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7')
  },
  'own_column_in_fc6_and_fc7': {'cross_column': ('conv3',)},
  'tanh': {'activation': 'tanh'},
  'logistic': {'activation': 'logistic'},
  'within_norm_only': {'response_norm.layers': (), 'within_norm.layers': ('conv1', 'conv2')},
  'no_norm': {'response_norm.layers': ()},
  'other_norm_constants': {
    'response_norm.size': 3,
    'response_norm.k': 1.0,
    'response_norm.beta': 0.6,
    'response_norm.over': 'all_channels',
    'response_norm.divide_alpha': True,
  },
  'pools_that_do_not_overlap': {'pool.window': 2, 'input_size': 45},
  'average_pools': {'pool.average': ('conv1', 'conv2', 'conv5')},
  'conv6': {'conv6.features': 12},
  'without_conv2': {'conv2.features': 0},
  'without_conv3_and_fc7': {'conv3.features': 0, 'fc7.features': 0},
  'without_conv5_fc6_and_fc7': {'conv5.features': 0, 'fc6.features': 0, 'fc7.features': 0},
  'inverted_dropout': {'dropout.inverted': True},
  'dropout_of_maps': {'dropout.layers': ('conv5', 'fc6'), 'dropout.rate': 0.3},
  'conv1_rounded_down': {'conv1.rounding': 'down', 'input_size': 36},
}


@pytest.mark.parametrize('updates', VARIANTS.values(), ids=VARIANTS)
def test_network_is_the_plain_one(x64, updates):
  net = network(updates)
  params = random_params(net)
  inputs = random_images(net)
  expected = reference.value_and_gradients(params, *inputs, net)
  assert_same(value_and_gradients(net, params, *inputs), expected)


def assert_same_on_mesh(updates, column_devices, data_devices):
  net = network(updates)
  params = random_params(net)
  inputs = random_images(net)
  mesh = mesh_lib.make_mesh(net.num_columns, column_devices, data_devices)
  assert dict(mesh.shape) == {'data': data_devices, 'column': column_devices}
  expected = reference.value_and_gradients(params, *inputs, net)
  assert_same(value_and_gradients_on_mesh(net, mesh, params, *inputs), expected)


@pytest.mark.parametrize('data_devices', [1, 2])
@pytest.mark.parametrize('updates', ON_A_MESH.values(), ids=ON_A_MESH)
def test_columns_on_two_devices_are_the_plain_network(x64, updates, data_devices):
  assert_same_on_mesh(updates, column_devices=2, data_devices=data_devices)


@pytest.mark.parametrize('variant', ['norm_over_all_channels', 'one_column'])
def test_all_columns_on_each_device_are_the_plain_network(x64, variant):
  assert_same_on_mesh(VARIANTS[variant], column_devices=1, data_devices=4)


def output_shapes(updates):
  net = network(updates)
  image = jax.ShapeDtypeStruct((IMAGES, net.input_size, net.input_size, 3), jnp.float32)
  (logits, outputs), _ = jax.eval_shape(net.init_with_output, jax.random.key(0), image)
  assert logits.shape == outputs['fc8'].shape
  assert {output.shape[0] for output in outputs.values()} == {IMAGES}
  return {name: output.shape[1:] for name, output in outputs.items()}


def test_intermediates_have_their_names_and_shapes():
  expected = {
    'conv1': (16, 16, 8),
    'conv1_activation': (16, 16, 8),
    'conv1_norm': (16, 16, 8),
    'conv1_pool': (8, 8, 8),
    'conv2': (8, 8, 12),
    'conv2_activation': (8, 8, 12),
    'conv2_norm': (8, 8, 12),
    'conv2_pool': (4, 4, 12),
    'conv3': (4, 4, 16),
    'conv3_activation': (4, 4, 16),
    'conv4': (4, 4, 12),
    'conv4_activation': (4, 4, 12),
    'conv5': (4, 4, 8),
    'conv5_activation': (4, 4, 8),
    'conv5_pool': (2, 2, 8),
    'fc6': (16,),
    'fc6_activation': (16,),
    'fc6_dropout': (16,),
    'fc7': (12,),
    'fc7_activation': (12,),
    'fc7_dropout': (12,),
    'fc8': (7,),
  }
  assert output_shapes({}) == expected


@pytest.mark.parametrize(
  ('updates', 'layer', 'steps'),
  [
    (
      {'within_norm.layers': ('conv1',), 'conv1.order': 'norm-pool-activation'},
      'conv1',
      {'': 16, '_norm': 16, '_within_norm': 16, '_pool': 8, '_activation': 8},  # sides in pixels
    ),
    (
      {'conv2.order': 'activation-pool-norm'},
      'conv2',
      {'': 8, '_activation': 8, '_pool': 4, '_norm': 4},
    ),
    ({'conv5.features': 0}, 'conv5', {'_pool': 2}),
    ({'conv4.features': 0}, 'conv4', {}),
    ({'conv6.features': 12}, 'conv6', {'': 2, '_activation': 2}),
  ],
)
def test_intermediates_follow_the_layer_s_order(updates, layer, steps):
  shapes = output_shapes(updates)
  found = {name: shape[0] for name, shape in shapes.items() if name.startswith(layer)}
  assert found == {layer + step: side for step, side in steps.items()}


@pytest.mark.parametrize(
  ('updates', 'field'),
  [
    ({'num_columns': 3}, 'num_columns'),
    ({'activation': 'gelu'}, 'activation'),
    ({'initialization': 'xavier'}, 'initialization'),
    ({'response_norm.over': 'columns'}, 'response_norm.over'),
    ({'cross_column': ('conv1',)}, 'cross_column'),
    ({'one_column_halves': ('fc8',)}, 'one_column_halves'),
    ({'locally_connected': ('fc6',)}, 'locally_connected'),
    ({'dropout.layers': ('fc8',)}, 'dropout.layers'),
    ({'response_norm.layers': ('conv7',)}, 'response_norm.layers'),
    ({'within_norm.layers': ('fc6',)}, 'within_norm.layers'),
    ({'pool.layers': ('fc7',)}, 'pool.layers'),
    ({'pool.average': ('pool1',)}, 'pool.average'),
    ({'pool.trim': ('fc6',)}, 'pool.trim'),
    ({'dropout.rate': 1.0}, 'dropout.rate'),
    ({'dropout.rate': -0.1}, 'dropout.rate'),
    ({'conv3.features': 15}, 'conv3.features'),
    ({'fc7.features': 13}, 'fc7.features'),
    ({'conv1.features': 0}, 'conv1.features'),
    ({'conv2.order': 'activation-norm'}, 'conv2.order'),
    ({'conv1.rounding': 'half'}, 'conv1.rounding'),
    ({'conv5.order': 'activation-norm-norm-pool'}, 'conv5.order'),
    ({'locally_connected': ('conv1',)}, 'conv1'),
    ({'pool.window': 2, 'pool.stride': 3}, 'pool.stride'),  # whole windows outside: -inf
  ],
  ids=lambda value: value if isinstance(value, str) else '',
)
def test_unknown_value_is_refused_by_the_field_s_name(updates, field):
  with pytest.raises(UserError, match='^' + re.escape(f'model.{field} ')):
    network(updates)


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK_TO_COMPILE)
def _intermediates(net, params, images, key, positions):
  return net.apply({'params': params}, images, key, positions)[1]


def intermediates(*args):
  return jax.device_get(_intermediates(*args))


def units(inverted, **updates):
  """A network whose hidden units are never zero by themselves."""
  return network(
    {'activation': 'logistic', 'fc6.features': 400, 'dropout.inverted': inverted} | updates
  )


@pytest.mark.parametrize('rate', [0.5, 0.2])
@pytest.mark.parametrize('inverted', [False, True], ids=['paper', 'inverted'])
def test_dropout_zeroes_units_in_training_and_scales_by_its_form(x64, rate, inverted):
  net = units(inverted, **{'dropout.rate': rate})
  params, (images, _) = random_params(net), random_images(net)
  key, positions = jax.random.key(1), jnp.arange(IMAGES)
  training = intermediates(net, params, images, key, positions)
  test = intermediates(net, params, images, None, None)

  before, after = training['fc6_activation'], training['fc6_dropout']
  dropped = after == 0
  assert abs(dropped.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / dropped.size)
  scale = 1 / (1 - rate) if inverted else 1
  np.testing.assert_allclose(after, np.where(dropped, 0, scale * before), rtol=1e-12)
  # The two columns draw apart.
  assert (dropped[:, :200] != dropped[:, 200:]).any(axis=1).all()

  at_test = 1 if inverted else 1 - rate
  np.testing.assert_allclose(test['fc6_dropout'], at_test * test['fc6_activation'], rtol=1e-12)


def test_dropout_of_maps_works_on_what_their_pool_leaves(x64):
  net = units(True, **{'dropout.layers': ('conv5',)})
  params, (images, _) = random_params(net), random_images(net)
  outputs = intermediates(net, params, images, jax.random.key(1), jnp.arange(IMAGES))
  pooled, after = outputs['conv5_pool'], outputs['conv5_dropout']
  np.testing.assert_allclose(after, np.where(after == 0, 0, 2 * pooled), rtol=1e-12)
  assert 0 < (after == 0).mean() < 1


def test_dropout_draws_anew_for_each_step_layer_and_position(x64):
  net = units(False, **{'fc7.features': 400})
  params, (images, _) = random_params(net), random_images(net)

  def zeros(seed, first):
    outputs = intermediates(net, params, images, jax.random.key(seed), first + jnp.arange(IMAGES))
    return outputs['fc6_dropout'] == 0, outputs['fc7_dropout'] == 0

  fc6, fc7 = zeros(1, 0)
  assert (fc6 != fc7).any()
  assert (fc6 != zeros(2, 0)[0]).any()
  shifted = zeros(1, 1)[0]
  np.testing.assert_array_equal(shifted[:-1], fc6[1:])
  assert (shifted[-1] != fc6[0]).any()


@pytest.mark.parametrize('data_devices', [1, 2])
def test_dropout_drops_the_same_units_on_two_devices(x64, data_devices):
  net = units(False, **{'dropout.layers': ('conv5', 'fc6', 'fc7')})
  params, (images, _) = random_params(net), random_images(net)
  key = jax.random.key(1)
  names = ('conv5_dropout', 'fc6_dropout', 'fc7_dropout')
  expected = intermediates(net, params, images, key, jnp.arange(IMAGES))

  mesh = mesh_lib.make_mesh(net.num_columns, column_devices=2, data_devices=data_devices)
  local = net.local(mesh_lib.COLUMN, 2)

  def on_device(params, images):
    first = lax.axis_index(mesh_lib.DATA) * len(images)
    positions = first + jnp.arange(len(images), dtype=first.dtype)
    outputs = local.apply({'params': params}, images, key, positions)[1]
    return {name: outputs[name] for name in names}

  specs = {
    name: PartitionSpec(*mesh_lib.BATCH, *[None] * (expected[name].ndim - 2), mesh_lib.COLUMN)
    for name in names
  }
  sharded = jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=(mesh_lib.parameter_specs(params), mesh_lib.BATCH),
    out_specs=specs,
    check_vma=True,
  )
  actual = jax.jit(sharded, compiler_options=QUICK_TO_COMPILE)(params, images)
  for name in names:
    np.testing.assert_array_equal(actual[name] == 0, expected[name] == 0)
    np.testing.assert_allclose(actual[name], expected[name], rtol=1e-12)
