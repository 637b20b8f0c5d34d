"""The environment that a process starts in: what glibc and XLA read from it, and its launcher."""

import contextlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_HUGE_PAGES = Path('/sys/kernel/mm/transparent_hugepage/enabled')

# Emulated devices wait for each other at most so many seconds (of 40) before XLA ends the process:
# on a loaded machine a large batch keeps one of them busy for longer.
_TIMEOUTS = {
  'xla_cpu_collective_call_warn_stuck_timeout_seconds': 600,
  'xla_cpu_collective_call_terminate_timeout_seconds': 3600,
}
# XLA ends the process for a flag that it does not know; which versions of jaxlib know these.
_KNOW_TIMEOUTS = {
  '0.7.2': False,
  '0.8.3': True,
  '0.9.2': True,
  '0.10.2': True,
  '0.11.2': True,
  '0.12.0.1': True,
}


def cache_folder() -> Path:
  """`$XDG_CACHE_HOME/alexnet_jax`, or `~/.cache/alexnet_jax`."""
  return Path(os.environ.get('XDG_CACHE_HOME') or Path('~/.cache').expanduser()) / 'alexnet_jax'


def knows_timeouts(jaxlib_version: str) -> bool:
  """Whether this version of XLA knows the flags of the timeouts.

  One that nobody has tried is asked once, in a process of its own, which takes 2 s; the answer
  is kept in the cache folder.
  """
  if jaxlib_version in _KNOW_TIMEOUTS:
    return _KNOW_TIMEOUTS[jaxlib_version]
  answer = cache_folder() / f'jaxlib-{jaxlib_version}-knows-timeouts'
  with contextlib.suppress(OSError):
    return answer.read_text() == 'yes'
  asking = subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices()'],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ' '.join(_flags(''))},
    capture_output=True,
  )
  with contextlib.suppress(OSError):
    answer.parent.mkdir(parents=True, exist_ok=True)
    answer.write_text('no' if asking.returncode else 'yes')
  return not asking.returncode


def _flags(given: str) -> list[str]:
  """Those of the timeouts that XLA_FLAGS does not have."""
  return [f'--{name}={value}' for name, value in _TIMEOUTS.items() if name not in given]


def additions(
  environment: Mapping[str, str], timeouts_are_known: bool, huge_pages: str
) -> dict[str, str]:
  """What to add to the environment of a process that trains; what the user set stands.

  glibc asks for huge pages only where it is told to: without them a training step of AlexNet at
  batch 128 has 400,000 page faults and takes 1.15 times as long (docs/performance.md).

  Args:
    environment: the process's.
    timeouts_are_known: as `knows_timeouts` says.
    huge_pages: what `/sys/kernel/mm/transparent_hugepage/enabled` says, '' where there is none.

  Returns:
    Variables and their new values.
  """
  added = {}
  given = environment.get('XLA_FLAGS', '')
  ours = _flags(given) if timeouts_are_known else []
  if ours:
    added['XLA_FLAGS'] = ' '.join([given, *ours]).strip()
  tunables = environment.get('GLIBC_TUNABLES', '')
  if '[madvise]' in huge_pages and 'glibc.malloc.hugetlb' not in tunables:
    added['GLIBC_TUNABLES'] = ':'.join(filter(None, [tunables, 'glibc.malloc.hugetlb=1']))
  return added


def launched(environment: Mapping[str, str]) -> int:
  """How many processes Slurm's srun or Open MPI's mpirun started this one as one of; 1 if neither.

  What a batch script runs without srun is alone, however many tasks its job has.

  Args:
    environment: the process's.
  """
  counts = (environment.get(name) for name in ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE'))
  alone = 'SLURM_STEP_NODELIST' not in environment and 'OMPI_COMM_WORLD_SIZE' not in environment
  return 1 if alone else max(int(count or 1) for count in counts)


def rank(environment: Mapping[str, str]) -> int:
  """Which of the processes of `launched` this one is, from 0."""
  return int(environment.get('OMPI_COMM_WORLD_RANK') or environment['SLURM_PROCID'])


def has_peers(environment: Mapping[str, str]) -> bool:
  """Whether jax is to look for other processes, which it finds by itself.

  Those of srun and mpirun; of an indexed Job or JobSet of Kubernetes, where the package
  `kubernetes` is installed; of Cloud TPU, where it is to be asked on a single host too.

  Args:
    environment: the process's.
  """
  pods = 'KUBERNETES_SERVICE_HOST' in environment and 'JOB_COMPLETION_INDEX' in environment
  chips = Path('/dev/accel0').exists() or Path('/dev/vfio/0').exists()
  return (
    launched(environment) > 1
    or (pods and importlib.util.find_spec('kubernetes') is not None)
    or (chips and importlib.util.find_spec('libtpu') is not None)
  )


def program() -> str:
  """How the program is called here: `alexnet` if it was started so, else as in a checkout."""
  return 'alexnet' if Path(sys.argv[0]).stem == 'alexnet' else 'python launch.py'


def program_name() -> str:
  """What its messages begin with: 'alexnet', or 'launch.py'."""
  return program().removeprefix('python ')


def prepare_process() -> None:
  """Sets what is missing, and starts the same command again where glibc must be told.

  Call it before anything else, from the file that the user started: the process that goes on has
  the same number and the same arguments.
  """
  huge_pages = _HUGE_PAGES.read_text() if _HUGE_PAGES.exists() else ''
  timeouts_are_known = knows_timeouts(importlib.metadata.version('jaxlib'))
  added = additions(os.environ, timeouts_are_known, huge_pages)
  os.environ.update(added)
  if 'GLIBC_TUNABLES' in added:
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
