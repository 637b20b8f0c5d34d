"""AlexNet as the paper's figure 2 draws it: conv1 to fc8 in one or two columns.

One definition serves every device layout. The *global* network holds all its columns; inside
`shard_map` a device runs the same module with its share of the columns (`local`), and the columns
exchange their maps where the paper's do: before conv3, fc6 and fc7, and at the output.
Parameters always have global shapes outside; see `parallel/mesh.py` for how they are split.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.models import layers
from alexnet_jax.utils.errors import UserError

Array = jax.Array
Columns = Sequence[Array]  # an array for each column, or one that all columns read

CONVOLUTIONS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'conv6')
DENSE = ('fc6', 'fc7', 'bottleneck', 'fc8')
LAYERS = (*CONVOLUTIONS, *DENSE)

_LARGEST_NORM = 1000  # neighbours

ACTIVATIONS = {'relu': nn.relu, 'tanh': jnp.tanh, 'logistic': nn.sigmoid}

# Layers whose biases start at 1 in the paper, section 5, so that their ReLUs start positive.
_POSITIVE = ('conv2', 'conv4', 'conv5', 'conv6', 'fc6', 'fc7')


def _initialization(
  weight_std: float | None, positive_bias: float, **other_std: float
) -> dict[str, tuple[float | None, float]]:
  return {
    name: (other_std.get(name, weight_std), positive_bias if name in _POSITIVE else 0.0)
    for name in LAYERS
  }


# By name, each layer's standard deviation of the Gaussian weights and its bias. Paper, section 5;
# the source's `layers/layers-145.cfg`; Caffe's `bvlc_alexnet/train_val.prototxt`; the source's
# CIFAR-10 nets (`example-layers`). None: He et al.'s, from the number of inputs, for small nets.
INITIALIZATIONS = {
  'paper': _initialization(0.01, 1.0),
  'source': _initialization(0.01, 1.0, conv3=0.03, conv4=0.03, conv5=0.03, conv6=0.03),
  'caffe': _initialization(0.01, 0.1, fc6=0.005, fc7=0.005),
  'source_cifar10': _initialization(0.01, 0.0, conv1=1e-4),
  'he': _initialization(None, 0.0),
}


@dataclasses.dataclass(frozen=True)
class Layer:
  """One layer's own numbers.

  Attributes:
    features: kernels or units over both columns; 0 leaves the layer out.
    kernel_size, stride, padding: of a convolution, in pixels.
    rounding: of a convolution's output where the stride does not divide: 'up' or 'down'; see
      `layers.output_size`.
    order: what follows a convolution, in order; a step that the layer does not have is passed
      over. The paper's is 'activation-norm-pool'.
    weight_std, bias: initial values where they differ from `AlexNet.initialization`.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  padding: int = 1
  rounding: str = 'up'
  order: str = 'activation-norm-pool'
  weight_std: float | None = None
  bias: float | None = None


@dataclasses.dataclass(frozen=True)
class ResponseNorm:
  """Response normalisation and the layers that have it; `layers.response_norm` has the formula.

  Attributes:
    layers: names of the layers that are followed by it.
    size, k, alpha, beta: the constants n, k, alpha and beta.
    divide_alpha: whether alpha is first divided by the number of neighbours.
    over: for the norm across channels, 'column' or 'all_channels' (Caffe).
  """

  layers: tuple[str, ...]
  size: int
  k: float
  alpha: float
  beta: float
  divide_alpha: bool
  over: str = 'column'


@dataclasses.dataclass(frozen=True)
class Pool:
  """Pooling.

  Attributes:
    layers: names of the layers that are followed by it.
    average: of these, the layers whose pools take the mean instead of the maximum.
    window, stride: in pixels.
    trim: layers whose padding is one pixel less where pools do not overlap (window == stride),
      as in net 147, so that fc6 keeps its input.
  """

  layers: tuple[str, ...]
  average: tuple[str, ...]
  window: int
  stride: int
  trim: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Dropout:
  """Dropout.

  Attributes:
    rate: probability that a unit is set to zero in training; 0 for no dropout.
    layers: names of the layers whose outputs it works on.
    inverted: False: outputs are multiplied by 1 - rate at test time (the paper); True: divided
      by it in training (Caffe, PyTorch).
  """

  rate: float
  layers: tuple[str, ...]
  inverted: bool


