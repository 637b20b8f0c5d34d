"""What a sweep is: its files, its plan and its mistakes, and which of its runs are finished."""

import dataclasses
import importlib
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from alexnet_jax import experiment
from alexnet_jax.sweeps import planning, spec, sweep_file
from alexnet_jax.sweeps.spec import Reported, Sweep, Variant
from alexnet_jax.utils import config_fields
from alexnet_jax.utils.errors import UserError
from configs import cifar10, cifar10_11pct, cifar10_13pct, cifar10_alexnet, digits, imagenet
from configs.sweeps import ablations, lrn_cifar, relu_vs_tanh
from tests import sweeps
from tests.small import small_config

ROOT = Path(__file__).parents[2]
SWEEPS = sorted(path for path in (ROOT / 'configs' / 'sweeps').glob('*.py') if path.stem[0] != '_')
BASES = (imagenet, cifar10, cifar10_alexnet, digits)


def plan_of(file, config, config_file, path):
  return planning.plan(
    file.stem, spec.read(file, config), config, path, config_file=config_file, overrides={}
  )


@pytest.mark.parametrize(
  ('file', 'base'),
  [
    pytest.param(file, base, id=f'{file.stem}-{base.__name__}')
    for file in SWEEPS
    for base in ((cifar10_13pct,) if file.stem == 'lrn_cifar' else BASES)
  ],
)
def test_every_sweep_is_valid_for_every_base(file, base, tmp_path):
  planned = plan_of(file, base.get_config(), f'{base.__name__}.py', tmp_path)
  assert len(planned.runs) == len(planned.sweep.seeds) * (1 + len(planned.sweep.variants))
  assert all(variant.description for variant in planned.sweep.variants)
  for run in planned.runs:
    experiment.make_network(run.config)


@pytest.mark.parametrize('file', SWEEPS, ids=lambda file: file.stem)
def test_a_sweep_file_says_how_it_is_run(file):
  module = importlib.import_module(f'configs.sweeps.{file.stem}')
  assert f'--sweep=configs/sweeps/{file.name}' in module.__doc__


@pytest.mark.filterwarnings('ignore:the load_module')  # ml_collections loads the config with it
@pytest.mark.parametrize('base', BASES, ids=lambda module: module.__name__)
def test_a_runs_command_line_gives_its_config(base, tmp_path, monkeypatch):
  file = f'configs/{base.__name__.split(".")[-1]}.py'
  planned = plan_of(ROOT / 'configs/sweeps/ablations.py', base.get_config(), file, tmp_path)
  for run in planned.runs:
    argv = ['launch.py', *shlex.split(shlex.join(run.command))]
    monkeypatch.setattr(sys, 'argv', argv)  # config_flags looks for overrides there
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', flag_values=values)
    flags.DEFINE_string('workdir', None, '', flag_values=values)
    values(argv)
    assert experiment.resolved(values.config) == experiment.resolved(run.config)
    assert Path(values.workdir) == run.path == tmp_path / run.variant / f'seed{run.seed}'


def test_the_ablations_of_the_papers_network_are_all_there():
  names = [variant.name for variant in ablations.get_sweep(imagenet.get_config()).variants]
  assert names == [
    'no_response_norm', 'within_channel_norm', 'norm_over_all_channels', 'no_overlap',
    'average_pooling', 'one_column', 'columns_never_talk', 'no_dropout', 'tanh', 'no_flips',
    'no_crops', 'no_lighting', 'no_conv2', 'no_conv3', 'no_conv4', 'no_conv5', 'no_weight_decay',
    'paper_initialization', 'source_initialization', 'caffe_initialization', 'he_initialization',
  ]  # fmt: skip


def test_the_papers_and_the_sources_differences_are_as_reported():
  reported = {
    variant.name: tuple(
      difference and (difference.top1, difference.top5)
      for difference in (variant.paper, variant.source)
    )
    for variant in ablations.get_sweep(imagenet.get_config()).variants
    if variant.paper or variant.source
  }
  assert reported == {  # paper, sections 3.2 to 3.4, 4.1 and 7; the 2012 code's logs
    'no_response_norm': ((1.4, 1.2), (1.37, 1.15)),
    'no_overlap': ((0.4, 0.3), (0.39, 0.30)),
    'one_column': ((1.7, 1.2), (1.70, 1.23)),
    'columns_never_talk': (None, (1.16, 1.12)),
    'no_lighting': ((1.0, None), None),
    'no_conv3': ((2.0, None), None),
    'no_conv4': ((2.0, None), None),
  }


