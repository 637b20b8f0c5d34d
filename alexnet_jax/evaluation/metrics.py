"""Loss and top-k errors as sums that can be merged, so that every image counts once."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


def empty() -> dict[str, Array]:
  """The sums over no images."""
  return {
    'loss': jnp.zeros((), jnp.float32),
    'top1_errors': jnp.zeros((), jnp.float32),
    'top5_errors': jnp.zeros((), jnp.float32),
    'count': jnp.zeros((), jnp.int32),
  }


def has_top5(num_classes: int) -> bool:
  """Whether a top-5 error says something: of five classes each is among the five best."""
  return num_classes > 5


def num_best(num_classes: int) -> int:
  """How many of an image's most probable classes are listed: five, or all where there are fewer."""
  return min(5, num_classes)


def errors(scores: Array, labels: Array, k: int) -> Array:
  """Top-k error of each image: whether its true class is not among the k best.

  Ties count as in the 2012 code (`src/layer_kernels.cu`): classes with equal scores share the
  places left among the k best equally. So equal scores have the error of chance, and scores that
  are NaN count against the true class.

  Args:
    scores: [N, classes] float, logits or probabilities.
    labels: [N] int.
    k: how many of the classes with the highest scores count.

  Returns:
    [N] float32: 0, 1, or a fraction where the true class ties.
  """
  true_score = jnp.take_along_axis(scores, labels[:, None], axis=1)
  ahead = jnp.sum(~(scores <= true_score), axis=1)
  tied = jnp.sum(scores == true_score, axis=1)
  return 1 - jnp.clip((k - ahead) / jnp.maximum(tied, 1), 0, 1).astype(jnp.float32)


def batch_sums(logits: Array, labels: Array, mask: Array | None = None) -> dict[str, Array]:
  """Computes the sums over a batch; ties count as in `errors`.

  Args:
    logits: [N, classes] float.
    labels: [N] int.
    mask: [N] bool, False for padding; None: there is no padding.

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
  """The sums over the images of both."""
  return {name: a[name] + b[name] for name in a}


def compute(sums: Mapping[str, Array] | Mapping[str, float]) -> dict[str, float]:
  """The mean 'loss', and 'top1_error' and 'top5_error' as fractions, of sums."""
  count = int(sums['count'])
  return {
    'loss': float(sums['loss']) / count,
    'top1_error': float(sums['top1_errors']) / count,
    'top5_error': float(sums['top5_errors']) / count,
  }
