"""From a whole config to its parts: network, mesh, update rule, data."""

import functools
import json
import math
import operator
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import optimizer
from alexnet_jax.configs import imagenet
from alexnet_jax.data import augment, datasets, image_folder, images, pipeline
from alexnet_jax.models import checks
from alexnet_jax.models.alexnet import AlexNet, parameter_shapes
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.parallel import xla
from alexnet_jax.utils import config_fields
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError, first_line


def resolved(config: ConfigDict) -> dict[str, Any]:
  """A config as plain JSON values, as workdirs and checkpoints store it."""
  value: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
  return value


def from_resolved(value: dict[str, Any]) -> ConfigDict:
  """The config from the value of `resolved`; JSON's lists become tuples again.

  Fields that were renamed since the value was written are read by their old names; those that were
  added get the value that reproduces it.
  """

  def tuples(part: Any) -> Any:
    if isinstance(part, dict):
      return {name: tuples(inner) for name, inner in part.items()}
    return tuple(map(tuples, part)) if isinstance(part, list) else part

  value = config_fields.with_current_names(value)
  config = ConfigDict(tuples(value))
  there = dict(config_fields.flatten(value))
  for field, before in config_fields.ADDED_FIELDS.items():
    section, _, name = field.partition('.')
    if section in config and field not in there:
      config[section][name] = before
  return config.lock()


def checked(value: Mapping[str, Any], path: str) -> ConfigDict:
  """The config from the value of `resolved`, checked.

  Args:
    value: from a file, which anyone may have written.
    path: the file, for messages.

  Raises:
    UserError: a field is missing, or has a value of another kind, or one that cannot be used.
  """
  try:
    value = config_fields.with_current_names(value)
    fields = dict(config_fields.flatten(value))
    for field, kind in _kinds().items():
      if not isinstance(fields.get(field), kind | None):
        raise UserError(f'{field} is {fields[field]!r}')
    config = from_resolved(dict(value))
    if missing := _missing(dict(config_fields.flatten(config.to_dict())), _read_fields()):
      raise LookupError(f'it has no field {missing}')
    check(config)
    if config.model.num_classes is not None:  # else the data decide
      make_optimizer(config, make_network(config))
  except UserError as error:
    raise UserError(f'the config in {path} cannot be used: {first_line(error)}') from error
  except Exception as error:  # what a wrong value meets on its way raises many kinds
    reason = first_line(error)
    raise UserError(
      f'the config in {path} is not one of this version of alexnet_jax: {reason}'
    ) from error
  return config


_AT_LEAST_1 = (
  'augment.crop_offsets',
  'augment.images_per_draw',
  'checkpoint.keep',
  'data.image_size',
  'data.memory_megabytes',
  'optimizer.base_batch_size',
  'train.batch_size',
  'train.gradient_accumulation_steps',
  'train.log_every_steps',
)

SEEDS = 2**32
"""Seeds are below: JAX's keys are the same for larger ones that end in the same 32 bits."""

# What values of a new run must be.
_AT_LEAST_0 = (
  'model.response_norm.alpha',
  'model.within_norm.alpha',
  'optimizer.bias_lr_multiplier',
  'optimizer.learning_rate',
  'optimizer.max_lr_decays',
  'optimizer.weight_decay',
)
_ABOVE_0 = ('model.response_norm.k', 'model.within_norm.k')

_CHOICES = {
  'augment.lighting.scale': augment.LIGHTING_SCALES,
  'augment.mean': augment.MEANS,
  'data.encoding': ('auto', *images.ENCODINGS),
  'data.resize': tuple(images.RESIZE_RULES),
  'optimizer.batch_size_rule': optimizer.BATCH_SIZE_RULES,
  'train.precision': xla.PRECISIONS,
}


def check(config: ConfigDict) -> None:
  """Raises UserError, naming the field, for one that is missing or a value that cannot be used."""
  if not isinstance(config, ConfigDict):
    raise UserError(
      f'the config is of type {type(config).__name__}; pass a ConfigDict, such as'
      ' digits.get_config(), after `from alexnet_jax.configs import digits`'
    )
  fields = dict(config_fields.flatten(config.to_dict()))
  _check_complete(fields, _read_fields())
  optional = [field for field, value in _known_fields().items() if value is None]
  for field, value in fields.items():
    if value is None and field not in (*optional, 'model.num_classes'):
      raise UserError(f'{field} is None; set it to a value')
  _check_known(field for field in fields if field.startswith('model.'))
  network_of_any_classes(config)
  for field in _AT_LEAST_1:
    if fields[field] < 1:
      raise UserError(f'{field} is {fields[field]}; it must be at least 1')
  if config.train.seed < 0:
    raise UserError(f'train.seed is {config.train.seed}; it must be at least 0')
  for field, choices in _CHOICES.items():
    if fields[field] not in choices:
      listed = ', '.join(map(repr, choices))
      raise UserError(f'{field} is {fields[field]!r}; it must be one of {listed}')
  mesh_lib.check(config.mesh.column_devices, config.mesh.data_devices)
  _check_data(config)
  _check_training(config)


