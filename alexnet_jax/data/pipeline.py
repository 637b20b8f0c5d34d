"""The input pipeline: batches of uint8 crops and labels of a split, and onto the devices.

Everything about a batch follows from (seed, step): epochs are permutations of the examples, joined
to one stream (no image is left out or doubled), of which step s takes the examples from
s * batch_size on. So a run resumes at any step without reading what came before,
and each of several processes reads its own rows of the same global batch.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.data.splits import Batch, Split
from alexnet_jax.data.statistics import Sums
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils import threads
from alexnet_jax.utils.errors import UserError

T = TypeVar('T')

_ORDER, _CROPS = 0, 1  # purposes of a seed's random numbers


def whole_images(split: Split) -> Generator[Batch]:
  """Yields all images of a split, uncropped, in order, in batches."""
  return split.read(_at(split.order(), 0), 256, split.image_size)


def _at(blocks: Iterable[np.ndarray], offset: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  for block in blocks:
    yield block, np.full((len(block), 2), offset, np.int32)


def check_crops(image_size: int, crop_size: int, crop_offsets: int) -> None:
  """Raises UserError where crops do not fit the images at so many offsets in each direction."""
  room = image_size - crop_size + 1
  if not 1 <= crop_offsets <= room:
    raise UserError(
      f'augment.crop_offsets is {crop_offsets}, but crops of {crop_size} pixels (model.input_size)'
      f' fit images of {image_size} (data.image_size) at '
      + (f'1 to {room} offsets' if room > 0 else 'none')
    )


def train_batches(
  split: Split,
  *,
  seed: int,
  batch_size: int,
  first_step: int,
  crop_size: int,
  crop_offsets: int,
  images_per_draw: int,
  rows: slice | None = None,
) -> Generator[Batch]:
  """Yields random crops of the training images, without end.

  Args:
    split: the training split.
    seed: determines the order and the crops.
    batch_size: images per global batch.
    first_step: the step of the first batch.
    crop_size: side of the crops in pixels.
    crop_offsets: how many offsets in each direction a crop is drawn from (paper: 32, section 4.1).
    images_per_draw: consecutive images of a batch that share a draw (2012 code: 32).
    rows: which rows of the global batch to read; None for all.

  Yields:
    'image' [n, crop_size, crop_size, 3] uint8, 'offset' [n, 2] int32 and 'label' [n] int32 for
    the n rows.

  Raises:
    UserError: crops do not fit the images.
  """
  check_crops(split.image_size, crop_size, crop_offsets)
  first, last, _ = (rows or slice(None)).indices(batch_size)
  # With fewer offsets than there is room for, they lie in the middle.
  border = (split.image_size - crop_size + 1 - crop_offsets) // 2
  draws = -(-batch_size // images_per_draw)

  def offsets(step: int) -> np.ndarray:
    drawn = np.random.default_rng([seed, step, _CROPS]).integers(
      0, crop_offsets, size=(draws, 2), dtype=np.int32
    )
    return np.repeat(drawn, images_per_draw, axis=0)[:batch_size] + border

  def groups() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    start = first_step * batch_size  # in the stream of examples, across epochs
    for epoch in itertools.count(start // split.num_examples):
      position = epoch * split.num_examples
      for block in split.order(np.random.default_rng([seed, epoch, _ORDER])):
        positions = np.arange(position, position := position + len(block))
        row = positions % batch_size
        wanted = (positions >= start) & (first <= row) & (row < last)
        if wanted.any():
          steps = positions[wanted] // batch_size
          crops = np.stack([offsets(step) for step in range(steps[0], steps[-1] + 1)])
          yield block[wanted], crops[steps - steps[0], row[wanted]]

  return split.read(groups(), last - first, crop_size)


def evaluation_batches(
  split: Split, batch_size: int, crop_size: int, rows: slice | None = None
) -> Generator[Batch]:
  """Yields center crops of every image, once, in order.

  Args:
    split: the split.
    batch_size: images per global batch.
    crop_size: side of the crops in pixels.
    rows: which rows of the global batch to read; None for all.

  Yields:
    As `train_batches`, with 'mask' [n] bool: False for rows that fill up the last batch.
  """
  if crop_size > split.image_size:
    raise UserError(
      f'crops of {crop_size} pixels (model.input_size) do not fit images of {split.image_size}'
      ' (data.image_size)'
    )
  first, last, _ = (rows or slice(None)).indices(batch_size)

  def groups() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    position = 0
    for block, offsets in _at(split.order(), (split.image_size - crop_size) // 2):
      row = np.arange(position, position := position + len(block)) % batch_size
      wanted = (first <= row) & (row < last)
      if wanted.any():
        yield block[wanted], offsets[wanted]

  empty: Batch = {
    'image': np.zeros((0, crop_size, crop_size, 3), np.uint8),
    'offset': np.zeros((0, 2), np.int32),
    'label': np.zeros(0, np.int32),
  }
  with contextlib.closing(split.read(groups(), last - first, crop_size)) as read:
    for _ in range(-(-split.num_examples // batch_size)):
      batch = next(read, empty)  # the last batch may have nothing in these rows
      count = len(batch['label'])
      if missing := last - first - count:
        batch = {
          name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
          for name, array in batch.items()
        }
      yield batch | {'mask': np.arange(last - first) < count}


def statistics(
  split: Split, progress: Callable[[int], None] = lambda images: None
) -> dict[str, np.ndarray]:
  """Computes the statistics of a (training) split's images, as `statistics.Sums.compute`.

  Args:
    split: the split.
    progress: called with the number of images of each batch; an exception in it ends the pass.
  """
  sums = Sums.zero(split.image_size)
  with contextlib.closing(whole_images(split)) as batches:
    for batch in batches:
      for image in batch['image']:
        sums.add(image)
      progress(len(batch['label']))
  return sums.compute()


def prefetch(batches: Generator[T]) -> Generator[T]:
  """Computes batches in a thread, three ahead; the thread ends with the generator."""
  end: Any = object()

  def following(_: None) -> T:
    return next(batches, end)

  with (
    contextlib.closing(batches),
    contextlib.closing(
      threads.map_ahead(following, itertools.repeat(None), num_threads=1, ahead=3)
    ) as computed,
  ):
    for batch in computed:
      if batch is end:
        return
      yield batch


def put_batches(batches: Generator[Batch], mesh: Mesh) -> Generator[dict[str, jax.Array]]:
  """Places batches over the mesh's 'data' axis; each process has its `mesh.local_rows` of them."""
  sharding = mesh_lib.shardings(mesh, mesh_lib.BATCH)
  parts = mesh.shape[mesh_lib.DATA]
  local_parts = mesh_lib.local_rows(mesh, parts)

  def put(rows: np.ndarray) -> jax.Array:
    # Where the two columns of a pair of devices are on two processes, both have the pair's rows,
    # from which jax cannot assemble an array by itself.
    rows_per_part = len(rows) // (local_parts.stop - local_parts.start)
    shape = (rows_per_part * parts, *rows.shape[1:])
    offset = rows_per_part * local_parts.start

    def part(index: Any) -> np.ndarray:
      first, last, _ = index[0].indices(shape[0])
      return rows[first - offset : last - offset]

    return jax.make_array_from_callback(shape, sharding, part)

  with contextlib.closing(batches):
    for batch in batches:
      yield {name: put(array) for name, array in batch.items()}
