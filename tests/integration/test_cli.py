"""launch.py as a user runs it: what it prints, how it exits, what it says of mistakes."""

import re
import shutil
import signal
import time

import pytest

from alexnet_jax.checkpoints import workdir
from alexnet_jax.checkpoints.workdir import read_starts
from alexnet_jax.sweeps import planning, sweep_file
from configs import digits
from tests import sweeps
from tests.launching import (
  ROOT,
  assert_message,
  launch,
  parse,
  seeds_of,
  start,
  without_tensorflow,
)


def test_help_describes_every_flag_and_is_no_failure():
  code, out, err = launch('--help')
  assert (code, err) == (0, '')
  assert 'python launch.py --config=configs/digits.py' in out
  assert all(f'\n  --{flag}:' in out for flag in ('config', 'workdir', 'mode', 'process_id'))


@pytest.mark.parametrize(
  ('override', 'words'),
  [
    ('--config.model.num_column=1', ("no field 'model.num_column'", 'config.model.num_columns')),
    ('--config.modl.num_columns=1', ("no field 'modl.num_columns'", 'config.model.num_columns')),
    ('--config.model={"num_columns":1}', ('config.model is a section', '--config.model.')),
    ('--config.learning_rate=1', ("no field 'learning_rate'", 'config.optimizer.learning_rate')),
    ('--noconfig.augment.flipp', ("no field 'augment.flipp'", 'config.augment.flip?')),
    (
      '--config.train.batch_size=many',
      ('config.train.batch_size=many', 'it must be a whole number'),
    ),
    ('--config.train.num_epochs=0.5', ('config.train.num_epochs=0.5', 'it must be a whole number')),
    ('--config.optimizer.momentum=high', ('config.optimizer.momentum=high', 'it must be a number')),
    ('--config.augment.flip=perhaps', ('config.augment.flip=perhaps', 'it must be True or False')),
    ('--wrkdir=runs/x', ('wrkdir', 'workdir')),
    ('--mode=training', ('mode', 'train|prepare|summary|config|')),
  ],
)
def test_a_mistaken_flag_is_named_with_its_mending(override, words):
  returncode, _, err = launch('--config=configs/digits.py', override)
  assert returncode == 2
  assert len(err.strip().splitlines()) <= 2
  assert 'Traceback' not in err
  for word in words:
    assert word in err


def test_a_field_by_its_old_name_is_read_saying_so():
  code, _, err = launch(
    '--config=configs/digits.py',
    '--mode=summary',
    '--config.optimizer.cut_epochs=(1,2)',
    '--config.augment.mean=centre',
    '--noconfig.optimizer.cut_biases',
    '--config.optimizer.rate_multipliers.conv1=((1,0.5),)',
  )
  assert (code, len(err.splitlines())) == (0, 4)
  assert 'was renamed; using --config.optimizer.lr_decay_epochs=(1,2)\n' in err
  assert 'was renamed; using --config.augment.mean=center\n' in err
  assert 'was renamed; using --noconfig.optimizer.lr_decay_biases\n' in err
  assert 'was renamed; using --config.optimizer.lr_multipliers.conv1=((1,0.5),)\n' in err


DIGITS = '--config=configs/digits.py'
FEATURES = {
  **dict.fromkeys(('conv2', 'conv4', 'conv5', 'fc7'), 0), 'conv1': 8, 'conv3': 16, 'fc6': 32
}  # fmt: skip
FEW_LAYERS = [f'--config.model.{layer}.features={count}' for layer, count in FEATURES.items()]


@pytest.fixture(scope='module')
def first_run(tmp_path_factory):
  """The workdir of a run of one epoch, which nobody changes, and what `launch` returned of it.

  It is made without TensorFlow, which digits do not need.
  """
  path = tmp_path_factory.mktemp('runs') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('PYTHONPATH', without_tensorflow(path.parent / 'python'))
    result = launch(DIGITS, f'--workdir={path}', '--config.train.num_epochs=1', *FEW_LAYERS)
  assert result[0] == 0, result
  return path, result


@pytest.fixture(scope='module')
def run_of_one_epoch(first_run):
  return first_run[0]


