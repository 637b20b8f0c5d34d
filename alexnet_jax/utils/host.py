"""A process's environment: variables that glibc and XLA read, its launcher, its cache folder."""

import contextlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from alexnet_jax.utils import shell
from alexnet_jax.utils.errors import UserError

_HUGE_PAGES = Path('/sys/kernel/mm/transparent_hugepage/enabled')

# Seconds for which emulated devices wait for each other before XLA warns, and ends the process (its
# default is 40): on a loaded machine a large batch takes one of them longer.
_TIMEOUTS = {
  'xla_cpu_collective_call_warn_stuck_timeout_seconds': 600,
  'xla_cpu_collective_call_terminate_timeout_seconds': 3600,
}
# Whether a version of jaxlib knows these flags; XLA ends the process at an unknown one.
_KNOW_TIMEOUTS = {
  '0.7.2': False,
  '0.8.3': True,
  '0.9.2': True,
  '0.10.2': True,
  '0.11.2': True,
  '0.12.0.1': True,
}


def cache_folder() -> Path | None:
  """Returns `$XDG_CACHE_HOME/alexnet_jax`, or `~/.cache/alexnet_jax`; None where there is no home."""
  if cache := os.environ.get('XDG_CACHE_HOME'):
    return Path(cache) / 'alexnet_jax'
  try:
    return Path.home() / '.cache' / 'alexnet_jax'
  except RuntimeError:  # HOME is not set, and this user has none, as in some containers
    return None


def knows_timeouts(jaxlib_version: str) -> bool:
  """Whether this version of XLA knows the timeouts' flags.

  An untested version is tried once, in a separate process, which takes 2 s; the result is stored in
  the cache folder, if there is one.
  """
  if jaxlib_version in _KNOW_TIMEOUTS:
    return _KNOW_TIMEOUTS[jaxlib_version]
  cache = cache_folder()
  answer = cache and cache / f'jaxlib-{jaxlib_version}-knows-timeouts'
  if answer:
    with contextlib.suppress(OSError):
      return answer.read_text(encoding='utf-8') == 'yes'
  trial = subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices()'],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ' '.join(_flags(''))},
    capture_output=True,
  )
  if answer:
    with contextlib.suppress(OSError):
      answer.parent.mkdir(parents=True, exist_ok=True)
      answer.write_text('no' if trial.returncode else 'yes', encoding='utf-8')
  return not trial.returncode


def _flags(given: str) -> list[str]:
  """The timeouts' flags that these do not set."""
  return [f'--{name}={value}' for name, value in _TIMEOUTS.items() if name not in given]


def xla_flags(environment: Mapping[str, str]) -> str:
  """Returns XLA's flags, of XLA_FLAGS or of the file that it names.

  As XLA has it, what does not begin with a hyphen is a file's name.

  Args:
    environment: the process's environment.

  Raises:
    UserError: there is no such file.
  """
  value = environment.get('XLA_FLAGS', '').strip()
  if not value or value.startswith('-'):
    return value
  try:
    return Path(value).read_text(encoding='utf-8').strip()
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise UserError(
      f'XLA_FLAGS is {value}, a file that cannot be read: {reason}; a flag begins with --'
    ) from error


def additions(
  environment: Mapping[str, str], timeouts_are_known: bool, huge_pages: str
) -> dict[str, str]:
  """Returns variables to add to a training process's environment; the user's settings remain.

  glibc requests huge pages only if it is told to: without them a training step of AlexNet at
  batch 128 has 400,000 page faults and takes 1.15 times as long (docs/performance.md).

  Args:
    environment: the process's environment.
    timeouts_are_known: the result of `knows_timeouts`.
    huge_pages: content of `/sys/kernel/mm/transparent_hugepage/enabled`, '' if there is none.

  Returns:
    Variables and their new values.

  Raises:
    UserError: as `xla_flags`.
  """
  added = {}
  given = xla_flags(environment)
  if timeouts_are_known and (missing := _flags(given)):
    added['XLA_FLAGS'] = ' '.join([given, *missing]).strip()
  tunables = environment.get('GLIBC_TUNABLES', '')
  if '[madvise]' in huge_pages and 'glibc.malloc.hugetlb' not in tunables:
    added['GLIBC_TUNABLES'] = ':'.join(filter(None, [tunables, 'glibc.malloc.hugetlb=1']))
  return added


