"""Finds the images nearest to others by the features of a layer (paper, section 6.1)."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.spatial import distance

from alexnet_jax.utils.errors import UserError


def nearest(
  features: np.ndarray | Iterable[np.ndarray], queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the k features nearest to each query, by squared Euclidean distance.

  Differences and squares are computed in float64, so that distances are accurate to its rounding,
  and equal features have equal distances.

  Args:
    features: [M, D], or an iterable of its parts [m, D] in order, one of which is in memory at a
      time.
    queries: [Q, D].
    k: number of neighbors, at least 1; all M where there are fewer.

  Returns:
    The neighbors' indices [Q, k] int, the nearest first and the lower index first where distances
    are equal, and their squared distances [Q, k] float64.

  Raises:
    UserError: there are no features, they have another D than the queries, or k is below 1.
  """
  if k < 1:
    raise UserError(f'the number of nearest images is {k}; it must be at least 1')
  queries = np.asarray(queries)
  parts: Iterable[np.ndarray] = [np.asarray(features)] if hasattr(features, 'shape') else features
  of_parts = [np.empty((len(queries), 0))]
  for part in parts:
    if part.shape[1:] != queries.shape[1:]:
      raise UserError(
        f'features have {part.shape[1:]} elements but queries {queries.shape[1:]}; both must be of the'
        ' same layer'
      )
    of_parts.append(distance.cdist(queries, part, 'sqeuclidean'))
  distances = np.concatenate(of_parts, axis=1)  # [Q, M]
  if not distances.shape[1]:
    raise UserError('there are no images to search for the nearest')
  order = np.argsort(distances, axis=1, kind='stable')[:, :k]
  return order, np.take_along_axis(distances, order, axis=1)


def last_hidden(names: Sequence[str]) -> str:
  """The name of the last layer before fc8, without dropout: 'fc7' in the paper's network.

  Args:
    names: of the network's outputs, from `layer_outputs.output_names`.

  Returns:
    Its name in `layer_outputs.layer_names`.
  """
  hidden = [name for name in names if name != 'fc8' and not name.endswith('_dropout')]
  return hidden[-1].removesuffix('_activation')