def test_a_workdir_alone_is_trained_on_with_changed_fields(run_of_one_epoch, tmp_path):
  path = shutil.copytree(run_of_one_epoch, tmp_path / 'run')
  code, out, err = launch(f'--workdir={path}', '--config.train.num_epochs=2')
  assert (code, 'resuming at step 23 to 45' in err) == (0, True), err
  assert str(path) in out
  config = workdir.read_config(path)
  assert config['train']['num_epochs'] == 2
  assert config['model'] == workdir.read_config(run_of_one_epoch)['model']


@pytest.mark.parametrize(
  ('override', 'code', 'words'),
  [
    ('--config.model.num_column=1', 2, ("no field 'model.num_column'", 'config.model.num_columns')),
    ('--config.model={"num_columns":1}', 2, ('config.model is a section', '--config.model.')),
    (
      '--config.train.batch_size=many',
      2,
      ('config.train.batch_size=many', 'it must be a whole number'),
    ),
    ('--config.train.batch_size=None', 1, ('train.batch_size is None',)),
    (
      '--config.train.seed=5',
      1,
      ('holds another experiment', 'train.seed is 0 there and 5 in this config'),
    ),
  ],
)
def test_a_mistaken_field_of_a_workdirs_config_is_named(run_of_one_epoch, override, code, words):
  assert_message(launch(f'--workdir={run_of_one_epoch}', override), code, *words)


def test_fields_of_a_workdirs_config_take_what_those_of_a_file_take(run_of_one_epoch):
  given = (
    '--config.data.data_dir=/a',
    '--config.model.fc6.bias=0.5',
    '--config.mesh.data_devices=1',
  )
  given += ('--config.optimizer.lr_decay_epochs=(1,2)', '--noconfig.augment.flip')
  code, out, err = launch(f'--workdir={run_of_one_epoch}', '--mode=summary', *given)
  assert (code, err) == (0, '')
  assert 'fc8' in out


def test_commands_of_one_process_have_each_their_own_config(run_of_one_epoch):
  of_workdir = (f'--workdir={run_of_one_epoch}',)
  of_file = ('--config=configs/digits.py',)
  changed = '--config.train.seed=5'
  result = seeds_of(
    (*of_workdir, changed), of_workdir, (*of_file, changed), of_file, (*of_workdir, changed)
  )
  assert result == (0, '5\n0\n5\n0\n5\n', '')


def test_a_config_that_cannot_be_read_is_told_in_a_line(tmp_path):
  (tmp_path / 'config.json').mkdir()
  assert_message(launch(f'--workdir={tmp_path}', '--config.train.seed=5'), 2, 'config.json')