def launched(environment: Mapping[str, str]) -> int:
  """Returns how many processes Slurm's srun or Open MPI's mpirun started; 1 without them.

  A process that a batch script starts without srun is a single one, however many tasks its job has.

  Args:
    environment: the process's environment.
  """
  counts = (environment.get(name) for name in ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE'))
  alone = 'SLURM_STEP_NODELIST' not in environment and 'OMPI_COMM_WORLD_SIZE' not in environment
  return 1 if alone else max(int(count or 1) for count in counts)


def rank(environment: Mapping[str, str]) -> int:
  """Returns this process's number among those of `launched`, from 0."""
  return int(environment.get('OMPI_COMM_WORLD_RANK') or environment['SLURM_PROCID'])


def has_peers(environment: Mapping[str, str]) -> bool:
  """Whether JAX should look for other processes, which it finds by itself.

  They are those of srun and mpirun; of an indexed Job or JobSet of Kubernetes, if the package
  `kubernetes` is installed; of Cloud TPU, where JAX must look on a single host too.

  Args:
    environment: the process's environment.
  """
  pods = 'KUBERNETES_SERVICE_HOST' in environment and 'JOB_COMPLETION_INDEX' in environment
  chips = Path('/dev/accel0').exists() or Path('/dev/vfio/0').exists()
  return (
    launched(environment) > 1
    or (pods and importlib.util.find_spec('kubernetes') is not None)
    or (chips and importlib.util.find_spec('libtpu') is not None)
  )


def program() -> str:
  """Returns the command that runs the program, from this folder: `alexnet` if it was started so."""
  started = Path(sys.argv[0])
  if started.stem == 'alexnet':
    return 'alexnet'
  launch = os.path.relpath(started) if started.name == 'launch.py' else 'launch.py'
  return f'python {shell.quote(launch)}'


def command(*arguments: str) -> str:
  """Returns a command line of the program, quoted for a shell."""
  return f'{program()} {shell.join(arguments)}'


def program_name() -> str:
  """Returns the prefix of the program's messages: 'alexnet' or 'launch.py'."""
  return 'alexnet' if program() == 'alexnet' else 'launch.py'


def extra(name: str) -> str:
  """What `pip install` is given for this package with an extra: from the checkout, if it is one."""
  is_checkout = (Path(__file__).parents[2] / 'pyproject.toml').exists()
  return f'-e ".[{name}]"' if is_checkout else f'"alexnet_jax[{name}]"'


def in_ipython() -> bool:
  """Whether this code runs in IPython: a notebook's kernel, or its shell in a terminal."""
  ipython = sys.modules.get('IPython')
  return ipython is not None and ipython.get_ipython() is not None


def is_main_program() -> bool:
  """Whether the file that Python was started with is what runs, so that it may be started again.

  It is not under IPython's %run, nor where another program's file runs this one.
  """
  path = getattr(sys.modules['__main__'], '__file__', None)
  if path is None or in_ipython():
    return False
  return any(os.path.realpath(path) == os.path.realpath(given) for given in sys.orig_argv[1:])


def owns_process() -> bool:
  """Whether this process was started as this program, launch.py or alexnet.

  Of any other process that uses the library, or runs launch.py within its own, nothing is changed.
  """
  main = sys.modules['__main__']
  command = getattr(main, 'command', None)  # what launch.py and alexnet import
  if getattr(command, '__module__', None) != 'alexnet_jax.cli' or in_ipython():
    return False
  return not hasattr(main, '__file__') or is_main_program()  # python -c has no file


def caller() -> str | None:
  """Returns what uses the library in this process; None where it is this program (`owns_process`).

  Returns:
    'IPython or a notebook', 'python -m MODULE', the name of a Python file, 'python -c', or 'the Python
    prompt'.
  """
  if owns_process():
    return None
  if in_ipython():
    return 'IPython or a notebook'
  main = sys.modules['__main__']
  if (spec := getattr(main, '__spec__', None)) is not None:
    return f'python -m {spec.name.removesuffix(".__main__")}'
  if (path := getattr(main, '__file__', None)) is not None:
    return Path(path).name
  return 'python -c' if sys.argv[0] == '-c' else 'the Python prompt'


def prepare_process() -> None:
  """Adds missing environment variables, and restarts the command if glibc must read one.

  Call it first, from the file that the user started: the restarted process has the same process
  number and arguments. Where that file is not the process's own (`is_main_program`), nothing is
  restarted.
  """
  huge_pages = _HUGE_PAGES.read_text(encoding='utf-8') if _HUGE_PAGES.exists() else ''
  timeouts_are_known = knows_timeouts(importlib.metadata.version('jaxlib'))
  may_restart = is_main_program()
  added = additions(os.environ, timeouts_are_known, huge_pages if may_restart else '')
  os.environ.update(added)
  if 'GLIBC_TUNABLES' in added:
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
