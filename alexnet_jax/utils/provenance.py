"""Where results come from: command, date, commit, versions, devices."""

import contextlib
import datetime
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_jax.utils import host

_PACKAGES = ('alexnet_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def describe(devices: Sequence[Any]) -> dict[str, Any]:
  """Describes this process.

  Args:
    devices: of jax, on which it computes.

  Returns:
    Values for JSON: 'date', in UTC; 'command' and 'caller', as `started_by`; 'commit' of the program's
    checkout, with '-dirty' where files differ from it, None without a checkout; 'versions' of Python
    and packages; and 'devices', as '2 cpu (AMD EPYC)'.
  """
  versions = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
      continue
  kind = devices[0].device_kind
  if devices[0].platform == 'cpu':
    kind = f'cpu ({name})' if (name := processor()) else 'cpu'
  return {
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    **started_by(),
    'commit': _commit(),
    'versions': versions,
    'devices': f'{len(devices)} {kind}',
  }


def started_by() -> dict[str, str | None]:
  """Says what started this process's work.

  Returns:
    'command', as a shell has it, None where Python code uses the library; and 'caller', which code
    that is, as `host.caller` says. The command line of that code is not a command of this program.
  """
  caller = host.caller()
  command = host.command(*sys.argv[1:]) if caller is None else None
  return {'command': command, 'caller': caller}


def _commit() -> str | None:
  package = Path(__file__).parents[1]
  try:
    # Not of another repository, in which an environment with the installed package lies.
    for arguments in (
      ('ls-files', '--error-unmatch', '__init__.py'),
      ('describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'),
    ):
      done = subprocess.run(
        ['git', '-C', package, *arguments], capture_output=True, text=True, check=True, timeout=10
      )
  except (OSError, subprocess.SubprocessError):
    return None
  return done.stdout.strip()


def processor() -> str:
  """The processor's name, or else its architecture; '' where the system tells neither."""
  lines: list[str] = []
  with contextlib.suppress(OSError):
    lines = Path('/proc/cpuinfo').read_text('utf-8', 'replace').splitlines()
  names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
  if names:
    return f'{names[0]}, {len(names)} threads'
  return platform.processor() or platform.machine()
