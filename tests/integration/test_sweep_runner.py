"""Running a sweep: in which order, how many at a time, what fails, what is stopped or killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alexnet_jax.checkpoints import workdir
from alexnet_jax.sweeps import runner, spec, sweep_file
from alexnet_jax.utils.errors import Stopped, UserError
from tests import sweeps
from tests.launching import ROOT, start
from tests.small import small_config

# Stands for launch.py: notes when it ran and on which cores, and leaves what a run leaves.
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
path = Path(next(a for a in sys.argv if a.startswith('--workdir=')).removeprefix('--workdir='))
root = path.parents[1]
behavior = root / 'behavior' / path.parent.name
say = behavior.read_text() if behavior.exists() else ''
(path / 'started').write_text(json.dumps([sorted(os.sched_getaffinity(0)), sys.argv[1:]]))
if say == 'fail':
  sys.exit('launch.py: the loss is nan at step 3')
if say == 'crash':
  print('Fatal: no memory', file=sys.stderr, flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
if say == 'long':
  def stop(*_):
    (path / 'saved').write_text('')
    os._exit(75)
  signal.signal(signal.SIGTERM, stop)
  (path / 'waiting').write_text('')
  while True:
    time.sleep(0.01)
if say == 'short':
  sys.exit(0)
with (root / 'order').open('a') as order:
  order.write(f'{path.parent.name}/{path.name}\\n')
record = {'step': 40, 'epoch': 4.0, 'loss': 1.0, 'top1_error': 0.5, 'top5_error': 0.1}
(path / 'metrics.jsonl').write_text(json.dumps({**record, 'split': 'validation'}) + '\\n')
(path / 'figures').mkdir(exist_ok=True)
(path / 'figures' / 'learning_curves.svg').touch()
"""


@pytest.fixture
def program(tmp_path):
  file = tmp_path / 'program.py'
  file.write_text(PROGRAM)
  return str(file)


def behave(path, **variants):
  (path / 'behavior').mkdir(parents=True, exist_ok=True)
  for variant, behavior in variants.items():
    (path / 'behavior' / variant).write_text(behavior)


def names(runs):
  return [run.name for run in runs]


def test_runs_go_in_the_plans_order(program, tmp_path, capsys):
  planned = sweeps.plan(tmp_path / 'sweep')
  assert runner.run_all(planned.runs, 1, program) == {}
  assert (tmp_path / 'sweep' / 'order').read_text().split() == names(planned.runs)
  said = capsys.readouterr().err
  assert 'tanh/seed1        top-1 error 50.00%' in said


def test_a_run_has_the_arguments_of_its_command_alone(program, tmp_path):
  planned = sweeps.plan(tmp_path / 'sweep')
  runner.run_all(planned.runs[:1], 1, program)
  started = (planned.runs[0].path / 'started').read_text()
  assert all(argument in started for argument in planned.runs[0].command)


def test_a_run_that_fails_is_told_and_the_others_go_on(program, tmp_path, capsys):
  planned = sweeps.plan(tmp_path / 'sweep')
  behave(tmp_path / 'sweep', no_overlap='fail', tanh='crash')
  failures = runner.run_all(planned.runs[:3], 1, program)
  failed = tmp_path / 'sweep' / 'no_overlap' / 'seed0'
  assert failures['no_overlap/seed0'] == (
    f'the loss is nan at step 3 (exit code 1; {failed / "log.txt"})'
  )
  assert failures['tanh/seed0'].startswith('Fatal: no memory (ended by signal SIGKILL;')
  assert (failed / 'failure.txt').read_text() == failures['no_overlap/seed0'] + '\n'
  assert 'no_overlap/seed0  failed: the loss is nan' in capsys.readouterr().err
  assert (tmp_path / 'sweep' / 'order').read_text().split() == ['base/seed0']


def test_a_run_that_ends_early_without_an_error_has_failed(program, tmp_path):
  planned = sweeps.plan(tmp_path / 'sweep')
  behave(tmp_path / 'sweep', base='short')
  failures = runner.run_all(planned.runs[:1], 1, program)
  assert 'nothing was printed (exit code 0;' in failures['base/seed0']


def test_a_failure_is_forgotten_when_the_run_succeeds(program, tmp_path):
  planned = sweeps.plan(tmp_path / 'sweep')
  behave(tmp_path / 'sweep', base='fail')
  runner.run_all(planned.runs[:1], 1, program)
  behave(tmp_path / 'sweep', base='')
  assert runner.run_all(planned.runs[:1], 1, program) == {}
  assert not (planned.runs[0].path / 'failure.txt').exists()


