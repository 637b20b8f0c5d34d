"""Small networks of every kind that a config can describe, and parameters with which all layers matter."""

import jax
import numpy as np

from alexnet_jax.models.alexnet import parameter_shapes
from configs import imagenet

CLASSES = 7


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


def random_params(net):
  """float64 parameters with which signals have the size one throughout."""
  rng = np.random.default_rng(5)

  def draw(path, leaf):
    fan_in = np.prod(leaf.shape[-4:-1]) if path[-1].key == 'kernel' else 25
    return np.sqrt(2 / fan_in) * rng.standard_normal(leaf.shape)

  return jax.tree_util.tree_map_with_path(draw, parameter_shapes(net))


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

# Of fields that do not meet, two or three at once.
VARIANTS = {
  **ON_A_MESH,
  **ORDERS,
  'one_column_conv1_rounded_down': {
    'num_columns': 1,
    'conv1.rounding': 'down',
    'input_size': 36,
  },
  'every_layer_reads_both_columns_within_norm_only': {
    'cross_column': ('conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7'),
    'response_norm.layers': (),
    'within_norm.layers': ('conv1', 'conv2'),
  },
  'own_column_in_fc6_and_fc7_no_norm': {'cross_column': ('conv3',), 'response_norm.layers': ()},
  'tanh_average_pools': {'activation': 'tanh', 'pool.average': ('conv1', 'conv2', 'conv5')},
  'logistic_pools_that_do_not_overlap': {
    'activation': 'logistic',
    'pool.window': 2,
    'input_size': 45,
  },
  'other_norm_constants': {
    'response_norm.size': 3,
    'response_norm.k': 1.0,
    'response_norm.beta': 0.6,
    'response_norm.over': 'all_channels',
    'response_norm.divide_alpha': True,
  },
  'conv6_inverted_dropout': {'conv6.features': 12, 'dropout.inverted': True},
  'without_conv2': {'conv2.features': 0},
  'without_conv3_and_fc7_dropout_of_maps': {
    'conv3.features': 0,
    'fc7.features': 0,
    'dropout.layers': ('conv5', 'fc6'),
    'dropout.rate': 0.3,
  },
  'without_conv5_fc6_and_fc7': {'conv5.features': 0, 'fc6.features': 0, 'fc7.features': 0},
}
