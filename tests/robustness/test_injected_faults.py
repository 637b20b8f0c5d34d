"""What fails on one machine, made to fail: full disks, damaged files, kills."""

import contextlib
import random
import resource
import shutil
import signal
import sys
import time
import warnings
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import experiment
from alexnet_jax.checkpoints import checkpoint, safetensors_file, tensorboard, workdir
from alexnet_jax.data import datasets, included, record_split, statistics
from alexnet_jax.evaluation import predictions
from alexnet_jax.reports import canvas
from alexnet_jax.sweeps import planning
from alexnet_jax.training import loop, resume
from alexnet_jax.training import step as step_lib
from alexnet_jax.utils import silence
from alexnet_jax.utils.errors import UserError
from alexnet_jax.utils.picture import Figure
from tests import stored, sweeps
from tests.displays import Lines
from tests.robustness import faults
from tests.small import lines, small_config, tiny_config


@contextlib.contextmanager
def full_disk(size):
  """Within it a file's writing fails half-way, as on a full disk, after so many bytes."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


SCORES = predictions.Predictions(
  *(np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10) for _ in range(2)),
  np.arange(6, dtype=np.int32),
)


def write_sums(path):
  sums = statistics.Sums.zero(8)
  sums.add(np.full((8, 8, 3), 7, np.uint8))
  statistics.save(path / 'statistics.npz', sums.compute())


@pytest.mark.parametrize(
  'write',
  [
    pytest.param(write_sums, id='statistics'),
    pytest.param(lambda path: workdir.write_config(path, {'a': 'b' * 500}), id='config'),
    pytest.param(lambda path: predictions.save(path / 'a.npz', SCORES, {'a': 1}), id='predictions'),
    pytest.param(
      lambda path: predictions.write_tables(path, SCORES.ten_views, SCORES.labels, '0123456789'),
      id='tables',
    ),
    pytest.param(
      lambda path: canvas.save(Figure(figsize=(1, 1)), path / 'a'),
      id='figure',
    ),
    pytest.param(
      lambda path: safetensors_file.write(path / 'a.safetensors', {'a': np.ones(99)}, {}),
      id='safetensors',
    ),
    pytest.param(lambda path: planning.write(sweeps.plan(path)), id='sweep'),
  ],
)
def test_a_full_disk_leaves_no_half_of_a_file(tmp_path, write):
  write(tmp_path)
  before = faults.contents(tmp_path)
  assert before
  for name in before:  # the first that is not small enough fails
    size = (tmp_path / name).stat().st_size
    for limit in (0, size // 2, size - 1):
      with full_disk(limit), pytest.raises((OSError, UserError)) as error:
        write(tmp_path)
      assert 'File too large' in str(error.value)
      assert str(tmp_path) in str(error.value)
      assert faults.contents(tmp_path) == before
  write(tmp_path)
  assert faults.contents(tmp_path) == before


@pytest.mark.parametrize('kind', ['metrics', 'events'])
def test_a_line_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path, kind):
  if kind == 'metrics':
    log, name = workdir.MetricsLog(tmp_path, 0), 'metrics.jsonl'
    errors = {'loss': 1.5, 'top1_error': 0.5, 'top5_error': 0.25}
    records = [
      {'step': step, 'epoch': 0.5, 'split': 'validation', **errors} for step in range(1, 1000)
    ]
    write = log.write
  else:
    log, name = tensorboard.Events(tmp_path, 1), 'tensorboard/train/events.out.tfevents'
    records = range(1, 1000)

    def write(step):
      log.scalars('train', step, {'loss': 0.5})

  written = []

  def fill():
    for record in records:
      write(record)
      written.append(record)

  with full_disk(1500), pytest.raises(OSError, match='File too large') as error:
    fill()
  log.close()
  assert str(tmp_path / name) in str(error.value)
  assert 5 < len(written) < 100
  if kind == 'metrics':
    assert workdir.read_metrics(tmp_path)[: len(written)] == written


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that nothing happened to."""
  path = tmp_path_factory.mktemp('whole')
  loop.train_and_evaluate(tiny_config(), path)
  return path


def assert_same_run(path, whole):
  assert lines(path) == lines(whole)
  assert faults.checkpoints(path)[45] == faults.checkpoints(whole)[45]
  assert not [name for name in faults.names(path) if 'tmp' in name or '.new' in name]