def test_only_what_is_missing_is_run(tmp_path):
  planned = sweeps.plan(tmp_path)
  sweeps.write_run(planned.runs[0], sweeps.lines([0.4] * 4))
  sweeps.write_run(planned.runs[1], sweeps.lines([0.4] * 3))  # cut off
  assert names(runner.missing(planned)) == names(planned.runs[1:])


def test_runs_of_another_config_are_all_listed(tmp_path):
  planned = sweeps.plan(tmp_path)
  other = small_config({'train.batch_size': 16})
  for run in planned.runs[:2]:
    sweeps.write_run(run, sweeps.lines([0.4] * 4), other)
  with pytest.raises(UserError) as error:
    runner.missing(planned)
  message = str(error.value)
  assert message.count('train.batch_size is 16 there and 64 in this config') == 2
  assert str(planned.runs[0].path) in message
  assert str(planned.runs[1].path) in message
  assert 'Remove their folders' in message


PREPARE = """
import sys
from pathlib import Path
with Path(sys.argv[0]).with_name('prepared').open('a') as file:
  file.write(' '.join(sys.argv[1:]) + '\\n')
sys.exit(Path(sys.argv[0]).with_name('broken').exists())
"""


def test_data_are_prepared_once_for_all_runs_that_share_them(tmp_path):
  program = tmp_path / 'program.py'
  program.write_text(PREPARE)
  other = spec.Variant('smaller', {'data.image_size': 9}, '')
  of = spec.Sweep('', [*sweeps.SWEEP.variants, other])
  runner.prepare_data(sweeps.plan(tmp_path, of).runs, str(program))
  assert not (tmp_path / 'prepared').exists()  # digits need none
  planned = sweeps.plan(tmp_path, of, {'data.name': 'folder'})
  runner.prepare_data(planned.runs, str(program))
  lines = (tmp_path / 'prepared').read_text().splitlines()
  assert len(lines) == 2
  assert all(line.startswith('--mode=prepare --config=configs/digits.py') for line in lines)
  assert '--config.data.image_size=9' in lines[1]
  (tmp_path / 'broken').touch()
  with pytest.raises(
    UserError, match=r'the data of base/seed0 could not be prepared; nothing was run'
  ):
    runner.prepare_data(planned.runs, str(program))


def test_cores_and_gpus_are_dealt_out():
  shares = runner.shares(2, [0, 1, 2, 3, 4], {'CUDA_VISIBLE_DEVICES': '4,5,6,7'})
  assert [share.cores for share in shares] == [{0, 2, 4}, {1, 3}]
  assert [dict(share.environment) for share in shares] == [
    {'CUDA_VISIBLE_DEVICES': '4,6'},
    {'CUDA_VISIBLE_DEVICES': '5,7'},
  ]


def test_where_there_are_fewer_than_runs_all_have_all():
  shares = runner.shares(3, [0, 1], {'CUDA_VISIBLE_DEVICES': '0'})
  assert [share.cores for share in shares] == [{0, 1}] * 3
  assert [share.environment['CUDA_VISIBLE_DEVICES'] for share in shares] == ['0'] * 3
  assert runner.shares(1, [], {}) == [runner.Share(frozenset(), {})]


NEEDS_TWO_CORES = pytest.mark.skipif(
  len(getattr(os, 'sched_getaffinity', lambda _: [])(0)) < 2, reason='needs two cores'
)


@NEEDS_TWO_CORES
def test_where_fewer_runs_are_left_than_jobs_they_have_all_cores(program, tmp_path):
  run = sweeps.plan(tmp_path / 'sweep').runs[0]
  runner.run_all([run], 2, program)
  assert (run.path / 'started').read_text().startswith(f'[{sorted(os.sched_getaffinity(0))}')


@NEEDS_TWO_CORES
def test_two_runs_at_a_time_have_different_cores_from_their_first_moment(
  program, tmp_path, monkeypatch
):
  class StartedLate(subprocess.Popen):
    """A process that has noted its cores before this one goes on."""

    def __init__(self, command, **options):
      super().__init__(command, **options)
      path = next(a for a in command if a.startswith('--workdir=')).removeprefix('--workdir=')
      wait_for((Path(path) / 'started').exists)

  monkeypatch.setattr(subprocess, 'Popen', StartedLate)
  planned = sweeps.plan(tmp_path / 'sweep')
  here = sorted(os.sched_getaffinity(0))
  runner.run_all(planned.runs[:2], 2, program)
  for i, run in enumerate(planned.runs[:2]):
    assert (run.path / 'started').read_text().startswith(f'[{here[i::2]}')
  assert sorted(os.sched_getaffinity(0)) == here