def test_what_goes_with_a_layer_that_is_left_out_is_described():
  described = {
    variant.name: variant.description
    for variant in ablations.get_sweep(imagenet.get_config()).variants
  }
  assert described['no_conv2'] == 'conv2 and its norm left out (7)'
  assert described['no_conv3'] == "conv3 and the columns' exchange before it left out (7)"
  assert described['no_conv4'] == 'conv4 left out (7)'


def test_what_changes_nothing_of_the_base_is_left_out(tmp_path):
  planned = plan_of(ROOT / 'configs/sweeps/ablations.py', digits.get_config(), 'x.py', tmp_path)
  assert planned.not_applying == ('no_flips', 'no_crops', 'no_lighting', 'he_initialization')
  assert {run.variant for run in planned.runs}.isdisjoint(planned.not_applying)


def test_the_norms_of_the_net_of_11_percent_make_it_of_the_net_of_13(tmp_path):
  planned = plan_of(
    ROOT / 'configs/sweeps/lrn_cifar.py', cifar10_13pct.get_config(), 'x.py', tmp_path
  )
  configs = {run.variant: experiment.resolved(run.config) for run in planned.runs if not run.seed}
  eleven = experiment.resolved(cifar10_11pct.get_config())
  assert configs['response_norm_and_wider_conv3'] == eleven
  assert configs['base'] == experiment.resolved(cifar10_13pct.get_config())
  assert {d.split()[0] for d in config_fields.differences(configs['response_norm'], eleven)} == {
    'model.conv3.features', 'optimizer.weight_decay_multipliers.fc8'
  }  # fmt: skip
  assert lrn_cifar.get_sweep(cifar10.get_config()).seeds == (0, 1, 2)


def test_figure_1_has_no_regularization_and_a_rate_for_each(tmp_path):
  planned = plan_of(
    ROOT / 'configs/sweeps/relu_vs_tanh.py', cifar10.get_config(), 'configs/cifar10.py', tmp_path
  )
  configs = {run.variant: run.config for run in planned.runs}
  rates = {
    activation: {
      config.optimizer.learning_rate
      for config in configs.values()
      if config.model.activation == activation
    }
    for activation in ('relu', 'tanh')
  }
  for activation, multiples in (('relu', relu_vs_tanh.RELU), ('tanh', relu_vs_tanh.TANH)):
    assert rates[activation] == {0.001 * multiple for multiple in multiples}
    assert len(rates[activation]) > 4
  assert (configs['base'].model.activation, configs['base'].optimizer.learning_rate) == (
    'relu', 0.004
  )  # fmt: skip
  for config in configs.values():
    assert config.optimizer.weight_decay == 0
    assert config.model.dropout.rate == 0
    assert (config.model.within_norm.layers, config.model.response_norm.layers) == ((), ())
    assert (config.augment.flip, config.augment.crop_offsets) == (False, 1)
    assert (config.optimizer.lr_decay_epochs, config.optimizer.max_lr_decays) == ((), 0)


def test_a_seed_for_all_runs_is_refused(tmp_path):
  with pytest.raises(UserError, match=r'all runs: a sweep sets train\.seed itself; give its seeds'):
    sweeps.plan(tmp_path, overrides={'train.seed': 5})


def test_seeds_come_one_after_the_other_the_base_first(tmp_path):
  assert [run.name for run in sweeps.plan(tmp_path).runs] == [
    'base/seed0', 'no_overlap/seed0', 'tanh/seed0',
    'base/seed1', 'no_overlap/seed1', 'tanh/seed1',
  ]  # fmt: skip


def test_the_command_line_counts_for_more_than_the_sweeps_base(tmp_path):
  of = dataclasses.replace(sweeps.SWEEP, base={'train.num_epochs': 9, 'train.batch_size': 16})
  run = sweeps.plan(tmp_path, of).runs[0]
  assert (run.config.train.num_epochs, run.config.train.batch_size) == (sweeps.EPOCHS, 16)
  assert f'--config.train.num_epochs={sweeps.EPOCHS}' in run.command
  assert '--config.train.batch_size=16' in run.command