# By what is written when it fails: arrays, Orbax's description of them, ours.
@pytest.mark.parametrize(
  'limit', [20_000, *(pytest.param(size, marks=pytest.mark.slow) for size in (4_000, 500))]
)
def test_a_checkpoint_that_cannot_be_written_ends_the_run_which_goes_on(
  tmp_path, whole, monkeypatch, limit
):
  config = tiny_config({'checkpoint.every_steps': 30})
  save = checkpoint.Writer.save

  def fill_up(self, step, *args):
    with full_disk(limit) if step == 30 else contextlib.nullcontext():
      save(self, step, *args)
      while self._manager.is_saving_in_progress():
        time.sleep(0.01)

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.Writer, 'save', fill_up)
    with pytest.raises(UserError) as error:
      loop.train_and_evaluate(config, tmp_path)
  message = str(error.value)
  assert message.startswith(f'cannot write a checkpoint into {tmp_path / "checkpoints"}: File too')
  assert len(message.splitlines()) == 2
  assert lines(tmp_path)[-1]['step'] == 30  # it is not trained on until the next checkpoint
  assert checkpoint.steps(tmp_path / 'checkpoints') == [23]
  loop.train_and_evaluate(config, tmp_path)
  assert_same_run(tmp_path, whole)


def test_a_loss_that_is_no_number_stops_the_run_and_costs_nothing_before(
  tmp_path, whole, monkeypatch
):
  make_train_step = step_lib.make_train_step

  def make(*args, **options):
    real = make_train_step(*args, **options)

    def step(state, *rest):
      state, loss = real(state, *rest)
      return state, jnp.where(state.step == 30, jnp.nan, loss)

    step.lower = real.lower
    return step

  with monkeypatch.context() as patch:
    patch.setattr(step_lib, 'make_train_step', make)
    with pytest.raises(loop.NotFiniteError) as error:
      loop.train_and_evaluate(tiny_config(), tmp_path)
  text = str(error.value)
  assert 'the loss is nan at step 30, learning rate 0.02' in text
  assert str(tmp_path / 'checkpoints' / '23') in text
  assert [r['step'] for r in lines(tmp_path) if r['split'] == 'train'][-1] == 23
  assert checkpoint.steps(tmp_path / 'checkpoints') == [23]
  loop.train_and_evaluate(tiny_config(), tmp_path)
  assert_same_run(tmp_path, whole)


@pytest.mark.parametrize('part', ['whole', 'partly deleted'])
def test_a_checkpoint_that_a_killed_run_was_deleting_is_gone_once_it_is_resumed(
  tmp_path, whole, part
):
  shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
  old = tmp_path / 'checkpoints' / '10'
  shutil.copytree(tmp_path / 'checkpoints' / '23', old)
  if part == 'partly deleted':
    shutil.rmtree(old / 'description')
  loop.train_and_evaluate(tiny_config(), tmp_path)
  assert_same_run(tmp_path, whole)
  assert not old.exists()


@pytest.mark.slow
def test_a_clock_that_is_set_back_changes_nothing(tmp_path, whole, monkeypatch):
  loop.train_and_evaluate(tiny_config({'train.num_epochs': 1}), tmp_path)
  now, now_ns = time.time, time.time_ns
  monkeypatch.setattr(time, 'time', lambda: now() - 10**6)
  monkeypatch.setattr(time, 'time_ns', lambda: now_ns() - 10**15)
  loop.train_and_evaluate(tiny_config(), tmp_path)
  assert_same_run(tmp_path, whole)
  assert checkpoint.steps(tmp_path / 'checkpoints') == [23, 45]


@pytest.mark.slow
def test_a_data_file_that_goes_away_is_named_and_the_run_goes_on_once_it_is_back(
  tmp_path, monkeypatch
):
  stored.store_numbers(tmp_path / 'tfds')

  def in_blocks(builder, split, size, *_):
    return record_split.RecordSplit(builder, split, size, 5 * 300)

  monkeypatch.setattr(datasets, 'open_split', in_blocks)  # from files, not from memory
  config = small_config(
    {
      'data.name': 'numbers',
      'data.data_dir': str(tmp_path / 'tfds'),
      'data.prepared_dir': str(tmp_path / 'prepared'),
      'model.num_classes': stored.TRAIN + stored.VALIDATION,
      **{f'model.{layer}.features': 0 for layer in ('conv2', 'conv3', 'conv4', 'conv5', 'fc6')},
      'train.batch_size': 8,
      'checkpoint.every_steps': 4,
      'train.num_epochs': 6,
    }
  )
  for section, field, value in (('data', 'encoding', 'png'), ('data', 'image_size', 8)):
    config[section][field] = value
  whole, robbed = tmp_path / 'whole', tmp_path / 'robbed'
  loop.train_and_evaluate(config, whole)
  [shard] = (tmp_path / 'prepared').rglob('*-train.tfrecord-00001-*')
  away = tmp_path / 'away'
  advance = loop.Run.advance

  def advance_and_rob(run, batch):
    advance(run, batch)
    if run.step == 6:
      shard.rename(away)

  with monkeypatch.context() as patch:
    patch.setattr(loop.Run, 'advance', advance_and_rob)
    with pytest.raises(UserError) as error:
      loop.train_and_evaluate(config, robbed)
  assert str(shard) in str(error.value)
  assert len(str(error.value).splitlines()) == 1
  away.rename(shard)
  assert 4 <= checkpoint.steps(robbed / 'checkpoints')[-1] < 30
  loop.train_and_evaluate(config, robbed)
  assert lines(robbed) == lines(whole)
  assert faults.checkpoints(robbed)[30] == faults.checkpoints(whole)[30]