def test_a_config_file_is_run_once(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text('from alexnet_jax.configs.digits import get_config\nprint("loaded")\n')
  code, out, _ = parse(f'--config={file}', '--config.train.seed=5')
  assert (code, out) == (0, 'loaded\n')


def test_a_config_is_refused_where_nothing_reads_it():
  result = launch('--mode=list', '--config=configs/digits.py')
  assert_message(result, 1, '--mode=list does not read --config; leave it out')


@pytest.mark.parametrize(
  ('args', 'words'),
  [
    ((), ('--config.train.seed changes a field', 'give --config')),
    (('--workdir=/nowhere',), ('/nowhere does not exist', 'or --config')),
    (('--mode=evaluate', '--members=a'), ('--config.train.seed changes a field', 'give --config')),
  ],
)
def test_changed_fields_without_a_config_are_answered_with_what_to_give(args, words):
  assert_message(launch(*args, '--config.train.seed=5'), 2, *words)


def test_fields_that_may_be_none_take_none_and_others_refuse_it():
  summary = ('--config=configs/digits.py', '--mode=summary')
  assert launch(*summary, '--config.train.num_steps=None', '--config.model.fc6.bias=None')[0] == 0
  assert_message(launch(*summary, '--config.train.batch_size=None'), 1, 'train.batch_size is None')


@pytest.mark.parametrize(
  ('text', 'argument', 'words'),
  [
    ('def get_config(which): return 1', '', ('get_config() missing 1 required', "'which'")),
    ('import no_such_module', '', ('mine.py, line 1: ModuleNotFoundError', 'no_such_module')),
    ('def get_config(): raise RuntimeError("a\\nb")', '', ('RuntimeError: a b',)),
    ('\ndef get_config():\n  return {}["b"]', '', ("mine.py, line 3: KeyError: 'b'",)),
    ('get = 1', '', ('mine.py has no get_config(); --config takes',)),
    ('def get_config(): return {}', '', ('returns a dict', 'ConfigDict')),
    (
      'from alexnet_jax.configs import digits\n\n\n'
      'def get_config():\n  config = digits.get_config()\n  config.train.bacth_size = 1\n',
      '',
      ('"bacth_size" does not exist', 'Did you mean "batch_size"'),
    ),
    (
      'from alexnet_jax.configs import digits\n\n\n'
      'def get_config(word):\n  config = digits.get_config()\n  config.model.activation = word\n'
      '  return config\n',
      ':sine',
      ("'sine'", "'relu'"),  # get_config has had it
    ),
  ],
)
def test_a_mistake_in_a_config_file_is_told_in_a_line(tmp_path, text, argument, words):
  (tmp_path / 'mine.py').write_text(text)
  code, _, err = launch(f'--config={tmp_path / "mine.py"}{argument}', '--mode=summary')
  assert code in (1, 2)
  assert err.startswith('launch.py: ')
  assert len(err.splitlines()) == 1, err
  for word in words:
    assert word in err


def test_the_config_of_a_run_is_answered_with_its_workdir(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  result = launch(f'--config={tmp_path / "config.json"}')
  assert_message(result, 2, f'--workdir={tmp_path}')


def test_a_config_that_is_not_there_is_named():
  assert_message(launch('--config=configs/nothing.py'), 2, '--config', 'configs/')


@pytest.mark.parametrize(
  ('argument', 'code', 'words'),
  [
    ('config', 1, "unexpected argument 'config'"),
    ('--config', 2, '--config names no file; give one'),
    ('--config=', 2, '--config names no file; give one'),
  ],
)
def test_a_config_without_a_file_is_not_taken_for_a_folder(argument, code, words):
  result = launch(argument)
  assert_message(result, code, words)
  assert 'is a folder' not in result[2]


def test_a_file_that_is_no_config_is_named():
  assert_message(launch('--config=README.md'), 2, 'README.md', 'get_config')


def test_without_a_config_it_says_what_to_give():
  assert_message(launch(), 1, '--config=configs/digits.py')


@pytest.mark.parametrize(
  ('mode', 'unread', 'words'),
  [
    ('summary', ('--layer=fc6', '--jobs=3'), ('--layer, --jobs', 'them', '--mode=figures')),
    ('train', ('--target=a.pth',), ('--target;', '--mode=convert')),
    ('convert', ('--workdir=a',), ('--workdir;',)),
    ('figures', ('--process_id=1',), ('--process_id', '--mode=train or --mode=evaluate')),
  ],
)
def test_a_flag_that_the_mode_does_not_read_is_refused(mode, unread, words):
  result = launch('--config=configs/digits.py', f'--mode={mode}', *unread)
  assert_message(result, 1, f'--mode={mode} does not read', *words)


@pytest.mark.parametrize(
  ('args', 'words'),
  [
    (('--members=', '--mode=evaluate'), ('there are no members', 'workdirs')),
    (('--members=/nowhere', '--mode=evaluate'), ('there is no /nowhere',)),
    (('--members=/nowhere',), ('--mode=evaluate',)),
    (
      ('--members=a,b', '--member_weights=1,x', '--mode=evaluate'),
      ('--member_weights is 1,x; give a number',),
    ),
    (('--member_weights=1,1', '--mode=evaluate'), ('there are no members',)),
  ],
)
def test_mistaken_members_are_named(tmp_path, args, words):
  assert_message(launch(f'--workdir={tmp_path / "together"}', *args), 1, *words)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ('args', 'words'),
  [
    (('--config.model.activation=relus',), ('model.activation', "'relu'", "'tanh'")),
    (('--config.mesh.column_devices=2', '--config.mesh.data_devices=0'), ('mesh.data_devices',)),
    (
      ('--config.data.name=cifar10', '--config.data.data_dir=/nowhere/at/all'),
      ('/nowhere/at/all',),
    ),
    (('--config.data.name=folder',), ('folder of images', '--config.data.data_dir=')),
    (
      ('--config.data.name=folder', '--config.data.data_dir=/nowhere/at/all'),
      ('/nowhere/at/all does not exist', '<class>/<images>'),
    ),
    (('--config.data.encoding=webp',), ('data.encoding', "'webp'", "'jpeg'")),
    (('--config.augment.crop_offsets=9',), ('augment.crop_offsets',)),
    (('--config.augment.mean=average',), ('augment.mean', "'pixel'", "'center'")),
    (('--config.augment.pixel_scale=(1,2)',), ('augment.pixel_scale', '(1, 2)', 'three')),
    (('--config.mesh.column_devices=both',), ('mesh.column_devices', "'both'", "'auto'")),
  ],
)
def test_a_mistaken_value_is_named(tmp_path, args, words):
  result = launch('--config=configs/digits.py', f'--workdir={tmp_path / "run"}', *args)
  returncode, _, err = result
  assert returncode == 1
  assert 'Traceback' not in err
  message = err[err.index('launch.py: ') :]
  assert len(message.strip().splitlines()) <= 2
  for word in words:
    assert word in message


def test_a_mistaken_precision_is_named_before_tensorflow_is_imported(tmp_path):
  result = launch(
    '--config=configs/imagenet.py', f'--workdir={tmp_path}', '--config.train.precision=float16'
  )
  assert_message(result, 1, 'train.precision', "'float16'", "'float32'", "'bfloat16'")


@pytest.mark.parametrize(
  ('args', 'words'),
  [
    ([DIGITS, '--workdir=~/x', '--config.train.init_from=~/no'], 'there is no HOME/no'),
    ([DIGITS, '--workdir=~/x', '--mode=figures', '--compare=~/no'], 'HOME/no has no metrics.jsonl'),
    (['--workdir=~/no', '--mode=evaluate'], 'HOME/no does not exist'),
    (['--mode=evaluate', '--members=~/no,~/other', '--workdir=~/x'], 'there is no HOME/no'),
    (['--mode=convert', '--source=~/no', '--target=~/a.safetensors'], 'there is no HOME/no'),
    ([DIGITS, '--mode=sweep', '--sweep=~/no.py', '--workdir=~/x'], 'there is no file HOME/no.py'),
    (['--config=~/no.py', '--mode=summary'], 'there is no file HOME/no.py'),
    (['--config', '~/no.py', '--mode=summary'], 'there is no file HOME/no.py'),
    ([DIGITS, '--workdir=gs://b/run'], '--workdir is gs://b/run, which is not a local path'),
    (['--workdir=s3://b/run', '--mode=figures'], '--workdir is s3://b/run'),
    (['--mode=evaluate', '--members=https://h/a', '--workdir=~/x'], 'https://h/a cannot be read'),
    (['--mode=convert', '--source=a', '--target=gs://b/a.pth'], '--target is gs://b/a.pth'),
    (
      ['--config=configs/flowers.py', '--mode=prepare', '--config.data.prepared_dir=gs://b/x'],
      'data.prepared_dir is gs://b/x',
    ),
  ],
)
def test_paths_are_in_the_home_folder_and_at_no_address(tmp_path, monkeypatch, args, words):
  monkeypatch.setenv('HOME', str(tmp_path))
  code = 2 if {'--config=~/no.py', '~/no.py'} & {*args} else 1
  assert_message(launch(*args), code, words.replace('HOME', str(tmp_path)))
  assert not {path.name for path in ROOT.iterdir()} & {'~', 'gs:', 's3:', 'https:'}


def test_the_summary_has_the_papers_numbers():
  returncode, out, err = launch('--config=configs/imagenet.py', '--mode=summary')
  assert returncode == 0
  assert err == ''
  for figure in (
    '60,965,224',
    '659,272',
    '724.4M',
    '55x55x96',
    '96 of 11x11x3',
    'XLA options:',
  ):
    assert figure in out


def test_the_summary_draws_the_network(tmp_path):
  args = ('--config=configs/digits.py', '--mode=summary', f'--target={tmp_path}/net.svg')
  code, out, err = launch(*args)
  assert (code, err) == (0, '')
  drawn = [f'net.{ending}' for ending in ('pdf', 'png', 'svg')]
  assert sorted(path.name for path in tmp_path.iterdir()) == drawn
  assert f'{tmp_path}/net.png' in out


def test_the_summary_has_the_rate_where_it_follows_the_batch_size():
  args = ('--config.optimizer.batch_size_rule=linear', '--config.train.batch_size=512')
  _, out, _ = launch('--config=configs/imagenet.py', '--mode=summary', *args)
  assert '\nlearning rate 0.04 (0.01 x 4: linear rule, batch 512 instead of 128)\n' in out


def test_what_needs_no_preparation_says_so(tmp_path):
  workdir = tmp_path / 'run'
  result = launch('--config=configs/digits.py', f'--workdir={workdir}', '--mode=prepare')
  assert result == (0, 'digits comes with the program and needs no preparation\n', '')
  assert not workdir.exists()


def test_the_first_run_says_what_happened_and_nothing_else(first_run):
  workdir, (_, out, err) = first_run
  assert '2 cpu devices with 1 of 2 columns each' in err
  *first, last = err.splitlines()
  assert first[0] == 'digits: 1,438 training and 359 validation images; shuffled whole'
  assert first[-1].endswith(f'workdir {workdir}')
  assert len(first) <= 4
  assert re.fullmatch(
    r'epoch    1/1  train ....%  val ....% \*  loss .\..../.\....  +\S+ img/s', last
  )
  assert out.endswith(
    f'next:\n  python launch.py --workdir={workdir} --mode=evaluate\n'
    f'  python launch.py --workdir={workdir} --mode=figures\n'
  )
  assert 'top-1 error' in out
  for name in ('checkpoints', 'metrics.jsonl', 'figures/learning_curves.png', 'report.html'):
    assert str(workdir / name) in out
    assert (workdir / name).exists()
  for name in ('config.json', 'statistics.npz', 'tensorboard'):
    assert (workdir / name).exists()
  [start] = read_starts(workdir)
  assert start['step'] == 0
  assert '--config=configs/digits.py' in start['command']


def test_a_run_of_no_steps_which_saves_nothing_names_nothing_to_do_next(tmp_path):
  args = (f'--workdir={tmp_path}', '--config.train.num_steps=0', *FEW_LAYERS)
  code, out, _ = launch(DIGITS, *args)
  assert (code, 'top-1 error' in out, 'next:' in out) == (0, True, False)
  assert not any((tmp_path / 'checkpoints').glob('*'))


def test_a_finished_run_is_evaluated_with_its_checkpoint_as_members(run_of_one_epoch, tmp_path):
  path, together = run_of_one_epoch, tmp_path / 'together'
  members = f'--members={path},{path / "checkpoints" / "23"}'
  weights = '--member_weights=1,2.5'
  returncode, out, err = launch(members, weights, f'--workdir={together}', '--mode=evaluate')
  assert (returncode, err) == (0, '')
  for words in (str(path), 'weighted average of 2', 'top-5 error', 'center crop', 'ten views'):
    assert words in out
  for name in ('evaluation.json', 'evaluation'):
    assert str(together / name) in out
    assert (together / name).exists()


@pytest.mark.parametrize(
  ('signum', 'code'),
  [
    pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow),
    (signal.SIGTERM, 75),
    pytest.param(signal.SIGHUP, 75, marks=pytest.mark.slow),
  ],
)
def test_a_signal_saves_and_exits_with_its_code(tmp_path, signum, code):
  handler = signal.signal(signum, signal.SIG_DFL)  # else a test under nohup would ignore SIGHUP
  command = (DIGITS, f'--workdir={tmp_path}', '--config.train.num_epochs=1000', *FEW_LAYERS)
  with start(*command) as process:
    signal.signal(signum, handler)
    deadline = time.monotonic() + 200
    log = tmp_path / 'metrics.jsonl'
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
      assert process.poll() is None
      time.sleep(0.1)
    process.send_signal(signum)
    _, err = process.communicate(timeout=100)
  assert process.returncode == code
  assert 'stopped and saved' in err
  assert 'Traceback' not in err
  steps = [int(path.name) for path in (tmp_path / 'checkpoints').iterdir() if path.name.isdigit()]
  assert max(steps) > 0