class AlexNet(nn.Module):
  """The network. `alexnet(config.model)` makes and checks one.

  Attributes:
    num_classes: outputs of fc8.
    input_size: side of the input image in pixels.
    num_columns: 2, or 1: the layers in `one_column_halves` then have half their kernels.
    cross_column: layers that read every column; conv1 reads the image, the others their own
      column.
    one_column_halves: see `num_columns`; conv1 to conv4 in the paper's one-GPU net.
    locally_connected: convolutions whose kernels differ from place to place.
    activation: 'relu', 'tanh' or 'logistic', after every layer but the bottleneck and fc8.
    initialization: a key of INITIALIZATIONS.
    response_norm, within_norm: across neighbouring channels, and within a channel.
    pool, dropout: see there.
    conv1 ... fc8: each layer's own numbers. The bottleneck is linear (source, net 146 for 21,843
      classes).
    column_devices: devices over which the columns are spread; `local` sets it.
    column_axis: name of the mesh axis of those devices, inside `shard_map`; else None.
  """

  num_classes: int
  input_size: int
  num_columns: int
  cross_column: tuple[str, ...]
  one_column_halves: tuple[str, ...]
  locally_connected: tuple[str, ...]
  activation: str
  initialization: str
  response_norm: ResponseNorm
  within_norm: ResponseNorm
  pool: Pool
  dropout: Dropout
  conv1: Layer
  conv2: Layer
  conv3: Layer
  conv4: Layer
  conv5: Layer
  conv6: Layer
  fc6: Layer
  fc7: Layer
  fc8: Layer
  bottleneck: Layer = Layer(0)  # what configs of before there was one mean
  column_devices: int = 1
  column_axis: str | None = None

  def local(self, column_axis: str, column_devices: int) -> 'AlexNet':
    """The same network as one device of `column_devices` runs it inside `shard_map`."""
    return self.clone(column_axis=column_axis, column_devices=column_devices)

  def features(self, name: str) -> int:
    """Kernels or units of a layer over all its columns; 0 where it is left out."""
    features = getattr(self, name).features
    return features // 2 if self.num_columns == 1 and name in self.one_column_halves else features

  def is_trimmed(self, name: str) -> bool:
    """Whether a convolution has one pixel less padding, as `Pool.trim` says."""
    return name in self.pool.trim and self.pool.window == self.pool.stride

  @nn.compact
  def __call__(
    self, images: Array, dropout_key: Array | None = None, positions: Array | None = None
  ) -> tuple[Array, dict[str, Array]]:
    """Runs the network.

    Args:
      images: [N, input_size, input_size, 3] float, centred pixels. Their dtype is what the network
        computes in, whatever that of the parameters; see `models/layers.py`.
      dropout_key: this step's key; None at test time.
      positions: [N] int, the images' places in the global batch; needed with `dropout_key`.

    Returns:
      logits [N, num_classes], and every intermediate array by name ('conv1', 'conv1_activation',
      'conv1_norm', 'conv1_pool', ... 'fc7', 'fc7_activation', 'fc7_dropout', 'fc8'), the columns
      that this device holds side by side in the last axis.
    """
    outputs: dict[str, Array] = {}

    def stage(name: str, columns: Columns) -> Columns:
      return self._stage(name, columns, outputs, dropout_key, positions)

    # Shapes are those of one column of the paper's network.
    x: Columns = [images]  # 224x224x3, read by both columns
    x = stage('conv1', x)  # 55x55x48, pooled to 27x27x48
    x = stage('conv2', x)  # 27x27x128, pooled to 13x13x128
    x = stage('conv3', x)  # 13x13x192, from both columns
    x = stage('conv4', x)  # 13x13x192
    x = stage('conv5', x)  # 13x13x128, pooled to 6x6x128
    x = stage('conv6', x)  # 6x6x128, from both columns, where there is one
    x = [column.reshape(column.shape[0], -1) for column in x]  # 4608
    x = stage('fc6', x)  # 2048, from both columns
    x = stage('fc7', x)  # 2048, from both columns
    x = stage('bottleneck', x)  # 1024, from both columns, where there is one
    # Each device multiplies its own columns' rows, and the products are summed.
    logits = layers.Output(
      self.num_classes, self.column_axis, **self._initializers('fc8'), name='fc8'
    )(x)
    outputs['fc8'] = logits  # 1000
    return logits, outputs

  def _stage(
    self,
    name: str,
    columns: Columns,
    outputs: dict[str, Array],
    dropout_key: Array | None,
    positions: Array | None,
  ) -> Columns:
    """One layer and all that follows it; a layer left out leaves its pool, so that sizes stay."""
    present = self.features(name) > 0
    steps: list[tuple[str, Callable[[Columns], Columns]]] = []
    if present:
      steps.append(('', functools.partial(self._linear, name)))
    for step in self._order(name):
      if step == 'activation' and present:
        steps.append(('_activation', _each(ACTIVATIONS[self.activation])))
      if step == 'norm' and present and name in self.response_norm.layers:
        steps.append(('_norm', self._response_norm))
      if step == 'norm' and present and name in self.within_norm.layers:
        steps.append(('_within_norm', _each(functools.partial(_norm, self.within_norm, (1, 2)))))
      if step == 'pool' and name in self.pool.layers:
        function = layers.average_pool if name in self.pool.average else layers.max_pool
        steps.append(
          (
            '_pool',
            _each(functools.partial(function, window=self.pool.window, stride=self.pool.stride)),
          )
        )
    if present and name in self.dropout.layers and self.dropout.rate:
      steps.append(('_dropout', functools.partial(self._dropout, name, dropout_key, positions)))
    for step, apply in steps:
      columns = apply(columns)
      outputs[name + step] = jnp.concatenate(columns, axis=-1)
    return columns

  @property
  def _columns_here(self) -> int:
    return self.num_columns // self.column_devices

  def _layer(self, name: str) -> Layer:
    layer: Layer = getattr(self, name)
    return layer

  def _order(self, name: str) -> Sequence[str]:
    """What may follow a layer, in order."""
    if name in CONVOLUTIONS:
      return self._layer(name).order.split('-')
    return () if name == 'bottleneck' else ('activation',)

  def _initializers(self, name: str) -> dict[str, Any]:
    std, bias = INITIALIZATIONS[self.initialization][name]
    layer = self._layer(name)
    std = std if layer.weight_std is None else layer.weight_std
    bias = bias if layer.bias is None else layer.bias
    places = (0, 1) if name in self.locally_connected else ()
    he = nn.initializers.variance_scaling(
      2.0 if name != 'fc8' else 1.0, 'fan_in', 'truncated_normal', batch_axis=places
    )
    return {
      'kernel_init': he if std is None else nn.initializers.normal(std),
      'bias_init': nn.initializers.constant(bias),
    }

  def _linear(self, name: str, columns: Columns) -> Columns:
    if name in self.cross_column:
      columns = [self._all_columns(columns)]
    features = self.features(name) // self.column_devices
    initializers = self._initializers(name)
    if name not in CONVOLUTIONS:
      return layers.Dense(features, self._columns_here, **initializers, name=name)(columns)
    layer = self._layer(name)
    return layers.Convolution(
      features,
      self._columns_here,
      kernel_size=layer.kernel_size,
      stride=layer.stride,
      padding=layer.padding - self.is_trimmed(name),
      rounding=layer.rounding,
      shared=name not in self.locally_connected,
      **initializers,
      name=name,
    )(columns)

  def _all_columns(self, columns: Columns) -> Array:
    """All columns' maps side by side: the paper's communication between GPUs."""
    x = jnp.concatenate(columns, axis=-1)
    if self.column_devices > 1:
      # Gathered as whole maps and then joined: in one step XLA transposes the maps on the CPU.
      x = jnp.concatenate(list(lax.all_gather(x, self.column_axis)), axis=-1)
    return x

  def _column_number(self, i: int) -> Array | int:
    """Which of the network's columns this device's i-th is."""
    if self.column_axis is None:
      return i
    return lax.axis_index(self.column_axis) * self._columns_here + i

  def _response_norm(self, columns: Columns) -> Columns:
    if self.response_norm.over == 'column':
      return [_norm(self.response_norm, (3,), column) for column in columns]
    width = columns[0].shape[-1]
    x = _norm(self.response_norm, (3,), self._all_columns(columns))
    return [
      lax.dynamic_slice_in_dim(x, self._column_number(i) * width, width, axis=3)
      for i in range(len(columns))
    ]

  def _dropout(
    self, name: str, key: Array | None, positions: Array | None, columns: Columns
  ) -> Columns:
    keep = 1 - self.dropout.rate
    if key is None:
      return columns if self.dropout.inverted else [keep * column for column in columns]
    assert positions is not None, 'dropout_key needs positions'
    key = jax.random.fold_in(key, LAYERS.index(name))
    dropped = []
    for i, x in enumerate(columns):
      column_key = jax.random.fold_in(key, self._column_number(i))
      mask = layers.dropout_mask(column_key, positions, x.shape[1:], self.dropout.rate)
      dropped.append(jnp.where(mask, x / keep if self.dropout.inverted else x, 0))
    return dropped


