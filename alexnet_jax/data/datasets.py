"""The data sets that a config can name: each opened by `open_data_set`, each a `DataSet`.

There are two kinds: those that come with the program (`included.INCLUDED`), and data sets in tfds's format. A
folder of photographs, ImageNet's tar files and the large images of a tfds data set become one in tfds's
format, by `prepare.prepare`, before they are used.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from alexnet_jax.data import (
  image_folder,
  imagenet_tars,
  included,
  pipeline,
  prepare,
  record_split,
  sources,
  splits,
  statistics,
  tfds_reader,
)
from alexnet_jax.data.folder_layout import normal
from alexnet_jax.utils import files
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError

if TYPE_CHECKING:
  from tensorflow_datasets.core import DatasetBuilder


OpenFolder = Callable[[Path, float | None, int | None], image_folder.FolderSource]
"""As `image_folder.open_folder`."""


class DataSet(Protocol):
  """A data set that is ready to be read."""

  @property
  def class_names(self) -> Sequence[str]:
    """The classes' names, in the order of the labels."""
    ...

  @property
  def fingerprint(self) -> str | None:
    """Of a folder of images: the same for files of the same names and sizes, wherever they are; else None."""
    ...

  @property
  def held_out(self) -> bool:
    """Whether its validation images are a folder's training images that were held out."""
    ...

  def load_split(self, split: str) -> splits.Split:
    """Opens a split, such as 'train', or part of one; raises UserError where it does not exist."""
    ...

  def stored_statistics(self, split: str) -> dict[str, np.ndarray] | None:
    """Reads the statistics of a whole split's pixels that were stored with the data set.

    Args:
      split: as `load_split` takes it.

    Returns:
      As `statistics.Sums.compute`; None where there are none of this split.

    Raises:
      UserError: they cannot be read, or are of another resolution.
    """
    ...


def title(data: Mapping[str, Any]) -> str:
  """What a data set is called in titles: its name, or that of its folder; `data` is a config's."""
  folder = data.get('data_dir') if data['name'] == 'folder' else None
  return Path(os.path.abspath(folder)).name if folder else str(data['name'])


def open_split(
  builder: 'DatasetBuilder',
  split: str,
  image_size: int,
  memory_megabytes: int,
  resize: str = 'paper',
) -> splits.Split:
  """Opens a split of a tfds data set; a small one is decoded into memory.

  Args:
    builder: of a prepared data set.
    split: as tfds writes it.
    image_size: side of the squares that images are made into.
    memory_megabytes: a split whose images take no more, decoded, is held in memory and shuffled
      whole; one that takes more is shuffled in blocks of so many megabytes of encoded images.
    resize: how squares are made, one of `images.RESIZE_RULES`.

  Raises:
    UserError: the split does not exist, or has no images with labels.
  """
  stored = record_split.RecordSplit(builder, split, image_size, memory_megabytes * 10**6, resize)
  n = stored.num_examples
  if n * image_size**2 * 3 > memory_megabytes * 1e6:
    return stored
  images, labels = np.empty((n, image_size, image_size, 3), np.uint8), np.empty(n, np.int32)
  done = 0
  with contextlib.closing(pipeline.whole_images(stored)) as batches:
    for batch in batches:
      rows = slice(done, done := done + len(batch['label']))
      images[rows], labels[rows] = batch['image'], batch['label']
  return splits.ArraySplit(images, labels, stored.class_names, stored.file_names)


@dataclasses.dataclass(frozen=True)
class TfdsDataSet:
  """A data set in tfds's format, prepared; see DataSet.

  Attributes:
    builder: what tfds knows of it; its data are prepared.
    image_size: side in pixels of the squares that images are made into.
    memory_megabytes, resize: see `open_split`.
    fingerprint, held_out: see DataSet.
  """

  builder: 'DatasetBuilder'
  image_size: int
  memory_megabytes: int
  resize: str
  fingerprint: str | None = None
  held_out: bool = False

  @property
  def directory(self) -> Path:
    """The folder of its files."""
    return Path(self.builder.data_path)

  @property
  def class_names(self) -> Sequence[str]:
    """See DataSet; raises UserError where the data set has no images with class labels."""
    return tfds_reader.class_names(self.builder)

  def load_split(self, split: str) -> splits.Split:
    """See DataSet; splits may be written as tfds writes them: 'train[:90%]+test'."""
    return open_split(self.builder, split, self.image_size, self.memory_megabytes, self.resize)

  def stored_statistics(self, split: str) -> dict[str, np.ndarray] | None:
    """See DataSet; preparation stores those of the training split."""
    path = self.directory / statistics.FILE_NAME
    if not path.exists() or prepare.read_metadata(self.directory)['statistics_of'] != split:
      return None
    return statistics.load(path, self.image_size)


