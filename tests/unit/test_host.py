"""What the program adds to the environment, and that it starts again with it only once."""

import os
import subprocess
import sys
import types

import jaxlib
import pytest

from alexnet_jax.utils import host
from alexnet_jax.utils.errors import UserError

MADVISE = 'always [madvise] never'


def test_huge_pages_are_asked_of_glibc_where_the_system_waits_to_be_asked():
  assert host.additions({}, False, MADVISE) == {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}
  given = {'GLIBC_TUNABLES': 'glibc.malloc.check=0'}
  added = host.additions(given, False, MADVISE)
  assert added == {'GLIBC_TUNABLES': 'glibc.malloc.check=0:glibc.malloc.hugetlb=1'}


@pytest.mark.parametrize('huge_pages', ['[always] madvise never', 'always madvise [never]', ''])
def test_huge_pages_are_left_alone_where_asking_changes_nothing(huge_pages):
  assert host.additions({}, False, huge_pages) == {}


def test_what_the_user_set_stands():
  flags = '--xla_cpu_collective_call_terminate_timeout_seconds=7'
  given = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=0', 'XLA_FLAGS': flags}
  added = host.additions(given, True, MADVISE)
  assert added == {'XLA_FLAGS': f'{flags} --xla_cpu_collective_call_warn_stuck_timeout_seconds=600'}


def test_a_version_of_xla_that_does_not_know_the_flags_gets_none():
  assert host.additions({'XLA_FLAGS': '--xla_dump_to=x'}, False, '') == {}


def test_a_version_of_xla_that_was_not_tried_is_asked_once(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setenv(
    'XLA_FLAGS', '--xla_no_such_flag=1'
  )  # the user's own, of which it is not asked
  known = host.knows_timeouts('0.99')
  installed = '.'.join(jaxlib.version.__version__.split('.')[:2])
  assert known == (installed != '0.7')
  monkeypatch.setattr(subprocess, 'run', None)
  assert host.knows_timeouts('0.99') == known


def test_an_unknown_flag_is_found_out(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(host, '_TIMEOUTS', {'xla_no_such_flag': 1})
  assert not host.knows_timeouts('0.99')


@pytest.mark.parametrize(
  ('started', 'command'),
  [
    ('launch.py', 'python launch.py --list'),
    ('../a clone/launch.py', "python '../a clone/launch.py' --list"),
    ('/usr/bin/alexnet', 'alexnet --list'),
    ('/usr/bin/pytest', 'python launch.py --list'),
  ],
)
def test_a_command_runs_from_this_folder(monkeypatch, started, command):
  monkeypatch.setattr(sys, 'argv', [started])
  assert host.command('--list') == command
  assert host.program_name() in ('launch.py', 'alexnet')


def test_flags_of_xla_may_be_in_a_file(tmp_path):
  file = tmp_path / 'flags'
  file.write_text('--xla_a=1\n--xla_b="2 3"\n')
  given = {'XLA_FLAGS': f' {file}'}
  assert host.xla_flags(given) == '--xla_a=1\n--xla_b="2 3"'
  assert host.additions(given, False, '') == {}
  assert host.additions(given, True, '')['XLA_FLAGS'].startswith(
    '--xla_a=1\n--xla_b="2 3" --xla_cpu'
  )
  assert host.xla_flags({'XLA_FLAGS': ' --xla_c=/a '}) == '--xla_c=/a'
  assert host.xla_flags({}) == ''
  for path in (tmp_path / 'none', tmp_path):
    with pytest.raises(
      UserError, match=r'XLA_FLAGS is .*, a file that cannot be read: .*begins with --'
    ):
      host.xla_flags({'XLA_FLAGS': str(path)})


def test_without_a_home_folder_there_is_no_cache(monkeypatch):
  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  monkeypatch.setattr(os, 'getuid', lambda: 2**31 - 5)  # of no passwd entry
  assert host.cache_folder() is None
  monkeypatch.setattr(subprocess, 'run', lambda *_, **__: types.SimpleNamespace(returncode=1))
  assert not host.knows_timeouts('0.99')


def test_ipython_is_noticed(monkeypatch):
  monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(get_ipython=lambda: None))
  assert not host.in_ipython()
  shell = types.SimpleNamespace(get_ipython=object)
  monkeypatch.setitem(sys.modules, 'IPython', shell)
  assert host.in_ipython()
  assert not host.is_main_program()


def test_a_process_is_the_program_s_where_its_main_file_is_the_command_s(monkeypatch):
  assert not host.owns_process()  # pytest's
  from alexnet_jax.cli import command

  monkeypatch.setitem(sys.modules, '__main__', types.SimpleNamespace(command=command))
  assert host.owns_process()
  other = types.SimpleNamespace(command=command, __file__='launch.py')  # by runpy.run_path
  monkeypatch.setitem(sys.modules, '__main__', other)
  assert not host.owns_process()
  monkeypatch.setattr(sys, 'orig_argv', ['python', 'launch.py'])
  assert host.owns_process()
  shell = types.SimpleNamespace(get_ipython=object)
  monkeypatch.setitem(sys.modules, 'IPython', shell)
  assert not host.owns_process()


def test_the_program_does_not_start_another_program_again(tmp_path):
  other, script = tmp_path / 'other.py', tmp_path / 'program.py'
  other.write_text(
    'import runpy\nprint("other", flush=True)\n'
    f'runpy.run_path({str(script)!r}, run_name="__main__")\nprint("goes on")\n'
  )
  script.write_text(
    'import os\n'
    'from pathlib import Path\n'
    'from alexnet_jax.utils import host\n'
    f'host._HUGE_PAGES = Path({str(tmp_path / "enabled")!r})\n'
    'host.prepare_process()\n'
    'print("GLIBC_TUNABLES" in os.environ, flush=True)\n'
  )
  (tmp_path / 'enabled').write_text(MADVISE)
  environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'}
  done = subprocess.run(
    [sys.executable, str(other)], env=environment, capture_output=True, text=True, check=True
  )
  assert done.stdout.splitlines() == ['other', 'False', 'goes on']


def test_the_program_starts_again_once_with_the_same_arguments(tmp_path):
  script = tmp_path / 'program.py'
  script.write_text(
    'import os, sys\n'
    'from pathlib import Path\n'
    'from alexnet_jax.utils import host\n'
    f'host._HUGE_PAGES = Path({str(tmp_path / "enabled")!r})\n'
    'print("started", flush=True)\n'
    'host.prepare_process()\n'
    'print(sys.argv[1:], os.environ["GLIBC_TUNABLES"], sys.flags.isolated)\n'
  )
  (tmp_path / 'enabled').write_text(MADVISE)
  environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'}
  done = subprocess.run(
    [sys.executable, '-I', str(script), '--a', 'b c'],
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.splitlines() == [
    'started',
    'started',
    "['--a', 'b c'] glibc.malloc.hugetlb=1 1",
  ]
