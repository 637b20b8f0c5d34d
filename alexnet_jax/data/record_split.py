"""A split of a data set in tfds's format, read and decoded as it is used, shuffled block by block."""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from alexnet_jax.data import tfds_reader
from alexnet_jax.data.images import fit_square
from alexnet_jax.data.splits import Batch, Group, in_batches
from alexnet_jax.data.tfds_reader import FOOTER, HEADER
from alexnet_jax.utils import threads
from alexnet_jax.utils.errors import UserError

if TYPE_CHECKING:
  from tensorflow import Tensor
  from tensorflow_datasets.core import DatasetBuilder

_PIECES_PER_BLOCK = 16
_TOGETHER = 32  # examples read and decoded at a time by a thread


class RecordSplit:
  """A split of a tfds data set, or part of one ('train[:90%]'), read and decoded as it is used.

  A split that is too large to shuffle whole is shuffled in blocks: pieces of neighboring examples
  are put in random order, and the examples of as many pieces as make up a block are shuffled. While
  one block is used the system is asked to read the next into its file cache, from which examples
  are read one by one, so that no more than a few batches are held in memory. Checksums are not
  verified.
  """

  def __init__(
    self,
    builder: 'DatasetBuilder',
    split: str,
    image_size: int,
    block_bytes: int,
    resize: str = 'paper',
  ):
    """Opens it; see `splits.Split` for its attributes.

    Args:
      builder: of a prepared data set.
      split: as tfds writes it.
      image_size: side of the squares that images are made into.
      block_bytes: how many bytes of encoded images to shuffle among each other.
      resize: how squares are made, one of `images.RESIZE_RULES`.

    Raises:
      UserError: the split does not exist, or has no images with labels.
    """
    self._tf, tfds = tfds_reader.import_tensorflow()
    info = builder.info
    try:
      parts = [
        dataclasses.replace(  # None stands for an end
          part,
          from_=part.from_ or 0,
          to=info.splits[part.splitname].num_examples if part.to is None else part.to,
        )
        for part in tfds.core.splits.AbstractSplit.from_spec(split).to_absolute(info.splits)
      ]
    except (KeyError, ValueError, AssertionError, NotImplementedError) as error:
      raise UserError(
        f'{info.full_name} has no split {split!r}, only {", ".join(map(repr, info.splits))};'
        ' set data.train_split and data.validation_split'
      ) from error
    if info.file_format != tfds.core.FileFormat.TFRECORD:
      raise UserError(
        f'{builder.data_path} is stored as {info.file_format.value}; have tfds prepare it as'
        ' tfrecord'
      )
    self._image_key, self._label_key = tfds_reader.supervised_keys(info)
    self._builder, self._split = builder, split
    self.num_examples = sum(part.to - part.from_ for part in parts)
    if any(part.to <= part.from_ for part in parts):
      raise UserError(f'the split {split!r} of {info.full_name} is empty')
    self.class_names: Sequence[str] = info.features[self._label_key].names
    self.image_size, self._resize = image_size, resize
    feature = info.features[self._image_key]
    # Only of these can a crop be cut while decoding.
    self._square_jpegs = (
      feature.shape == (image_size, image_size, 3) and feature._encoding_format == 'jpeg'
    )
    whole = [info.splits[part.splitname] for part in parts]
    self._files = {
      os.fspath(path): length
      for stored in whole
      for path, length in zip(stored.filepaths, stored.shard_lengths, strict=True)
    }
    each = sum(s.num_bytes for s in whole) // max(1, sum(s.num_examples for s in whole))
    self.block_size = min(self.num_examples, max(1, block_bytes // max(1, each)))
    self._pieces = [
      piece
      for part in parts
      for piece in _pieces(
        part, info.splits[part.splitname], -(-self.block_size // _PIECES_PER_BLOCK)
      )
    ]
    # Of pieces among the examples.
    self._starts = np.cumsum([0, *(piece.length for piece in self._pieces)])
    self._bounds = functools.cache(self._find_records)

  def order(self, rng: np.random.Generator | None = None) -> list[np.ndarray]:
    """See `splits.Split`."""
    bounds = list(itertools.pairwise(self._starts))
    if rng is not None and self.block_size < self.num_examples:
      bounds = [bounds[i] for i in rng.permutation(len(bounds))]
    order = np.concatenate([np.arange(*bound) for bound in bounds])
    blocks = np.split(order, range(self.block_size, len(order), self.block_size))
    if rng is not None:
      for block in blocks:
        rng.shuffle(block)
    return blocks

  def file_names(self) -> Sequence[str] | None:
    """See `splits.Split`; every example is read.

    Raises:
      UserError: the files are damaged.
    """
    tf, key = self._tf, tfds_reader.file_name_key(self._builder.info)
    if key is None:
      return None
    names: list[str] = []
    try:
      for block in self.order():
        for start in range(0, len(block), _TOGETHER):
          stored = tf.constant(self._stored(block[start : start + _TOGETHER]))
          rows = tf.io.parse_example(stored, {key: tf.io.FixedLenFeature([], tf.string)})
          names += [name.decode(errors='replace') for name in rows[key].numpy()]
    except (OSError, tf.errors.OpError) as error:
      raise tfds_reader.unreadable(self._builder, error) from error
    return names

  def _find_records(self, path: str) -> np.ndarray:
    """Finds where a file's records begin, and the last one ends: [n + 1] int64, in bytes."""
    bounds = [0]
    with _open(self._tf, path) as file:
      size = file.seek(0, os.SEEK_END) or file.tell()
      while bounds[-1] < size:
        file.seek(bounds[-1])
        header = file.read(8)
        length = int.from_bytes(header, 'little')
        bounds.append(bounds[-1] + HEADER + length + FOOTER)
    if bounds[-1] != size or len(bounds) - 1 != self._files[path]:
      raise UserError(
        f'{path} does not hold the {self._files[path]} examples that it should; prepare the data'
        ' set again'
      )
    return np.array(bounds)

  def _stored(self, wanted: np.ndarray) -> list[bytes]:
    """Reads some examples as stored."""
    pieces = np.searchsorted(self._starts, wanted, side='right') - 1
    numbers = (wanted - self._starts[pieces]).tolist()
    examples = []
    with contextlib.ExitStack() as closing:
      opened: dict[str, Any] = {}
      for i, number in zip(pieces.tolist(), numbers, strict=True):
        path, skipped, _ = self._pieces[i]
        if path not in opened:
          opened[path] = closing.enter_context(_open(self._tf, path))
        start, end = self._bounds(path)[skipped + number : skipped + number + 2].tolist()
        opened[path].seek(start + HEADER)
        examples.append(opened[path].read(end - start - HEADER - FOOTER))
    return examples

  def _ask_for(self, wanted: np.ndarray) -> None:
    """Asks the system to read the pieces that hold some examples."""
    for number in np.unique(np.searchsorted(self._starts, wanted, side='right') - 1):
      piece = self._pieces[number]
      if '://' not in piece.path and hasattr(os, 'posix_fadvise'):
        bounds = self._bounds(piece.path)
        start, end = bounds[piece.skipped], bounds[piece.skipped + piece.length]
        with _open(self._tf, piece.path) as file:
          os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_WILLNEED)

  @functools.cached_property
  def _decode(self) -> 'Callable[[Tensor, np.ndarray], tuple[list[Tensor], Tensor]]':
    """Decodes some examples; compiled once for each number of them.

    It takes examples as stored, [n] str, and windows, [n, 4] int32, as `_windows` has them, and
    returns n images, each [h, w, 3] uint8, and their labels, [n] int64.
    """
    tf = self._tf
    features = {
      self._image_key: tf.io.FixedLenFeature([], tf.string),
      self._label_key: tf.io.FixedLenFeature([], tf.int64),
    }
    options = {'channels': 3, 'dct_method': 'INTEGER_ACCURATE'}

    def decode(stored: 'Tensor', windows: 'Tensor') -> 'tuple[list[Tensor], Tensor]':
      rows = tf.io.parse_example(stored, features)  # without Python's lock, unlike protobuf's
      encoded = tf.unstack(rows[self._image_key])
      if self._square_jpegs:
        images = [
          tf.image.decode_and_crop_jpeg(image, window, **options)
          for image, window in zip(encoded, tf.unstack(windows), strict=True)
        ]
      else:
        images = [tf.io.decode_jpeg(image, **options) for image in encoded]  # PNGs as well
      return images, rows[self._label_key]

    return tf.function(decode, autograph=False)

  def _windows(self, offsets: np.ndarray, size: int) -> np.ndarray:
    """The parts of images to decode for crops at some offsets: row, column, height and width."""
    if not self._square_jpegs:
      return np.tile(
        np.array([0, 0, self.image_size, self.image_size], np.int32), (len(offsets), 1)
      )
    top, left = offsets.T
    # A pixel more on each side: a cut at the edge of a block of the JPEG's would lack the neighbors
    # that the edge's colors are interpolated from, and not be what a whole image has.
    first, last = np.maximum(left - 1, 0), np.minimum(left + size + 1, self.image_size)
    return np.stack([top, first, np.full_like(top, size), last - first], axis=1)

  def _announced(self, groups: Iterable[Group]) -> Iterator[Group]:
    """Yields the groups, and asks the system to read the next one while one is used."""
    for group, following in itertools.pairwise(itertools.chain(groups, (None,))):
      assert group is not None
      if following is not None:
        self._ask_for(following[0])
      yield group

  def read(self, groups: Iterable[Group], batch_size: int, size: int) -> Generator[Batch]:
    """See `splits.Split`.

    Raises:
      UserError: the files are damaged.
    """
    square = (self.image_size, self.image_size)

    def parts() -> Iterator[tuple[Batch, np.ndarray, slice]]:
      """Batches to be filled, the examples of each, and which of them to fill at a time."""
      for examples, offsets in in_batches(self._announced(groups), batch_size):
        count = len(examples)
        batch = {
          'image': np.empty((count, size, size, 3), np.uint8),
          'offset': offsets,
          'label': np.empty(count, np.int32),
        }
        for start in range(0, count, _TOGETHER):
          yield batch, examples, slice(start, min(start + _TOGETHER, count))

    def fill(part: tuple[Batch, np.ndarray, slice]) -> Batch | None:
      """Fills a part; returns the batch if that was its last one."""
      batch, examples, rows = part
      offsets = batch['offset'][rows]
      windows = self._windows(offsets, size)
      stored = self._tf.constant(self._stored(examples[rows]))
      images, batch['label'][rows] = self._decode(stored, windows)
      for crop, tensor, (top, left) in zip(
        batch['image'][rows], images, (offsets - windows[:, :2]).tolist(), strict=True
      ):
        image = tensor.numpy()
        if not self._square_jpegs and image.shape[:2] != square:
          image = np.asarray(fit_square(Image.fromarray(image), self.image_size, self._resize))
        crop[...] = image[top : top + size, left : left + size]
      return batch if rows.stop == len(examples) else None

    try:
      with contextlib.closing(threads.map_ahead(fill, parts())) as filled:
        for batch in filter(None, filled):
          if batch['label'].min() < 0:  # as tfds has it where labels are not public
            raise UserError(
              f'{self._builder.info.full_name} has no labels of its split {self._split!r}; set'
              ' data.train_split and data.validation_split to others'
            )
          yield batch
    except (OSError, self._tf.errors.OpError) as error:
      raise tfds_reader.unreadable(self._builder, error) from error


class _Piece(NamedTuple):
  """Neighboring examples of a file."""

  path: str
  skipped: int  # examples before it
  length: int


def _pieces(part: Any, split: Any, longest: int) -> Iterator[_Piece]:
  """Divides a part of a split, as tfds describes both, at files' ends and every `longest`."""
  start = 0
  for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
    first, last = max(start, part.from_), min(start + length, part.to)
    for begin in range(first, last, longest):
      yield _Piece(os.fspath(path), begin - start, min(longest, last - begin))
    start += length


def _open(tf: Any, path: str) -> Any:
  """Opens a file, on this machine or in a bucket."""
  return tf.io.gfile.GFile(path, 'rb') if '://' in path else open(path, 'rb', buffering=0)
