"""Every config says what it is, makes a network, and has no field that nobody reads."""

import importlib
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from PIL import Image

from alexnet_jax import experiment
from alexnet_jax.models import summary
from alexnet_jax.training import loop
from alexnet_jax.utils import config_fields
from alexnet_jax.utils.errors import UserError
from configs import imagenet_source
from tests import stored
from tests.small import small_config, tiny_config

CONFIGS = sorted(
  path.stem for path in (Path(__file__).parents[2] / 'configs').glob('*.py') if path.stem[0] != '_'
)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_says_what_it_is_and_makes_a_network(name):
  module = importlib.import_module(f'configs.{name}')
  config = module.get_config()
  for heading in ('Command:', 'Cost:', 'Expected:'):
    assert re.search(f'^{heading}  *\\S', module.__doc__, re.MULTILINE)
  assert f'--config=configs/{name}.py' in module.__doc__
  assert experiment.checked(experiment.resolved(config), name).to_dict() == config.to_dict()
  experiment.check(config)
  experiment.check_new(config)
  if config.model.num_classes is None:  # as many as the data have
    with pytest.raises(UserError, match=r'model\.num_classes'):
      experiment.make_network(config)
    config.model.num_classes = 6
  assert summary.rows(experiment.make_network(config))[-1].output == (config.model.num_classes,)


@pytest.mark.parametrize(
  ('check', 'section', 'field', 'said'),
  [
    (experiment.check, 'model', 'num_column', 'did you mean model.num_columns?'),
    (experiment.check_new, 'optimizer', 'weight_decai', 'did you mean optimizer.weight_decay?'),
    (experiment.check_new, 'data', 'not_like_any', 'remove it from the config'),
  ],
)
def test_a_field_that_nothing_reads_is_refused(check, section, field, said):
  config = tiny_config()
  with config.unlocked():
    config[section][field] = 0.0
  with pytest.raises(UserError) as error:
    check(config)
  assert str(error.value) == f'there is no field {section}.{field}; {said}'


@pytest.mark.parametrize(
  ('field', 'size', 'padded'),
  [
    ('model.conv1.kernel_size', 10, 9),  # of 7 pixels and 1 on either side
    ('model.conv2.kernel_size', 6, 5),  # of 3 that the pool leaves
  ],
)
def test_a_kernel_larger_than_its_padded_input_is_refused_of_a_new_run(field, size, padded):
  experiment.check_new(small_config({field: padded}))
  config = small_config({field: size})
  with pytest.raises(UserError) as error:
    experiment.check_new(config)
  assert str(error.value).startswith(
    f'{field} is {size}, but its padded input is {padded}x{padded}; make it smaller'
  )
  experiment.check(config)  # runs from before are read


@pytest.mark.parametrize(
  ('field', 'value', 'said'),
  [
    (
      'optimizer.lr_decay_factor',
      0.1,
      'is 0.1; it divides the learning rate, so it must be at least 1 (10 for a tenth)',
    ),
    ('optimizer.lr_decay_factor', float('nan'), 'is nan; it divides the learning rate'),
    ('model.pool.average', ('conv3',), 'has conv3, after which there is no pool; take it out'),
  ],
)
def test_a_value_that_does_the_opposite_or_nothing_is_refused_of_a_new_run(field, value, said):
  config = small_config({field: value})
  with pytest.raises(UserError, match='^' + re.escape(f'{field} {said}')):
    experiment.check_new(config)
  experiment.check(config)  # runs from before are read


def test_three_pixel_scales_may_be_a_list():
  config = small_config({'augment.pixel_scale': [0.5, 1.0, 2.0]})
  experiment.check(config)
  assert experiment.augment_options(config).pixel_scale == (0.5, 1.0, 2.0)


def test_a_run_from_before_unknown_fields_were_refused_is_read():
  config = tiny_config()
  with config.unlocked():
    config.optimizer.weight_decai = 0.0
  value = experiment.resolved(config)
  assert experiment.resolved(experiment.checked(value, 'config.json')) == value


def leaves(config, prefix=''):
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name


@pytest.mark.slow
def test_every_field_is_read(tmp_path, monkeypatch):
  """Outside `model`, whose fields are the network's attributes, checked when it is made."""
  for number in range(16):
    file = tmp_path / 'photographs' / f'class {number % 2}' / f'{number}.png'
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored.make_image(number)).save(file)
  overrides = {
    'data.name': 'folder',
    'data.data_dir': str(tmp_path / 'photographs'),
    'data.prepared_dir': str(tmp_path / 'prepared'),
    'mesh.column_devices': 1,
    'mesh.data_devices': 1,
    'model.conv6.features': 16,  # their fields are read where they are
    'model.bottleneck.features': 16,
    'model.num_classes': 2,
    'optimizer.lr_decay_epochs': (),  # the plateau rule reads what they leave alone
    'train.batch_size': 8,
    'train.num_epochs': 1,
  }
  config = tiny_config(overrides)
  with config.unlocked():
    del config.model
  every = set(leaves(config))
  config = tiny_config(overrides)
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
  loop.train_and_evaluate(config, tmp_path / 'run')
  assert every - read == set()


def test_a_config_with_old_names_is_read_as_with_present_ones():
  config = imagenet_source.get_config()
  new = experiment.resolved(config)
  old = experiment.resolved(config)
  for before, now in config_fields.RENAMED_FIELDS.items():
    section, name = before.split('.')
    old[section][name] = old[section].pop(now.split('.')[1])
  old['augment']['mean'] = 'centre'
  assert experiment.checked(old, 'old') == experiment.checked(new, 'new')
  assert config_fields.differences(new, old) == []
  assert len(config_fields.old_names(old)) == len(config_fields.RENAMED_FIELDS)
  assert config_fields.old_names(new) == []
