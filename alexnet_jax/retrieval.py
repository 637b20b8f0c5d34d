"""The images nearest to others by what a layer makes of them (paper, section 6.1)."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax import augment, compilation, dataset
from alexnet_jax.errors import UserError
from alexnet_jax.model import AlexNet

Array = jax.Array
OutputsStep = Callable[[Any, augment.Statistics, Mapping[str, Any]], dict[str, Array]]

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


def output_names(net: AlexNet) -> list[str]:
  """The names of the arrays that a network returns, in the order in which it makes them."""
  names: list[str] = []

  def run(images: Array) -> None:
    (_, outputs), _ = net.init_with_output(jax.random.key(0), images)
    names.extend(outputs)  # jax itself would hand them over sorted

  jax.eval_shape(run, jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), jnp.float32))
  return names


def last_hidden(names: Sequence[str]) -> str:
  """Of a network's outputs the last before fc8 and dropout: 'fc7_activation' of the paper's."""
  return [name for name in names if name != 'fc8' and not name.endswith('_dropout')][-1]


def make_outputs_step(
  net: AlexNet,
  options: augment.Options,
  names: Sequence[str],
  *,
  precision: str = 'float32',
  library_fusions: bool = True,
) -> OutputsStep:
  """A compiled function from (params, statistics, batch) to outputs by name, on one device.

  Of the batch it reads 'image' [N, s, s, 3] uint8 and 'offset' [N, 2] int32; the outputs are
  [N, ...] float32.

  Args:
    net: the global network.
    options: how pixels are prepared.
    names: which of `output_names`; nothing is computed that they do not need.
    precision: what the network computes in.
    library_fusions: see `compilation.options`.

  Raises:
    UserError: the network has no such output; the message has those that there are.
  """
  there = output_names(net)
  for name in names:
    if name not in there:
      raise UserError(f'the network has no output {name!r}; it has {", ".join(there)}')

  def step(
    params: Any, statistics: augment.Statistics, batch: Mapping[str, Array]
  ) -> dict[str, Array]:
    pixels = augment.evaluation_pixels(batch['image'], batch['offset'], statistics, options)
    _, outputs = net.apply({'params': params}, pixels.astype(precision))
    return {name: outputs[name].astype(jnp.float32) for name in names}

  platform = jax.devices()[0].platform
  return jax.jit(step, compiler_options=compilation.options(platform, library_fusions))


def split_features(
  step: OutputsStep,
  params: Any,
  statistics: augment.Statistics,
  split: dataset.Split,
  *,
  batch_size: int,
  crop_size: int,
  progress: Callable[[int], None] = lambda images: None,
) -> Generator[np.ndarray]:
  """A layer's output for the centre crop of every image of a split, in order.

  Args:
    step: from `make_outputs_step`, of one name.
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
      (output,) = step(params, statistics, {k: batch[k] for k in ('image', 'offset')}).values()
      features = np.asarray(output)[batch['mask']]
      progress(len(features))
      yield features.reshape(len(features), -1)
