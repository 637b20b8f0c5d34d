"""Each part against its formula or XLA's own, values and gradients, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from alexnet_jax.models import layers
from tests.reference import QUICK_TO_COMPILE


def normal(*shape, seed=1):
  return np.random.default_rng(seed).standard_normal(shape)


def pads_rounded_up(size, window, stride, padding):
  outputs = 1
  while (outputs - 1) * stride + window < size + 2 * padding:
    outputs += 1
  return padding, (outputs - 1) * stride + window - size - padding


def pads_rounded_down(size, window, stride, padding):
  return padding, padding  # XLA leaves out what no window reaches


def values_and_gradients(functions, g, *args):
  @functools.partial(jax.jit, compiler_options=QUICK_TO_COMPILE)
  def both(g, *args):
    results = []
    for function in functions:
      y, pullback = jax.vjp(function, *args)
      results.append((y, *pullback(g)))
    return results

  return both(jnp.asarray(g), *map(jnp.asarray, args))


def assert_all_close(results, tolerance=1e-12):
  for actual, expected in zip(*results, strict=True):
    assert_close(actual, expected, tolerance)


def assert_close(actual, expected, tolerance=1e-12):
  assert actual.shape == expected.shape
  assert actual.dtype == expected.dtype
  np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def norm_by_loops(x, size, k, alpha, beta, axes):
  half = size // 2
  y = np.empty_like(x)
  for place in np.ndindex(x.shape):
    window = tuple(
      slice(max(0, i - half), min(length - 1, i + half) + 1) if axis in axes else slice(i, i + 1)
      for axis, (i, length) in enumerate(zip(place, x.shape, strict=True))
    )
    y[place] = x[place] / (k + alpha * (x[window] ** 2).sum()) ** beta
  return y


@pytest.mark.parametrize('axes', [(3,), (1, 2)], ids=['across_channels', 'within_channel'])
@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize('beta', [0.75, 0.6])
def test_response_norm_follows_the_formula(x64, axes, size, beta):
  x, g = normal(2, 4, 3, 7), normal(2, 4, 3, 7, seed=2)
  constants = (size, 2.0, 0.3, beta, axes)  # alpha is large, so that the sum matters
  [(y, gradient)] = values_and_gradients([lambda x: layers.response_norm(x, *constants)], g, x)
  assert_close(y, norm_by_loops(x, *constants))

  # A complex step has no cancellation, so the derivative is exact to rounding.
  expected = np.empty_like(x)
  step = 1e-30
  for place in np.ndindex(x.shape[1:]):  # images do not meet: one step moves both
    moved = x.astype(complex)
    moved[:, *place] += 1j * step
    derivative = norm_by_loops(moved, *constants).imag / step
    expected[:, *place] = (g * derivative).sum(axis=(1, 2, 3))
  assert_close(gradient, expected)


@pytest.mark.parametrize('function', [layers.max_pool, layers.average_pool])
@pytest.mark.parametrize('window', [2, 3])
@pytest.mark.parametrize('size', [(5, 6), (8, 7), (2, 3)], ids=str)
def test_pools_are_reduce_window_s(x64, function, window, size):
  stride = 2
  pads = [(0, 0), *(pads_rounded_up(side, window, stride, 0) for side in size), (0, 0)]
  start, reducer, scale = (
    (-jnp.inf, lax.max, 1) if function is layers.max_pool else (0.0, lax.add, window**2)
  )

  def expected(x):
    sides, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, start, reducer, sides, strides, pads) / scale

  outputs = tuple(layers.output_size(side, window, stride, 0) for side in size)
  g, x = normal(2, *outputs, 3, seed=2), normal(2, *size, 3)
  functions = [lambda x: function(x, window, stride), expected]
  assert_all_close(values_and_gradients(functions, g, x))


def test_max_pool_sends_its_whole_gradient_to_every_tied_maximum(x64):
  x = jnp.array([[5.0, 5.0, 0.0], [1.0, 5.0, 5.0], [0.0, 0.0, 2.0]], jnp.float64)[None, :, :, None]
  _, pullback = jax.vjp(lambda x: layers.max_pool(x, 2, 1), x)
  gradient = pullback(jnp.array([[1.0, 10.0], [100.0, 1000.0]], jnp.float64)[None, :, :, None])[0]
  expected = np.array([[1.0, 11.0, 0.0], [0.0, 1111.0, 1010.0], [0.0, 0.0, 0.0]])
  assert_close(gradient[0, :, :, 0], expected)


def test_max_pool_s_gradient_has_no_nan_on_its_way():
  with jax.debug_nans(True):
    gradient = jax.grad(lambda x: layers.max_pool(x, 3, 2).sum())(jnp.ones((1, 5, 5, 1)))
  assert gradient.sum() == 4 * 9  # four windows, in each of which all places are equal
  assert gradient[0, 2, 2, 0] == 4


def test_max_pool_ties_at_the_overhanging_edge_stay_inside(x64):
  x = jnp.zeros((1, 4, 4, 1), jnp.float64)
  y, pullback = jax.vjp(lambda x: layers.max_pool(x, 3, 2), x)
  assert y.shape == (1, 2, 2, 1)
  windows = np.array([1.0, 1.0, 2.0, 1.0])  # of 0..2 and 2..4, how many hold each pixel
  assert_close(pullback(jnp.ones_like(y))[0][0, :, :, 0], np.outer(windows, windows))


@pytest.mark.parametrize(
  ('height', 'width', 'window', 'stride', 'padding'),
  [
    (16, 17, 11, 4, 0),
    (20, 19, 11, 4, 0),
    (18, 16, 11, 4, 2),
    (9, 13, 5, 4, 1),
    (12, 13, 8, 4, 0),
    (8, 11, 3, 2, 1),
    (9, 10, 4, 2, 1),
    (7, 6, 5, 1, 2),
    (5, 8, 3, 1, 0),
    (5, 4, 1, 2, 0),
  ],
)
@pytest.mark.parametrize('rounding', ['up', 'down'])
def test_convolution_is_xla_s_with_the_last_window_padded_or_left_out(
  x64, height, width, window, stride, padding, rounding
):
  pads_of = pads_rounded_up if rounding == 'up' else pads_rounded_down
  pads = [pads_of(size, window, stride, padding) for size in (height, width)]

  def expected(x, kernel):
    return lax.conv_general_dilated(
      x, kernel, (stride, stride), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  outputs = [
    layers.output_size(size, window, stride, padding, rounding) for size in (height, width)
  ]
  g, x = normal(2, *outputs, 4, seed=3), normal(2, height, width, 3)
  kernel = normal(window, window, 3, 4, seed=2)
  functions = [lambda *args: layers.convolution(*args, stride, padding, rounding), expected]
  assert_all_close(values_and_gradients(functions, g, x, kernel), 1e-11)


@pytest.mark.parametrize(
  ('size', 'window', 'stride', 'padding', 'output'),
  [
    (224, 11, 4, 0, 55),
    (227, 11, 4, 0, 55),
    (223, 11, 4, 0, 54),
    (228, 11, 4, 0, 56),
    (27, 5, 1, 2, 27),
    (13, 3, 1, 1, 13),
    (55, 3, 2, 0, 27),
    (55, 2, 2, 0, 28),
    (32, 3, 2, 0, 16),
    (1, 3, 2, 0, 1),
  ],
)
def test_output_size_is_rounded_up(size, window, stride, padding, output):
  assert layers.output_size(size, window, stride, padding) == output


@pytest.mark.parametrize(('size', 'padding', 'output'), [(227, 0, 55), (224, 2, 55), (224, 0, 54)])
def test_output_size_is_rounded_down_where_asked(size, padding, output):
  assert layers.output_size(size, 11, 4, padding, 'down') == output


@pytest.mark.parametrize(
  ('height', 'width', 'window', 'padding'), [(2, 3, 3, 1), (4, 5, 3, 0), (3, 3, 2, 0)]
)
def test_local_convolution_is_a_convolution_for_each_place(x64, height, width, window, padding):
  rows, columns = (size + 2 * padding - window + 1 for size in (height, width))

  def expected(x, kernel):
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    places = [
      lax.conv_general_dilated(
        padded[:, row : row + window, column : column + window],
        kernel[row, column],
        (1, 1),
        'VALID',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )
      for row in range(rows)
      for column in range(columns)
    ]
    return jnp.concatenate(places, axis=1).reshape(2, rows, columns, 4)

  g, x = normal(2, rows, columns, 4, seed=3), normal(2, height, width, 3)
  kernel = normal(rows, columns, window, window, 3, 4, seed=2)
  functions = [lambda *args: layers.local_convolution(*args, padding), expected]
  assert_all_close(values_and_gradients(functions, g, x, kernel))


def test_dropout_mask_depends_on_an_image_s_position_alone():
  key, shape = jax.random.key(3), (4, 5)
  whole = np.asarray(layers.dropout_mask(key, jnp.arange(6), shape, 0.5))
  some = np.asarray(layers.dropout_mask(key, jnp.array([5, 2]), shape, 0.5))
  assert whole.shape == (6, 4, 5)
  assert whole.dtype == np.bool_
  np.testing.assert_array_equal(some, whole[[5, 2]])
  assert len({mask.tobytes() for mask in whole}) == 6  # no two positions share a mask


def test_dropout_mask_differs_between_keys():
  masks = [
    np.asarray(layers.dropout_mask(jax.random.key(seed), jnp.arange(2), (40,), 0.5))
    for seed in (1, 2)
  ]
  assert (masks[0] != masks[1]).any()


@pytest.mark.parametrize('rate', [0.0, 0.2, 0.5, 0.9])
def test_dropout_mask_drops_units_at_its_rate(rate):
  mask = np.asarray(layers.dropout_mask(jax.random.key(0), jnp.arange(20), (1000,), rate))
  deviation = np.sqrt(rate * (1 - rate) / mask.size)
  assert abs((1 - mask.mean()) - rate) <= 4 * deviation
