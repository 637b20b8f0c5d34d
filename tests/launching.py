"""launch.py as a user runs it."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import jax

ROOT = Path(__file__).parents[1]

# What launch.py imports in its modes; no module of them starts a thread.
_IMPORTED = (
  'alexnet_jax.cli',
  'alexnet_jax.reports.plot_run',
  'alexnet_jax.reports.run_page',
  'alexnet_jax.sweeps.report',
  'alexnet_jax.training.loop',
  'sklearn.datasets',
)


def _environment():
  """A shell's, with the tests' cache, and their XLA_FLAGS, with which programs compile quickly.

  With what the program would start itself anew for.
  """
  environment = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
  seconds = jax.config.jax_persistent_cache_min_compile_time_secs
  return environment | {
    'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': str(seconds),
    'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
  }


@contextlib.contextmanager
def start(*args, **environment):
  """Starts launch.py in a process of its own, as a shell would, with these variables too.

  What still runs at the end, as where a test fails, is killed.
  """
  with subprocess.Popen(
    [sys.executable, 'launch.py', *map(str, args)],
    cwd=ROOT,
    env=_environment() | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      yield process
    finally:
      process.kill()


def launch(*args):
  """Exit code, stdout and stderr.

  The process is the copy of one that has imported the program, which saves each its seconds.
  """
  return _in_a_copy(_run, args)


def parse(*args):
  """What `launch` returns, of a command whose flags are parsed and checked, and no more."""
  return _in_a_copy(_parse, args)


def seeds_of(*commands):
  """What `launch` returns, of commands that one process parses in turn, as a notebook's does.

  Prints the seed of each one's config.
  """
  return _in_a_copy(_print_seeds, ['\n'.join(map(str, command)) for command in commands])


def _in_a_copy(function, args):
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload([*_IMPORTED])
  settled = _environment()
  with mock.patch.dict(os.environ, settled, clear=True):
    multiprocessing.forkserver.ensure_running()
  with tempfile.TemporaryDirectory() as folder:
    out, err = Path(folder, 'out'), Path(folder, 'err')
    arguments = (settled, out, err, [*map(str, args)])
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join(300)
    assert process.exitcode is not None
    return process.exitcode, out.read_text(), err.read_text()


def _run(environment, out, err, args):
  from alexnet_jax import cli

  _set_up(environment, out, err, args)
  cli.command()


def _parse(environment, out, err, args):
  from alexnet_jax import cli

  _set_up(environment, out, err, args)
  _, *rest = cli._parse(sys.argv)
  assert not rest
  cli._check_flags(cli._MODE.value)


def _print_seeds(environment, out, err, commands):
  from alexnet_jax import cli

  _set_up(environment, out, err, [])
  for command in commands:
    cli._parse(['launch.py', *command.split('\n')])
    config, _ = cli._config_and_workdir()
    print(config.train.seed, flush=True)


def _set_up(environment, out, err, args):
  from alexnet_jax import cli

  sys.modules['__main__'].command = cli.command  # as launch.py has it, which owns its process
  os.environ.clear()
  os.environ.update(environment)
  sys.path[:0] = filter(None, environment.get('PYTHONPATH', '').split(os.pathsep))
  os.chdir(ROOT)
  for descriptor, path in ((1, out), (2, err)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
  sys.argv = ['launch.py', *args]


def without_tensorflow(folder):
  """A folder for PYTHONPATH, with which importing TensorFlow ends the program."""
  folder.mkdir()
  (folder / 'tensorflow.py').write_text('raise SystemExit("TensorFlow was imported")')
  return str(folder)


def assert_message(result, code, *words):
  """One or two lines on stderr, no traceback, and these words in them."""
  returncode, _, err = result
  assert returncode == code
  assert 1 <= len(err.strip().splitlines()) <= 2, err
  assert err.startswith('launch.py: ')
  for word in words:
    assert word in err
