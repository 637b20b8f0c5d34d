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

PRECISIONS = ('float32', 'bfloat16')

# XLA's CPU backend can hand matrix products, reductions and convolutions to a library, YNNPACK.
# With its products and reductions and XLA's own (Eigen's) convolutions a training step takes half
# of the time that the default, all three, takes (docs/performance.md). The option is experimental:
# it is used where it was measured and tests/test_compilation.py has held its values to the plain.
_LIBRARY_FUSIONS = {
  '0.10.2': 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE',
}


def options(platform: str, library_fusions: bool = True) -> dict[str, str]:
  """Options of `jax.jit(compiler_options=...)` with which a program for a platform is fast.

  Args:
    platform: of the devices, as `mesh.devices.flat[0].platform`.
    library_fusions: whether to choose what the CPU's library computes; without it, and where
      XLA_FLAGS chooses, XLA is left alone.
  """
  name = 'xla_cpu_experimental_ynn_fusion_type'
  fusions = _LIBRARY_FUSIONS.get(jaxlib.version.__version__)
  chosen = name in os.environ.get('XLA_FLAGS', '')
  if platform != 'cpu' or not library_fusions or fusions is None or chosen:
    return {}
  return {name: fusions}


def ordered(platform: str) -> dict[str, str]:
  """Options with which `lax.optimization_barrier` also orders what a program for CPUs computes.

  XLA's CPU backend takes barriers out before it decides in which order to compute, and so how much
  memory is needed; other platforms do so after.
  """
  return {'xla_disable_hlo_passes': 'cse_barrier_expander'} if platform == 'cpu' else {}


def use_cache() -> None:
  """Keeps what is compiled in a folder of the user's, for the next process to load.

  The folder is `$XDG_CACHE_HOME/alexnet_jax` (`~/.cache/alexnet_jax`). One that jax has already,
  from JAX_COMPILATION_CACHE_DIR, stands; where no folder can be written there is no cache.
  """
  if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined, unused-ignore]
    return
  home = os.environ.get('XDG_CACHE_HOME') or Path('~/.cache').expanduser()
  folder = Path(home) / 'alexnet_jax'
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