ABLATIONS = '--sweep=configs/sweeps/ablations.py'


@pytest.mark.parametrize(
  ('args', 'words'),
  [
    ((), ('pass --sweep and --config', '--sweep=', '--config=')),
    (('--config=configs/digits.py',), ('pass --sweep and --config',)),
    ((ABLATIONS,), ('pass --sweep and --config',)),
    (('--config=configs/digits.py', '--sweep=configs/none.py'), ('configs/none.py', '--sweep')),
    (('--config=configs/digits.py', ABLATIONS, '--only=nothing'), ("'nothing'", 'no_dropout')),
    (('--config=configs/digits.py', ABLATIONS, '--seeds=a'), ('--seeds', '0,1,2')),
  ],
)
def test_a_mistaken_sweep_is_named_before_anything_is_made(tmp_path, args, words):
  assert_message(launch('--mode=sweep', f'--workdir={tmp_path / "sweep"}', *args), 1, *words)
  assert list(tmp_path.iterdir()) == []


def test_a_sweep_is_not_taken_for_a_run(tmp_path):
  result = launch(ABLATIONS, '--config=configs/digits.py', f'--workdir={tmp_path / "run"}')
  assert_message(result, 1, 'does not read --sweep', '--mode=sweep')
  assert list(tmp_path.iterdir()) == []


