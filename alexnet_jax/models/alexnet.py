"""AlexNet as the paper's figure 2 draws it: conv1 to fc8 in two columns.

One definition serves every device layout. The *global* network holds all its columns; inside
`shard_map` a device runs the same module with its share of the columns (`local`), and the columns
exchange their maps where the paper's do: before conv3, fc6 and fc7, and at the output.
Parameters always have global shapes outside; see `parallel/mesh.py` for how they are split.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from alexnet_jax.models import checks, layers
from alexnet_jax.models.options import (
  ACTIVATIONS,
  CONVOLUTIONS,
  LAYERS,
  Bottleneck,
  Convolution,
  Dense,
  Dropout,
  Output,
  Pool,
  ResponseNorm,
  WithinNorm,
  initializers,
)
from alexnet_jax.utils.errors import UserError

Array = jax.Array
Columns = Sequence[Array]  # an array for each column, or one that all columns read


class AlexNet(nn.Module):
  """The network; without arguments, the paper's. `from_config` makes one of a config's section.

  Attributes:
    num_classes: outputs of fc8.
    input_size: side of the input image in pixels.
    conv1 ... fc8: each layer's own values, described by the class of its type in `models/options.py`.
    cross_column: layers that read every column, which are figure 2's arrows between the GPUs; conv1
      reads the image, the others their own column. With () the columns never meet before fc8; the
      2012 code's net 150 also has 320 kernels in conv2 and 8192 units in fc6.
    response_norm, within_norm, pool, dropout: likewise.
    activation: 'relu', 'tanh' or 'logistic', after every layer but the bottleneck and fc8.
    num_columns: 2, or 1, where the layers in `one_column_halves` have half their kernels.
    one_column_halves: layers that have half their kernels with one column (section 3.2, footnote).
    locally_connected: convolutions whose kernels differ from place to place.
    initialization: 'paper', 'source' (the 2012 code's), 'caffe', 'he' (He et al.), or
      'source_cifar10' (the 2012 code's for CIFAR-10's nets).
    column_devices: devices over which the columns are spread; `local` sets it.
    column_axis: name of the mesh axis of those devices, inside `shard_map`; else None.
  """

  num_classes: int = 1000
  input_size: int = 224

  # Figure 2: kernels or units over both columns; then what one column makes of it.
  conv1: Convolution = Convolution(96, 11, stride=4, padding=0)  # 55x55x48, pooled to 27x27x48
  conv2: Convolution = Convolution(256, 5, padding=2)  # 27x27x128, pooled to 13x13x128
  conv3: Convolution = Convolution(384, 3, padding=1)  # 13x13x192
  conv4: Convolution = Convolution(384, 3, padding=1)  # 13x13x192
  conv5: Convolution = Convolution(256, 3, padding=1)  # 13x13x128, pooled to 6x6x128
  conv6: Convolution = Convolution(0, 3, padding=1)  # left out; 256 in the nets with a sixth
  fc6: Dense = Dense(4096)  # 2048
  fc7: Dense = Dense(4096)  # 2048
  bottleneck: Bottleneck = Bottleneck(0)  # left out
  fc8: Output = Output()  # 1000, from both columns

  cross_column: tuple[str, ...] = ('conv3', 'conv6', 'fc6', 'fc7', 'bottleneck')
  response_norm: ResponseNorm = ResponseNorm(layers=('conv1', 'conv2'))  # section 3.3
  within_norm: WithinNorm = WithinNorm(layers=())
  pool: Pool = Pool(layers=('conv1', 'conv2', 'conv5'), window=3, stride=2)  # section 3.4
  dropout: Dropout = Dropout(rate=0.5, layers=('fc6', 'fc7'))  # section 4.2
  activation: str = 'relu'  # section 3.1
  initialization: str = 'paper'  # section 5

  num_columns: int = 2  # section 3.2
  one_column_halves: tuple[str, ...] = ('conv1', 'conv2', 'conv3', 'conv4')
  locally_connected: tuple[str, ...] = ()
  column_devices: int = 1
  column_axis: str | None = None

  def __post_init__(self) -> None:
    """Raises UserError where a field's value is unknown or sizes do not fit."""
    checks.check(self)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, images: Array, dropout_key: Array | None = None, positions: Array | None = None
  ) -> tuple[Array, dict[str, Array]]:
    """Runs the network.

    Args:
      images: [N, input_size, input_size, 3] float, centered pixels. Their dtype is what the network
        computes in, whatever that of the parameters; see `models/layers.py`.
      dropout_key: this step's key; None at test time. Flax's `rngs` are not used: within another module,
        which may have them for its other parts, nothing is dropped here without this key.
      positions: [N] int, the images' places in the global batch; needed with `dropout_key`.

    Returns:
      logits [N, num_classes], and every intermediate array by name ('conv1', 'conv1_activation',
      'conv1_norm', 'conv1_pool', ... 'fc7', 'fc7_activation', 'fc7_dropout', 'fc8'), the columns
      that this device holds side by side in the last axis.

    Raises:
      UserError: the images are of another shape or not of floats, or dropout lacks its key or positions,
        or these are not one for each image.
    """
    self._check_arguments(images, dropout_key, positions)
    outputs: dict[str, Array] = {}

    def layer(name: str, x: Columns) -> Columns:
      """A layer's products, and what follows them in its own order."""
      if not self.features(name):  # left out; its pool stays, so that sizes do
        return keep(f'{name}_pool', x, self._pool(name, x))
      if name in self.cross_column:
        x = self._both(x)
      x = keep(name, x, self._linear(name, x))
      for step in getattr(self, name).steps:
        if step == 'activation':
          x = keep(f'{name}_activation', x, [ACTIVATIONS[self.activation](column) for column in x])
        elif step == 'norm':
          x = keep(f'{name}_norm', x, self._response_norm(name, x))
          x = keep(f'{name}_within_norm', x, self._within_norm(name, x))
        else:
          x = keep(f'{name}_pool', x, self._pool(name, x))
      return keep(f'{name}_dropout', x, self._dropout(name, x, dropout_key, positions))

    def keep(name: str, x: Columns, y: Columns | None) -> Columns:
      """Puts a step's result among the outputs; passes x on where the layer has no such step."""
      if y is None:
        return x
      outputs[name] = jnp.concatenate(y, axis=-1)
      return y

    # Figure 2 from left to right; shapes are those of one column.
    x: Columns = [images]  # 224x224x3, read by both columns
    x = layer('conv1', x)  # 55x55x48, normalized, pooled to 27x27x48
    x = layer('conv2', x)  # 27x27x128, normalized, pooled to 13x13x128
    x = layer('conv3', x)  # 13x13x192, from both columns
    x = layer('conv4', x)  # 13x13x192
    x = layer('conv5', x)  # 13x13x128, pooled to 6x6x128
    x = layer('conv6', x)  # 6x6x128, from both columns, where there is one
    x = [column.reshape(column.shape[0], -1) for column in x]  # 4608
    x = layer('fc6', x)  # 2048, from both columns
    x = layer('fc7', x)  # 2048, from both columns
    x = layer('bottleneck', x)  # 1024, from both columns, where there is one
    # Each device multiplies its own columns' rows, and the products are summed.
    outputs['fc8'] = layers.Output(
      self.num_classes, self.column_axis, **self._initializers('fc8'), name='fc8'
    )(x)  # 1000
    return outputs['fc8'], outputs

  @classmethod
  def from_config(cls, model: Mapping[str, Any]) -> 'AlexNet':
    """Makes the network of a config's `model` section, and checks it.

    Args:
      model: AlexNet's attributes by name, those of its parts as mappings; lists serve as tuples.
        What is not there has the paper's value.

    Raises:
      UserError: a value is not one of those known, sizes do not fit, or the network has no such
        field; the message names the field and what it may be.
    """
    if isinstance(model, ConfigDict):
      model = model.to_dict()
    paper = cls(parent=None)  # no part of a module that is being run
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(model.keys() - known) or [
      f'{name}.{field}'
      for name, value in model.items()
      if isinstance(value, Mapping)
      for field in sorted(value.keys() - vars(getattr(paper, name)).keys())
    ]
    if unknown:
      raise UserError(f'the network has no field {unknown[0]}; AlexNet lists those that it has')
    if model.get('num_classes', 0) is None:
      raise UserError(
        'model.num_classes is not set; give the number of classes, as --config.model.num_classes=10'
      )
    return cls(
      **{
        name: dataclasses.replace(getattr(paper, name), **{k: _tuple(v) for k, v in value.items()})
        if isinstance(value, Mapping)
        else _tuple(value)
        for name, value in model.items()
      }
    )

  @nn.nowrap  # as those below: what Flax wraps cannot be called before a module is whole
  def to_config(self) -> dict[str, Any]:
    """The fields as plain values: the `model` section that makes this network."""
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {
      name: dict(vars(value)) if dataclasses.is_dataclass(value) else value
      for name, value in fields.items()
      if name not in checks.INTERNAL
    }

  @nn.nowrap
  def local(self, column_axis: str, column_devices: int) -> 'AlexNet':
    """The same network as one device of `column_devices` runs it inside `shard_map`."""
    return self.clone(column_axis=column_axis, column_devices=column_devices)

  @nn.nowrap
  def features(self, name: str) -> int:
    """Kernels or units of a layer over all its columns; 0 where it is left out."""
    features: int = self.num_classes if name == 'fc8' else getattr(self, name).features
    return features // 2 if self.num_columns == 1 and name in self.one_column_halves else features

  @nn.nowrap
  def padding(self, name: str) -> int:
    """A convolution's padding in pixels, one less than its own where `Pool.trim` says so."""
    is_trimmed = name in self.pool.trim and self.pool.window == self.pool.stride
    padding: int = getattr(self, name).padding
    return padding - is_trimmed

  def _check_arguments(
    self, images: Array, dropout_key: Array | None, positions: Array | None
  ) -> None:
    expected = (self.input_size, self.input_size, 3)
    if images.ndim != 4 or images.shape[1:] != expected:
      said = ', '.join(map(str, expected))
      raise UserError(f'images are of shape {list(images.shape)}; the network takes [N, {said}]')
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise UserError(
        f'images are of {images.dtype}; pass centered floats, as data.augment makes them'
      )
    alone = not self.path  # of a module around it, rngs may be for other parts
    if dropout_key is None and alone and self.has_rng('dropout') and not self.is_initializing():
      raise UserError("pass dropout_key=key and positions, not rngs={'dropout': key}")
    if dropout_key is None:
      return
    if positions is None:
      raise UserError('dropout_key needs positions, which are jnp.arange(N) for a whole batch')
    if jnp.shape(positions) != images.shape[:1]:
      raise UserError(
        f'positions are of shape {list(jnp.shape(positions))}; pass one for each of {images.shape[0]} images,'
        ' as jnp.arange(N)'
      )

  @property
  def _local_columns(self) -> int:
    return self.num_columns // self.column_devices

  def _column_number(self, i: int) -> Array | int:
    """Which of the network's columns this device's i-th is."""
    if self.column_axis is None:
      return i
    return lax.axis_index(self.column_axis) * self._local_columns + i

  def _both(self, x: Columns) -> Columns:
    """All columns' maps side by side, for all to read: the paper's communication between GPUs."""
    y = jnp.concatenate(x, axis=-1)
    if self.column_devices > 1:
      # Gathered as whole maps and then joined: in one step XLA transposes the maps on the CPU.
      y = jnp.concatenate(list(lax.all_gather(y, self.column_axis)), axis=-1)
    return [y]

  def _initializers(self, name: str) -> dict[str, Any]:
    places = (0, 1) if name in self.locally_connected else ()
    return initializers(self.initialization, name, getattr(self, name), places)

  def _linear(self, name: str, x: Columns) -> Columns:
    features, columns = self.features(name) // self.column_devices, self._local_columns
    if name not in CONVOLUTIONS:
      return layers.Dense(features, columns, **self._initializers(name), name=name)(x)
    options: Convolution = getattr(self, name)
    return layers.Convolution(
      features,
      columns,
      kernel_size=options.kernel_size,
      stride=options.stride,
      padding=self.padding(name),
      rounding=options.rounding,
      shared=name not in self.locally_connected,
      **self._initializers(name),
      name=name,
    )(x)

  def _response_norm(self, name: str, x: Columns) -> Columns | None:
    if name not in self.response_norm.layers:
      return None
    if self.response_norm.over == 'column':
      return [_normalize(self.response_norm, (3,), column) for column in x]
    width = x[0].shape[-1]
    [y] = self._both(x)
    y = _normalize(self.response_norm, (3,), y)
    return [
      lax.dynamic_slice_in_dim(y, self._column_number(i) * width, width, axis=3)
      for i in range(len(x))
    ]

  def _within_norm(self, name: str, x: Columns) -> Columns | None:
    if name not in self.within_norm.layers:
      return None
    return [_normalize(self.within_norm, (1, 2), column) for column in x]

  def _pool(self, name: str, x: Columns) -> Columns | None:
    if name not in self.pool.layers:
      return None
    pool: Callable[..., Array] = (
      layers.average_pool if name in self.pool.average else layers.max_pool
    )
    return [pool(column, self.pool.window, self.pool.stride) for column in x]

  def _dropout(
    self, name: str, x: Columns, key: Array | None, positions: Array | None
  ) -> Columns | None:
    if name not in self.dropout.layers or not self.dropout.rate:
      return None
    keep = 1 - self.dropout.rate
    if key is None:
      return x if self.dropout.inverted else [keep * column for column in x]
    assert positions is not None
    key = jax.random.fold_in(key, LAYERS.index(name))
    dropped = []
    for i, column in enumerate(x):
      column_key = jax.random.fold_in(key, self._column_number(i))
      mask = layers.dropout_mask(column_key, positions, column.shape[1:], self.dropout.rate)
      dropped.append(jnp.where(mask, column / keep if self.dropout.inverted else column, 0))
    return dropped


