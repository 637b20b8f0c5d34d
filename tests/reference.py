"""The plain network, written from the paper alone: grouped convolutions and autodiff, no mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Compiles several times faster; small arrays do not need the speed that it costs.
QUICK_TO_COMPILE = {'xla_backend_optimization_level': 0}
if jax.version.__version_info__ < (0, 11):  # 0.11 has the emitters alone, without the option
  QUICK_TO_COMPILE['xla_cpu_use_fusion_emitters'] = False

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def _pads(shape, window, stride, padding, rounding='up'):
  """`padding` on the left and at the top; on the right and below what the last window needs."""
  if rounding == 'down':
    return [(padding, padding)] * 2
  pads = []
  for size in shape[1:3]:
    steps = max(0, -((window - size - 2 * padding) // stride))  # rounded up
    pads.append((padding, steps * stride + window - size - padding))
  return pads


def _add_bias(x, bias):
  return x + bias.reshape((1,) * (x.ndim - bias.ndim) + bias.shape)


def _convolution(x, kernel, stride, pads, groups):
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT, feature_group_count=groups
  )


def _local_convolution(x, kernel, padding, groups):
  """A convolution of its own for each place, whose kernel is kernel[row, column]."""
  rows, columns, window = kernel.shape[:3]
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

  def place(row, column):
    patch = x[:, row : row + window, column : column + window]
    return _convolution(patch, kernel[row, column], 1, 'VALID', groups)

  return jnp.concatenate(
    [
      jnp.concatenate([place(row, column) for column in range(columns)], axis=2)
      for row in range(rows)
    ],
    axis=1,
  )


def _activation(name, x):
  if name == 'relu':
    return jnp.where(x > 0, x, jnp.zeros_like(x))
  return jnp.tanh(x) if name == 'tanh' else 1 / (1 + jnp.exp(-x))


def _normalised(x, norm, window):
  """x over (k + alpha times the sum of x^2 in a window)^beta, along any axes."""
  alpha = norm.alpha / np.prod(window).item() if norm.divide_alpha else norm.alpha
  pads = [(side // 2, side // 2) for side in window]
  squares = lax.reduce_window(x * x, 0.0, lax.add, window, (1, 1, 1, 1), pads)
  return x * (norm.k + alpha * squares) ** -norm.beta


def _norms(name, x, net):
  norm = net.response_norm
  if name in norm.layers:
    groups = net.num_columns if norm.over == 'column' else 1
    parts = jnp.split(x, groups, axis=3)
    x = jnp.concatenate([_normalised(part, norm, (1, 1, 1, norm.size)) for part in parts], axis=3)
  within = net.within_norm
  if name in within.layers:
    x = _normalised(x, within, (1, within.size, within.size, 1))
  return x


def _pool(name, x, net):
  if name not in net.pool.layers:
    return x
  window, stride = net.pool.window, net.pool.stride
  pads = [(0, 0), *_pads(x.shape, window, stride, 0), (0, 0)]
  sides, strides = (1, window, window, 1), (1, stride, stride, 1)
  if name in net.pool.average:
    return lax.reduce_window(x, 0.0, lax.add, sides, strides, pads) / window**2
  y = lax.stop_gradient(lax.reduce_window(x, -jnp.inf, lax.max, sides, strides, pads))
  # reduce_window's own gradient goes to one maximum of several; the 2012 kernels' goes to all.
  padded = jnp.pad(x, pads, constant_values=-jnp.inf)
  share = jnp.zeros_like(y)
  for i in range(window):
    for j in range(window):
      seen = padded[:, i::stride, j::stride][:, : y.shape[1], : y.shape[2]]
      share += jnp.where(seen == y, seen - lax.stop_gradient(seen), jnp.zeros_like(y))
  return y + share


def _dropout_at_test(name, x, net):
  return (
    x * (1 - net.dropout.rate) if name in net.dropout.layers and not net.dropout.inverted else x
  )


def _convolutional(name, x, params, net):
  layer = getattr(net, name)
  present = name in params
  if present:
    kernel, bias = params[name]['kernel'], params[name]['bias']
    groups = 1 if name == 'conv1' or name in net.cross_column else net.num_columns
    padding = layer.padding
    if name in net.pool.trim and net.pool.window == net.pool.stride:
      padding -= 1
    if name in net.locally_connected:
      x = _local_convolution(x, kernel, padding, groups)
    else:
      pads = _pads(x.shape, layer.kernel_size, layer.stride, padding, layer.rounding)
      x = _convolution(x, kernel, layer.stride, pads, groups)
    x = _add_bias(x, bias)
  for step in layer.order.split('-'):
    if step == 'pool':
      x = _pool(name, x, net)
    elif present:
      x = _activation(net.activation, x) if step == 'activation' else _norms(name, x, net)
  return _dropout_at_test(name, x, net) if present else x


def _fully_connected(name, x, params, net):
  if name not in params:
    return x
  kernel, bias = params[name]['kernel'], params[name]['bias']
  groups = 1 if name in net.cross_column else net.num_columns
  pairs = zip(jnp.split(x, groups, axis=1), jnp.split(kernel, groups, axis=1), strict=True)
  x = _add_bias(jnp.concatenate([part @ weights for part, weights in pairs], axis=1), bias)
  if name != 'bottleneck':
    x = _activation(net.activation, x)
  return _dropout_at_test(name, x, net)


def forward(params, images, net):
  """Logits at test time of the global network, from parameters of global shapes.

  Args:
    params: {layer: {'kernel', 'bias'}}; a layer that is not there is left out.
    images: [N, H, W, 3].
    net: an AlexNet, read for its fields only.
  """
  x = images
  for name in ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'conv6'):
    x = _convolutional(name, x, params, net)
  columns = jnp.split(x, net.num_columns, axis=3)
  x = jnp.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)
  for name in ('fc6', 'fc7', 'bottleneck'):
    x = _fully_connected(name, x, params, net)
  return _add_bias(x @ params['fc8']['kernel'], params['fc8']['bias'])


@functools.partial(jax.jit, static_argnums=3, compiler_options=QUICK_TO_COMPILE)
def value_and_gradients(params, images, weights, net):
  """Logits, and the gradients of the sum of `weights` times them with respect to `params`."""
  logits, pullback = jax.vjp(lambda params: forward(params, images, net), params)
  return logits, pullback(weights)[0]