def test_all_mistakes_of_a_sweep_are_listed_before_anything_runs(tmp_path):
  mistaken = Sweep(
    '',
    [
      Variant('twice', {'model.pool.window': 2}, ''),
      Variant('twice', {'model.pool.window': 3}, ''),
      Variant('base', {}, ''),
      Variant('up/../down', {'train.seed': 1}, ''),
      Variant('unknown', {'model.pol.window': 2}, ''),
      Variant('wrong_type', {'model.pool.window': 'two'}, ''),
      Variant('unset', {'train.batch_size': None}, ''),
      Variant('wrong_value', {'model.activation': 'relus'}, ''),
      Variant('wrong_size', {'model.input_size': 40}, ''),
      Variant('seeded', {'train.seed': 1}, ''),
      Variant('thrice', {'model.pool.window': 2}, ''),
    ],
    seeds=(0, 0),
  )
  with pytest.raises(UserError) as error:
    sweeps.plan(tmp_path / 'sweep', mistaken)
  message = str(error.value)
  for words in (
    "nothing was run, for in the sweep 'made_up'",
    "2 variants have the name 'twice'",
    "a variant has the name 'base'",
    "the name 'up/../down' cannot be a folder",
    "unknown: the config has no field 'model.pol.window'; did you mean model.pool.window?",
    "wrong_type: model.pool.window is 'two'; it must be of type int",
    'unset: train.batch_size is None',
    "wrong_value: model.activation is 'relus'; it must be one of 'relu', 'tanh', 'logistic'",
    'wrong_size: augment.crop_offsets is 2',
    'seeded: a sweep sets train.seed itself; give its seeds, or --seeds',
    'thrice: it is the same as twice; leave one of them out',
    'seeds are (0, 0); each may appear only once',
  ):
    assert words in message
  assert not (tmp_path / 'sweep').exists()


def test_a_variant_may_set_a_field_to_none(tmp_path):
  sweep = Sweep('', [Variant('whole', {'train.num_steps': None}, '')], base={'train.num_steps': 2})
  run = sweeps.plan(tmp_path, sweep).runs[1]
  assert run.config.train.num_steps is None
  assert '--config.train.num_steps=None' in run.command


def test_what_is_wrong_with_the_base_is_told_once(tmp_path):
  mistaken = dataclasses.replace(sweeps.SWEEP, base={'model.activation': 'relus'})
  with pytest.raises(UserError) as error:
    sweeps.plan(tmp_path, mistaken)
  assert str(error.value).count("'relus'") == 1
  assert "all runs: model.activation is 'relus'" in str(error.value)


