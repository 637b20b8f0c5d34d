"""XLA's compile options for each platform, and its cache of compiled programs."""

import functools
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import jaxlib

from alexnet_jax.utils import host

PRECISIONS = ('float32', 'bfloat16')

# XLA's CPU backend can compute matrix products, reductions and convolutions with a library, YNNPACK.
# With its products and reductions and XLA's own (Eigen's) convolutions a training step takes half
# the time of the default, all three. The option is experimental: it was measured with these releases
# of jaxlib, the newest last (docs/performance.md, Versions of JAX), and tests/unit/test_xla.py
# compares the installed one's results with those of the default.
_FUSIONS = 'xla_cpu_experimental_ynn_fusion_type'
_NEWEST = 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'
_MEASURED = {
  '0.7': None,  # does not have the option
  '0.8': None,  # has it without the library: programs are the same
  '0.9': None,  # as 0.8
  '0.10': _NEWEST,
  '0.11': _NEWEST,
  '0.12': _NEWEST,
}


def _release() -> str:
  """Returns jaxlib's release, as '0.10'."""
  return '.'.join(jaxlib.version.__version__.split('.')[:2])


@functools.cache
def takes(**options: str) -> bool:
  """Whether this version of XLA accepts compile options: tried on an empty program, in 10 ms."""
  try:
    jax.jit(lambda: None, compiler_options=options).lower().compile()
  except jax.errors.JaxRuntimeError:  # an unknown name or value
    return False
  return True


def options(platform: str, library_fusions: bool = True) -> dict[str, str]:
  """Returns the fastest `jax.jit(compiler_options=...)` for a platform.

  A version of jaxlib that was not measured gets those of the newest that was, if it accepts them.

  Args:
    platform: the devices' platform, as `mesh.devices.flat[0].platform`.
    library_fusions: whether to choose what the CPU's library computes; if not, or if XLA_FLAGS
      chooses, XLA's defaults remain.
  """
  fusions = _MEASURED.get(_release(), _NEWEST)
  set_by_user = _FUSIONS in host.xla_flags(os.environ)
  if platform != 'cpu' or not library_fusions or fusions is None or set_by_user:
    return {}
  return {_FUSIONS: fusions} if takes(**{_FUSIONS: fusions}) else {}


def describe(platform: str, library_fusions: bool = True) -> str:
  """Describes `options` in a line, and whether they were chosen for this version of jaxlib."""
  chosen = ' '.join(f'{name}={value}' for name, value in options(platform, library_fusions).items())
  version = f'jaxlib {jaxlib.version.__version__}'
  if not chosen:
    return f'none for {platform} with {version}'
  if _release() in _MEASURED:
    return f'{chosen} (chosen for {version})'
  return f'{chosen} (as for {[*_MEASURED][-1]}: {version} was not measured)'


def ordered(platform: str) -> dict[str, str]:
  """Returns options with which `lax.optimization_barrier` also orders computation on CPUs.

  XLA's CPU backend removes barriers before it schedules, and so determines how much memory is
  needed; other platforms remove them afterward.
  """
  return {'xla_disable_hlo_passes': 'cse_barrier_expander'} if platform == 'cpu' else {}


def use_cache() -> None:
  """Caches compiled programs in `host.cache_folder()`, for the next process to load.

  A folder that JAX already has, from JAX_COMPILATION_CACHE_DIR, remains; without a writable folder
  there is no cache.
  """
  folder = host.cache_folder()
  known = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined, unused-ignore]
  if folder is None or known not in (None, str(folder)):
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  if os.access(folder, os.W_OK):
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
    # In a notebook the end of the command before has put back Python's own.
    if getattr(warnings.showwarning, 'func', None) is not _repair_cache:
      warnings.showwarning = functools.partial(_repair_cache, folder, warnings.showwarning)


def _repair_cache(
  folder: Path, show: Callable[..., None], message: object, *args: object, **kwargs: object
) -> None:
  """Deletes the damaged cache entry that a warning names; shows warnings that are not of the cache.

  JAX warns of damaged programs, but keeps them; once deleted they are written again.
  """
  damaged = re.match(r"Error reading persistent compilation cache entry for '(\w+)'", str(message))
  if damaged:
    for path in folder.glob(f'{damaged[1]}-*'):
      path.unlink(missing_ok=True)
  elif not str(message).startswith('Error writing persistent compilation cache'):
    show(message, *args, **kwargs)
