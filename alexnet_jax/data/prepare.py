"""The paper's preparation (section 2): originals shrunk once, into a tfds data set of squares.

The set is written shard by shard into a temporary folder, which is renamed when it is complete. So
a folder with the set's name is always complete. Progress is recorded after each shard, with the
sums for the mean image, so a preparation that was killed resumes with the shard it was writing.
"""

import array
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from alexnet_jax.data import images, left_out_list, statistics, tfds_reader
from alexnet_jax.data.earlier import ORIGINAL, Earlier, fingerprint
from alexnet_jax.data.sources import Example, LeftOut, Source
from alexnet_jax.utils import files, locks, shell, threads
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError, number_of

LOSSLESS_UP_TO = 10_000  # images; 'auto' takes PNG for so many
_METADATA = 'metadata.json'
_INCOMPLETE = '.incomplete'  # the end of a folder's name while it is prepared
_LOCK = 'lock'
_DONE = 'done.npz'
_ORIGINALS = 'originals'
_LEAST_UNREADABLE = 10
_BYTES_PER_PIXEL = {'jpeg': 0.7, 'png': 2.0}  # of photographs, generously
_LINE_EVERY_SECONDS = 30


class _Square(NamedTuple):
  """An example that a thread has converted; without a record where it could not be read."""

  example: Example
  record: bytes | None
  pixels: np.ndarray | None  # of the split that the statistics are of
  products: np.ndarray | None
  reason: str
  original: int = 0  # the first 8 bytes of the file's fingerprint


@dataclasses.dataclass
class _Done:
  """The progress of a preparation, as stored with the shards.

  Attributes:
    rule: all that the content depends on; with another rule, preparation starts over.
    shards: of each split, examples and bytes of each shard.
    labels: of each split, how many images of each class.
    unreadable: split, class, file name and reason of each file that could not be read.
    sums: of the training images.
    originals: of each image its split's number, its label and `_Square.original`, one after the other.
      A file of its own, as it grows with each shard: 24 bytes per image.
  """

  rule: dict[str, Any]
  shards: dict[str, list[list[int]]]
  labels: dict[str, list[int]]
  unreadable: list[list[str]]
  sums: statistics.Sums
  originals: 'array.array[int]'

  def save(self, folder: Path) -> None:
    """Writes it to a folder. The last of its files appears only when it is complete."""
    with (folder / _ORIGINALS).open('ab') as file:
      file.write(memoryview(self.originals).cast('B')[file.tell() :])
    _to_disk(folder / _ORIGINALS)
    described = {
      name: getattr(self, name) for name in ('rule', 'shards', 'labels', 'unreadable')
    } | {'count': self.sums.count}
    with files.atomic_write(folder / _DONE) as temporary:
      np.savez(
        temporary,
        described=np.array(json.dumps(described)),
        pixels=self.sums.pixels,
        products=self.sums.products,
      )
      _to_disk(temporary)

  @classmethod
  def load(cls, folder: Path) -> '_Done':
    """Reads what `save` wrote."""
    arrays = files.read_npz(folder / _DONE, ('described', 'pixels', 'products'))
    described = files.parse_json(str(arrays['described']))
    sums = statistics.Sums(described.pop('count'), arrays['pixels'], arrays['products'])
    images = sum(examples for shards in described['shards'].values() for examples, _ in shards)
    originals = array.array('q')
    with (folder / _ORIGINALS).open('rb') as file:
      originals.fromfile(file, 3 * images)
    return cls(**described, sums=sums, originals=originals)

  def identical(self) -> list[str]:
    """Lines for the user: how many images are exact copies of training images, or are in several classes."""
    splits, labels, files = np.array(self.originals).reshape(-1, 3).T
    names = list(self.rule['splits'])
    training = files[splits == names.index('train')] if 'train' in names else []
    said = []
    for number, name in enumerate(names):
      of_split = files[splits == number]
      if name != 'train' and (twins := np.isin(of_split, training).sum()):
        are = 'is a copy of a training image' if twins == 1 else 'are copies of training images'
        said.append(
          f'{twins:,} of {len(of_split):,} {name} images {are}; remove them from one of the two'
          ' splits, or the error that is measured will be too low'
        )
    files, labels = files[labels >= 0], labels[labels >= 0]
    order = np.lexsort((labels, files))
    files, labels = files[order], labels[order]
    in_two = (files[1:] == files[:-1]) & (labels[1:] != labels[:-1])
    if several := len(np.unique(files[1:][in_two])):
      are = 'image is' if several == 1 else 'images are'
      said.append(f'{several:,} {are} in more than one class, as copies of one file')
    return said


