"""Where versions of JAX from 0.7.2 on differ: one name for what some have under another, or not."""

import contextlib
import signal
from collections.abc import Iterator

import jax
from jax import lax


def varying(x: jax.Array, axis: str) -> jax.Array:
  """Within `jax.shard_map`, x as each device's own along an axis; gradients are summed over it."""
  # JAX 0.7 has pvary alone; 0.8 brought pcast, and deprecated pvary.
  if hasattr(lax, 'pcast'):
    return lax.pcast(x, axis, to='varying')
  return lax.pvary(x, axis)  # type: ignore[attr-defined, unused-ignore]


@contextlib.contextmanager
def without_preemption_service() -> Iterator[None]:
  """Within it `jax.distributed.initialize` leaves SIGTERM, which it would take, to the program."""
  if hasattr(jax.config, 'jax_enable_preemption_service'):
    jax.config.update('jax_enable_preemption_service', False)
    yield
  else:  # JAX 0.7 always takes it: what there was is put back, and the service never hears of one.
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
