"""launch.py as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]


def start(*args):
  """Starts launch.py as a shell would, without the test run's own settings of jax."""
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
  # The test run's cache, not the user's.
  environment['JAX_COMPILATION_CACHE_DIR'] = jax.config.jax_compilation_cache_dir
  return subprocess.Popen(
    [sys.executable, 'launch.py', *map(str, args)],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def launch(*args):
  """Exit code, stdout and stderr."""
  process = start(*args)
  out, err = process.communicate(timeout=300)
  return process.returncode, out, err


def assert_message(result, code, *words):
  """One or two lines on stderr, no traceback, and these words in them."""
  returncode, _, err = result
  assert returncode == code
  assert 1 <= len(err.strip().splitlines()) <= 2, err
  assert err.startswith('launch.py: ')
  for word in words:
    assert word in err