class Storage(NamedTuple):
  """Where a data set is, and how its images are kept.

  Attributes:
    data_dir: the folder of photographs, or the one that holds tfds's data sets or ImageNet's tar
      files; None for tfds's own.
    prepared_dir: where to write prepared data sets; None for tfds's own folder.
    image_size: side in pixels of the squares that images are made into.
    resize, memory_megabytes: see `open_split`.
    encoding: see `prepare.prepare`.
    class_depth: see `image_folder.open_folder`.
    unreadable_limit: see `prepare.prepare`.
  """

  data_dir: str | None
  prepared_dir: str | None
  image_size: int
  resize: str
  memory_megabytes: int
  encoding: str
  class_depth: int | None
  unreadable_limit: float


def open_data_set(
  name: str,
  storage: Storage,
  *,
  train_split: str,
  validation_split: str,
  validation_fraction: float,
  num_classes: int | None,
  display: Display,
  open_folder: OpenFolder = image_folder.open_folder,
) -> DataSet:
  """Opens a data set; downloads and prepares it first where that is needed, and reports so.

  Args:
    name: one of `included.INCLUDED`, 'folder', or the name of a tfds data set.
    storage: where it is.
    train_split: the split, or part of one, to be trained on.
    validation_split: the one to be evaluated.
    validation_fraction: see `image_folder.open_folder`.
    num_classes: how many classes the network has; None for as many as the data set.
    display: for lines and bars.
    open_folder: opens a folder of images; another function may keep what it has listed.

  Raises:
    UserError: the data set does not exist, cannot be prepared, or has another number of classes.
  """

  def check(originals: sources.Source) -> None:
    _check_classes(name, originals.class_names, num_classes)
    _check_split('train_split', train_split, originals)
    _check_split('validation_split', validation_split, originals)

  data_set: DataSet
  if name in included.INCLUDED:
    data_set = included.INCLUDED[name](storage.image_size)
  else:
    data_set = _open_stored(
      name,
      storage,
      open_folder,
      validation_fraction,
      check,
      statistics_of=train_split.split('[')[0],
      display=display,
    )
  _check_classes(name, data_set.class_names, num_classes)
  return data_set


def open_for_evaluation(
  name: str,
  storage: Storage,
  *,
  split: str | None,
  class_names: Sequence[str],
  display: Display,
  open_folder: OpenFolder = image_folder.open_folder,
) -> tuple[splits.Split, str]:
  """Opens images on which a network is to be evaluated that was trained on another data set.

  Args:
    name: see `open_data_set`.
    storage: where it is.
    split: the split, or part of one; None: 'validation' where there is one, else 'test', else all
      images. Of a folder none are held out.
    class_names: the network's, in the order of its labels. Images get these labels by the names of
      their classes, of which the data set may have some, in any order.
    display: for lines and bars.
    open_folder: see `open_data_set`.

  Returns:
    The split, with the network's labels and classes; and which it is, as 'test' or 'all'.

  Raises:
    UserError: the data set or the split does not exist, cannot be prepared, or has a class that the
      network does not have.
  """
  where = storage.data_dir if name == 'folder' and storage.data_dir else name

  def check(originals: sources.Source) -> None:
    _labels_of(originals.class_names, class_names, where)
    if split is not None:
      _check_split('validation_split', split, originals)

  data_set: DataSet
  if name in included.INCLUDED:
    data_set, available = included.INCLUDED[name](storage.image_size), ['train', 'validation']
  else:
    data_set = _open_stored(
      name,
      storage,
      open_folder,
      None,
      check,
      statistics_of='' if name == 'folder' else 'train',
      display=display,
    )
    available = list(data_set.builder.info.splits)
  labels = _labels_of(data_set.class_names, class_names, where)
  chosen = split or next((each for each in ('validation', 'test') if each in available), 'all')
  return splits.RelabeledSplit(data_set.load_split(chosen), labels, class_names), chosen


def _open_stored(
  name: str,
  storage: Storage,
  open_folder: OpenFolder,
  validation_fraction: float | None,
  check: Callable[[sources.Source], None],
  *,
  statistics_of: str,
  display: Display,
) -> TfdsDataSet:
  """Opens a folder of images or a tfds data set, which is prepared first where that is needed.

  Args:
    name: see `open_data_set`.
    storage: where it is.
    open_folder: see `open_data_set`.
    validation_fraction: see `image_folder.open_folder`.
    check: called with the originals before they are prepared, which may take hours; raises
      UserError where they do not fit.
    statistics_of: the split of which to store statistics; see `prepare.prepare`.
    display: for lines and bars.
  """
  if storage.data_dir:
    storage = storage._replace(data_dir=files.expanded(storage.data_dir))
  if storage.prepared_dir:
    prepared_dir = files.local(storage.prepared_dir, 'data.prepared_dir')
    storage = storage._replace(prepared_dir=str(prepared_dir))
  originals: sources.Source | None
  left_out: Sequence[sources.LeftOut] = ()
  fingerprint, held_out, newest = None, False, 0.0
  if name == 'folder':
    if not storage.data_dir:
      raise UserError('set the folder of images with --config.data.data_dir=PATH')
    folder = open_folder(
      files.local(storage.data_dir, 'data.data_dir'), validation_fraction, storage.class_depth
    )
    builder, originals, left_out, newest = None, folder, folder.left_out, folder.newest
    fingerprint, held_out = folder.description['fingerprint'], folder.held_out
    for note in folder.notes:
      display.line(note)
  else:
    builder, originals = _find_tfds(name, storage, display)
  if originals is not None:
    check(originals)
    directory = prepare.prepare(
      originals,
      files.local(storage.prepared_dir or tfds_reader.default_data_dir(), 'data.prepared_dir'),
      image_size=storage.image_size,
      resize=storage.resize,
      encoding=storage.encoding,
      statistics_of=statistics_of,
      unreadable_limit=storage.unreadable_limit,
      left_out=left_out,
      display=display,
    )
    _check_counts(directory, originals.splits)
    if newest > prepare.time_of(directory):
      display.line(
        f'some files of {storage.data_dir} are newer than the images prepared from them, but have the'
        f' same names and sizes; if they show something else now, remove {directory}'
      )
    builder = _open_prepared(directory, storage.encoding)
  return TfdsDataSet(
    builder, storage.image_size, storage.memory_megabytes, storage.resize, fingerprint, held_out
  )


