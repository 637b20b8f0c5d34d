"""Loss and top-k error as sums that can be merged, so that every image counts once."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


def empty() -> dict[str, Array]:
  """Sums over no image."""
  return {
    'loss': jnp.zeros((), jnp.float32),
    'top1_errors': jnp.zeros((), jnp.float32),
    'top5_errors': jnp.zeros((), jnp.float32),
    'count': jnp.zeros((), jnp.int32),
  }


def batch_sums(logits: Array, labels: Array, mask: Array | None = None) -> dict[str, Array]:
  """Sums over a batch.

  A tie is counted as the 2012 code does (`src/layer_kernels.cu`): of the places that are left
  among the best k, those tied share alike. So equal logits err like chance, and logits that are
  not numbers err.

  Args:
    logits: [N, classes] float.
    labels: [N] int.
    mask: [N] bool, False for padding; None for a batch without.

  Returns:
    'loss' (cross-entropy, paper 3.5), 'top1_errors', 'top5_errors' and 'count'.
  """
  if mask is None:
    mask = jnp.ones(labels.shape, bool)
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  true_logit = jnp.take_along_axis(logits, labels[:, None], axis=1)
  ahead = jnp.sum(~(logits <= true_logit), axis=1)
  tied = jnp.sum(logits == true_logit, axis=1)

  def errors(k: int) -> Array:
    credit = jnp.clip((k - ahead) / jnp.maximum(tied, 1), 0, 1)
    return jnp.sum(jnp.where(mask, 1 - credit, 0)).astype(jnp.float32)

  return {
    'loss': jnp.sum(jnp.where(mask, losses, 0)).astype(jnp.float32),
    'top1_errors': errors(1),
    'top5_errors': errors(5),
    'count': jnp.sum(mask).astype(jnp.int32),
  }


def merge(a: Mapping[str, Array], b: Mapping[str, Array]) -> dict[str, Array]:
  """Sums over both batches."""
  return {name: a[name] + b[name] for name in a}


def compute(sums: Mapping[str, Array]) -> dict[str, float]:
  """Mean 'loss', and 'top1_error' and 'top5_error' as fractions, over all that was summed."""
  count = int(sums['count'])
  return {
    'loss': float(sums['loss']) / count,
    'top1_error': float(sums['top1_errors']) / count,
    'top5_error': float(sums['top5_errors']) / count,
  }
