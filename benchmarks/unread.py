"""Refuses fields of a config that a benchmark does not read, so that none is ignored silently."""

import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

from alexnet_jax.configs import imagenet


def refuse(config: ConfigDict, fields: Sequence[str]) -> None:
  """Ends the program where one of the fields has another value than in configs/imagenet.py."""
  default = imagenet.get_config()
  for field in fields:
    section, name = field.split('.')
    if config[section][name] != default[section][name]:
      sys.exit(f'this benchmark does not read {field}; leave it as in configs/imagenet.py')