def test_a_sweeps_commands_are_listed_one_a_line(tmp_path):
  returncode, out, err = launch(
    '--mode=sweep', ABLATIONS, '--config=configs/digits.py', '--config.train.num_epochs=1',
    '--list', '--only=no_dropout', '--seeds=0,1', f'--workdir={tmp_path}',
  )  # fmt: skip
  assert (returncode, err) == (0, '')
  lines = out.splitlines()
  assert len(lines) == 4
  assert lines[1] == (
    'python launch.py --config=configs/digits.py --config.train.num_epochs=1'
    f' --config.model.dropout.rate=0.0 --config.train.seed=0 --workdir={tmp_path}/no_dropout/seed0'
  )
  assert sorted(path.name for path in tmp_path.iterdir()) == ['.lock', 'sweep.json']
  command = sweep_file.read(tmp_path)['command']
  assert command.startswith('python launch.py --mode=sweep --sweep=configs/sweeps/ablations.py ')
  # A list of some of them leaves the sweep as it is.
  launch(
    '--mode=sweep', ABLATIONS, '--config=configs/digits.py', '--config.train.num_epochs=1',
    '--list', '--only=no_dropout', '--seeds=1', f'--workdir={tmp_path}',
  )  # fmt: skip
  assert len(sweep_file.read(tmp_path)['runs']) == 4
  result = launch('--mode=figures', '--layer=fc6', f'--workdir={tmp_path}')
  assert_message(result, 1, 'the folder of a sweep', '--layer')


