"""A config's fields by name: which say what a run is, and which came after the first runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alexnet_jax.utils.errors import first_line

# What a run is may not change in a workdir; these say where and how long it runs, and may.
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

# Fields that came after the first runs, and what those did: configs that they left lack them.
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
  """Fields and values of a config, as ('model.num_columns', 2)."""
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
  """Where two configs (as JSON has them) are different experiments: 'model.num_columns: 2, not 1'.

  Args:
    config: the one.
    other: the other.
    but_for: fields and sections that may differ.
  """
  ours, theirs = ({**ADDED_FIELDS, **dict(flatten(one))} for one in (config, other))
  return [
    first_line(f'{field}: {theirs.get(field)!r}, not {ours.get(field)!r}')
    for field in sorted(ours.keys() | theirs.keys())
    if not any(field == name or field.startswith(name + '.') for name in but_for)
    and ours.get(field) != theirs.get(field)
  ]
