"""A config's fields by name: which define an experiment, and which were added or renamed later."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from alexnet_jax.utils.errors import first_line

# Fields and sections that define no experiment, but where and how long it runs: these alone may
# change in a workdir.
CIRCUMSTANCES = (
  'mesh',
  'checkpoint',
  'data.data_dir',
  'data.prepared_dir',
  'data.unreadable_limit',
  'train.num_epochs',
  'train.num_steps',
  'train.log_every_steps',
  'train.library_fusions',
  'train.gradient_accumulation_steps',
  'train.profile_steps',
)

# Fields that older runs' configs lack, with the values that those runs had.
ADDED_FIELDS: dict[str, Any] = {
  'train.gradient_accumulation_steps': 1,
  'optimizer.batch_size_rule': 'none',
  'optimizer.base_batch_size': 128,
  'train.profile_steps': (),
  'data.class_depth': None,
  'data.resize': 'paper',
}

# Fields and sections by their old names, which older workdirs, checkpoints and commands have.
RENAMED_FIELDS = {
  'optimizer.cut_epochs': 'optimizer.lr_decay_epochs',
  'optimizer.cut_factor': 'optimizer.lr_decay_factor',
  'optimizer.max_cuts': 'optimizer.max_lr_decays',
  'optimizer.rate_multipliers': 'optimizer.lr_multipliers',
  'optimizer.decay_multipliers': 'optimizer.weight_decay_multipliers',
  'optimizer.bias_multiplier': 'optimizer.bias_lr_multiplier',
  'optimizer.cut_biases': 'optimizer.lr_decay_biases',
}

# Values by their old spelling.
RENAMED_VALUES = {('augment.mean', 'centre'): 'center'}


def flatten(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields the fields and values of a config, as ('model.num_columns', 2)."""
  for name, value in config.items():
    if isinstance(value, Mapping):
      yield from flatten(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def typed_as(config: ConfigDict, other: ConfigDict) -> ConfigDict:
  """A config read from JSON, its fields typed as another's, so that each takes the same values.

  A field that may be None, or hold values of several kinds, is a placeholder in a config's file; JSON
  has its value alone.
  """
  with config.unlocked():
    for name, value in list(config.items()):
      if isinstance(value, ConfigDict):
        if isinstance(other.get(name), ConfigDict):
          typed_as(value, other[name])
      elif name in other and other.get_type(name) is not config.get_type(name):
        field = config_dict.placeholder(other.get_type(name))
        with config.ignore_type():
          config[name] = field
          config[name] = value
  return config


def current_name(field: str) -> str:
  """The present name of a field or section."""
  for old, new in RENAMED_FIELDS.items():
    if is_among(field, [old]):
      return new + field.removeprefix(old)
  return field


def nearest(field: str, known: Collection[str]) -> str | None:
  """The known field that a mistaken one may stand for, by its whole name or else its last part."""
  by_end = {name.rpartition('.')[2]: name for name in known}
  near = difflib.get_close_matches(field, known, 1)
  near += [by_end[end] for end in difflib.get_close_matches(field.rpartition('.')[2], by_end, 1)]
  return near[0] if near else None


def old_names(config: Mapping[str, Any]) -> list[str]:
  """The old names of fields and sections that a config has, and the present ones, as 'a: now b'."""
  return [
    f'{old}: now {new}'
    for old, new in RENAMED_FIELDS.items()
    if any(is_among(name, [old]) for name, _ in flatten(config))
  ]


def with_current_names(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """A config, as JSON has it, with its fields by their present names and values."""
  renamed: dict[str, Any] = {}
  for name, value in config.items():
    field = f'{prefix}{name}'
    new_name = RENAMED_FIELDS.get(field, field).removeprefix(prefix)
    if isinstance(value, Mapping):
      renamed[new_name] = with_current_names(value, f'{field}.')
    elif isinstance(value, str):
      renamed[new_name] = RENAMED_VALUES.get((field, value), value)
    else:
      renamed[new_name] = value
  return renamed


def is_among(field: str, names: Sequence[str]) -> bool:
  """Whether a field, or a section that it is in, is among some."""
  return any(field == name or field.startswith(name + '.') for name in names)


def differences(
  config: Mapping[str, Any],
  other: Mapping[str, Any],
  except_for: Sequence[str] = CIRCUMSTANCES,
) -> list[str]:
  """Lists the fields by which two configs are different experiments.

  Args:
    config: this config, as JSON has it.
    other: the one there, such as a workdir's.
    except_for: fields and sections that may differ.

  Returns:
    Texts such as 'model.num_columns is 2 there and 1 in this config'.
  """
  fields, other_fields = (
    {**ADDED_FIELDS, **dict(flatten(with_current_names(each)))} for each in (config, other)
  )
  return [
    first_line(
      f'{field} is {other_fields.get(field)!r} there and {fields.get(field)!r} in this config'
    )
    for field in sorted(fields.keys() | other_fields.keys())
    if not is_among(field, except_for) and fields.get(field) != other_fields.get(field)
  ]
