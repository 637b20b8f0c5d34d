"""What JAX offers under no public name, or under different names in versions from 0.7.2 on."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Protocol

import jax
import numpy as np
from jax import lax

# The only import of a private module. `jax.distributed` starts and ends a coordinator, but has no
# public name for its key-value store (`coordinator`); and `jax.process_count` and
# `jax.process_index` start a backend, before which devices are emulated (`num_processes`), and
# which a process that failed early does not have (`process_id`).
from jax._src import distributed
from jax.sharding import Mesh


class KeyValueStore(Protocol):
  """The key-value store of JAX's coordinator, shared by all processes of a run."""

  def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
    """Stores a value; raises JaxRuntimeError if the key has one and may not be overwritten."""

  def key_value_try_get(self, key: str) -> str:
    """Returns a key's value; raises JaxRuntimeError if there is none."""


def coordinator() -> KeyValueStore | None:
  """Returns the store of the coordinator that this process has joined; None without one."""
  client: KeyValueStore | None = distributed.global_state.client
  return client


def num_processes() -> int:
  """Returns the number of processes of this run, without starting a backend."""
  return distributed.global_state.num_processes or 1


def process_id() -> int:
  """Returns this process's number, from 0, without starting a backend."""
  return distributed.global_state.process_id


@contextlib.contextmanager
def default_settings() -> Iterator[None]:
  """Within it, in this thread, what the user set for JAX as a whole does not change the network.

  That is float64 (JAX_ENABLE_X64), with which arrays would have other types than checkpoints, and
  a mesh (jax.set_mesh), over which they would be placed; both are there again afterward.
  """
  with contextlib.ExitStack() as held:
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined, unused-ignore]
      if hasattr(jax, 'enable_x64'):
        held.enter_context(jax.enable_x64(False))
      else:  # JAX 0.7
        from jax.experimental import disable_x64  # type: ignore[attr-defined, unused-ignore]

        held.enter_context(disable_x64())
    if not jax.sharding.get_abstract_mesh().empty:
      held.enter_context(jax.set_mesh(Mesh(np.empty((), object), ())))
    yield


def varying(x: jax.Array, axis: str) -> jax.Array:
  """Within `jax.shard_map`, marks x as different on each device of an axis; gradients are summed.

  Args:
    x: the array.
    axis: the mesh's axis.
  """
  # JAX 0.7 has pvary alone; 0.8 brought pcast, and deprecated pvary.
  if hasattr(lax, 'pcast'):
    return lax.pcast(x, axis, to='varying')
  return lax.pvary(x, axis)  # type: ignore[attr-defined, unused-ignore]


@contextlib.contextmanager
def without_preemption_service() -> Iterator[None]:
  """Within it `jax.distributed.initialize` leaves SIGTERM, which it would handle, to the program."""
  if hasattr(jax.config, 'jax_enable_preemption_service'):
    jax.config.update('jax_enable_preemption_service', False)
    yield
  else:  # JAX 0.7 always handles it: the previous handler is restored.
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