def _each(function: Callable[[Array], Array]) -> Callable[[Columns], Columns]:
  return lambda columns: [function(column) for column in columns]


def _norm(norm: ResponseNorm, axes: tuple[int, ...], x: Array) -> Array:
  alpha = norm.alpha / norm.size ** len(axes) if norm.divide_alpha else norm.alpha
  return layers.response_norm(x, norm.size, norm.k, alpha, norm.beta, axes)


def parameter_shapes(net: AlexNet) -> Any:
  """The network's parameters, {layer: {'kernel', 'bias'}}, as jax.ShapeDtypeStruct."""
  image = jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), jnp.float32)
  return jax.eval_shape(net.init, jax.random.key(0), image)['params']


def alexnet(model: Mapping[str, Any]) -> AlexNet:
  """Makes the network from plain values, such as a config's `model` section, and checks them.

  Args:
    model: AlexNet's attributes by name, those of its parts as mappings; lists serve as tuples.

  Raises:
    UserError: a value is not one of those known, or sizes do not fit; the message names the
      field and what it may be.
  """
  parts = {
    'pool': Pool,
    'dropout': Dropout,
    'response_norm': ResponseNorm,
    'within_norm': ResponseNorm,
  }
  if model['num_classes'] is None:
    raise UserError(
      'model.num_classes is not set; give the number of classes, as --config.model.num_classes=10'
    )
  arguments: dict[str, Any] = {}
  for name, value in model.items():
    if name in LAYERS:
      arguments[name] = Layer(**{'features': model['num_classes'], **value})
    elif name in parts:
      arguments[name] = parts[name](**{k: _tuple(v) for k, v in value.items()})
    else:
      arguments[name] = _tuple(value)
  net = AlexNet(**arguments)
  _check(net)
  return net