@pytest.mark.parametrize('seeds', [(), (-1,), ('0',)])
def test_seeds_are_whole_numbers_from_0(seeds, tmp_path):
  with pytest.raises(UserError, match=r'seeds are .*; give one or more whole numbers from 0'):
    sweeps.plan(tmp_path, dataclasses.replace(sweeps.SWEEP, seeds=seeds))


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('x = 1', 'mine.py has no get_sweep(config); --sweep takes a file that has'),
    ('def get_sweep(config):\n  return config.modle', 'mine.py, line 2: AttributeError: '),
    ('def get_sweep(config):\n  return 3', 'must return a Sweep, not int'),
    ('def get_sweep(config:', 'SyntaxError'),
    (
      'from alexnet_jax.sweeps.spec import Sweep\n'
      'def get_sweep(config):\n  return Sweep("", (name[5] for name in ["a"]))',
      'mine.py, line 3: IndexError: string index out of range',
    ),
    (
      'from alexnet_jax.sweeps.spec import Sweep\n'
      'def get_sweep(config):\n  return Sweep("", [], seeds=3)',
      'mine.py: the sweep: seeds must be a list of whole numbers, not int',
    ),
    ('import nothing_like_it', 'nothing_like_it'),
  ],
)
def test_a_file_that_is_no_sweep_is_named(text, words, tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(text)
  with pytest.raises(UserError, match=r'mine\.py') as error:
    spec.read(file, digits.get_config())
  assert words in str(error.value)


TANH = Variant('tanh', {'model.activation': 'tanh'}, '')


@pytest.mark.parametrize(
  ('sweep', 'words'),
  [
    (Sweep(None, [TANH]), 'the sweep: title must be a string, not NoneType'),
    (Sweep('', TANH), 'the sweep: variants must be a list of Variant, not Variant'),
    (Sweep('', [TANH, {'name': 'a'}]), 'variant 2 must be a Variant, not dict'),
    (Sweep('', []), 'the sweep has no variants; give it one or more to compare with the base'),
    (Sweep('', [TANH], seeds=3), 'the sweep: seeds must be a list of whole numbers, not int'),
    (Sweep('', [TANH], base='x'), 'the sweep: base must be a dict of values by field'),
    (Sweep('', [Variant(5, {}, '')]), 'variant 5: name must be a string, not int'),
    (
      Sweep('', [Variant('a', 'x', '')]),
      "variant 'a': overrides must be a dict of values by field",
    ),
    (Sweep('', [Variant('a', [('b', 2)], '')]), "variant 'a': overrides must be a dict"),
    (Sweep('', [Variant('a', {5: 2}, '')]), "variant 'a': overrides has the field 5; a field is"),
    (Sweep('', [Variant('a', {}, None)]), "variant 'a': description must be a string, not None"),
    (Sweep('', [Variant('a', {}, '', 1.4)]), "variant 'a': paper must be a Reported, as Reported"),
    (Sweep('', [Variant('a', {}, '', Reported('1'))]), "variant 'a', paper: top1 must be a number"),
  ],
)
def test_a_part_of_another_kind_is_named(sweep, words):
  with pytest.raises(UserError) as error:
    spec.checked(sweep)
  assert str(error.value).startswith(words)
  assert '\n' not in str(error.value)


def test_sequences_of_any_kind_and_numbers_of_numpy_are_plain_in_the_plan(tmp_path):
  overrides = {'train.batch_size': np.int64(32), 'optimizer.lr_decay_epochs': np.array([1, 2])}
  variant = Variant('other', overrides, '', Reported(np.float32(0.5)))
  plain = Variant('other', {'train.batch_size': 32, 'optimizer.lr_decay_epochs': [1, 2]}, '')
  expected = Sweep('', (dataclasses.replace(plain, paper=Reported(0.5)),), (0, 1))
  for seeds in (range(2), np.arange(2), [np.int64(0), 1], iter((0, 1))):
    sweep = spec.checked(Sweep('', (one for one in [variant]), seeds))
    assert sweep == expected
  planned = sweeps.plan(tmp_path, sweep)
  assert [run.variant for run in planned.runs] == ['base', 'other'] * 2
  assert '--config.optimizer.lr_decay_epochs=[1, 2]' in planned.runs[1].command
  planning.write(planned)
  assert sweep_file.read(tmp_path)['seeds'] == [0, 1]


def test_a_sweep_file_that_is_not_there_is_named(tmp_path):
  with pytest.raises(UserError, match=r'there is no file .*none.py \(--sweep\)'):
    spec.read(tmp_path / 'none.py', digits.get_config())


def test_a_sweep_file_cannot_change_the_config_it_is_given(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(
    'from tests import sweeps\n'
    'def get_sweep(config):\n  config.train.batch_size = 1\n  return sweeps.SWEEP\n'
  )
  config = small_config()
  with pytest.raises(UserError, match=r'get_sweep changes its config, .* into Sweep'):
    spec.read(file, config)
  assert config.train.batch_size != 1


def test_some_variants_and_other_seeds_are_chosen():
  some = spec.chosen(sweeps.SWEEP, ['tanh', 'base'], ['3', '4'])
  assert [variant.name for variant in some.variants] == ['tanh']
  assert some.seeds == [3, 4]
  assert spec.chosen(sweeps.SWEEP, None, None) == sweeps.SWEEP
  with pytest.raises(
    UserError, match=r"no variant 'tan' \(--only\); it has no_overlap, tanh, same"
  ):
    spec.chosen(sweeps.SWEEP, ['tan'], None)
  for seeds, words in (
    (
      ['0', 'one'],
      '--seeds is 0,one; give one or more whole numbers from 0 to 4294967295, as 0,1,2',
    ),
    (['-1'], '--seeds is -1; give one or more'),
    ([], '--seeds is ; give one or more'),
    (['0', '00'], '--seeds is 0,00; each may appear only once'),
  ):
    with pytest.raises(UserError, match=f'^{words}'):
      spec.chosen(sweeps.SWEEP, None, seeds)


def test_the_folder_of_another_sweep_or_of_a_run_is_refused(tmp_path):
  planning.write(sweeps.plan(tmp_path / 'a'))
  with pytest.raises(UserError, match="holds another sweep, 'made_up', not 'other'"):
    planning.check_folder(sweeps.plan(tmp_path / 'a', name='other'))
  planning.check_folder(sweeps.plan(tmp_path / 'a'))
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'config.json').write_text('{}')
  with pytest.raises(UserError, match='holds a run; give the sweep'):
    planning.check_folder(sweeps.plan(tmp_path / 'b'))
  planning.check_folder(sweeps.plan(tmp_path / 'new'))


@pytest.mark.parametrize(
  'text', ['', '[]', '{"sweep": "x"}', '{"sweep": 1, "runs": []}', '[' * 10**5]
)
def test_a_broken_description_is_named(text, tmp_path):
  (tmp_path / 'sweep.json').write_text(text)
  with pytest.raises(UserError, match=r'sweep\.json is not the description of a sweep'):
    sweep_file.read(tmp_path)


@pytest.mark.parametrize(
  ('part', 'changes'),
  [
    ('runs', {'variant': '../outside'}),
    ('runs', {'variant': '/etc'}),
    ('runs', {'variant': 1}),
    ('runs', {'seed': '../../0'}),
    ('runs', {'seed': -1}),
    ('runs', {'num_epochs': None}),
    ('runs', {'command': 'python'}),
    ('variants', {'paper': {'top1': 'low'}}),
    ('variants', {'paper': {'top1': 1, 'where': None}}),
    ('variants', {'paper': []}),
    ('variants', {'description': None}),
    ('variants', {'overrides': ['model.pool.window']}),
  ],
)
def test_a_description_of_runs_elsewhere_or_of_other_kinds_is_refused(tmp_path, part, changes):
  planning.write(sweeps.plan(tmp_path))
  description = json.loads((tmp_path / 'sweep.json').read_text())
  description[part][0].update(changes)
  (tmp_path / 'sweep.json').write_text(json.dumps(description))
  with pytest.raises(UserError, match=r'sweep\.json is not the description of a sweep \('):
    sweep_file.read(tmp_path)


def test_a_sweep_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'cannot write to .*; choose another with --workdir'):
    planning.write(sweeps.plan(tmp_path / 'file'))


