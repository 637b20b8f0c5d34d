"""Images and labels: a tfds data set or scikit-learn's digits, as batches of uint8 crops.

Everything about a batch follows from (seed, step): epochs are permutations of the examples, the
stream of examples runs on across them (no image is left out or doubled), and step s takes the
examples from s * batch_size on. So a run continues at any step without reading what came before.

TensorFlow is imported here alone, and only for a tfds data set.
"""

import contextlib
import dataclasses
import difflib
import functools
import itertools
import operator
import os
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
from PIL import Image

from alexnet_jax.errors import UserError
from alexnet_jax.quiet import silenced

Batch = dict[str, np.ndarray]

_ORDER, _CROPS = 0, 1  # purposes of a seed's random numbers
_BLOCK_BYTES = 512 * 2**20  # encoded images that are shuffled among each other
_PIECES_PER_BLOCK = 16
_CHUNK = 256  # images handed over at a time


class Split(Protocol):
  """One split of a data set."""

  @property
  def num_examples(self) -> int:
    """How many images it has."""
    ...

  @property
  def class_names(self) -> Sequence[str]:
    """The classes' names, in the order of the labels."""
    ...

  @property
  def image_size(self) -> int:
    """Side in pixels of the squares that its images are made into."""
    ...

  def order(self, seed: int, epoch: int) -> np.ndarray:
    """The order of the examples in an epoch: a permutation of range(num_examples)."""
    ...

  def read(self, order: np.ndarray, offsets: np.ndarray, size: int) -> Iterator[Batch]:
    """Reads examples in the given order.

    Args:
      order: [n] int, examples; all of an `order`, its end, or sorted.
      offsets: [n, 2] int32, row and column at which to cut each.
      size: side of the crops in pixels.

    Yields:
      Chunks of any length: 'image' [m, size, size, 3] uint8, 'offset' [m, 2] int32, 'label' [m]
      int32.
    """
    ...


@dataclasses.dataclass(frozen=True)
class ArraySplit:
  """A split held in memory.

  Attributes:
    images: [N, S, S, 3] uint8.
    labels: [N] int32.
    class_names: see Split.
  """

  images: np.ndarray
  labels: np.ndarray
  class_names: Sequence[str]

  @property
  def num_examples(self) -> int:
    """See Split."""
    return len(self.labels)

  @property
  def image_size(self) -> int:
    """See Split."""
    return int(self.images.shape[1])

  def order(self, seed: int, epoch: int) -> np.ndarray:
    """See Split."""
    return np.random.default_rng([seed, epoch, _ORDER]).permutation(self.num_examples)

  def read(self, order: np.ndarray, offsets: np.ndarray, size: int) -> Iterator[Batch]:
    """See Split."""
    side = np.arange(size)
    for start in range(0, len(order), _CHUNK):
      chosen, offset = order[start : start + _CHUNK], offsets[start : start + _CHUNK]
      rows, columns = offset[:, :1] + side, offset[:, 1:] + side  # [m, size]
      crops = self.images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
      yield {'image': crops, 'offset': offset, 'label': self.labels[chosen]}


def digits(split: str) -> ArraySplit:
  """scikit-learn's 1,797 handwritten digits, 8x8: a fifth as 'validation', the rest as 'train'.

  Raises:
    UserError: there is no such split.
  """
  from sklearn import datasets  # takes a second to import

  if split not in ('train', 'validation'):
    raise UserError(f"digits has the splits 'train' and 'validation', not {split!r}")
  bunch = datasets.load_digits()
  grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # [1797, 8, 8], from 0 to 16
  order = np.random.default_rng(2012).permutation(len(grey))
  held_out = len(grey) // 5
  chosen = order[:held_out] if split == 'validation' else order[held_out:]
  images = np.repeat(grey[chosen, :, :, None], 3, axis=3)
  return ArraySplit(images, bunch.target[chosen].astype(np.int32), list('0123456789'))


