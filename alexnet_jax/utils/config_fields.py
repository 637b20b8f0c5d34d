"""A config's fields by name: which define an experiment, and which were added later."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
}

# Fields that may be None; so may each layer's weight_std and bias.
OPTIONAL_FIELDS = (
  'checkpoint.every_steps',
  'data.data_dir',
  'data.prepared_dir',
  'model.num_classes',
  'train.init_from',
  'train.num_steps',
)


def flatten(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields the fields and values of a config, as ('model.num_columns', 2)."""
  for name, value in config.items():
    if isinstance(value, Mapping):
      yield from flatten(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def differences(
  config: Mapping[str, Any],
  other: Mapping[str, Any],
  but_for: Sequence[str] = CIRCUMSTANCES,
) -> list[str]:
  """Lists the fields by which two configs are different experiments: 'model.num_columns: 2, not 1'.

  Args:
    config: a config, as JSON has it.
    other: another, whose values are named first.
    but_for: fields and sections that may differ.
  """
  fields, other_fields = ({**ADDED_FIELDS, **dict(flatten(each))} for each in (config, other))
  return [
    first_line(f'{field}: {other_fields.get(field)!r}, not {fields.get(field)!r}')
    for field in sorted(fields.keys() | other_fields.keys())
    if not any(field == name or field.startswith(name + '.') for name in but_for)
    and fields.get(field) != other_fields.get(field)
  ]
