"""What docs/clusters.md says of Slurm, on a Slurm of two nodes; skipped where none is installed."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.checkpoints import pretrained, workdir
from tests.integration.cluster import slurm
from tests.integration.cluster.runs import REPOSITORY, SMALL, alone, losses

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(slurm.missing() is not None, reason=f'no Slurm: {slurm.missing()}'),
]


@pytest.fixture(scope='module')
def nodes(tmp_path_factory):
  with slurm.TwoNodes(tmp_path_factory.mktemp('slurm')) as started:
    # `python` of the scripts is the one that runs this test.
    started.environment['PATH'] = f'{Path(sys.executable).parent}:{started.environment["PATH"]}'
    yield started


def on_two(nodes, *arguments):
  command = ['srun', '-N2', '-n2', sys.executable, 'launch.py', *SMALL, *arguments]
  return nodes.run(*command, cwd=REPOSITORY)


def submit(nodes, *arguments, options=()):
  command = ['sbatch', '--parsable', '--chdir', str(REPOSITORY), *options]
  return nodes.run(*command, *arguments).strip()


def start(nodes, path, epochs, *run):
  """Submits a job of both nodes, and waits until it is so far; returns its number and its log."""
  log = path.with_suffix('.txt')
  arguments = [*SMALL, *run, f'--workdir={path}']
  job = submit(nodes, 'docs/clusters/train.sbatch', *arguments, options=[f'--output={log}'])
  nodes.wait(lambda: workdir.last_epoch(path) > epochs, 200)
  return job, log


def assert_same_parameters(one, other):
  ours, theirs = pretrained.read(one).params, pretrained.read(other).params
  for layer, parameters in ours.items():
    for kind, array in parameters.items():
      np.testing.assert_array_equal(array, theirs[layer][kind], f'{layer} {kind}')


def test_two_nodes_have_the_losses_of_one_process_with_two_devices(nodes, tmp_path):
  steps = ['--config.train.num_steps=20', '--config.train.log_every_steps=1']
  printed = on_two(nodes, *steps, f'--workdir={tmp_path}/two')
  alone(*steps, '--config.mesh.data_devices=2', f'--workdir={tmp_path}/one')
  assert len(losses(tmp_path / 'one')) == 20
  np.testing.assert_allclose(losses(tmp_path / 'two'), losses(tmp_path / 'one'), atol=1e-5)
  for split in ('train', 'validation'):
    assert printed.count(f'{split}  ') == len(losses(tmp_path / 'two', split))  # one speaks


def test_two_hosts_go_on_from_one_and_one_from_two(nodes, tmp_path):
  def steps(count):
    return ['--config.train.log_every_steps=1', f'--config.train.num_steps={count}']

  one_device = '--config.mesh.data_devices=1'
  alone(*steps(12), one_device, f'--workdir={tmp_path}/whole')
  on_two(nodes, *steps(6), f'--workdir={tmp_path}/to_one')
  alone(*steps(12), one_device, f'--workdir={tmp_path}/to_one')
  alone(*steps(6), one_device, f'--workdir={tmp_path}/to_two')
  on_two(nodes, *steps(12), f'--workdir={tmp_path}/to_two')
  for path in ('to_one', 'to_two'):
    np.testing.assert_allclose(losses(tmp_path / path), losses(tmp_path / 'whole'), atol=1e-5)


def test_a_job_comes_back_after_a_lost_node_and_ends_as_if_nothing_had_been(nodes, tmp_path):
  run = ['--config.train.num_steps=1200', '--config.checkpoint.every_steps=50']
  on_two(nodes, *run, f'--workdir={tmp_path}/undisturbed')
  job, log = start(nodes, tmp_path / 'disturbed', 10, *run)
  lost = nodes.names[1]
  nodes.kill_node(lost)
  time.sleep(20)
  nodes.start_node(lost)
  nodes.wait(lambda: nodes.state(job)[0] in ('COMPLETED', 'FAILED'), 400)
  assert nodes.state(job) == ('COMPLETED', 1), log.read_text()
  assert 'resuming at step' in log.read_text()
  assert_same_parameters(tmp_path / 'undisturbed', tmp_path / 'disturbed')


def test_a_job_that_nears_its_time_limit_saves_and_comes_back(nodes, tmp_path):
  run = ['--config.train.num_steps=600', '--config.train.log_every_steps=100']
  on_two(nodes, *run, f'--workdir={tmp_path}/undisturbed')
  job, log = start(nodes, tmp_path / 'limited', 3, *run)
  nodes.run('scancel', '--signal=USR1', job)  # as --signal=USR1@120 sends it: to srun's processes
  nodes.wait(lambda: nodes.state(job)[0] in ('COMPLETED', 'FAILED'), 400)
  assert nodes.state(job) == ('COMPLETED', 1), log.read_text()
  assert log.read_text().count('stopped and saved') == 1
  assert_same_parameters(tmp_path / 'undisturbed', tmp_path / 'limited')


def test_a_mistake_ends_the_job_with_one_message(nodes, tmp_path):
  log = tmp_path / 'log.txt'
  job = submit(
    nodes,
    'docs/clusters/train.sbatch',
    *SMALL,
    '--config.data.validation_split=nothing',
    f'--workdir={tmp_path}/mistaken',
    options=[f'--output={log}'],
  )
  nodes.wait(lambda: nodes.state(job)[0] in ('COMPLETED', 'FAILED'), 200)
  assert nodes.state(job) == ('FAILED', 0)
  assert log.read_text().count('launch.py: ') == 1, log.read_text()


def test_a_sweep_as_a_job_array_has_the_table_of_one_machine(nodes, tmp_path):
  what = [
    '--mode=sweep',
    '--sweep=configs/sweeps/ablations.py',
    *SMALL,
    '--config.train.num_epochs=2',
    '--only=no_dropout,tanh',
    '--seeds=0,1',
  ]
  launch = [sys.executable, 'launch.py']
  subprocess.run(
    [*launch, *what, f'--workdir={tmp_path}/one'],
    cwd=REPOSITORY,
    check=True,
    capture_output=True,
  )
  listed = subprocess.check_output(
    [*launch, *what, '--list', f'--workdir={tmp_path}/array'], cwd=REPOSITORY, text=True
  )
  runs = tmp_path / 'runs.txt'
  runs.write_text(listed)
  count = len(listed.splitlines())
  assert count == 6
  options = [f'--array=1-{count}', f'--output={tmp_path}/%a.txt', '--wait']
  submit(nodes, 'docs/clusters/sweep.sbatch', str(runs), options=options)
  subprocess.run(
    [*launch, '--mode=figures', f'--workdir={tmp_path}/array'],
    cwd=REPOSITORY,
    check=True,
    capture_output=True,
  )
  one, array = (tmp_path / folder / 'results.csv' for folder in ('one', 'array'))
  assert array.read_text() == one.read_text()