def _import_tensorflow() -> tuple[Any, Any]:
  """TensorFlow and tfds, without a GPU and without their chatter."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    with silenced():
      import tensorflow as tf
      import tensorflow_datasets as tfds
  except ImportError as error:
    raise UserError(
      f'this data set needs TensorFlow ({error}); install it with: pip install -e ".[train]"'
    ) from error
  with contextlib.suppress(RuntimeError):
    tf.config.set_visible_devices([], 'GPU')
  return tf, tfds


def fit_square(image: np.ndarray, size: int) -> np.ndarray:
  """Scales the shorter side to `size` and cuts out the centre (paper, section 2).

  Args:
    image: [H, W, 3] uint8.
    size: pixels.

  Returns:
    [size, size, 3] uint8.
  """
  height, width = image.shape[:2]
  if (height, width) == (size, size):
    return image
  short = min(height, width)
  left, top = (width - short) / 2, (height - short) / 2
  scaled = Image.fromarray(image).resize(
    (size, size), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short)
  )
  return np.asarray(scaled)


class RecordSplit:
  """A split of a tfds data set, or part of one ('train[:90%]'), read and decoded as it is used.

  A split that is too large to shuffle whole is shuffled in blocks: pieces of neighbouring
  examples are put in random order, and so many of them as make up a block are shuffled.
  """

  def __init__(self, builder: Any, split: str, image_size: int):
    """Attributes as in Split; raises UserError for a split or features that it cannot use."""
    _, tfds = _import_tensorflow()
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
    except (KeyError, ValueError, AssertionError) as error:
      raise UserError(
        f'{info.full_name} has no split {split!r}, only {", ".join(map(repr, info.splits))};'
        ' set data.train_split and data.validation_split'
      ) from error
    self._image_key, self._label_key = _supervised_keys(info, tfds)
    self._builder = builder
    self.num_examples = sum(part.to - part.from_ for part in parts)
    if any(part.to <= part.from_ for part in parts):
      raise UserError(f'the split {split!r} of {info.full_name} is empty')
    self.class_names: Sequence[str] = info.features[self._label_key].names
    self.image_size = image_size
    whole = [info.splits[part.splitname] for part in parts]
    each = sum(s.num_bytes for s in whole) // max(1, sum(s.num_examples for s in whole))
    self._block = max(1, _BLOCK_BYTES // max(1, each))
    self._pieces = [
      piece
      for part in parts
      for piece in _pieces(
        part, info.splits[part.splitname].shard_lengths, -(-self._block // _PIECES_PER_BLOCK)
      )
    ]
    lengths = [piece.to - piece.from_ for piece in self._pieces]
    self._starts = np.concatenate([[0], np.cumsum(lengths)])  # of pieces among the examples

  def order(self, seed: int, epoch: int) -> np.ndarray:
    """See Split."""
    rng = np.random.default_rng([seed, epoch, _ORDER])
    if self.num_examples <= self._block:
      return rng.permutation(self.num_examples)
    bounds = list(itertools.pairwise(self._starts))
    order = np.concatenate([np.arange(*bounds[i]) for i in rng.permutation(len(bounds))])
    for start in range(0, len(order), self._block):
      rng.shuffle(order[start : start + self._block])
    return order

  def _encoded(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The encoded images and labels of examples; the pieces that hold them are read whole."""
    _, tfds = _import_tensorflow()
    used = np.unique(np.searchsorted(self._starts, wanted, side='right') - 1)
    pieces = [self._pieces[i] for i in used]
    instructions = [
      tfds.core.ReadInstruction(piece.splitname, from_=piece.from_, to=piece.to, unit='abs')
      for piece in pieces
    ]
    rows = self._builder.as_dataset(
      split=functools.reduce(operator.add, instructions),
      shuffle_files=False,
      decoders={self._image_key: tfds.decode.SkipDecoding()},
      read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    images, labels = [], []
    for row in rows.as_numpy_iterator():
      images.append(row[self._image_key])
      labels.append(row[self._label_key])
    numbers = np.concatenate([np.arange(self._starts[i], self._starts[i + 1]) for i in used])
    if len(images) != len(numbers):
      raise UserError(
        f'{self._builder.data_path} holds fewer examples than it says; prepare the data set again'
      )
    at = np.searchsorted(numbers, wanted)
    return np.asarray(images, dtype=object)[at], np.asarray(labels, np.int32)[at]

  def read(self, order: np.ndarray, offsets: np.ndarray, size: int) -> Iterator[Batch]:
    """See Split."""
    tf, _ = _import_tensorflow()
    # A block begins where the epoch's order has one, so that a resumed epoch reads it once.
    skipped = (self.num_examples - len(order)) % self._block
    bounds = [0, *range(self._block - skipped, len(order), self._block), len(order)]

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
      for start, stop in itertools.pairwise(bounds):
        images, labels = self._encoded(order[start:stop])
        yield images, labels, offsets[start:stop]

    def decode(encoded: Any, label: Any, offset: Any) -> Batch:
      image = tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE')
      square = (self.image_size, self.image_size, 3)
      image = tf.cond(
        tf.reduce_all(tf.shape(image) == square),
        lambda: image,
        lambda: tf.numpy_function(
          lambda x: fit_square(x, self.image_size), [image], tf.uint8, stateful=False
        ),
      )
      crop = tf.slice(tf.ensure_shape(image, square), [*tf.unstack(offset), 0], (size, size, 3))
      return {'image': crop, 'offset': offset, 'label': label}

    examples = tf.data.Dataset.from_generator(
      blocks,
      output_signature=(
        tf.TensorSpec((None,), tf.string),
        tf.TensorSpec((None,), tf.int32),
        tf.TensorSpec((None, 2), tf.int32),
      ),
    ).unbatch()
    examples = examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    yield from examples.batch(32).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def _pieces(part: Any, shard_lengths: Sequence[int], longest: int) -> Iterator[Any]:
  """Cuts a stretch of a split, as tfds describes one, at shards' ends and every `longest`."""
  start = 0
  for length in shard_lengths:
    first, last = max(start, part.from_), min(start + length, part.to)
    for begin in range(first, last, longest):
      yield dataclasses.replace(part, from_=begin, to=min(begin + longest, last))
    start += length


def _supervised_keys(info: Any, tfds: Any) -> tuple[str, str]:
  keys = info.supervised_keys or ('image', 'label')
  if len(keys) != 2 or not all(isinstance(key, str) for key in keys):
    keys = ('image', 'label')
  for key, what, feature in zip(
    keys, ('image', 'class label'), (tfds.features.Image, tfds.features.ClassLabel), strict=True
  ):
    if key not in info.features or not isinstance(info.features[key], feature):
      raise UserError(f'{info.full_name} has no {what}; it has {", ".join(info.features)}')
  return cast(tuple[str, str], keys)


def _builder(name: str, data_dir: str | None) -> Any:
  """A tfds builder whose data are there, downloaded and prepared if tfds can do that."""
  if data_dir and not os.path.isdir(data_dir) and '://' not in data_dir:
    raise UserError(f'there is no folder {data_dir} (data.data_dir)')
  _, tfds = _import_tensorflow()
  where = data_dir or tfds.core.constants.DATA_DIR
  try:
    with silenced():
      builder = tfds.builder(name, data_dir=data_dir)
  except (tfds.core.registered.DatasetNotFoundError, ValueError, AssertionError) as error:
    known = ['digits', *tfds.list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name, known)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise UserError(f'tfds has no data set {name!r}, nor has {where} one prepared{hint}') from error
  if not builder.is_prepared():
    try:
      builder.download_and_prepare()
    except Exception as error:  # whatever tfds, a download or a missing archive raises
      first = (str(error).strip() or type(error).__name__).splitlines()[0]
      raise UserError(
        f'{name} is not prepared in {where}, and preparing it failed: {first}\n'
        'Set data.data_dir to the folder where tfds has prepared it.'
      ) from error
  return builder


def load_split(
  name: str, split: str, data_dir: str | None, image_size: int, memory_megabytes: int
) -> Split:
  """Opens a split; one of a tfds data set that is small is decoded into memory.

  Args:
    name: 'digits', or a tfds data set's name.
    split: the split's name.
    data_dir: where tfds has it; None for tfds's own folder.
    image_size: side of the squares that images are made into.
    memory_megabytes: how large decoded images may be to be held in memory.

  Raises:
    UserError: the data are not there, have no labels, or no such split.
  """
  if name == 'digits':
    held = digits(split)
    if image_size != held.image_size:
      raise UserError(f'digits are 8x8 pixels; set data.image_size to 8, not {image_size}')
    return held
  records = RecordSplit(_builder(name, data_dir), split, image_size)
  if records.num_examples * image_size**2 * 3 > memory_megabytes * 1e6:
    return records
  chunks = list(whole_images(records))
  return ArraySplit(
    np.concatenate([chunk['image'] for chunk in chunks]),
    np.concatenate([chunk['label'] for chunk in chunks]),
    records.class_names,
  )


def whole_images(split: Split) -> Generator[Batch]:
  """All images of a split, uncropped, in order."""
  n = split.num_examples
  yield from split.read(np.arange(n), np.zeros((n, 2), np.int32), split.image_size)


def _rebatch(chunks: Iterable[Batch], batch_size: int) -> Generator[Batch]:
  """Chunks of any length as batches of one length, the last one shorter."""
  waiting: list[Batch] = []
  count = 0
  for chunk in chunks:
    waiting.append(chunk)
    count += len(chunk['label'])
    while count >= batch_size:
      joined = {name: np.concatenate([part[name] for part in waiting]) for name in chunk}
      yield {name: array[:batch_size] for name, array in joined.items()}
      waiting = [{name: array[batch_size:] for name, array in joined.items()}]
      count -= batch_size
  if count:
    yield {name: np.concatenate([part[name] for part in waiting]) for name in waiting[0]}


def check_crops(image_size: int, crop_size: int, crop_offsets: int) -> None:
  """Raises UserError where crops do not fit the images at so many offsets each way."""
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
) -> Generator[Batch]:
  """Random crops of the training images, without end.

  Args:
    split: the training split.
    seed: of the order and the crops.
    batch_size: images a batch.
    first_step: the step of the first batch.
    crop_size: side of the crops in pixels.
    crop_offsets: how many offsets each way a crop is drawn from (paper: 32, section 4.1).
    images_per_draw: consecutive images that share a draw (source: 32).

  Yields:
    'image' [batch_size, crop_size, crop_size, 3] uint8, 'offset' [batch_size, 2] int32 and
    'label' [batch_size] int32.

  Raises:
    UserError: crops do not fit the images.
  """
  check_crops(split.image_size, crop_size, crop_offsets)
  room = split.image_size - crop_size + 1
  n = split.num_examples
  first_epoch, start = divmod(first_step * batch_size, n)

  def chunks() -> Iterator[Batch]:
    for epoch in itertools.count(first_epoch):
      begin = start if epoch == first_epoch else 0
      draws = np.random.default_rng([seed, epoch, _CROPS]).integers(
        0, crop_offsets, size=(-(-n // images_per_draw), 2), dtype=np.int32
      )
      # With fewer offsets than there is room for, they lie in the middle.
      offsets = np.repeat(draws, images_per_draw, axis=0)[:n] + (room - crop_offsets) // 2
      yield from split.read(split.order(seed, epoch)[begin:], offsets[begin:], crop_size)

  return _rebatch(chunks(), batch_size)


def evaluation_batches(split: Split, batch_size: int, crop_size: int) -> Generator[Batch]:
  """Centre crops of every image, once, in order.

  Args:
    split: the split.
    batch_size: images a batch.
    crop_size: side of the crops in pixels.

  Yields:
    As `train_batches`, with 'mask' [batch_size] bool: False where the last batch is filled up.
  """
  if crop_size > split.image_size:
    raise UserError(
      f'crops of {crop_size} pixels (model.input_size) do not fit images of {split.image_size}'
      ' (data.image_size)'
    )
  n = split.num_examples
  offsets = np.full((n, 2), (split.image_size - crop_size) // 2, np.int32)
  for batch in _rebatch(split.read(np.arange(n), offsets, crop_size), batch_size):
    missing = batch_size - len(batch['label'])
    mask = np.arange(batch_size) < batch_size - missing
    yield {
      name: np.concatenate([array, np.repeat(array[:1], missing, axis=0)])
      for name, array in batch.items()
    } | {'mask': mask}


def statistics(split: Split, progress: Any = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Mean image and colour covariance of a (training) split, in one pass and exact integers.

  Args:
    split: the split.
    progress: called with the number of images of each chunk, if given.

  Returns:
    mean image [S, S, 3] float32 on 0 to 255, and the ascending eigenvalues [3] and eigenvectors
    [3, 3] (columns) float32 of the covariance of RGB values in [0, 1] over all pixels.
  """
  total = np.zeros((split.image_size, split.image_size, 3), np.int64)
  products = np.zeros((3, 3), np.float64)
  with contextlib.closing(whole_images(split)) as chunks:
    for chunk in chunks:
      total += chunk['image'].sum(axis=0, dtype=np.int64)
      for image in chunk['image']:  # exact: each sum of products is below 2**53
        pixels = image.reshape(-1, 3).astype(np.float64)
        products += pixels.T @ pixels
      if progress is not None:
        progress(len(chunk['label']))
  pixels = split.num_examples * split.image_size**2
  mean = total.sum(axis=(0, 1)) / pixels
  covariance = (products / pixels - np.outer(mean, mean)) / 255**2
  eigenvalues, eigenvectors = np.linalg.eigh(covariance)
  # The sign of an axis is free; its largest component is made positive.
  largest = np.abs(eigenvectors).argmax(axis=0)
  eigenvectors = eigenvectors * np.sign(eigenvectors[largest, np.arange(3)])
  return (
    (total / split.num_examples).astype(np.float32),
    np.maximum(eigenvalues, 0).astype(np.float32),
    eigenvectors.astype(np.float32),
  )


def prefetch(batches: Generator[Batch], count: int = 2) -> Generator[Batch]:
  """Makes batches in a thread of their own, up to `count` ahead; ends with the generator."""
  ahead: queue.Queue[Any] = queue.Queue(count)
  stopped = threading.Event()
  end = object()

  def put(item: Any) -> None:
    while not stopped.is_set():
      with contextlib.suppress(queue.Full):
        ahead.put(item, timeout=0.1)
        return

  def work() -> None:
    try:
      for batch in batches:
        put(batch)
        if stopped.is_set():
          return
      put(end)
    except BaseException as error:  # handed to the reader
      put(error)
    finally:
      batches.close()  # tf.data's iterators hang at exit where they are left open

  thread = threading.Thread(target=work, daemon=True)
  thread.start()
  try:
    while (item := ahead.get()) is not end:
      if isinstance(item, BaseException):
        raise item
      yield item
  finally:
    stopped.set()
    thread.join()
