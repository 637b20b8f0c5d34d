"""Where versions of JAX from 0.7.2 on differ: one name for what some have under another, or not."""

import jax
from jax import lax


def varying(x: jax.Array, axis: str) -> jax.Array:
  """Within `jax.shard_map`, x as each device's own along an axis; gradients are summed over it."""
  # JAX 0.7 has pvary alone; 0.8 brought pcast, and deprecated pvary.
  if hasattr(lax, 'pcast'):
    return lax.pcast(x, axis, to='varying')
  return lax.pvary(x, axis)  # type: ignore[attr-defined, unused-ignore]