def network_of_any_classes(config: ConfigDict) -> AlexNet:
  """The network of a config, of one class where model.num_classes is None."""
  model = config.model.to_dict()
  classes = 1 if model['num_classes'] is None else model['num_classes']
  return AlexNet.from_config({**model, 'num_classes': classes})


def _check_known(fields: Iterable[str]) -> None:
  """Raises UserError for a field that configs/imagenet.py does not have: nothing would read it."""
  known = _known_fields()
  for field in fields:
    if field not in known:
      near = config_fields.nearest(field, known)
      hint = f'; did you mean {near}?' if near else '; remove it from the config'
      raise UserError(f'there is no field {field}{hint}')


@functools.cache
def _known_fields() -> dict[str, Any]:
  """The fields of configs/imagenet.py and their values; those that are None there may be anywhere."""
  return dict(config_fields.flatten(imagenet.get_config().to_dict()))


@functools.cache
def _kinds() -> dict[str, Any]:
  """The types of fields that hold a number, a text or a truth value; the network checks its own."""
  paper, kinds = imagenet.get_config(), dict[str, Any]()
  for field in _known_fields():
    section, _, name = field.rpartition('.')
    kind = operator.attrgetter(section)(paper).get_type(name)
    if kind in (bool, int, float, str) and not field.startswith('model.'):
      kinds[field] = int | float if kind is float else kind
  return kinds


def _read_fields() -> list[str]:
  """Those that every config has; others of `model` have the paper's value where they are not there."""
  of_model = ('model.input_size', 'model.num_classes', 'model.num_columns')
  others = (field for field in _known_fields() if not field.startswith('model.'))
  return [*of_model, *others]


def _missing(fields: Collection[str], wanted: Iterable[str]) -> str | None:
  """The first of the wanted fields that is not there."""
  return next((field for field in wanted if field not in fields), None)


def _check_complete(fields: Collection[str], wanted: Iterable[str]) -> None:
  if missing := _missing(fields, wanted):
    section, _, name = missing.rpartition('.')
    if '.' in section and any(field.startswith(f'{section}.') for field in fields):  # given anew
      advice = (
        f'to change some fields of {section}, use config.{section}.update(...), which keeps {name}'
      )
    else:
      advice = 'start from imagenet.get_config(), after `from alexnet_jax.configs import imagenet`'
    raise UserError(f'the config has no field {missing}; {advice}')


def _check_data(config: ConfigDict) -> None:
  """Checks the values of `data` and `augment`."""
  data, chosen = config.data, config.augment
  if not 0 <= data.unreadable_limit <= 1:
    raise UserError(f'data.unreadable_limit is {data.unreadable_limit}; it is a share, from 0 to 1')
  if data.class_depth is not None and data.class_depth < 1:
    raise UserError(f'data.class_depth is {data.class_depth}; it must be None, 1, 2 or more')
  pipeline.check_crops(data.image_size, config.model.input_size, chosen.crop_offsets)
  if not 0 <= chosen.rotation_degrees <= 180:
    raise UserError(
      f'augment.rotation_degrees is {chosen.rotation_degrees}; it must be from 0 to 180'
    )
  scale = chosen.pixel_scale
  scales = scale if isinstance(scale, tuple | list) else (scale,)
  if len(scales) not in (1, 3) or not all(isinstance(value, int | float) for value in scales):
    raise UserError(
      f'augment.pixel_scale is {scale!r}; it must be a number, or three of them, for red, green and'
      ' blue'
    )
  _check_schedule('augment.lighting.std', chosen.lighting.std)


