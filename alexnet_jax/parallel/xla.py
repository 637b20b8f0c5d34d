"""How XLA compiles: its options for each platform, and the cache of what it has compiled."""

import functools
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxlib

from alexnet_jax.utils import host

PRECISIONS = ('float32', 'bfloat16')

# XLA's CPU backend can hand matrix products, reductions and convolutions to a library, YNNPACK.
# With its products and reductions and XLA's own (Eigen's) convolutions a training step takes half
# of the time that the default, all three, takes. The option is experimental: it was measured under
# these releases of jaxlib, the newest last (docs/performance.md, Versions of JAX), and
# tests/test_compilation.py compares the values of the installed one with the plain ones.
_FUSIONS = 'xla_cpu_experimental_ynn_fusion_type'
_NEWEST = 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE'
_MEASURED = {
  '0.7': None,  # has no such option
  '0.8': None,  # has it, without the library: the programs are the same
  '0.9': None,  # as 0.8
  '0.10': _NEWEST,
  '0.11': _NEWEST,
  '0.12': _NEWEST,
}


def _release() -> str:
  """jaxlib's, as '0.10'."""
  return '.'.join(jaxlib.version.__version__.split('.')[:2])


@functools.cache
def takes(**options: str) -> bool:
  """Whether this version of XLA has such compile options: tried on an empty program, in 10 ms."""
  try:
    jax.jit(lambda: None, compiler_options=options).lower().compile()
  except jax.errors.JaxRuntimeError:  # which an unknown name or value is
    return False
  return True


def options(platform: str, library_fusions: bool = True) -> dict[str, str]:
  """Options of `jax.jit(compiler_options=...)` with which a program for a platform is fast.

  A version of jaxlib that was not measured has what is best for the newest that was, where it takes
  it.

  Args:
    platform: of the devices, as `mesh.devices.flat[0].platform`.
    library_fusions: whether to choose what the CPU's library computes; without it, and where
      XLA_FLAGS chooses, XLA is left alone.
  """
  fusions = _MEASURED.get(_release(), _NEWEST)
  chosen = _FUSIONS in os.environ.get('XLA_FLAGS', '')
  if platform != 'cpu' or not library_fusions or fusions is None or chosen:
    return {}
  return {_FUSIONS: fusions} if takes(**{_FUSIONS: fusions}) else {}


def describe(platform: str, library_fusions: bool = True) -> str:
  """What `options` are, and whether they were chosen for this version of jaxlib, in a line."""
  ours = [f'{name}={value}' for name, value in options(platform, library_fusions).items()]
  where = f'jaxlib {jaxlib.version.__version__}'
  if not ours:
    return f'none for {platform} with {where}'
  newest = [*_MEASURED][-1]
  known = (
    f'chosen for {where}'
    if _release() in _MEASURED
    else f'as for {newest}: {where} was not measured'
  )
  return f'{" ".join(ours)} ({known})'


def ordered(platform: str) -> dict[str, str]:
  """Options with which `lax.optimization_barrier` also orders what a program for CPUs computes.

  XLA's CPU backend takes barriers out before it decides in which order to compute, and so how much
  memory is needed; other platforms do so after.
  """
  return {'xla_disable_hlo_passes': 'cse_barrier_expander'} if platform == 'cpu' else {}


def use_cache() -> None:
  """Keeps what is compiled in a folder of the user's, for the next process to load.

  The folder is `host.cache_folder()`. One that jax has already, from JAX_COMPILATION_CACHE_DIR,
  stands; where no folder can be written there is no cache.
  """
  if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined, unused-ignore]
    return
  folder = host.cache_folder()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  if os.access(folder, os.W_OK):
    jax.config.update('jax_compilation_cache_dir', str(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
    warnings.showwarning = functools.partial(_mend_cache, folder, warnings.showwarning)


def _mend_cache(
  folder: Path, show: Callable[..., None], message: object, *where: Any, **options: Any
) -> None:
  """Shows a warning, unless it is of the cache: jax warns of damaged programs, but leaves them.

  Removed, they are written again, which are all those of the name that it tells.
  """
  damaged = re.match(r"Error reading persistent compilation cache entry for '(\w+)'", str(message))
  if damaged:
    for path in folder.glob(f'{damaged[1]}-*'):
      path.unlink(missing_ok=True)
  elif not str(message).startswith('Error writing persistent compilation cache'):
    show(message, *where, **options)
