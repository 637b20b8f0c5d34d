"""Several processes: who has peers, when they stop, and what two make together."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax.checkpoints import pretrained, workdir
from alexnet_jax.parallel import compat, multihost
from alexnet_jax.utils import host
from alexnet_jax.utils.errors import UserError

REPOSITORY = Path(__file__).parents[2]
SMALL = [
  '--config=configs/digits.py',
  '--config.model.conv1.features=8',
  '--config.model.conv3.features=16',  # which reads both columns
  '--config.model.fc6.features=32',
  *(f'--config.model.{layer}.features=0' for layer in ('conv2', 'conv4', 'conv5', 'fc7')),
  '--config.train.log_every_steps=1',
]
STORED = 'tests/data/format1'  # a trained network whose first layer has the shape of this one's
PAIR = ['--config.mesh.column_devices=2', '--config.mesh.data_devices=1']
STEPS = ['--config.train.num_steps=4', f'--config.train.init_from={STORED}']
SRUN = {'SLURM_STEP_NODELIST': 'a,b', 'SLURM_STEP_NUM_TASKS': '2'}


@pytest.mark.parametrize(
  ('environment', 'count'),
  [
    ({}, 1),
    (SRUN, 2),
    ({**SRUN, 'SLURM_STEP_NUM_TASKS': '1'}, 1),
    ({'SLURM_NTASKS': '2', 'SLURM_JOB_ID': '1'}, 1),  # a batch script, without srun
    ({'OMPI_COMM_WORLD_SIZE': '8'}, 8),
  ],
)
def test_a_launcher_says_how_many_there_are(environment, count):
  assert host.launched(environment) == count
  assert host.has_peers(environment) == (count > 1)


def test_a_plain_process_is_alone():
  assert multihost.join(None, None, None) == 1
  assert multihost.is_first()
  assert multihost.agreed_stop(5, None) is None
  assert multihost.agreed_stop(5, signal.SIGTERM) == signal.SIGTERM


@pytest.mark.parametrize('given', [('a:1', None, None), (None, 2, None), ('a:1', 2, None)])
def test_flags_of_several_processes_go_together(given):
  with pytest.raises(UserError, match='needs all of --coordinator=HOST:PORT'):
    multihost.join(*given)


OPEN_MPI_5 = {'OMPI_COMM_WORLD_SIZE': '8', 'OMPI_COMM_WORLD_RANK': '3'}


@pytest.mark.parametrize(
  'environment', [OPEN_MPI_5, {**SRUN, 'SLURM_STEP_NUM_TASKS': '8', 'SLURM_PROCID': '3'}]
)
def test_a_launcher_that_does_not_name_the_first_says_which_this_is(environment, monkeypatch):
  asked = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *given, **_: asked.append(given))
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  multihost.join('node1:1234', None, None)
  assert asked == [('node1:1234', 8, 3)]


def test_a_pod_that_is_told_all_does_not_ask_the_cluster(monkeypatch):
  asked = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *_, **how: asked.append(how))
  monkeypatch.setenv('KUBERNETES_SERVICE_HOST', '10.0.0.1')
  multihost.join('alexnet-workers-0-0.alexnet:1234', 2, 0)
  assert asked[0]['cluster_detection_method'] == 'deactivate'


def test_what_a_launchers_library_raises_is_told_in_a_line(monkeypatch):
  class ConfigError(Exception):
    pass

  def ask(*_, **__):
    raise ConfigError('Service token file does not exist.\nmore')

  monkeypatch.setattr(jax.distributed, 'initialize', ask)
  monkeypatch.setattr(host, 'has_peers', lambda environment: True)
  with pytest.raises(UserError, match='cannot join the other processes: Service token file'):
    multihost.join(None, None, None)


def test_where_nobody_names_the_first_it_is_asked_for(monkeypatch):
  for name, value in OPEN_MPI_5.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(UserError, match='address of the first: --coordinator=HOST:PORT'):
    multihost.join(None, None, None)


class Coordinator:
  """Keeps words for several processes, as jax's does."""

  def __init__(self):
    self.words = {}

  def key_value_set(self, key, value):
    if key in self.words:
      raise jax.errors.JaxRuntimeError('ALREADY_EXISTS')
    self.words[key] = value

  def key_value_try_get(self, key):
    if key not in self.words:
      raise jax.errors.JaxRuntimeError('NOT_FOUND')
    return self.words[key]


@pytest.fixture
def coordinator(monkeypatch):
  state = type('State', (), {'client': Coordinator(), 'process_id': 1})
  monkeypatch.setattr(compat.distributed, 'global_state', state)
  return state.client