def test_the_description_has_all_that_the_tables_need(tmp_path):
  planned = sweeps.plan(tmp_path)
  planning.write(planned)
  written = sweep_file.read(tmp_path)
  assert written['sweep'] == 'made_up'
  assert written['not_applying'] == ['same']
  assert written['variants'][0]['paper'] == {
    'top1': 0.4, 'top5': 0.3, 'roughly': '', 'where': ''
  }  # fmt: skip
  assert [tuple(run['command']) for run in written['runs']] == [run.command for run in planned.runs]
  assert json.loads((tmp_path / 'sweep.json').read_text()) == written


def test_a_run_is_finished_when_its_last_validation_and_its_picture_are_there(tmp_path):
  run = sweeps.plan(tmp_path).runs[0]
  assert not planning.is_finished(run)
  sweeps.write_run(run, sweeps.lines([0.9, 0.8]))
  assert not planning.is_finished(run)
  sweeps.write_run(run, sweeps.lines([0.9, 0.8, 0.7, 0.6]))
  assert planning.is_finished(run)
  (run.path / 'figures' / 'learning_curves.svg').unlink()
  assert not planning.is_finished(run)


def test_where_and_how_long_it_ran_may_differ_what_it_is_may_not(tmp_path):
  run = sweeps.plan(tmp_path).runs[0]
  longer = small_config({'train.num_epochs': 9, 'mesh.column_devices': 1})
  sweeps.write_run(run, sweeps.lines([0.9, 0.8, 0.7, 0.6, 0.5]), longer)
  assert planning.is_finished(run)
  sweeps.write_run(run, sweeps.lines([0.9]), small_config({'model.num_columns': 1}))
  with pytest.raises(UserError, match=r'model\.num_columns is 1 there and 2 in this config'):
    planning.is_finished(run)


def test_classes_that_the_data_decide_are_no_difference(tmp_path):
  overrides = {'train.num_epochs': sweeps.EPOCHS}
  config = small_config(overrides)
  with config.unlocked():
    config.model.num_classes = None
  planned = planning.plan(
    'x', Sweep('', []), config, tmp_path, config_file='x.py', overrides=overrides
  )
  sweeps.write_run(planned.runs[0], sweeps.lines([0.5] * 4), small_config(overrides))
  assert planning.is_finished(planned.runs[0])
