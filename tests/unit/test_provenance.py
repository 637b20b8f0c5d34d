"""Where results come from is recorded: date, command, commit, versions, devices."""

import datetime
import shutil
import subprocess
import sys

import jax
import pytest

from alexnet_jax.checkpoints import workdir
from alexnet_jax.utils import host, provenance


def git(folder, *args):
  identity = ('-c', 'user.name=a', '-c', 'user.email=a@b')
  subprocess.run(['git', '-C', folder, *identity, *args], check=True, capture_output=True)


def test_a_process_is_described(monkeypatch):
  assert provenance.describe(jax.devices())['command'] is None  # pytest's own
  monkeypatch.setattr(sys, 'argv', ['/a/launch.py', '--workdir=a b'])
  monkeypatch.setattr(host, 'owns_process', lambda: True)
  described = provenance.describe(jax.devices())
  assert described['command'] == "python launch.py '--workdir=a b'"
  age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(described['date'])
  assert datetime.timedelta() <= age < datetime.timedelta(minutes=1)
  assert described['versions']['jax'] == jax.__version__
  assert described['versions']['python'] == sys.version.split()[0]
  assert described['devices'].startswith(f'{jax.device_count()} cpu (')


@pytest.mark.skipif(shutil.which('git') is None, reason='git is not installed')
def test_the_commit_is_that_of_the_programs_own_checkout(tmp_path, monkeypatch):
  package = tmp_path / 'repository' / 'alexnet_jax'
  (package / 'utils').mkdir(parents=True)
  monkeypatch.setattr(provenance, '__file__', str(package / 'utils' / 'provenance.py'))
  assert provenance._commit() is None  # no repository
  file = package / '__init__.py'
  file.touch()
  git(package, 'init')
  assert provenance._commit() is None  # another's, which does not have the package
  git(package, 'add', '.')
  git(package, 'commit', '-m', 'a')
  clean = provenance._commit()
  assert len(clean) == 40
  assert int(clean, 16)
  file.write_text('changed')
  assert provenance._commit() == f'{clean}-dirty'
  monkeypatch.setenv('PATH', '')
  assert provenance._commit() is None  # without git


def test_each_start_of_a_run_is_kept_and_a_damaged_line_passed_over(tmp_path):
  assert workdir.read_starts(tmp_path) == []
  first, second = {'step': 0, 'commit': None}, {'step': 5, 'commit': 'a'}
  workdir.record_start(tmp_path, first)
  with (tmp_path / workdir.STARTS).open('a') as file:
    file.write('{"step": \n[]\n')
  workdir.record_start(tmp_path, second)
  assert workdir.read_starts(tmp_path) == [first, second]