def test_all_stop_after_a_step_that_none_has_come_to(coordinator):
  assert multihost.agreed_stop(7, None) is None
  assert multihost.agreed_stop(8, signal.SIGUSR1) is None  # one is asked
  assert multihost.agreed_stop(9, signal.SIGTERM) is None  # and another, of a later step
  assert [multihost.agreed_stop(step, None) for step in (9, 10, 11, 12)] == [
    None, None, signal.SIGUSR1, signal.SIGUSR1
  ]  # fmt: skip


def test_the_first_that_fails_speaks_and_the_others_take_its_code(coordinator, monkeypatch, capfd):
  class EndedError(Exception):
    pass

  def end(code):
    raise EndedError(code)

  monkeypatch.setattr(multihost.os, '_exit', end)
  for message, code in (('no such split', 1), ('another process is lost', 75)):
    with pytest.raises(EndedError, match=r'^1$'):
      multihost.fail(message, code)
  assert capfd.readouterr().err == 'no such split (process 1)\n'

  def lost(*_):
    raise jax.errors.JaxRuntimeError('UNAVAILABLE')

  coordinator.key_value_set = coordinator.key_value_try_get = lost
  with pytest.raises(EndedError, match=r'^75$'):
    multihost.fail('the coordinator is lost', 75)
  assert capfd.readouterr().err == 'the coordinator is lost (process 1)\n'


def test_one_that_waits_for_the_first_ends_where_that_fails(coordinator, monkeypatch):
  monkeypatch.setattr(multihost, 'is_first', lambda: False)
  monkeypatch.setattr(multihost.os, '_exit', sys.exit)
  coordinator.key_value_set(multihost._FAILED, '1')
  with pytest.raises(SystemExit, match=r'^1$'):
    multihost.first_then_others(lambda: pytest.fail('went on'))


def test_others_find_what_the_first_has_made(coordinator, monkeypatch):
  made = []
  for first in (True, False):
    monkeypatch.setattr(multihost, 'is_first', lambda first=first: first)
    monkeypatch.setattr(multihost, '_turns', iter([7]))
    assert multihost.first_then_others(lambda: made.append(1) or len(made)) == 1 + (not first)


def test_alone_an_error_of_jax_is_not_taken_for_a_lost_process():
  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'), multihost.watched():
    raise jax.errors.JaxRuntimeError('INTERNAL: a kernel')


def test_too_little_memory_is_the_user_s_and_not_a_lost_process(monkeypatch):
  error = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 5 GB')
  words = r'out of memory: RESOURCE_EXHAUSTED: 5 GB\nGive more --config\.train\.gradient_accumulation_steps or'
  with pytest.raises(UserError, match=words), multihost.watched():
    raise error
  monkeypatch.setattr(compat, 'coordinator', lambda: 'a client')
  monkeypatch.setattr(multihost, '_watch', lambda client, ended: None)
  ends = []
  monkeypatch.setattr(multihost, 'fail', lambda *arguments: ends.append(arguments) or sys.exit())
  with pytest.raises(SystemExit), multihost.watched():
    raise error
  [(message, code)] = ends
  assert re.match(words, message)
  assert code == 1


def wait_for_an_epoch(path, process):
  """Until a run has been through an epoch; fails where its process ends before."""
  deadline = time.monotonic() + 200
  while not workdir.last_epoch(path) > 1:
    assert process.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.1)