def test_a_sweep_without_a_finished_run_says_so(tmp_path):
  launch('--mode=sweep', ABLATIONS, '--config=configs/digits.py', '--list', f'--workdir={tmp_path}')
  result = launch('--mode=figures', f'--workdir={tmp_path}')
  assert_message(result, 1, 'no run of the sweep', '--mode=sweep')


def test_a_sweep_whose_runs_fail_says_which_and_why(tmp_path):
  # A folder without images is found out only by the run.
  (tmp_path / 'data').mkdir()
  arguments = (
    '--mode=sweep', ABLATIONS, '--config=configs/digits.py', '--config.data.name=folder',
    f'--config.data.data_dir={tmp_path / "data"}', f'--workdir={tmp_path / "s"}',
  )  # fmt: skip
  launch(*arguments, '--only=no_dropout', '--list')
  returncode, _, err = launch(*arguments, '--only=base')
  assert returncode == 1
  assert "the table will leave out 'no_dropout/seed0', of an earlier command" in err
  assert 'base/seed0  failed: ' in err
  assert 'Traceback' not in err
  assert err.strip().splitlines()[-1].startswith('launch.py: no run of the sweep')


def test_a_config_changed_since_a_run_is_noticed_before_anything_runs(tmp_path):
  arguments = ('--mode=sweep', ABLATIONS, '--config=configs/digits.py', f'--workdir={tmp_path}')
  launch(*arguments, '--list')
  before = (tmp_path / 'sweep.json').read_bytes()
  run = next(iter(sweeps.plan(tmp_path).runs))  # of another net than configs/digits.py
  sweeps.write_run(run, sweeps.lines([0.5] * 4))
  returncode, _, err = launch(*arguments)
  assert returncode == 1
  assert 'the config has changed since these were run' in err
  assert f'{run.path} holds another experiment' in err
  assert 'Remove their folders' in err
  assert (tmp_path / 'sweep.json').read_bytes() == before