# Of everything that a checkpoint has, in every way that a disk loses it.
@pytest.mark.slow
@pytest.mark.parametrize('damage', ['flipped', 'cut', 'emptied', 'gone'])
def test_whatever_file_of_a_checkpoint_is_damaged_a_run_ends_as_if_it_were_not(
  tmp_path, whole, monkeypatch, damage
):
  """What goes on trains from a whole checkpoint: the newest, or, saying so, the one before."""
  config = tiny_config()
  net = experiment.make_network(config)
  tx = experiment.make_optimizer(config, net)
  mesh = experiment.make_mesh(config)
  split = included.digits('train')
  folder = tmp_path / 'checkpoints'
  shutil.copytree(whole / 'checkpoints', folder)
  paths = [path for path in sorted((folder / '45').rglob('*')) if path.is_file()]
  steps = set()
  for path in paths:
    content = path.read_bytes()
    if damage == 'gone':
      path.unlink()
    else:
      middle = len(content) // 2
      path.write_bytes(
        {
          'flipped': content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :],
          'cut': content[:middle],
          'emptied': b'',
        }[damage]
      )
    told = Lines()
    state, _, progress = resume.restore(
      folder, config, net, tx, mesh, split, included.open_digits(8), told
    )
    step = int(state.step)
    steps.add(step)
    assert checkpoint.digest(state.params) == faults.checkpoints(whole)[step]['params']
    assert progress.last_validation['step'] == step
    if step == 23:
      assert told.lines[0].startswith('checkpoint 45 is damaged')
      (folder / 'damaged-45').rename(folder / '45')
    else:
      assert told.lines == []
    path.write_bytes(content)
  assert steps == {23, 45}  # some files are of no consequence


def test_what_is_left_of_a_failed_write_is_not_told_but_all_else_is(monkeypatch):
  told = mock.Mock()
  monkeypatch.setattr(sys, 'unraisablehook', told)
  with warnings.catch_warnings():
    silence.silence_failed_writes()
    warnings.warn("coroutine 'write' was never awaited", RuntimeWarning, stacklevel=1)
    sys.unraisablehook(mock.Mock(exc_value=RuntimeError('Event loop is closed')))
    assert not told.called
    with pytest.raises(RuntimeWarning):
      warnings.warn('overflow', RuntimeWarning, stacklevel=1)
    sys.unraisablehook(mock.Mock(exc_value=RuntimeError('another')))
  assert told.called


@pytest.fixture(scope='module')
def ground(tmp_path_factory):
  """What all works share: a folder, and a cache for what XLA compiles."""
  return tmp_path_factory.mktemp('shared'), tmp_path_factory.mktemp('cache')


@pytest.mark.slow
@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGTERM])
def test_a_run_ended_at_any_moment_is_as_if_it_had_not_been(tmp_path, ground, signum):
  (shared, cache), folder = ground, tmp_path
  work = faults.works(shared, cache, stops=signum == signal.SIGTERM)['training']
  alone = faults.undisturbed(work, folder, cache)
  fault = faults.Interruption(signum, alone[0], random.Random(1))
  result = faults.inject(fault, work, 4, folder, cache, alone, runs=1)
  assert result.faults > 0
  assert result.wrong == []


@pytest.mark.slow
@pytest.mark.skipif(
  sys.platform != 'linux' or not shutil.which('cc'), reason='needs Linux and a C compiler'
)
@pytest.mark.parametrize('kind', ['training', 'drawing'])
def test_a_disk_that_fails_is_named_and_costs_nothing(tmp_path, ground, kind):
  (shared, cache), folder = ground, tmp_path
  work = faults.works(shared, cache)[kind]
  alone = faults.undisturbed(work, folder, cache)
  fault = faults.make_fault('write', work, alone[0], 3, folder, cache, random.Random(1))
  result = faults.inject(fault, work, 3, folder, cache, alone)
  assert (result.faults, result.wrong) == (3, [])