@contextlib.contextmanager
def started(count, *arguments):
  """Processes that compute together, started and, at the end, killed."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  environment = {name: os.environ[name] for name in os.environ if name != 'XLA_FLAGS'}
  together = [f'--coordinator=127.0.0.1:{port}', f'--num_processes={count}'] if count > 1 else []
  children = [
    subprocess.Popen(
      [sys.executable, 'launch.py', *SMALL, *arguments, *together]
      + [f'--process_id={process}'] * (count > 1),
      cwd=REPOSITORY,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for process in range(count)
  ]
  try:
    yield children
  finally:
    for child in children:
      child.kill()
      child.wait()
      child.stdout.close()
      child.stderr.close()


def launch(count, *arguments, codes=(0,)):
  """Runs the program in so many processes; returns what each printed."""
  with started(count, *arguments) as children:
    printed = [child.communicate(timeout=240) for child in children]
    assert {child.returncode for child in children} <= set(codes), printed
  return [''.join(outputs) for outputs in printed]


def losses(path):
  return np.array([record['loss'] for record in workdir.read_metrics(path)])


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """What two processes printed, one of whose columns each has, and their workdir."""
  path = tmp_path_factory.mktemp('two') / 'run'
  return launch(2, *PAIR, *STEPS, f'--workdir={path}'), path


@pytest.mark.slow
def test_two_processes_train_the_network_of_one(two, tmp_path):
  printed, path = two
  launch(1, '--config.mesh.column_devices=1', *STEPS, f'--workdir={tmp_path}/one')
  assert f'from {STORED}/checkpoints/300: conv1\n' in printed[0]
  assert len(losses(path)) == 5
  np.testing.assert_allclose(losses(path), losses(tmp_path / 'one'), atol=1e-5)
  ours, theirs = (pretrained.read(run).params for run in (path, tmp_path / 'one'))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


@pytest.mark.slow
def test_the_first_process_alone_speaks(two):
  (first, other), _ = two
  assert first.count('  val ') == 1
  assert not [line for line in other.splitlines() if line and 'Gloo' not in line]


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(two, tmp_path):
  _, path = two
  mode = ['--mode=evaluate', *STEPS]
  launch(2, *mode, *PAIR, f'--members={path}', f'--workdir={tmp_path}/alone')
  # The second time the network's own predictions, which the first process has left, are used.
  members = [f'--members={path},{path}/checkpoints/4', f'--workdir={tmp_path}/ensemble']
  first, other = launch(2, *mode, *PAIR, *members)
  assert first.count('using the predictions of its own evaluation') == 1
  assert 'average of 2' in first
  assert 'average of 2' not in other
  spread = ['--config.mesh.column_devices=1', '--config.train.batch_size=50']
  for count, name in ((2, 'two'), (1, 'one')):
    shutil.copytree(path / 'checkpoints', tmp_path / name / 'checkpoints')
    launch(count, *mode, *spread, f'--workdir={tmp_path}/{name}')
  paths = [path, *(tmp_path / name for name in ('ensemble', 'two', 'one'))]
  *several, one = (np.load(each / 'evaluation' / 'predictions.npz') for each in paths)
  for found in several:
    np.testing.assert_array_equal(found['labels'], one['labels'])
    for views in ('center_crop', 'ten_views'):
      np.testing.assert_allclose(found[views], one[views], atol=1e-6)
      assert len(found[views]) == 359


@pytest.mark.slow
def test_where_one_process_hangs_the_other_names_it_and_ends(tmp_path):
  path = tmp_path / 'run'
  with started(2, '--config.train.num_epochs=1000', f'--workdir={path}') as children:
    wait_for_an_epoch(path, children[0])
    children[1].send_signal(signal.SIGSTOP)
    _, said = children[0].communicate(timeout=4 * multihost.HEARTBEAT_SECONDS)
    assert children[0].returncode == 75, said
  assert 'process 1 has sent no heartbeat' in said


@pytest.mark.slow
def test_where_one_process_is_killed_the_other_ends_and_says_so(tmp_path):
  path = tmp_path / 'run'
  with started(2, '--config.train.num_epochs=1000', f'--workdir={path}') as children:
    wait_for_an_epoch(path, children[0])
    children[1].kill()
    _, said = children[0].communicate(timeout=60)
    assert children[0].returncode == 75, said
  assert 'another process is lost' in said
  assert 'Traceback' not in said


@pytest.mark.slow
@pytest.mark.parametrize('asked', [0, 1])
def test_all_stop_where_one_is_asked_and_one_process_goes_on(tmp_path, asked):
  path = tmp_path / 'run'
  few = ['--config.mesh.column_devices=1', f'--workdir={path}']
  with started(2, '--config.train.num_epochs=1000', *few) as children:
    wait_for_an_epoch(path, children[0])
    children[asked].send_signal(signal.SIGUSR1)
    said = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [75, 75], said
  step = max(int(name.name) for name in (path / 'checkpoints').iterdir() if name.name.isdecimal())
  assert workdir.read_metrics(path)[-1]['step'] == step
  [printed] = launch(1, *few, f'--config.train.num_steps={step + 2}')
  assert f'resuming at step {step} to {step + 2}' in printed


@pytest.mark.slow
@pytest.mark.parametrize(
  ('mistake', 'words'),
  [
    (['--config.data.validation_split=no'], 'digits has the splits'),  # of all
    (['--config.data.name=folder', '--config.data.data_dir=/nowhere'], '/nowhere'),  # of the first
  ],
)
def test_a_mistake_is_told_once(tmp_path, mistake, words):
  printed = ''.join(launch(2, *mistake, f'--workdir={tmp_path}', codes=(1,)))
  assert printed.count('launch.py: ') == printed.count(words) == 1
