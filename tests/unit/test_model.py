"""The network against the plain one of reference.py, on any mesh, and what it refuses."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from alexnet_jax.configs import digits
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils.errors import UserError
from tests import reference
from tests.reference import QUICK_TO_COMPILE
from tests.variants import ON_A_MESH, VARIANTS, random_params, settings

IMAGES = 4


def network(updates):
  return AlexNet.from_config(settings(**updates))


def random_images(net):
  rng = np.random.default_rng(6)
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


@pytest.mark.parametrize(
  ('variant', 'data_devices'), [('paper', 1), *((variant, 2) for variant in ON_A_MESH)]
)
def test_columns_on_two_devices_are_the_plain_network(x64, variant, data_devices):
  assert_same_on_mesh(ON_A_MESH[variant], column_devices=2, data_devices=data_devices)


@pytest.mark.parametrize('variant', ['norm_over_all_channels', 'one_column_conv1_rounded_down'])
def test_all_columns_on_each_device_are_the_plain_network(x64, variant):
  assert_same_on_mesh(VARIANTS[variant], column_devices=1, data_devices=4)


def output_shapes(updates):
  net = network(updates)
  image = jax.ShapeDtypeStruct((IMAGES, net.input_size, net.input_size, 3), jnp.float32)
  (logits, outputs), _ = jax.eval_shape(net.init_with_output, jax.random.key(0), image)
  assert logits.shape == outputs['fc8'].shape
  assert {output.shape[0] for output in outputs.values()} == {IMAGES}
  return {name: output.shape[1:] for name, output in outputs.items()}


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
    ({'response_norm.size': 4}, 'response_norm.size'),
    ({'within_norm.size': 0}, 'within_norm.size'),
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


def test_an_odd_number_of_features_is_told_what_it_may_be():
  even = 'it must be even (half of the {} belong to each column)'
  for name, said in (
    ('conv1', even.format('kernels')),
    ('conv3', even.format('kernels') + '; 0 leaves the layer out'),
    ('fc7', even.format('units') + '; 0 leaves the layer out'),
  ):
    with pytest.raises(UserError) as refused:
      network({f'{name}.features': 3})
    assert str(refused.value) == f'model.{name}.features is 3; {said}'


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


def test_a_network_is_checked_however_it_is_made():
  with pytest.raises(
    UserError, match=r"model\.cross_column is 'conv_3'; it must be one of 'conv2'"
  ):
    AlexNet(cross_column=('conv_3', 'fc6', 'fc7'))
  with pytest.raises(UserError, match=r'model\.num_columns is 4'):
    AlexNet().clone(num_columns=4)


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'response_norm': None}, r'response_norm is None; .* as ResponseNorm\(layers=\(\)\) for none'),
    ({'dropout': 0.0}, 'dropout is 0.0; it must be a Dropout of alexnet_jax.models.options'),
    ({'conv1': 32}, 'conv1 is 32; it must be a Convolution of'),
    ({'conv1': {'features': '32'}}, "conv1.features is '32'; it must be a whole number"),
    ({'input_size': (224, 224)}, r'input_size is \(224, 224\); it must be a whole number'),
    ({'cross_column': 'conv3'}, "cross_column is 'conv3'; it must be a tuple of layers"),
    ({'activation': None}, 'activation is None; it must be a string'),
    ({'conv2': {'weight_std': '0.01'}}, "conv2.weight_std is '0.01'; it must be a number"),
  ],
)
def test_a_part_of_another_kind_says_what_it_must_be(fields, words):
  with pytest.raises(UserError, match=f'model.{words}'):
    AlexNet.from_config(fields)


class Transferred(nn.Module):
  """A head with dropout of its own, after the digits' network or one that it is given."""

  backbone: AlexNet | None = None

  @nn.compact
  def __call__(self, images, train=False):
    net = self.backbone or AlexNet.from_config(digits.get_config().model)
    features = jax.lax.stop_gradient(net(images)[1]['fc6_activation'])
    return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(features))


def test_the_network_is_a_part_of_another_module():
  net, images = AlexNet.from_config(digits.get_config().model), jnp.ones((2, 8, 8, 3))
  for module, name in ((Transferred(net), 'backbone'), (Transferred(), 'AlexNet_0')):
    variables = module.init(jax.random.key(0), images)
    assert set(variables['params']) == {name, 'Dense_0'}
    key = {'dropout': jax.random.key(1)}
    alone = net.apply({'params': variables['params'][name]}, images)[1]['fc6_activation']
    dense = nn.Dense(3).bind({'params': variables['params']['Dense_0']})
    np.testing.assert_array_equal(module.apply(variables, images, rngs=key), dense(alone))
    trained = module.apply(variables, images, train=True, rngs=key)
    assert not np.array_equal(trained, dense(alone))
  assert 'fc8' in Transferred().tabulate(jax.random.key(0), images)


def test_a_config_s_section_makes_the_network_that_its_plain_values_make():
  section = digits.get_config().model
  assert AlexNet.from_config(section) == AlexNet.from_config(section.to_dict())
  with pytest.raises(UserError, match='the network has no field num_colums'):
    AlexNet.from_config({'num_colums': 1})
  with pytest.raises(UserError, match=r'the network has no field pool\.windw'):
    AlexNet.from_config({'pool': {'windw': 2}})


@pytest.mark.parametrize(
  ('images', 'options', 'message'),
  [
    (
      np.zeros((2, 9, 9, 3), np.float32),
      {},
      r'shape \[2, 9, 9, 3\]; the network takes \[N, 8, 8, 3\]',
    ),
    (np.zeros((8, 8, 3), np.float32), {}, r'shape \[8, 8, 3\]'),
    (np.zeros((2, 8, 8, 3), np.uint8), {}, 'images are of uint8; pass centered floats'),
    (
      np.zeros((2, 8, 8, 3), np.float32),
      {'rngs': {'dropout': np.zeros(2, np.uint32)}},
      'pass dropout_key=key',
    ),
    (
      np.zeros((2, 8, 8, 3), np.float32),
      {'dropout_key': np.zeros(2, np.uint32)},
      'dropout_key needs positions',
    ),
    (
      np.zeros((2, 8, 8, 3), np.float32),
      {'dropout_key': np.zeros(2, np.uint32), 'positions': np.zeros(1, int)},
      r'positions are of shape \[1\]; pass one for each of 2 images',
    ),
  ],
)
def test_arguments_that_do_not_fit_are_named(images, options, message):
  net = AlexNet.from_config(digits.get_config().model)
  with pytest.raises(UserError, match=message):
    net.apply({'params': random_params(net)}, images, **options)


def test_parameters_are_drawn_where_a_key_for_dropout_is_given_too():
  net = AlexNet.from_config(digits.get_config().model)
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
  shapes = jax.eval_shape(net.init, keys, jnp.zeros((1, 8, 8, 3)))
  assert set(shapes['params']) == set(random_params(net))


@pytest.mark.parametrize(('inverted', 'rate'), [(False, 0.5), (True, 0.2)])
def test_dropout_zeroes_units_in_training_and_scales_by_its_form(x64, inverted, rate):
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