def _tuple(value: Any) -> Any:
  return tuple(value) if isinstance(value, list) else value


def _check(net: AlexNet) -> None:
  def one_of(field: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
      raise UserError(f'model.{field} is {value!r}; it may be {", ".join(map(repr, choices))}')

  def layers_of(field: str, names: Sequence[str], choices: Sequence[str]) -> None:
    for name in names:
      one_of(field, name, choices)

  one_of('num_columns', net.num_columns, (1, 2))
  one_of('activation', net.activation, tuple(ACTIVATIONS))
  one_of('initialization', net.initialization, tuple(INITIALIZATIONS))
  one_of('response_norm.over', net.response_norm.over, ('column', 'all_channels'))
  layers_of('cross_column', net.cross_column, LAYERS[1:-1])
  layers_of('one_column_halves', net.one_column_halves, LAYERS[:-1])
  layers_of('locally_connected', net.locally_connected, CONVOLUTIONS)
  layers_of('dropout.layers', net.dropout.layers, LAYERS[:-1])
  for field in (
    'response_norm.layers',
    'within_norm.layers',
    'pool.layers',
    'pool.average',
    'pool.trim',
  ):
    part, name = field.split('.')
    layers_of(field, getattr(getattr(net, part), name), CONVOLUTIONS)

  def at_least(field: str, value: int, least: int) -> None:
    if value < least:
      raise UserError(f'model.{field} is {value}; it must be at least {least}')

  at_least('num_classes', net.num_classes, 1)
  at_least('input_size', net.input_size, 1)
  for field, norm in (('response_norm', net.response_norm), ('within_norm', net.within_norm)):
    at_least(f'{field}.size', norm.size, 1)
    if norm.size > _LARGEST_NORM:
      raise UserError(
        f'model.{field}.size is {norm.size}; it may be at most {_LARGEST_NORM}, as neighbours are'
        ' added one by one'
      )
  at_least('pool.stride', net.pool.stride, 1)
  if net.pool.stride > net.pool.window:
    raise UserError(
      f'model.pool.stride is {net.pool.stride} but windows are {net.pool.window} pixels; it may be'
      ' no larger'
    )
  if not 0 <= net.dropout.rate < 1:
    raise UserError(f'model.dropout.rate is {net.dropout.rate}; it must be at least 0 and below 1')
  at_least('conv1.features', net.conv1.features, 2)  # only later layers can be left out
  for name in LAYERS[:-1]:
    layer: Layer = getattr(net, name)
    at_least(f'{name}.features', layer.features, 0)
    at_least(f'{name}.kernel_size', layer.kernel_size, 1)
    at_least(f'{name}.stride', layer.stride, 1)
    at_least(f'{name}.padding', layer.padding, int(net.is_trimmed(name)))
    one_of(f'{name}.rounding', layer.rounding, tuple(layers.ROUNDINGS))
    if layer.features % 2:
      raise UserError(
        f'model.{name}.features is {layer.features}; an even number (or 0, to leave the layer out)'
        ' splits into columns'
      )
    if sorted(layer.order.split('-')) != ['activation', 'norm', 'pool']:
      raise UserError(
        f'model.{name}.order is {layer.order!r}; it must hold activation, norm and pool in some'
        " order, as 'activation-norm-pool' (the paper)"
      )
    if name in net.locally_connected and layer.stride != 1:
      raise UserError(f'model.{name} is locally connected and needs stride 1')