def _check_training(config: ConfigDict) -> None:
  """Checks the values of `optimizer` and `train`."""
  chosen, profiled = config.optimizer, config.train.profile_steps
  if config.train.num_epochs <= 0:
    raise UserError(f'train.num_epochs is {config.train.num_epochs}; it must be above 0')
  if config.train.num_steps is not None and config.train.num_steps < 0:
    raise UserError(f'train.num_steps is {config.train.num_steps}; it must be at least 0, or None')
  if chosen.lr_decay_factor <= 0:
    raise UserError(f'optimizer.lr_decay_factor is {chosen.lr_decay_factor}; it must be above 0')
  if not all(isinstance(epoch, int | float) for epoch in chosen.lr_decay_epochs):
    raise UserError(
      f'optimizer.lr_decay_epochs is {chosen.lr_decay_epochs!r}; it must hold epochs, as (25, 51)'
    )
  for layer, schedule in chosen.lr_multipliers.items():
    _check_schedule(f'optimizer.lr_multipliers.{layer}', schedule)
  if profiled and not (
    len(profiled) == 2
    and all(isinstance(step, int) for step in profiled)
    and 1 <= profiled[0] <= profiled[1]
  ):
    raise UserError(
      f'train.profile_steps is {profiled!r}; it must be () or the first and the last step to trace,'
      ' counted from 1, as (11, 20)'
    )


def _check_schedule(field: str, schedule: Any) -> None:
  """Checks a value that changes after some epochs."""
  if not all(
    isinstance(pair, tuple)
    and len(pair) == 2
    and all(isinstance(part, int | float) for part in pair)
    for pair in schedule
  ):
    raise UserError(
      f'{field} is {schedule!r}; it must hold pairs of (from epoch, value), as'
      ' ((0, 0.1), (50, 0.0))'
    )


def check_new(config: ConfigDict) -> None:
  """Raises UserError, naming the field, for a value that a new run must not have.

  Runs of earlier versions may have it: they are resumed, evaluated and loaded.

  Args:
    config: one that `check` has passed.
  """
  fields = dict(config_fields.flatten(config.to_dict()))
  _check_known(fields)
  _check_complete(fields, _known_fields())
  checks.check_kernels(network_of_any_classes(config))
  multipliers = (field for field in fields if '.weight_decay_multipliers.' in field)
  for field in (*_AT_LEAST_0, *multipliers):
    if not fields[field] >= 0:  # NaN is not
      raise UserError(f'{field} is {fields[field]}; it must be at least 0')
  for field in _ABOVE_0:
    if not fields[field] > 0:
      raise UserError(f'{field} is {fields[field]}; it must be above 0')
  if config.train.seed >= SEEDS:
    raise UserError(f'train.seed is {config.train.seed}; it must be from 0 to {SEEDS - 1}')
  if (every := config.checkpoint.every_steps) is not None and every < 1:
    raise UserError(f'checkpoint.every_steps is {every}; it must be at least 1, or None')
  chosen, pool = config.optimizer, config.model.pool
  if not chosen.lr_decay_factor >= 1:
    raise UserError(
      f'optimizer.lr_decay_factor is {chosen.lr_decay_factor}; it divides the learning rate, so it must'
      ' be at least 1 (10 for a tenth)'
    )
  if chosen.patience < 1:
    raise UserError(f'optimizer.patience is {chosen.patience}; it must be at least 1')
  if not 0 <= chosen.momentum < 1:
    raise UserError(f'optimizer.momentum is {chosen.momentum}; it must be at least 0 and below 1')
  if not all(map(_is_whole, chosen.lr_decay_epochs)):
    raise UserError(
      f'optimizer.lr_decay_epochs is {chosen.lr_decay_epochs!r}; it must hold whole epochs, as (25, 51)'
    )
  if unpooled := [layer for layer in pool.average if layer not in pool.layers]:
    raise UserError(
      f'model.pool.average has {unpooled[0]}, after which there is no pool; take it out, or add it to'
      ' model.pool.layers'
    )
  schedules = {f'optimizer.lr_multipliers.{layer}': s for layer, s in chosen.lr_multipliers.items()}
  for field, schedule in {**schedules, 'augment.lighting.std': config.augment.lighting.std}.items():
    if not all(_is_whole(epoch) and value >= 0 for epoch, value in schedule):
      raise UserError(
        f'{field} is {schedule!r}; it must hold whole epochs, each with a value of at least 0, as'
        ' ((0, 0.1), (50, 0.0))'
      )
  for field, value in fields.items():
    numbers = (number for number in jax.tree.leaves(value) if isinstance(number, float))
    if not all(map(math.isfinite, numbers)):
      raise UserError(f'{field} is {value!r}; it must be finite')


def _is_whole(epoch: float) -> bool:
  """Whether an epoch is a whole number from 0, as 25 or 25.0."""
  return epoch >= 0 and epoch % 1 == 0


def make_network(config: ConfigDict) -> AlexNet:
  """The network; raises UserError as `AlexNet.from_config` does."""
  return AlexNet.from_config(config.model)