def _set_name(name: str, image_size: int, resize: str) -> str:
  """The name of a prepared data set, which each way of making squares has for itself."""
  return f'{name}_{image_size}' + ('' if resize == 'paper' else f'_{resize}')


def find(prepared_dir: Path, name: str, image_size: int, resize: str = 'paper') -> Path | None:
  """Finds the folder of the newest version of a prepared data set; None where there is none."""
  complete: list[Path] = []
  with contextlib.suppress(PermissionError):  # `prepare` will say so
    complete += [
      path.parent
      for path in (prepared_dir / _set_name(name, image_size, resize)).glob('*/dataset_info.json')
      if path.parent.name.replace('.', '').isdigit()
    ]
  return max(complete, key=lambda path: tuple(map(int, path.name.split('.'))), default=None)


def read_metadata(directory: Path) -> dict[str, Any]:
  """Reads what a data set was prepared from, and how; raises UserError where it is damaged."""
  path = directory / _METADATA
  try:
    metadata: dict[str, Any] = files.parse_json(files.read(path))
    kinds = {'splits': dict, 'encoding': str, 'statistics_of': str, 'unreadable_files': int}
    if not all(isinstance(metadata[name], kind) for name, kind in kinds.items()):
      raise TypeError('a field is of another kind')
    if not all(isinstance(count, int) for count in metadata['splits'].values()):
      raise TypeError('a count is none')
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} cannot be read; remove {directory} to have it prepared again'
    ) from error
  return metadata


def time_of(directory: Path) -> float:
  """When a data set was prepared, in seconds since 1970."""
  return (directory / _METADATA).stat().st_mtime


