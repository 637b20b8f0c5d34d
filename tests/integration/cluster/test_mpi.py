"""What docs/clusters.md says of Open MPI, by two processes on this machine; skipped where there is none."""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from alexnet_jax.checkpoints import checkpoint, workdir
from tests.integration.cluster.runs import REPOSITORY, SMALL, alone, losses


def version():
  """Open MPI's major version; 0 where it is not installed."""
  if shutil.which('mpirun') is None:
    return 0
  said = subprocess.check_output(['mpirun', '--version'], text=True)
  return int(said.split('Open MPI) ')[1].split('.')[0]) if 'Open MPI)' in said else 0


pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not version(), reason='no Open MPI installed (Debian: openmpi-bin)'),
]
needs_4 = pytest.mark.skipif(version() > 4, reason='for Open MPI 4')


@contextlib.contextmanager
def on_two(*arguments, options=()):
  """Two processes of the program under mpirun, which at the end is ended and ends them."""
  mpirun = ['mpirun', '--allow-run-as-root', '--oversubscribe', *options, '-n', '2']
  with subprocess.Popen(
    [*mpirun, sys.executable, 'launch.py', *SMALL, *arguments],
    cwd=REPOSITORY,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as two:
    try:
      yield two
    finally:
      two.terminate()


def address():
  """--coordinator, of a port that is free."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return f'--coordinator=127.0.0.1:{free.getsockname()[1]}'


@pytest.mark.parametrize('told', [pytest.param(False, marks=needs_4), True])
def test_two_processes_have_the_losses_of_one_with_two_devices(tmp_path, told):
  steps = ['--config.train.num_steps=20', '--config.train.log_every_steps=1']
  with on_two(*steps, f'--workdir={tmp_path}/two', *([address()] if told else [])) as two:
    printed, _ = two.communicate(timeout=240)
  assert two.returncode == 0, printed
  alone(*steps, '--config.mesh.data_devices=2', f'--workdir={tmp_path}/one')
  assert len(losses(tmp_path / 'one')) == 20
  np.testing.assert_allclose(losses(tmp_path / 'two'), losses(tmp_path / 'one'), atol=1e-5)
  for split in ('train', 'validation'):
    assert printed.count(f'{split}  ') == len(losses(tmp_path / 'two', split))  # one speaks


@pytest.mark.parametrize(
  ('signum', 'options', 'code'),
  [
    (signal.SIGUSR1, (), 75),
    # mpirun's own code, after so many seconds; without the option it kills them after one.
    pytest.param(signal.SIGTERM, ('--mca', 'odls_base_sigkill_timeout', '20'), 1, marks=needs_4),
  ],
)
def test_mpirun_hands_a_signal_on_and_the_run_is_saved(tmp_path, signum, options, code):
  path = tmp_path / 'run'
  endless = ['--config.train.num_epochs=1000', '--config.train.log_every_steps=1']
  with on_two(*endless, f'--workdir={path}', address(), options=options) as two:
    deadline = time.monotonic() + 200
    while not workdir.last_epoch(path) > 1:
      assert two.poll() is None, two.stdout.read()
      assert time.monotonic() < deadline
      time.sleep(0.1)
    two.send_signal(signum)
    printed, _ = two.communicate(timeout=60)
  assert two.returncode == code, printed
  assert printed.count('stopped and saved') == 1
  step = checkpoint.steps(path / 'checkpoints')[-1]
  assert workdir.read_metrics(path)[-1]['step'] == step
  assert f'resuming at step {step} ' in alone(
    f'--workdir={path}', f'--config.train.num_steps={step + 2}'
  )


@pytest.mark.skipif(version() == 4, reason='for Open MPI 5')
def test_where_mpirun_does_not_name_the_first_it_is_asked_for(tmp_path):
  with on_two(f'--workdir={tmp_path}') as two:
    printed, _ = two.communicate(timeout=60)
  assert two.returncode == 1
  assert 'the address of the first: --coordinator=HOST:PORT' in printed