def make_mesh(config: ConfigDict) -> Mesh:
  """The mesh, its CPU devices emulated if need be.

  Raises:
    UserError: devices, columns and batch size do not fit each other.
  """
  arguments = (config.model.num_columns, config.mesh.column_devices, config.mesh.data_devices)
  mesh_lib.emulate_cpu_devices(*arguments)
  mesh = mesh_lib.make_mesh(*arguments)
  parts = mesh.shape[mesh_lib.DATA]
  if config.train.batch_size % parts:
    raise UserError(
      f'train.batch_size={config.train.batch_size} does not divide over {parts} data-parallel'
      f' devices; set it to a multiple of {parts}, or set mesh.data_devices'
    )
  return mesh


def check_microbatches(config: ConfigDict, mesh: Mesh) -> None:
  """Raises UserError where a device's part of a batch does not divide into microbatches."""
  steps = config.train.gradient_accumulation_steps
  images = config.train.batch_size // mesh.shape[mesh_lib.DATA]
  if images % steps:
    fitting = ', '.join(str(number) for number in range(1, images + 1) if not images % number)
    raise UserError(
      f'train.gradient_accumulation_steps={steps} does not divide the {images} images of a batch'
      f' that each device has; it must be one of {fitting}'
    )


def augment_options(config: ConfigDict) -> augment.Options:
  """How pixels are prepared."""
  scale = config.augment.pixel_scale
  return augment.Options(
    mean=config.augment.mean,
    pixel_scale=tuple(scale) if isinstance(scale, list) else scale,
    flip=config.augment.flip,
    images_per_draw=config.augment.images_per_draw,
    rotation_degrees=config.augment.rotation_degrees,
    lighting_scale=config.augment.lighting.scale,
    lighting_rescale=config.augment.lighting.rescale,
  )


def make_optimizer(config: ConfigDict, net: AlexNet) -> optax.GradientTransformation:
  """The update rule."""
  return optimizer.paper_sgd(
    config.optimizer.momentum,
    optimizer.weight_decays(
      parameter_shapes(net),
      config.optimizer.weight_decay,
      config.optimizer.weight_decay_multipliers,
    ),
  )


def learning_rate(config: ConfigDict) -> float:
  """The weights' learning rate before any cut, for the config's batch size."""
  chosen = config.optimizer
  return chosen.learning_rate * optimizer.batch_size_multiple(
    chosen.batch_size_rule, config.train.batch_size, chosen.base_batch_size
  )


def make_schedule(config: ConfigDict) -> optimizer.Schedule:
  """The learning rates of a training."""
  chosen = config.optimizer
  return optimizer.Schedule(
    learning_rate=learning_rate(config),
    lr_decay_factor=chosen.lr_decay_factor,
    lr_decay_epochs=chosen.lr_decay_epochs,
    patience=chosen.patience,
    max_lr_decays=chosen.max_lr_decays,
    multipliers=chosen.lr_multipliers,
    bias_lr_multiplier=chosen.bias_lr_multiplier,
    lr_decay_biases=chosen.lr_decay_biases,
  )


def describe_learning_rate(config: ConfigDict) -> str:
  """'learning rate 0.04 (0.01 x 4: linear rule, batch 512 instead of 128)'; '' where unchanged."""
  chosen, rate = config.optimizer, learning_rate(config)
  if rate == chosen.learning_rate:
    return ''
  return (
    f'learning rate {rate:.4g} ({chosen.learning_rate:g} x {rate / chosen.learning_rate:.4g}:'
    f' {chosen.batch_size_rule} rule, batch {config.train.batch_size} instead of {chosen.base_batch_size})'
  )


def storage(config: ConfigDict) -> datasets.Storage:
  """Where the data set is: the fields of `config.data` that `datasets.Storage` has."""
  return datasets.Storage(*(config.data[field] for field in datasets.Storage._fields))


def open_data(
  config: ConfigDict,
  display: Display,
  open_folder: datasets.OpenFolder = image_folder.open_folder,
) -> tuple[ConfigDict, datasets.DataSet]:
  """Opens the data set, which is prepared first where that is needed.

  Args:
    config: the config.
    display: for lines and bars.
    open_folder: see `datasets.open_data_set`.

  Returns:
    The config, with model.num_classes set to the data set's number where it was None; and the
    data set.

  Raises:
    UserError: the data do not exist, cannot be prepared, or have another number of classes.
  """
  data = config.data
  data_set = datasets.open_data_set(
    data.name,
    storage(config),
    train_split=data.train_split,
    validation_split=data.validation_split,
    validation_fraction=data.validation_fraction,
    num_classes=config.model.num_classes,
    display=display,
    open_folder=open_folder,
  )
  if config.model.num_classes is None:
    config = config.copy_and_resolve_references()
    config.model.num_classes = len(data_set.class_names)
  return config, data_set
