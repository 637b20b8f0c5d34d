"""Where results come from is recorded: date, command, commit, versions, devices."""

import datetime
import os
import platform
import shutil
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from alexnet_jax.checkpoints import workdir
from alexnet_jax.utils import host, provenance
from tests import sweeps


def git(folder, *args):
  """Runs git without the settings of whoever runs the tests."""
  identity = ('-c', 'user.name=a', '-c', 'user.email=a@b')
  settings = {'GIT_CONFIG_GLOBAL': os.devnull, 'GIT_CONFIG_NOSYSTEM': '1'}
  command = ['git', '-C', folder, *identity, *args]
  subprocess.run(command, env=os.environ | settings, check=True, capture_output=True)


def test_a_process_is_described(monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['/a/launch.py', '--workdir=a b'])
  monkeypatch.setattr(host, 'owns_process', lambda: True)
  described = provenance.describe(jax.devices())
  assert described['command'] == f"python {os.path.relpath('/a/launch.py')} '--workdir=a b'"
  assert described['caller'] is None
  assert datetime.datetime.fromisoformat(described['date']).tzinfo == datetime.UTC
  assert described['versions']['jax'] == jax.__version__
  assert described['versions']['python'] == sys.version.split()[0]
  assert described['devices'].startswith(f'{jax.device_count()} cpu (')


@pytest.mark.parametrize(('machine', 'devices'), [('aarch64', '2 cpu (aarch64)'), ('', '2 cpu')])
def test_a_processor_without_a_name_has_its_architecture(monkeypatch, machine, devices):
  read_text = Path.read_text

  def read(path, *args, **kwargs):
    if path == Path('/proc/cpuinfo'):
      return 'processor : 0\nCPU part : 0xd0c\n'
    return read_text(path, *args, **kwargs)

  monkeypatch.setattr(Path, 'read_text', read)
  monkeypatch.setattr(platform, 'processor', str)
  monkeypatch.setattr(platform, 'machine', lambda: machine)
  assert provenance.describe(jax.devices()[:1] * 2)['devices'] == devices


def test_python_code_that_uses_the_library_is_named_and_its_arguments_are_no_command(monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['study.py', '--rate=3'])
  of_module = types.SimpleNamespace(name='pytest.__main__')
  for main, caller in (
    ({'__spec__': of_module, '__file__': '/a/pytest/__main__.py'}, 'python -m pytest'),
    ({'__spec__': None, '__file__': '/home/b/study.py'}, 'study.py'),
    ({'__spec__': None}, 'the Python prompt'),
  ):
    monkeypatch.setitem(sys.modules, '__main__', types.SimpleNamespace(**main))
    assert provenance.started_by() == {'command': None, 'caller': caller}
  monkeypatch.setattr(sys, 'argv', ['-c'])
  assert provenance.started_by()['caller'] == 'python -c'
  shell = types.SimpleNamespace(get_ipython=object)
  monkeypatch.setitem(sys.modules, 'IPython', shell)
  assert provenance.started_by()['caller'] == 'IPython or a notebook'


@pytest.mark.skipif(shutil.which('git') is None, reason='git is not installed')
def test_the_commit_is_that_of_the_programs_own_checkout(tmp_path, monkeypatch):
  for name in [name for name in os.environ if name.startswith('GIT_')]:  # as in a hook of git's
    monkeypatch.delenv(name)
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
  first, second = sweeps.start(commit=None), sweeps.start(step=5)
  workdir.record_start(tmp_path, first)
  with (tmp_path / workdir.STARTS).open('a') as file:
    file.write('{"step": \n[]\n')
  for damage in ({'date': 'today'}, {'step': '5'}, {'versions': ['1']}, {'devices': None}):
    workdir.record_start(tmp_path, sweeps.start(**damage))
  with (tmp_path / workdir.STARTS).open('a') as file:
    file.write('{"step": 5, "da')  # the process was killed
  workdir.record_start(tmp_path, second)
  assert workdir.read_starts(tmp_path) == [first, second]


def test_starts_from_which_nothing_is_left_are_not_told(tmp_path):
  """The second began again at the first's step; the fourth went on from before the third."""
  starts = [sweeps.start(step=step) for step in (0, 0, 50, 20)]
  for start in starts:
    workdir.record_start(tmp_path, start)
  assert workdir.read_starts(tmp_path) == [starts[1], starts[3]]
