"""The images nearest to others by what a layer makes of them (paper, section 6.1)."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import numpy as np

from alexnet_jax.data import augment, dataset, splits
from alexnet_jax.evaluation import inference
from alexnet_jax.utils.errors import UserError

_ROWS = 256  # of features compared at a time: 8 MB in float64, where they have 4,096 elements


def nearest(
  features: np.ndarray | Iterable[np.ndarray], queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """The k rows of features nearest to each query, by squared Euclidean distance.

  Differences and their squares are float64, so that the distances are exact to its rounding, and
  those of equal rows equal.

  Args:
    features: [M, D], or its parts [m, D] in order, of which one at a time needs to be there.
    queries: [Q, D].
    k: how many; all M where there are fewer.

  Returns:
    Their numbers [Q, k] int, the nearest first, of equally near ones the lowest number first; and
    their squared distances [Q, k] float64.

  Raises:
    UserError: there is nothing to look among, or k is below 1.
  """
  if k < 1:
    raise UserError(f'{k} nearest images were asked for; it must be at least 1')
  wide = np.asarray(queries, np.float64)
  parts: Iterable[np.ndarray] = [np.asarray(features)] if hasattr(features, 'shape') else features
  found = [np.empty((len(wide), 0))]
  for part in parts:
    for first in range(0, len(part), _ROWS):
      rows = np.asarray(part[first : first + _ROWS], np.float64)
      if rows.shape[1:] != wide.shape[1:]:
        raise UserError(
          f'features have {rows.shape[1:]} elements but queries {wide.shape[1:]}; give both of'
          ' one layer'
        )
      squares = np.empty((len(wide), len(rows)))
      for i, query in enumerate(wide):
        difference = rows - query
        squares[i] = np.einsum('md,md->m', difference, difference)
      found.append(squares)
  distances = np.concatenate(found, axis=1)  # [Q, M]
  if not distances.shape[1]:
    raise UserError('there are no images among which to look for the nearest')
  order = np.argsort(distances, axis=1, kind='stable')[:, :k]
  return order, np.take_along_axis(distances, order, axis=1)


def last_hidden(names: Sequence[str]) -> str:
  """The last layer before fc8 and dropout: 'fc7' of the paper's network.

  Args:
    names: `inference.output_names` of the network.

  Returns:
    Its name as `inference.layer_names` has it.
  """
  hidden = [name for name in names if name != 'fc8' and not name.endswith('_dropout')]
  return hidden[-1].removesuffix('_activation')


def split_features(
  step: inference.OutputsStep,
  params: Any,
  statistics: augment.Statistics,
  split: splits.Split,
  *,
  batch_size: int,
  crop_size: int,
  progress: Callable[[int], None] = lambda images: None,
) -> Generator[np.ndarray]:
  """A layer's output for the centre crop of every image of a split, in order.

  Args:
    step: from `inference.make_outputs_step`, of one layer.
    params: the network's, on the first device.
    statistics: of the training images.
    split: the images.
    batch_size: images a batch.
    crop_size: the network's input size.
    progress: called with the number of images of each batch.

  Yields:
    [n, D] float32, a batch at a time.
  """
  read = dataset.evaluation_batches(split, batch_size, crop_size)
  with contextlib.closing(dataset.prefetch(read)) as batches:
    for batch in batches:
      (output,) = step(params, statistics, batch['image']).values()
      features = np.asarray(output)[batch['mask']]
      progress(len(features))
      yield features.reshape(len(features), -1)