def prepare(
  source: Source,
  prepared_dir: Path,
  *,
  image_size: int,
  encoding: str,
  statistics_of: str,
  unreadable_limit: float,
  display: Display,
  resize: str = 'paper',
  left_out: Sequence[LeftOut] = (),
  images_per_shard: int | None = None,
) -> Path:
  """Writes a data set of square images, resumes one that is incomplete, or finds it complete.

  Where another process is preparing the same data set, this one waits for it.

  Args:
    source: the originals.
    prepared_dir: a folder, created if missing; the data set goes into scenes_256/1.0.0 in it.
    image_size: shorter side in pixels.
    encoding: 'jpeg' (quality 95), 'png' (lossless), or 'auto': PNG for 10,000 images and fewer.
    statistics_of: the split of which mean image and color axes are computed.
    unreadable_limit: the share of images that may be unreadable; ten always may.
    display: for lines and bars.
    resize: how squares are made, one of `images.RESIZE_RULES`.
    left_out: files that are no examples of the source, to be listed with those that cannot be read.
    images_per_shard: images per file; by default a sixteenth of a split, 1,024 at most (the size
      of the 2012 code's files).

  Returns:
    The data set's folder. Beside what tfds writes it has statistics.npz, metadata.json, and
    left_out.tsv where files were left out or could not be read.

  Raises:
    UserError: too little space, too many unreadable files, or nothing can be written.
  """
  total = sum(source.splits.values())
  if encoding == 'auto':
    encoding = 'png' if total <= LOSSLESS_UP_TO else 'jpeg'
  name = _set_name(source.name, image_size, resize)
  place = prepared_dir / name / source.version
  incomplete = place.with_name(place.name + _INCOMPLETE)
  rule = {
    'name': name,
    'version': source.version,
    'source': dict(source.description),
    'splits': dict(source.splits),
    'class_names': list(source.class_names),
    'images_per_shard': {
      split: images_per_shard or min(1024, max(16, -(-n // 16)))
      for split, n in source.splits.items()
    },
    'image_size': image_size,
    'resize': images.RESIZE_RULES[resize],
    'encoding': encoding,
    'pillow': PIL.__version__,
    'statistics_of': statistics_of,
  }
  try:
    if place.is_dir():
      left_out_list.update(place, left_out, display)
      _tell_unreadable(place, total, display)
      _tell_identical(place, display)
      return place
    with _alone(incomplete, display):
      if not place.is_dir():
        older = list(_older(prepared_dir, rule, resize, (place, incomplete)))
        alike = [path for path, earlier in older if _is_alike(earlier, rule)]
        plain_rule = json.loads(json.dumps(rule))
        earlier = Earlier(alike)
        convert = functools.partial(
          _convert, size=image_size, resize=resize, encoding=encoding, find=earlier.find
        )
        _prepare(
          source, incomplete, plain_rule, convert, unreadable_limit, left_out, earlier, display
        )
        complete = [path for path, _ in older if path.suffix != _INCOMPLETE]
        if complete:  # one that is not may be another process's, which is preparing it
          display.line(_removable(complete))
        incomplete.rename(place)
        for name in (_DONE, _ORIGINALS, _LOCK, locks.owner_file(Path(_LOCK)).name):
          (place / name).unlink(missing_ok=True)
        _tell_unreadable(place, total, display)
        if (place / left_out_list.FILE_NAME).exists():
          display.line(
            f'all files that are left out are listed in {place / left_out_list.FILE_NAME}'
          )
      _tell_identical(place, display)
  except OSError as error:
    raise UserError(
      f'cannot write to {incomplete}: {error.strerror or error}\n'
      'What is done is kept: make room, or choose another folder with data.prepared_dir, and give'
      ' the same command.'
    ) from error
  return place


def _tell_unreadable(place: Path, total: int, display: Display) -> None:
  """Shows how many of so many images could not be read when the data set was prepared."""
  if unreadable := read_metadata(place)['unreadable_files']:
    display.line(f'cannot be read, and left out: {unreadable:,} of {total:,} images')


def _tell_identical(place: Path, display: Display) -> None:
  """Shows what `_Done.identical` said of a data set; older ones do not have it."""
  for line in read_metadata(place).get('identical', ()):
    display.line(line)


def _older(
  prepared_dir: Path, rule: dict[str, Any], resize: str, except_for: Sequence[Path]
) -> Iterator[tuple[Path, dict[str, Any]]]:
  """Finds what was prepared from the same folder, as squares of the same kind, and by which rules."""
  if rule['source'].get('kind') != 'folder':
    return
  for path in sorted(prepared_dir.glob(f'{_set_name("*", rule["image_size"], resize)}/*/')):
    earlier: Any = None
    with contextlib.suppress(Exception):  # another program's, or damaged
      if (path / _METADATA).exists():
        earlier = files.parse_json(files.read(path / _METADATA))
      elif (path / _DONE).exists():
        earlier = _Done.load(path).rule
    if path in except_for or not isinstance(earlier, dict):
      continue
    source = earlier.get('source')
    if isinstance(source, dict) and source.get('path') == rule['source']['path']:
      yield path, earlier


def _is_alike(earlier: dict[str, Any], rule: dict[str, Any]) -> bool:
  """Whether one rule makes the same image of an original as another."""
  return all(earlier.get(name) == rule[name] for name in ('resize', 'encoding', 'pillow'))


def _removable(paths: Sequence[Path]) -> str:
  """Says how to remove data sets that were prepared before."""
  size = sum(file.stat().st_size for path in paths for file in path.iterdir() if file.is_file())
  folders = list(dict.fromkeys(str(path.parent) for path in paths))
  return (
    f'{number_of(len(folders), "data set")} ({size / 1e6:,.1f} MB) prepared from the same folder before,'
    f' of other files or with other settings; if no other config needs them: rm -r {shell.join(folders)}'
  )


@contextlib.contextmanager
def _alone(folder: Path, display: Display) -> Iterator[None]:
  """Creates the folder and locks other processes out of it."""
  lock_file = files.inside(folder.parent, Path(folder.name, _LOCK))  # all else will be removed
  folder.mkdir(parents=True, exist_ok=True)

  def wait(owner: str) -> None:
    who = owner and f' ({owner})'
    display.line(f'another process is preparing {folder.parent}{who}; waiting for it')

  with locks.lock(lock_file, wait, display.line):
    yield


def _prepare(
  source: Source,
  folder: Path,
  rule: dict[str, Any],
  convert: Callable[..., '_Square'],
  unreadable_limit: float,
  left_out: Sequence[LeftOut],
  earlier: Earlier,
  display: Display,
) -> None:
  """Completes the data set in the folder, from whatever state it is in."""
  tfds_reader.import_tensorflow()  # fail before the work where it is missing
  done = _resume(folder, rule)
  _check_room(folder, rule)
  display.line(
    f'preparing {rule["name"]} once, in {folder.parent}: {sum(source.splits.values()):,} images,'
    f' shorter side to {rule["image_size"]} pixels, central square, as {rule["encoding"]}'
  )
  unread = [[*file[:4]] for file in left_out if file.is_photograph]
  total = sum(source.splits.values()) + len(unread)
  allowed = max(_LEAST_UNREADABLE, int(unreadable_limit * total))
  if len(earlier):
    display.line(
      f'prepared earlier: {number_of(len(earlier), "image")}; those of identical files are reused'
    )
  if damaged := len(earlier.damaged):
    display.line(
      f'{number_of(damaged, "file")} of images prepared earlier cannot be read to'
      f' the end, such as {earlier.damaged[0]}: what is missing is prepared again'
    )

  for split, num_examples in source.splits.items():
    size = rule['images_per_shard'][split]
    shards = _num_shards(rule, split)
    first = len(done.shards[split])
    if first == shards:
      continue
    log = _ProgressLog(display, f'preparing {split}', num_examples, first * size)

    of_split = functools.partial(convert, counted=split == rule['statistics_of'])
    with _converted(source, split, first * size, of_split) as squares:
      for shard in range(first, shards):
        temporary = folder / 'shard.part'
        _write_shard(temporary, itertools.islice(squares, size), split, done, log)
        if len(done.unreadable) + len(unread) > allowed:
          display.line(
            f'more than {allowed:,} files cannot be read: checking the remaining ones, to list them all'
          )
          # So far, should this be interrupted.
          left_out_list.write(folder, done.unreadable, left_out)
          _note_rest(squares, split, done, log)
          _read_on(source, split, done, convert, display)
          left_out_list.write(folder, done.unreadable, left_out)
          raise _too_many(folder, [*done.unreadable, *unread], total, allowed)
        temporary.replace(folder / _shard_name(rule, split, shard))
        done.save(folder)
    log(done=True)
  _finish(folder, done, left_out)


@contextlib.contextmanager
def _converted(
  source: Source, split: str, start: int, convert: Callable[[Example], _Square]
) -> Iterator[Iterator[_Square]]:
  """Converts a split's examples from one on, in threads."""
  with (
    contextlib.closing(source.examples(split, start)) as examples,
    contextlib.closing(threads.map_ahead(convert, examples)) as squares,
  ):
    yield squares


def _read_on(
  source: Source, split: str, done: _Done, convert: Callable[..., _Square], display: Display
) -> None:
  """Notes which files of the splits after `split` cannot be read."""
  splits = list(source.splits)
  for later in splits[splits.index(split) + 1 :]:
    log = _ProgressLog(display, f'reading {later}', source.splits[later], 0)
    with _converted(source, later, 0, functools.partial(convert, counted=False)) as squares:
      _note_rest(squares, later, done, log)
    log(done=True)


def _note_rest(squares: Iterable[_Square], split: str, done: _Done, log: '_ProgressLog') -> None:
  """Notes which of a split's remaining files cannot be read."""
  for square in squares:
    _note_unreadable(square, split, done)
    log(1)


def _note_unreadable(square: _Square, split: str, done: _Done) -> None:
  """Notes an example's file where it could not be read."""
  if square.record is None:
    example = square.example
    name = done.rule['class_names'][example.label] if example.label >= 0 else ''
    done.unreadable.append([split, name, example.file_name, square.reason])


def _write_shard(
  path: Path, squares: Iterable[_Square], split: str, done: _Done, log: '_ProgressLog'
) -> None:
  """Writes squares to a file of records, and records them as done."""
  tf, _ = tfds_reader.import_tensorflow()
  written = [0, 0]
  try:
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
      for square in squares:
        log(1)
        example = square.example
        if square.record is None:
          _note_unreadable(square, split, done)
          continue
        writer.write(square.record)
        written = [written[0] + 1, written[1] + len(square.record)]
        if example.label >= 0:  # else it has none
          done.labels[split][example.label] += 1
        done.originals.extend((list(done.labels).index(split), example.label, square.original))
        if square.pixels is not None:
          done.sums.add(square.pixels, square.products)
  except tf.errors.OpError as error:  # TensorFlow's own, for a full disk
    raise OSError(error.message) from error
  _to_disk(path)
  done.shards[split].append(written)


def _num_shards(rule: dict[str, Any], split: str) -> int:
  return -(-rule['splits'][split] // rule['images_per_shard'][split])


def _shard_name(rule: dict[str, Any], split: str, number: int) -> str:
  return f'{rule["name"]}-{split}.tfrecord-{number:05d}-of-{_num_shards(rule, split):05d}'


def _resume(folder: Path, rule: dict[str, Any]) -> _Done:
  """Reads the progress made by the same rule, and removes all else from the folder."""
  done = _Done(
    rule,
    {split: [] for split in rule['splits']},
    {split: [0] * len(rule['class_names']) for split in rule['splits']},
    [],
    statistics.Sums.zero(rule['image_size']),
    array.array('q'),
  )
  kept = {_LOCK, locks.owner_file(Path(_LOCK)).name}
  with contextlib.suppress(Exception):  # missing or damaged: start over
    stored = _Done.load(folder)
    if stored.rule == rule:
      done = stored
      kept |= {_DONE, _ORIGINALS}
      os.truncate(folder / _ORIGINALS, 8 * len(done.originals))  # killed while it was adding some
  for split, shards in done.shards.items():
    kept |= {_shard_name(rule, split, number) for number in range(len(shards))}
  for path in folder.iterdir():
    if path.name not in kept:
      path.unlink()
  return done


def _check_room(folder: Path, rule: dict[str, Any]) -> None:
  """Raises UserError where the disk has too little space for what is still to be written."""
  each = _BYTES_PER_PIXEL[rule['encoding']] * rule['image_size'] ** 2
  written = sum(path.stat().st_size for path in folder.iterdir())
  needed = sum(rule['splits'].values()) * each - written
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise UserError(
      f'preparing {rule["name"]} takes about {needed / 1e9:.1f} GB, and {folder.parents[1]} has'
      f' {free / 1e9:.1f} GB free; make room, or choose another folder with data.prepared_dir'
    )


def _convert(
  example: Example,
  *,
  size: int,
  resize: str,
  encoding: str,
  find: Callable[[bytes], bytes | None],
  counted: bool,
) -> _Square:
  """Reads, decodes, shrinks and encodes an image.

  Args:
    example: the original.
    size: side in pixels.
    resize: one of `images.RESIZE_RULES`.
    encoding: 'jpeg' or 'png'.
    find: finds the encoded image by the original's fingerprint where it was made before.
    counted: whether to compute what the statistics need.
  """
  tf, _ = tfds_reader.import_tensorflow()
  square = None
  try:
    content = example.read()
    original = fingerprint(content)
    encoded = find(original)
    if encoded is None:
      square = images.fit_square(images.decode(content, resize), size, resize)
      encoded = images.encode(square, encoding)
  except images.UnreadableError as error:
    return _Square(example, None, None, None, str(error))
  record = tf.train.Example()
  features = record.features.feature
  features['image'].bytes_list.value.append(encoded)
  features['label'].int64_list.value.append(example.label)
  features['file_name'].bytes_list.value.append(example.file_name.encode())
  features[ORIGINAL].bytes_list.value.append(original)
  pixels = products = None
  if counted:  # as training will see it, after the JPEG's loss
    kept = square is not None and encoding == 'png'
    pixels = np.asarray(square if kept else images.decode(encoded))
    products = statistics.color_products(pixels)
  start = int.from_bytes(original[:8], signed=True)
  return _Square(example, record.SerializeToString(deterministic=True), pixels, products, '', start)


def _finish(folder: Path, done: _Done, left_out: Sequence[LeftOut]) -> None:
  """Writes the metadata that make the shards a data set."""
  _, tfds = tfds_reader.import_tensorflow()
  rule, training = done.rule, done.rule['statistics_of']
  lost = {name for split, name, _, _ in done.unreadable if split == training}
  empty = lost & {
    rule['class_names'][i] for i, n in enumerate(done.labels.get(training, [])) if not n
  }
  if empty:
    left_out_list.write(folder, done.unreadable, left_out)
    (folder / _DONE).unlink()  # or repaired files would not be read
    raise UserError(
      f'no image of class {min(empty)!r} in {training!r} can be read;'
      f' see {folder / left_out_list.FILE_NAME}'
    )
  size = rule['image_size']
  template = tfds.core.ShardedFileTemplate(
    data_dir=folder,
    dataset_name=rule['name'],
    filetype_suffix='tfrecord',
    template='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
  )
  splits = [
    tfds.core.SplitInfo(
      name=split,
      shard_lengths=[examples for examples, _ in shards],
      num_bytes=sum(size for _, size in shards),
      filename_template=template.replace(split=split),
    )
    for split, shards in done.shards.items()
  ]
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=tfds.features.FeaturesDict(
      {
        'image': tfds.features.Image(shape=(size, size, 3), encoding_format=rule['encoding']),
        'label': tfds.features.ClassLabel(names=rule['class_names']),
        'file_name': tfds.features.Text(),
      }
    ),
    split_infos=splits,
    version=rule['version'],
    filename_template=template,
    check_data=False,
    description=f'Originals shrunk once: {rule["resize"]}. See {_METADATA}.',
    supervised_keys=('image', 'label'),
  )
  metadata = rule | {
    'images_per_class': done.labels,
    'unreadable_files': len(done.unreadable),
    'identical': done.identical(),
  }
  if done.sums.count:
    computed = done.sums.compute()
    statistics.save(folder / statistics.FILE_NAME, computed)
    metadata |= {name: computed[name].tolist() for name in ('eigenvalues', 'eigenvectors')} | {
      'mean_color': computed['mean_image'].mean(axis=(0, 1)).tolist()
    }
  (folder / _METADATA).write_text(
    json.dumps(metadata, indent=2, ensure_ascii=False) + '\n', 'utf-8'
  )
  left_out_list.write(folder, done.unreadable, left_out)
  for path in folder.iterdir():
    _to_disk(path)


def _too_many(
  folder: Path, unreadable: Sequence[Sequence[str]], total: int, allowed: int
) -> UserError:
  split, _, file_name, reason = unreadable[0]
  count = len(unreadable)
  limit = min(1, math.ceil((count + 0.5) / total * 1000) / 1000)  # a little more, for rounding
  return UserError(
    f'{count:,} of {total:,} images cannot be read, more than {allowed:,}, such as'
    f' {file_name} ({split}): {reason}; all are listed in {folder / left_out_list.FILE_NAME}\n'
    'Repair, convert or remove them; or, to continue without them, add'
    f' --config.data.unreadable_limit={limit:g}'
  )


class _ProgressLog:
  """A progress bar on a terminal; elsewhere a line every 30 seconds."""

  def __init__(self, display: Display, what: str, total: int, completed: int):
    self._display, self._what, self._total, self._completed = display, what, total, completed
    self._began = self._last = time.monotonic()
    self._at_beginning = completed
    self._update_bar = display.task(what, total, completed)

  def __call__(self, advance: int = 0, done: bool = False) -> None:
    self._update_bar(advance, done=done)
    self._completed += advance
    now = time.monotonic()
    if done or (not self._display.live and now - self._last > _LINE_EVERY_SECONDS):
      self._last = now
      speed = (self._completed - self._at_beginning) / max(now - self._began, 1e-9)
      left = (self._total - self._completed) / max(speed, 1e-9)
      rest = '' if done else f', {left / 60:.0f} minutes left'
      self._display.line(
        f'{self._what}: {self._completed:,} of {self._total:,} images, {speed:.0f} images/s{rest}'
      )


def _to_disk(path: Path) -> None:
  with path.open('rb') as file:
    os.fsync(file.fileno())