def test_a_second_sweep_on_one_folder_stops_and_changes_nothing(tmp_path):
  arguments = ('--mode=sweep', ABLATIONS, '--config=configs/digits.py', f'--workdir={tmp_path}')
  launch(*arguments, '--list')
  before = (tmp_path / 'sweep.json').read_bytes()
  with workdir.lock(tmp_path):
    assert_message(launch(*arguments, '--only=tanh'), 1, 'another process is at work in')
    assert_message(
      launch(*arguments, '--only=tanh', '--seeds=9', '--list'), 1, 'another process is at work in'
    )
    assert launch(*arguments, '--only=tanh', '--list')[0] == 0  # of its own runs
  assert (tmp_path / 'sweep.json').read_bytes() == before


def test_a_folder_of_a_sweep_is_no_run(tmp_path):
  planning.write(sweeps.plan(tmp_path))
  result = launch(f'--workdir={tmp_path}', '--mode=evaluate')
  assert_message(result, 1, 'is the folder of a sweep', '--mode=sweep')


def test_a_list_of_other_runs_says_what_the_table_will_leave_out(tmp_path):
  arguments = ('--mode=sweep', ABLATIONS, '--config=configs/digits.py', f'--workdir={tmp_path}')
  launch(*arguments, '--only=tanh', '--list')
  code, out, err = launch(*arguments, '--only=tanh', '--seeds=9', '--list')
  assert (code, len(out.splitlines())) == (0, 2)
  assert err.startswith(
    "the table will leave out 'base/seed0', 'tanh/seed0', of an earlier command"
  )
  assert list(sweep_file.recorded(tmp_path)) == ['base/seed9', 'tanh/seed9']
  _, _, err = launch(
    *arguments, '--only=tanh', '--seeds=9', '--config.train.num_epochs=7', '--list'
  )
  assert "had 'base/seed9', 'tanh/seed9' with another train.num_epochs" in err
  assert sweep_file.recorded(tmp_path)['base/seed9'] == (7, None)  # the table's, too


def test_runs_of_variants_that_the_sweep_no_longer_has_are_named_as_such(tmp_path):
  planning.write(sweeps.plan(tmp_path, name='ablations'))  # no_overlap, which it has, and tanh
  description = (tmp_path / 'sweep.json').read_text()
  (tmp_path / 'sweep.json').write_text(description.replace('"tanh"', '"gone"'))
  arguments = ('--mode=sweep', ABLATIONS, '--config=configs/digits.py', f'--workdir={tmp_path}')
  code, _, err = launch(*arguments, '--only=no_overlap', '--seeds=2', '--list')
  assert code == 0
  assert err.splitlines()[-1] == (
    "the table will leave out 'gone/seed0', 'gone/seed1', of variants that the sweep no longer has"
  )
  assert "'no_overlap/seed1', of an earlier command" in err


def test_variants_that_do_not_apply_are_named_before_anything_runs(tmp_path):
  arguments = ('--mode=sweep', ABLATIONS, '--config=configs/digits.py', f'--workdir={tmp_path}')
  code, out, err = launch(*arguments, '--only=no_flips,no_crops,tanh', '--list')
  assert (code, len(out.splitlines())) == (0, 2)
  assert err == 'not run, for they change nothing of this config: no_flips, no_crops\n'


def test_a_list_without_a_missing_run_says_that_all_are_finished(tmp_path):
  arguments = (
    '--mode=sweep', ABLATIONS, '--config=configs/digits.py', '--only=base', f'--workdir={tmp_path}'
  )  # fmt: skip
  config = digits.get_config()
  config.train.num_epochs = sweeps.EPOCHS
  run = sweeps.plan(tmp_path).runs[0]
  sweeps.write_run(run, sweeps.lines([0.5] * sweeps.EPOCHS), config)
  code, out, err = launch(*arguments, f'--config.train.num_epochs={sweeps.EPOCHS}', '--list')
  assert (code, out) == (0, '')
  assert err == 'all runs are finished; --mode=figures makes the table\n'