def _normalize(norm: ResponseNorm | WithinNorm, axes: tuple[int, ...], x: Array) -> Array:
  alpha = norm.alpha / norm.size ** len(axes) if norm.divide_alpha else norm.alpha
  return layers.response_norm(x, norm.size, norm.k, alpha, norm.beta, axes)


def _tuple(value: Any) -> Any:
  return tuple(value) if isinstance(value, list) else value


def array_shapes(net: AlexNet) -> tuple[dict[str, tuple[int, ...]], Any]:
  """The shapes of a network's outputs and parameters, without computing anything.

  Returns:
    By name, as `AlexNet` gives them, the shape of each output for one image, over all columns; and
    the parameters, {layer: {'kernel', 'bias'}}, as jax.ShapeDtypeStruct.
  """
  image = jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), jnp.float32)
  # The key within: made outside, it would start a backend, before processes have joined.
  (_, outputs), variables = jax.eval_shape(
    lambda image: net.init_with_output(jax.random.key(0), image), image
  )
  return {name: output.shape[1:] for name, output in outputs.items()}, variables['params']


def parameter_shapes(net: AlexNet) -> Any:
  """The network's parameters, {layer: {'kernel', 'bias'}}, as jax.ShapeDtypeStruct."""
  return array_shapes(net)[1]


def initial_parameters(net: AlexNet, key: Array) -> Any:
  """The parameters with which training starts, {layer: {'kernel', 'bias'}}, drawn from a key."""
  return net.init(key, jnp.zeros((1, net.input_size, net.input_size, 3)))['params']
