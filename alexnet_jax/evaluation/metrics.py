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


def errors(scores: Array, labels: Array, k: int) -> Array:
  """Whether the true class is not among the best k of each image.

  A tie is counted as the 2012 code does (`src/layer_kernels.cu`): of the places that are left
  among the best k, those tied share alike. So equal scores err like chance, and scores that are
  not numbers err.

  Args:
    scores: [N, classes] float, logits or probabilities.
    labels: [N] int.
    k: how many of the classes with the highest scores may hold the true one.

  Returns:
    [N] float32: 0 or 1, or a fraction where there is a tie.
  """
  true_score = jnp.take_along_axis(scores, labels[:, None], axis=1)
  ahead = jnp.sum(~(scores <= true_score), axis=1)
  tied = jnp.sum(scores == true_score, axis=1)
  return 1 - jnp.clip((k - ahead) / jnp.maximum(tied, 1), 0, 1).astype(jnp.float32)


def batch_sums(logits: Array, labels: Array, mask: Array | None = None) -> dict[str, Array]:
  """Sums over a batch; ties as in `errors`.

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
  return {
    'loss': jnp.sum(jnp.where(mask, losses, 0)).astype(jnp.float32),
    'top1_errors': jnp.sum(jnp.where(mask, errors(logits, labels, 1), 0)),
    'top5_errors': jnp.sum(jnp.where(mask, errors(logits, labels, 5), 0)),
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
