"""The network's parts as pure functions, and three linen layers that know about columns.

A *column* is one of the paper's two GPUs' worth of kernels. A layer takes a list of arrays and
returns one array for each column that this device holds. A list of one array is read by every
column (the image, or all columns' maps put together); a list with an array for each column is
read column by column, each with a dense convolution of its own: XLA has no fast path on the CPU
for a grouped one.

Layers compute in the dtype of what they read: parameters, kept in float32, are cast to it. Sums that
bfloat16 would spoil, the response norms' and the classifier's, are float32 at least.

Norms and pools have gradients of their own (`jax.custom_vjp`), faster than XLA's: `jax.grad` and its
like differentiate them, `jax.jvp`, `jax.jacfwd` and `jax.hessian`, which go forward, do not.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array


ROUNDINGS = {'up': math.ceil, 'down': math.floor}


def output_size(size: int, window: int, stride: int, padding: int, rounding: str = 'up') -> int:
  """Side of a convolution's or pool's output.

  Rounded 'up' as the 2012 code does (`layer.py`), or 'down', as Caffe's and PyTorch's convolutions.
  """
  return 1 + max(0, ROUNDINGS[rounding]((2 * padding + size - window) / stride))


def _pad_for(
  size: int, window: int, stride: int, padding: int, rounding: str = 'up'
) -> tuple[int, int]:
  """Low and high padding with which windows at `stride` exactly cover `output_size` outputs.

  The high one is negative where rounding down leaves pixels out.
  """
  covered = (output_size(size, window, stride, padding, rounding) - 1) * stride + window
  return padding, covered - size - padding


def convolution(
  x: Array, kernel: Array, stride: int = 1, padding: int = 0, rounding: str = 'up'
) -> Array:
  """Dense cross-correlation, zero-padded.

  224x224 at window 11, stride 4 and no padding gives 55x55: three zero pixels are added on the
  right and at the bottom. With a stride, the same sum is written over `stride x stride` blocks
  of pixels ("space to depth"), because convolutions of few channels are slow on XLA's CPU.

  Args:
    x: [N, H, W, C].
    kernel: [window, window, C, F].
    stride: pixels between neighboring windows.
    padding: zero pixels on the left and at the top (and, before rounding, right and bottom).
    rounding: of the output's side; see `output_size`.

  Returns:
    [N, output_size(H), output_size(W), F].
  """
  window = kernel.shape[0]
  rows, columns = (_pad_for(size, window, stride, padding, rounding) for size in x.shape[1:3])
  if stride > 1:
    n, c, f = x.shape[0], x.shape[3], kernel.shape[3]
    grow = -window % stride  # zeros that make the kernel a whole number of blocks
    blocks = (window + grow) // stride
    kernel = jnp.pad(kernel, ((0, grow), (0, grow), (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride, blocks, stride, c, f).transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(blocks, blocks, stride * stride * c, f)  # 12x12x3 -> 3x3x48
    pads = [(0, 0), (rows[0], rows[1] + grow), (columns[0], columns[1] + grow), (0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in pads])
    height, width = x.shape[1] // stride, x.shape[2] // stride
    x = x.reshape(n, height, stride, width, stride, c).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(n, height, width, stride * stride * c)  # 228x228x3 -> 57x57x48
    rows = columns = (0, 0)
  return lax.conv_general_dilated(
    x, kernel, (1, 1), (rows, columns), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def local_convolution(x: Array, kernel: Array, padding: int = 0) -> Array:
  """A convolution whose kernels differ from place to place ("locally connected"), stride 1.

  Args:
    x: [N, H, W, C].
    kernel: [H', W', window, window, C, F], one kernel for each output position.
    padding: zero pixels on every side.

  Returns:
    [N, H', W', F].
  """
  rows, columns, window = kernel.shape[:3]
  pads = (_pad_for(size, window, 1, padding) for size in x.shape[1:3])
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  patches = jnp.stack(
    [
      jnp.stack([x[:, i : i + rows, j : j + columns] for j in range(window)], axis=3)
      for i in range(window)
    ],
    axis=3,
  )  # [N, H', W', window, window, C]
  return jnp.einsum('nhwijc,hwijcf->nhwf', patches, kernel)


def _window_sum(x: Array, size: int, axes: Sequence[int]) -> Array:
  """Sum over the neighbors within `size // 2` along each axis, clipped at the ends."""
  half = size // 2
  for axis in axes:
    length = x.shape[axis]
    pads = [(0, 0)] * x.ndim
    pads[axis] = (half, half)
    padded = jnp.pad(x, pads)
    x = functools.reduce(
      jnp.add, (lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(2 * half + 1))
    )
  return x


def _at_least_float32(x: Array) -> Array:
  return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def _negative_power(d: Array, beta: float) -> Array:
  # d**-0.75 without a logarithm, which costs more than the rest of the norm.
  return lax.rsqrt(d) * jnp.sqrt(lax.rsqrt(d)) if beta == 0.75 else d**-beta


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def response_norm(
  x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...]
) -> Array:
  """Local response normalization, `x / (k + alpha * sum of x^2 over neighbors)**beta`.

  Paper, section 3.3, with `axes=(3,)` (neighboring maps); the 2012 code's within-map form
  with `axes=(1, 2)` (neighboring pixels). `alpha` multiplies the sum as the paper writes it;
  Caffe, PyTorch and the 2012 code divide it first by the number of neighbors.

  Args:
    x: [N, H, W, C].
    size: neighbors along each axis, the place itself included, an odd number; the window is clipped
      at the ends.
    k: what is added to the sum.
    alpha: what multiplies the sum.
    beta: the power.
    axes: the axes along which neighbors are counted.

  Returns:
    The normalized maps, the shape and dtype of x.
  """
  return _response_norm_forward(x, size, k, alpha, beta, axes)[0]


def _response_norm_forward(
  x: Array, size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...]
) -> tuple[Array, Array]:
  wide = _at_least_float32(x)
  d = k + alpha * _window_sum(wide * wide, size, axes)
  return (wide * _negative_power(d, beta)).astype(x.dtype), x


def _response_norm_backward(
  size: int, k: float, alpha: float, beta: float, axes: tuple[int, ...], x: Array, g: Array
) -> tuple[Array]:
  wide = _at_least_float32(x)
  # Computed again: to keep it takes twice x's memory in bfloat16, and more time on a GPU.
  d = k + alpha * _window_sum(wide * wide, size, axes)
  scaled = _at_least_float32(g) * _negative_power(d, beta)
  # The window is symmetric, so its adjoint is itself.
  total = _window_sum(scaled * wide / d, size, axes)
  return ((scaled - 2 * alpha * beta * wide * total).astype(x.dtype),)


response_norm.defvjp(_response_norm_forward, _response_norm_backward)


def _pool_pads(x: Array, window: int, stride: int) -> tuple[tuple[int, int], ...]:
  rows, columns = (_pad_for(size, window, stride, 0) for size in x.shape[1:3])
  return ((0, 0), rows, columns, (0, 0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: Array, window: int, stride: int) -> Array:
  """Maximum over windows; one that overhangs the edge is clipped. Paper, section 3.4.

  The gradient goes in full to every place that holds its window's maximum, ties included, as
  in the 2012 kernels.

  Args:
    x: [N, H, W, C].
    window: side of a window in pixels.
    stride: pixels between windows; they overlap where it is less than `window`.

  Returns:
    [N, output_size(H), output_size(W), C].
  """
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    (1, window, window, 1),
    (1, stride, stride, 1),
    _pool_pads(x, window, stride),
  )


def _max_pool_forward(x: Array, window: int, stride: int) -> tuple[Array, tuple[Array, Array]]:
  y = max_pool(x, window, stride)
  return y, (x, y)


def _covering_windows(
  values: Array, rows: int, columns: int, size: Sequence[int], stride: int
) -> Array:
  """Gives each place of a map the value of one of the windows that may cover it.

  The place (r, c) gets that of the window (r // stride - rows, c // stride - columns), or 0 where
  there is none.

  Args:
    values: [N, H', W', C], one for each window.
    rows: how many windows further up; 0 for the last that begins at the place or before it.
    columns: how many windows further left.
    size: H, W of the map.
    stride: pixels between windows.

  Returns:
    [N, H, W, C].
  """
  blocks = [-(-length // stride) for length in size]  # of stride x stride places
  pads = (
    (back, length - back - windows, 0)
    for back, length, windows in zip((rows, columns), blocks, values.shape[1:3], strict=True)
  )
  x = lax.pad(values, jnp.zeros((), values.dtype), ((0, 0, 0), *pads, (0, 0, 0)))
  n, c = x.shape[0], x.shape[3]
  x = jnp.broadcast_to(x[:, :, None, :, None], (n, blocks[0], stride, blocks[1], stride, c))
  x = x.reshape(n, blocks[0] * stride, blocks[1] * stride, c)
  return x[:, : size[0], : size[1]]


def _sum_over_windows(
  share: Callable[..., Array],
  of_windows: Sequence[Array],
  size: Sequence[int],
  window: int,
  stride: int,
) -> Array:
  """Sums over the windows that cover each place: a pool's gradient.

  XLA makes one loop over the places from it; its own forms (select-and-scatter for maxima, sums
  over windows of a map of mostly zeros for means) take ten times as long on a CPU.

  Args:
    share: makes [N, H, W, C], what places have of one of their windows, from the values of that window,
      each [N, H, W, C] as `_covering_windows` gives them.
    of_windows: these values, [N, H', W', C] each.
    size: H, W of the map.
    window: side of a window in pixels.
    stride: pixels between windows.
  """
  places = [
    np.arange(length) % stride for length in size
  ]  # within the last window that covers each
  most = -(-window // stride)  # windows that cover a place, along an axis
  total: Array | None = None
  for rows, columns in itertools.product(range(most), repeat=2):
    part = share(*(_covering_windows(each, rows, columns, size, stride) for each in of_windows))
    covered = (places[0] + rows * stride < window)[:, None] & (
      places[1] + columns * stride < window
    )
    if not covered.all():
      part = jnp.where(covered[None, :, :, None], part, 0)
    total = part if total is None else total + part
  assert total is not None
  return total


def _max_pool_backward(
  window: int, stride: int, residuals: tuple[Array, Array], g: Array
) -> tuple[Array]:
  x, y = residuals

  def share(y: Array, g: Array) -> Array:
    return jnp.where(x == y, g, 0)  # without a window both are 0, so a 0 in x adds nothing

  return (_sum_over_windows(share, (y, g), x.shape[1:3], window, stride),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def average_pool(x: Array, window: int, stride: int) -> Array:
  """Mean over windows, always divided by the whole window as the 2012 kernels do at the edges.

  Args and result as `max_pool`.
  """
  total = lax.reduce_window(
    x, 0.0, lax.add, (1, window, window, 1), (1, stride, stride, 1), _pool_pads(x, window, stride)
  )
  return total / window**2


def _average_pool_forward(x: Array, window: int, stride: int) -> tuple[Array, Array]:
  return average_pool(x, window, stride), x


def _average_pool_backward(window: int, stride: int, x: Array, g: Array) -> tuple[Array]:
  return (_sum_over_windows(lambda g: g, (g / window**2,), x.shape[1:3], window, stride),)


average_pool.defvjp(_average_pool_forward, _average_pool_backward)


def dropout_mask(key: Array, positions: Array, shape: tuple[int, ...], rate: float) -> Array:
  """Which units stay, drawn for each image from its place in the global batch alone.

  So the same units are dropped however the batch is spread over devices.

  Args:
    key: a key of this step, layer and column.
    positions: [N] int, each image's place in the global batch.
    shape: shape of one image's units.
    rate: probability that a unit is dropped.

  Returns:
    [N, *shape] bool, True where a unit stays.
  """
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(positions)
  return jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, shape))(keys)


def _columns(
  function: Callable[[Array, Array], Array],
  inputs: Sequence[Array],
  kernel: Array,
  bias: Array,
  columns: int,
) -> list[Array]:
  """Applies a layer to each input with its part of kernel and bias, divided along their last axes.

  Returns:
    An array for each of the columns.
  """
  kernels = jnp.split(kernel, len(inputs), axis=-1)
  biases = jnp.split(bias, len(inputs), axis=-1)
  outputs: list[Array] = []
  for x, w, b in zip(inputs, kernels, biases, strict=True):
    y, b = function(x, w.astype(x.dtype)), b.astype(x.dtype)
    outputs += jnp.split(y + jnp.expand_dims(b, range(y.ndim - b.ndim)), columns // len(inputs), -1)
  return outputs


class Convolution(nn.Module):
  """A convolutional layer of one or more columns, without its nonlinearity.

  Attributes:
    features: kernels on this device, over all the columns that it holds.
    columns: columns that this device holds.
    kernel_size, stride, padding: in pixels.
    rounding: of the output's side; see `output_size`.
    shared: False for a locally connected layer, whose kernels and biases differ from place to
      place (stride 1).
    kernel_init, bias_init: initializers.
  """

  features: int
  columns: int
  kernel_size: int
  stride: int = 1
  padding: int = 0
  rounding: str = 'up'
  shared: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.01)
  bias_init: nn.initializers.Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self, inputs: Sequence[Array]) -> list[Array]:
    """[N, H, W, C] for one reader or each column -> [N, H', W', features / columns] for each."""
    rows, columns, channels = inputs[0].shape[1:]
    window = (self.kernel_size, self.kernel_size, channels, self.features)
    if self.shared:
      kernel = self.param('kernel', self.kernel_init, window)
      bias = self.param('bias', self.bias_init, (self.features,))
      function = functools.partial(
        convolution, stride=self.stride, padding=self.padding, rounding=self.rounding
      )
    else:
      places = tuple(output_size(s, self.kernel_size, 1, self.padding) for s in (rows, columns))
      kernel = self.param('kernel', self.kernel_init, places + window)
      bias = self.param('bias', self.bias_init, (*places, self.features))
      function = functools.partial(local_convolution, padding=self.padding)
    return _columns(function, inputs, kernel, bias, self.columns)


class Dense(nn.Module):
  """A fully connected layer of one or more columns, without its nonlinearity.

  Attributes:
    features: units on this device, over all the columns that it holds.
    columns: columns that this device holds.
    kernel_init, bias_init: initializers.
  """

  features: int
  columns: int
  kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.01)
  bias_init: nn.initializers.Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self, inputs: Sequence[Array]) -> list[Array]:
    """[N, K] for one reader or each column -> [N, features / columns] for each column."""
    kernel = self.param('kernel', self.kernel_init, (inputs[0].shape[-1], self.features))
    bias = self.param('bias', self.bias_init, (self.features,))
    return _columns(jnp.matmul, inputs, kernel, bias, self.columns)


class Output(nn.Module):
  """The classifier: reads every column, and each device multiplies only the rows of its own.

  Attributes:
    features: number of classes.
    column_axis: mesh axis over which the devices' products are summed; None outside `shard_map`.
    kernel_init, bias_init: initializers.
  """

  features: int
  column_axis: str | None
  kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.01)
  bias_init: nn.initializers.Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self, inputs: Sequence[Array]) -> Array:
    """[N, K] for each column on this device -> [N, features] logits, the same on every device.

    They are float32, or float64 where the columns are.
    """
    x = _at_least_float32(jnp.concatenate(inputs, axis=-1))
    kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
    bias = self.param('bias', self.bias_init, (self.features,))
    logits = x @ kernel.astype(x.dtype)
    if self.column_axis is not None:
      logits = lax.psum(logits, self.column_axis)
    return logits + bias[None, :].astype(x.dtype)
