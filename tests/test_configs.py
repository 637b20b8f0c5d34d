"""Every config says what it is, makes a network, and has no field that nobody reads."""

import importlib
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from alexnet_jax import experiment, summary, train
from tests.small import small_config

CONFIGS = sorted(
  path.stem for path in (Path(__file__).parents[1] / 'configs').glob('*.py') if path.stem[0] != '_'
)
# The plateau rule reads what `cut_epochs` leaves alone, and conv6's fields are read where it is.
OVERRIDES = {'train.num_epochs': 1, 'optimizer.cut_epochs': (), 'model.conv6.features': 16}


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_says_what_it_is_and_makes_a_network(name):
  module = importlib.import_module(f'configs.{name}')
  config = module.get_config()
  for heading in ('Command:', 'Cost:', 'Expected:'):
    assert re.search(f'^{heading}  *\\S', module.__doc__, re.MULTILINE)
  assert f'--config=configs/{name}.py' in module.__doc__
  assert summary.rows(experiment.make_network(config))[-1].output == (config.model.num_classes,)
  assert experiment.from_resolved(experiment.resolved(config)).to_dict() == config.to_dict()


def leaves(config, prefix=''):
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name


def test_every_field_is_read(tmp_path, monkeypatch):
  """Outside `model`, whose fields are the network's attributes, checked when it is made."""
  config = small_config(OVERRIDES)
  del config.model
  every = set(leaves(config))
  config = small_config(OVERRIDES)
  names = {}

  def name_sections(section, prefix):
    names[id(section)] = prefix
    for name, value in section.items():
      if isinstance(value, ConfigDict):
        name_sections(value, f'{prefix}{name}.')

  name_sections(config, '')
  read = set()
  original = ConfigDict.__getitem__

  def note(self, key):
    read.add(names.get(id(self), '?') + key)
    return original(self, key)

  monkeypatch.setattr(ConfigDict, '__getitem__', note)
  monkeypatch.setattr(experiment, 'resolved', lambda config: {})
  train.train_and_evaluate(config, tmp_path)
  assert every - read == set()