def _labels_of(names: Sequence[str], class_names: Sequence[str], data_set: str) -> np.ndarray:
  """The labels [names] int32 that a network has for classes, by name; raises UserError for others."""
  labels = {normal(name): label for label, name in enumerate(class_names)}
  if unknown := [name for name in names if normal(name) not in labels]:
    raise sources.unknown_classes(data_set, unknown, class_names)
  return np.array([labels[normal(name)] for name in names], np.int32)


def _find_tfds(
  name: str, storage: Storage, display: Display
) -> 'tuple[DatasetBuilder, None] | tuple[None, sources.Source]':
  """Finds a data set of tfds's, or ImageNet in its tar files.

  Returns:
    A builder of what can be read as it is, or the originals that have to be prepared first.
  """
  builder = tfds_reader.open_builder(name, storage.data_dir, (*included.INCLUDED, 'folder'))
  plain_name = tfds_reader.plain_name(builder)
  is_imagenet = plain_name == 'imagenet2012'
  if not builder.is_prepared():
    folder = Path(storage.data_dir or tfds_reader.default_data_dir())
    if is_imagenet and (tars := imagenet_tars.find(folder)):
      return None, tars
    prepared = Path(storage.prepared_dir or tfds_reader.default_data_dir())
    if directory := prepare.find(prepared, plain_name, storage.image_size, storage.resize):
      return _open_prepared(directory, storage.encoding), None  # the originals are no longer needed
    if is_imagenet:
      raise UserError(imagenet_tars.instructions(folder))
    display.line(
      f'{plain_name} is not in {folder} yet: tfds downloads and prepares it there, which needs'
      ' an internet connection'
    )
    tfds_reader.let_tfds_prepare(builder)
  if not tfds_reader.needs_shrinking(builder, storage.image_size):
    return builder, None
  originals = tfds_reader.TfdsSource(builder)
  if is_imagenet:
    imagenet_tars.check_synsets(originals.class_names)
  return None, originals


def _open_prepared(directory: Path, encoding: str) -> 'DatasetBuilder':
  """Opens a prepared data set; raises UserError where its images are encoded in another way."""
  stored = prepare.read_metadata(directory)['encoding']
  if encoding not in ('auto', stored):
    raise UserError(
      f'{directory} holds {stored} images, but data.encoding is {encoding!r}; remove'
      ' it, or choose another folder with data.prepared_dir'
    )
  return tfds_reader.open_directory(directory)


def _check_classes(name: str, class_names: Sequence[str], num_classes: int | None) -> None:
  """Raises UserError where the network has another number of classes than the data set."""
  if num_classes not in (None, len(class_names)):
    raise UserError(
      f'{name} has {len(class_names)} classes but model.num_classes is {num_classes}; for a new'
      f' network set --config.model.num_classes={len(class_names)}'
    )


def _check_split(field: str, split: str, source: sources.Source) -> None:
  """Raises UserError, naming the field, where the source lacks a split, whole or in part."""
  for part in split.split('+'):
    if part.strip() != 'all' and part.split('[')[0].strip() not in source.splits:  # tfds has 'all'
      raise UserError(
        f'data.{field} is {split!r}, but {source.name} has only'
        f' {", ".join(map(repr, source.splits))}; parts of one are train[:90%], train[90%:]'
      )


def _check_counts(directory: Path, splits: Mapping[str, int]) -> None:
  """Raises UserError where a prepared data set was made of other counts of images than `splits`."""
  prepared = prepare.read_metadata(directory)['splits']
  if prepared != splits:
    raise UserError(
      f'{directory} was made of other images ({_counts(prepared)}) than those in the source now'
      f' ({_counts(splits)}); remove it, or choose another folder with data.prepared_dir'
    )


def _counts(splits: Mapping[str, int]) -> str:
  return ', '.join(f'{name} {count:,}' for name, count in splits.items())