def wait_for(condition):
  for _ in range(20_000):
    if condition():
      return
    time.sleep(0.01)
  raise AssertionError('it did not happen')


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_the_runs_save(signum, program, tmp_path):
  planned = sweeps.plan(tmp_path / 'sweep')
  behave(tmp_path / 'sweep', base='long', no_overlap='long')
  waiting = [run.path / 'waiting' for run in planned.runs[:2]]

  def interrupt():
    wait_for(lambda: all(file.exists() for file in waiting))
    os.kill(os.getpid(), signum)

  thread = threading.Thread(target=interrupt)
  thread.start()
  with pytest.raises(Stopped) as stopped:
    runner.run_all(planned.runs, 2, program)
  thread.join()
  assert stopped.value.signum == signum
  assert all((run.path / 'saved').exists() for run in planned.runs[:2])
  assert not any((run.path / 'failure.txt').exists() for run in planned.runs)
  assert not planned.runs[2].path.exists()


def test_a_run_that_another_process_has_is_waited_for(program, tmp_path, capsys):
  planned = sweeps.plan(tmp_path / 'sweep')
  first = planned.runs[0]

  def finish_elsewhere():
    wait_for((planned.runs[1].path / 'metrics.jsonl').exists)
    sweeps.write_run(first, sweeps.lines([0.25] * 4))
    release.set()

  release = threading.Event()
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(first.path)], cwd=ROOT, stdin=subprocess.PIPE
  )
  wait_for(lambda: workdir.is_locked(first.path))
  thread = threading.Thread(target=finish_elsewhere)
  thread.start()
  ender = threading.Thread(target=lambda: (release.wait(), holder.communicate()))
  ender.start()
  runner.run_all(planned.runs[:2], 1, program)
  thread.join()
  ender.join()
  assert (tmp_path / 'sweep' / 'order').read_text().split() == [planned.runs[1].name]
  assert workdir.read_metrics(first.path)[-1]['top1_error'] == 0.25  # not run again
  assert (
    'base/seed0  another process is running it; it is left for later' in capsys.readouterr().err
  )


HOLD = """
import sys
from alexnet_jax.checkpoints import workdir
with workdir.lock(sys.argv[1]):
  sys.stdin.read()
"""


@pytest.mark.skipif(not Path('/usr/bin/setpriv').exists(), reason='needs setpriv')
def test_runs_save_and_end_when_the_sweep_is_killed(program, tmp_path):
  behave(tmp_path / 'sweep', base='long')
  run = sweeps.plan(tmp_path / 'sweep').runs[0]
  code = (
    'import sys; from pathlib import Path; from alexnet_jax.sweeps import runner;'
    'from tests import sweeps; plan = sweeps.plan(Path(sys.argv[1]));'
    'runner.run_all(plan.runs, 1, sys.argv[2])'
  )
  killed = subprocess.Popen(
    [sys.executable, '-c', code, str(tmp_path / 'sweep'), program], cwd=ROOT
  )
  wait_for((run.path / 'waiting').exists)
  killed.kill()
  killed.wait()
  wait_for((run.path / 'saved').exists)


def launch_sweep(path):
  return start(
    '--mode=sweep', '--sweep=configs/sweeps/ablations.py', f'--workdir={path}',
    '--config=configs/digits.py', '--config.train.num_epochs=3', '--config.mesh.column_devices=1',
    *(f'--config.model.{layer}.features=0' for layer in ('conv2', 'conv4', 'conv5', 'fc7')),
    '--only=no_dropout', '--jobs=2',
  )  # fmt: skip


@pytest.mark.slow
def test_a_sweep_killed_twice_ends_in_the_same_table(tmp_path):
  with launch_sweep(tmp_path / 'whole') as whole:
    _, err = whole.communicate()
  assert err.count('top-1 error') >= 2
  assert whole.returncode == 0
  cut = tmp_path / 'cut'
  for epoch in (1, 2):  # killed in the epoch after the first, and after the second
    with launch_sweep(cut) as killed:
      wait_for_lines(cut / 'base' / 'seed0' / 'metrics.jsonl', f'"epoch": {epoch}.')
      killed.kill()
      killed.communicate()  # returns once its runs have ended too
  with launch_sweep(cut) as rest:
    rest.communicate()
  assert rest.returncode == 0
  assert (cut / 'results.csv').read_bytes() == (tmp_path / 'whole/results.csv').read_bytes()
  assert sweep_file.read(cut)['runs']


def wait_for_lines(file, words):
  wait_for(lambda: file.exists() and words in file.read_text())
