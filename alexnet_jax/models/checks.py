"""Checks of a network's description, with messages for whoever wrote the config."""

import dataclasses
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alexnet_jax.models import layers
from alexnet_jax.models.options import ACTIVATIONS, CONVOLUTIONS, INITIALIZATIONS, LAYERS
from alexnet_jax.utils.errors import UserError

if TYPE_CHECKING:
  from alexnet_jax.models.alexnet import AlexNet

_LARGEST_NORM = 1000  # neighbors

# What a field may be, by what its default is, and in words.
_KINDS: tuple[tuple[type, type | tuple[type, ...], str], ...] = (
  (bool, bool, 'True or False'),
  (int, numbers.Integral, 'a whole number'),
  (float, numbers.Real, 'a number'),
  (str, str, 'a string'),
  (tuple, tuple, "a tuple of layers, as ('conv1', 'conv2')"),
)
INTERNAL = ('column_devices', 'column_axis', 'parent', 'name')
"""Fields of the network that are no part of its description."""


def _check_kinds(net: 'AlexNet') -> None:
  """Raises UserError where a field is of another kind than its default: else a traceback follows."""
  for field in dataclasses.fields(net):
    if field.name in INTERNAL:
      continue
    value, default = getattr(net, field.name), field.default
    if not dataclasses.is_dataclass(default):
      _check_kind(field.name, value, default)
      continue
    kind = type(default)
    if not isinstance(value, kind):
      raise UserError(
        f'model.{field.name} is {value!r}; it must be a {kind.__name__} of alexnet_jax.models.options'
        + (f', as {kind.__name__}(layers=()) for none' if hasattr(default, 'layers') else '')
      )
    for part in dataclasses.fields(default):
      _check_kind(
        f'{field.name}.{part.name}', getattr(value, part.name), getattr(default, part.name)
      )


def _check_kind(field: str, value: Any, default: Any) -> None:
  if default is None:  # weight_std and bias
    if value is not None:
      _check_kind(field, value, 0.0)
    return
  kind, words = next((kind, words) for of, kind, words in _KINDS if isinstance(default, of))
  if not isinstance(value, kind):
    raise UserError(f'model.{field} is {value!r}; it must be {words}')


def check(net: 'AlexNet') -> None:
  """Raises UserError, naming the field, for a value of another kind or an unknown one.

  It also does so where sizes do not fit.

  Args:
    net: the network, read for its fields only.
  """
  _check_kinds(net)

  def one_of(field: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
      raise UserError(
        f'model.{field} is {value!r}; it must be one of {", ".join(map(repr, choices))}'
      )

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
        f'model.{field}.size is {norm.size}; it must be at most {_LARGEST_NORM}, as neighbors are'
        ' added one by one'
      )
    if norm.size % 2 == 0:
      raise UserError(
        f'model.{field}.size is {norm.size}; it must be odd: as many neighbors on either side'
      )
  at_least('pool.stride', net.pool.stride, 1)
  if net.pool.stride > net.pool.window:
    raise UserError(
      f'model.pool.stride is {net.pool.stride} but windows are {net.pool.window} pixels; it must be'
      ' no larger'
    )
  if not 0 <= net.dropout.rate < 1:
    raise UserError(f'model.dropout.rate is {net.dropout.rate}; it must be at least 0 and below 1')
  at_least('conv1.features', net.conv1.features, 2)  # only later layers can be left out
  for name in LAYERS[:-1]:
    features = getattr(net, name).features
    at_least(f'{name}.features', features, 0)
    if features % 2:
      parts = 'kernels' if name in CONVOLUTIONS else 'units'
      may_be_0 = '' if name == 'conv1' else '; 0 leaves the layer out'
      raise UserError(
        f'model.{name}.features is {features}; it must be even (half of the {parts} belong to each'
        f' column){may_be_0}'
      )
  for name in CONVOLUTIONS:
    layer = getattr(net, name)
    at_least(f'{name}.kernel_size', layer.kernel_size, 1)
    at_least(f'{name}.stride', layer.stride, 1)
    at_least(f'{name}.padding', layer.padding, layer.padding - net.padding(name))
    one_of(f'{name}.rounding', layer.rounding, tuple(layers.ROUNDINGS))
    if sorted(layer.steps) != ['activation', 'norm', 'pool']:
      raise UserError(
        f'model.{name}.order is {layer.order!r}; it must hold activation, norm and pool in some'
        " order, as 'activation-norm-pool' (the paper)"
      )
    if name in net.locally_connected and layer.stride != 1:
      raise UserError(f'model.{name} is locally connected and needs stride 1')


def check_kernels(net: 'AlexNet') -> None:
  """Raises UserError where a kernel is larger than its padded input: most of it would see zeros.

  Args:
    net: the network, which `check` has passed.
  """
  side = net.input_size
  for name in CONVOLUTIONS:
    layer = getattr(net, name)
    if net.features(name):
      padding = net.padding(name)
      padded = side + 2 * padding
      if layer.kernel_size > padded:
        raise UserError(
          f'model.{name}.kernel_size is {layer.kernel_size}, but its padded input is'
          f' {padded}x{padded}; make it smaller'
        )
      side = layers.output_size(side, layer.kernel_size, layer.stride, padding, layer.rounding)
    if name in net.pool.layers:
      side = layers.output_size(side, net.pool.window, net.pool.stride, 0)
