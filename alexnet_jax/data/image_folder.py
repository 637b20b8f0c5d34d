"""Sources of original images: a folder, or ImageNet's two tar files.

The order of a split is a fixed permutation of its files, so that neighbors are of different classes
and reading can resume at any of them.
"""

import dataclasses
import hashlib
import importlib.util
import itertools
import json
import operator
import os
import re
import shlex
import tarfile
import unicodedata
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from alexnet_jax.utils import host
from alexnet_jax.utils.errors import UserError

IMAGE_SUFFIXES = (
  '.jpg',
  '.jpeg',
  '.jpe',
  '.jfif',
  '.png',
  '.gif',
  '.bmp',
  '.webp',
  '.tif',
  '.tiff',
  '.ppm',
  '.pgm',
  '.pbm',
  '.pnm',
)
"""How the names of image files end, in small or capital letters."""

_LAYOUT = '<folder>/train/<class>/<images> or <folder>/<class>/<images>'
_SPLITS = ('train', 'validation', 'test')
_SPLIT_OF_FOLDER = {
  'train': 'train',
  'training': 'train',
  'val': 'validation',
  'valid': 'validation',
  'validation': 'validation',
  'test': 'test',
}
_SEED = 2012  # of the order of splits, and of which images are held out

_Member = TypeVar('_Member')


class Example(NamedTuple):
  """An original image.

  Attributes:
    file_name: its path within the source, for messages.
    encoded: the file's content; empty where it cannot be read.
    label: its class, an index into the source's `class_names`.
  """

  file_name: str
  encoded: bytes
  label: int


class Source(Protocol):
  """A data set of original images."""

  @property
  def name(self) -> str:
    """The data set's name: lower-case letters, digits and underscores."""
    ...

  @property
  def version(self) -> str:
    """The data set's version, such as '1.0.0'."""
    ...

  @property
  def class_names(self) -> Sequence[str]:
    """The classes' names, in the order of the labels."""
    ...

  @property
  def splits(self) -> Mapping[str, int]:
    """The number of images of each split."""
    ...

  @property
  def description(self) -> Mapping[str, Any]:
    """A description of where the images come from; of JSON's types."""
    ...

  def examples(self, split: str, start: int) -> Generator[Example]:
    """The examples of a split from number `start` on, in the same order every time."""
    ...


def _shuffled(members: Sequence[_Member], split: str, start: int) -> Iterator[_Member]:
  """The members of a split from number `start` on, in its order."""
  order = np.random.default_rng([_SEED, _SPLITS.index(split)]).permutation(len(members))
  return (members[i] for i in order[start:])


@dataclasses.dataclass(frozen=True)
class FolderSource:
  """Image files, a folder for each class.

  Attributes:
    root: the folder that holds all files.
    files: each split's files, as absolute path and label.
    name: see Source, as for the others.
  """

  root: Path
  files: Mapping[str, Sequence[tuple[str, int]]]
  name: str
  class_names: Sequence[str]
  description: Mapping[str, Any]
  version: str = '1.0.0'

  @property
  def splits(self) -> Mapping[str, int]:
    """See Source."""
    return {split: len(files) for split, files in self.files.items()}

  def examples(self, split: str, start: int) -> Generator[Example]:
    """See Source."""
    for path, label in _shuffled(self.files[split], split, start):
      try:  # a pipe or a device, which may never end, is no image
        encoded = Path(path).read_bytes() if os.path.isfile(path) else b''
      except OSError:  # missing or not readable: reported and left out as an empty file is
        encoded = b''
      yield Example(_printable(os.path.relpath(path, self.root)), encoded, label)


def open_folder(path: str | Path, validation_fraction: float) -> FolderSource:
  """Finds the images of <path>/<split>/<class>/<images>, or of <path>/<class>/<images>.

  The latter is a training split alone. Images may lie in subfolders of a class. Files that do not
  end in one of IMAGE_SUFFIXES, lie outside the classes or are hidden are ignored.

  Folders and files may be links, to anywhere; their targets are decoded as images, or left out.

  Args:
    path: the folder.
    validation_fraction: how much of each class to hold out where there is no validation split; at
      least one image, but never the only one.

  Raises:
    UserError: the folder does not exist, or has another layout.
  """
  if not 0 < validation_fraction < 1:
    raise UserError(
      f'data.validation_fraction is {validation_fraction}; it must lie between 0 and 1'
    )
  root = Path(os.path.abspath(path))
  if not root.is_dir():
    what = 'is a file' if root.exists() else 'does not exist'
    raise UserError(f'{root} {what}; give a folder of images, {_LAYOUT}')
  split_folders = _split_folders(root)
  class_folders = {split: _class_folders(folder) for split, folder in split_folders.items()}
  _check_classes(split_folders, class_folders)
  class_names = sorted(class_folders['train'])
  files = {split: _labelled(folders, class_names) for split, folders in class_folders.items()}
  _check_files(split_folders, class_folders['train'], files)
  description: dict[str, Any] = {
    'kind': 'folder',
    'path': str(root),
    'fingerprint': _fingerprint(root, split_folders, files),
    'validation': 'folder',
  }
  if 'validation' not in files:
    files |= _hold_out(files['train'], validation_fraction)
    if not files['validation']:
      raise UserError(f'{root} has one image a class, so that none can be held out for validation')
    description['validation'] = {
      'fraction': validation_fraction,
      'seed': _SEED,
      'of_each_class': True,
    }
  # Other images, or another division, are another data set.
  identity = json.dumps([description['fingerprint'], description['validation']])
  digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
  name = f'{_data_set_name(root.name)}_{digest}'
  return FolderSource(root, files, name, class_names, description)


def _split_folders(root: Path) -> dict[str, Path]:
  """Finds the folder of each split: the root itself where it holds classes."""
  named: dict[str, Path] = {}
  for folder in _subfolders(root):
    split = _SPLIT_OF_FOLDER.get(folder.name.lower())
    if split in named:
      raise UserError(
        f'{root} has two folders for the split {split!r}, {named[split].name!r} and'
        f' {folder.name!r}; put their classes into one'
      )
    if split:
      named[split] = folder
  if not named:
    return {'train': root}
  if 'train' not in named:
    names = ' and '.join(repr(folder.name) for folder in named.values())
    raise UserError(f"{root} has {names}, but no folder 'train'; add one, as in {_LAYOUT}")
  return {split: named[split] for split in _SPLITS if split in named}


def _class_folders(split_folder: Path) -> dict[str, Path]:
  """Finds the folder of each class of a split, by the class's name."""
  folders: dict[str, Path] = {}
  seen: dict[str, str] = {}
  for folder in _subfolders(split_folder):
    name = _normal(folder.name)
    if name.splitlines() != [name] or name.strip() != name or _printable(name) != name:
      raise UserError(
        f'{split_folder} has a folder {folder.name!r}, which can name no class; rename it, without'
        ' line breaks, spaces at its ends, or what is not Unicode'
      )
    other = seen.setdefault(name.casefold(), folder.name)
    if other != folder.name:
      raise UserError(
        f'{split_folder} has two classes that differ in capitals alone, {other!r} and'
        f' {folder.name!r}; rename one, or put their images together'
      )
    folders[name] = folder
  return folders


def _check_classes(
  split_folders: Mapping[str, Path], class_folders: Mapping[str, Mapping[str, Path]]
) -> None:
  """Raises UserError where training has one class, or lacks a class of another split."""
  train = class_folders['train']
  for split, folder in split_folders.items():
    unknown = sorted(class_folders[split].keys() - train.keys())
    if unknown:
      raise UserError(
        f'{folder} has classes that training lacks ({len(unknown)}, such as {unknown[0]!r}); name'
        f' them as in {split_folders["train"]}, or remove them'
      )
  if len(train) == 1:
    raise UserError(
      f'{split_folders["train"]} has a single class, {next(iter(train))!r}; give {_LAYOUT}'
    )


def _labelled(folders: Mapping[str, Path], class_names: Sequence[str]) -> list[tuple[str, int]]:
  """Lists the images of a split's classes, sorted by class and path, as path and label."""
  return [
    (path, label)
    for label, name in enumerate(class_names)
    if name in folders
    for path in sorted(filter(_is_image, _files(folders[name])), key=_normal)
  ]


def _check_files(
  split_folders: Mapping[str, Path],
  train_folders: Mapping[str, Path],
  files: Mapping[str, Sequence[tuple[str, int]]],
) -> None:
  """Raises UserError where a split or a class of training has no images."""
  for split, folder in split_folders.items():
    if not files[split]:
      raise UserError(
        f'{folder} has no images in folders of classes{_hint(folder)}; give {_LAYOUT}'
      )
  filled = {label for _, label in files['train']}
  for label, (name, folder) in enumerate(sorted(train_folders.items())):
    if label not in filled:
      raise UserError(
        f'the class {name!r} is empty: {folder} has no images{_hint(folder)}; add some, or remove'
        ' it'
      )


def _hint(folder: Path) -> str:
  """Describes, in parentheses, what a folder has in place of images in classes."""
  names = list(_files(folder))
  if any(map(_is_image, names)):
    return ' (those in it lie outside of such folders)'
  if names:
    ends = sorted({os.path.splitext(name)[1] or os.path.basename(name) for name in names})
    return f' (its files end in {", ".join(ends[:5])}; images in {", ".join(IMAGE_SUFFIXES)})'
  return ''


def _hold_out(
  files: Iterable[tuple[str, int]], fraction: float
) -> dict[str, list[tuple[str, int]]]:
  """Divides files, sorted by label, into 'train' and, of each class a fraction, 'validation'."""
  parts: dict[str, list[tuple[str, int]]] = {'train': [], 'validation': []}
  for label, group in itertools.groupby(files, operator.itemgetter(1)):
    members = list(group)
    count = min(len(members) - 1, max(1, round(fraction * len(members))))
    order = np.random.default_rng([_SEED, label]).permutation(len(members))
    parts['validation'] += [members[i] for i in sorted(order[:count])]
    parts['train'] += [members[i] for i in sorted(order[count:])]
  return parts


def _fingerprint(
  root: Path, split_folders: Mapping[str, Path], files: Mapping[str, Sequence[tuple[str, int]]]
) -> str:
  """SHA-256 of the files' names and sizes, in hexadecimal digits; the same wherever they are."""
  lines = sorted(
    f'{_normal(split + path.removeprefix(str(split_folders[split])))}\0{_size(root / path)}\n'
    for split, of_split in files.items()
    for path, _ in of_split
  )
  return hashlib.sha256(os.fsencode(''.join(lines))).hexdigest()


def _size(path: Path) -> int:
  try:
    return os.stat(path).st_size
  except OSError:  # a link to nowhere, which reading will report
    return -1


def _data_set_name(folder: str) -> str:
  """Names a data set after a folder: 'Cats & dogs' becomes 'cats_dogs', '101' 'folder_101'."""
  name = re.sub('[^a-z0-9]+', '_', folder.lower()).strip('_')
  return name if name[:1].isalpha() else f'folder_{name}'.rstrip('_')


def _normal(name: str) -> str:
  """Normalizes a name, so that characters that look the same are the same (Unicode NFC)."""
  return unicodedata.normalize('NFC', name)


def _printable(name: str) -> str:
  """Replaces the bytes of a file's name that are not Unicode."""
  return os.fsencode(name).decode(errors='replace')


def _is_image(name: str) -> bool:
  return name.lower().endswith(IMAGE_SUFFIXES)


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
  """Lists a folder, without hidden files and those of the operating system."""
  with os.scandir(folder) as entries:
    yield from (e for e in entries if not e.name.startswith('.') and e.name != '__MACOSX')


def _subfolders(folder: Path) -> list[Path]:
  return sorted(folder / entry.name for entry in _entries(folder) if entry.is_dir())


def _files(folder: str | Path, seen: set[tuple[int, int]] | None = None) -> Iterator[str]:
  """Lists the paths of the files in a folder, at any depth.

  Links are followed, but no folder is listed twice: links among a few folders can make more paths
  than could ever be listed. `seen` holds the identities of the folders that were listed.
  """
  seen = set() if seen is None else seen
  status = os.stat(folder)
  identity = (status.st_dev, status.st_ino)
  if identity not in seen:
    seen.add(identity)
    for entry in sorted(_entries(folder), key=lambda entry: (entry.is_symlink(), entry.name)):
      if entry.is_dir():
        yield from _files(entry.path, seen)
      else:
        yield entry.path


class Archive(NamedTuple):
  """One of ImageNet's tar files.

  Attributes:
    split: the split that its images are.
    file_name: the file's name.
    size: bytes.
    md5: hexadecimal digits.
    num_images: how many it holds.
  """

  split: str
  file_name: str
  size: int
  md5: str
  num_images: int


IMAGENET_ARCHIVES = (
  Archive(
    'train',
    'ILSVRC2012_img_train.tar',
    size=147_897_477_120,
    md5='1d675b47d978889d74fa0da5fadfb00e',
    num_images=1_281_167,
  ),
  Archive(
    'validation',
    'ILSVRC2012_img_val.tar',
    size=6_744_924_160,
    md5='29b22e2961454d5413ddabcf34fc5622',
    num_images=50_000,
  ),
)


class _Stored(NamedTuple):
  """The position of an image in its tar file."""

  file_name: str
  label: int
  offset: int
  size: int


@dataclasses.dataclass(frozen=True)
class ImagenetSource:
  """ImageNet 2012, read from its tar files.

  Attributes:
    folder: the folder of the tar files.
    class_names: see Source, as for the others.
  """

  folder: Path
  class_names: Sequence[str]
  name: str = 'imagenet2012'
  version: str = '5.1.0'

  @property
  def splits(self) -> Mapping[str, int]:
    """See Source."""
    return {archive.split: archive.num_images for archive in IMAGENET_ARCHIVES}

  @property
  def description(self) -> Mapping[str, Any]:
    """See Source."""
    archives = [{'file_name': a.file_name, 'size': a.size, 'md5': a.md5} for a in IMAGENET_ARCHIVES]
    path = str(self.folder.absolute())
    return {'kind': 'imagenet tars', 'path': path, 'archives': archives}

  def examples(self, split: str, start: int) -> Generator[Example]:
    """See Source; the first one takes long, for the whole file is searched for its images.

    Raises:
      UserError: the split's file is damaged.
    """
    archive = next(archive for archive in IMAGENET_ARCHIVES if archive.split == split)
    images = _images(self.folder / archive.file_name, archive, self.class_names)
    with open(self.folder / archive.file_name, 'rb') as file:
      for image in _shuffled(images, split, start):
        try:
          encoded = os.pread(file.fileno(), image.size, image.offset)
        except OSError as error:
          raise UserError(f'{file.name} cannot be read: {error.strerror}') from error
        yield Example(image.file_name, encoded, image.label)


def imagenet_instructions(data_dir: Path) -> str:
  """Lines of text that say how to get ImageNet's files."""
  files = [f'  {a.file_name}  {a.size:,} bytes, MD5 {a.md5}' for a in IMAGENET_ARCHIVES]
  command = f'{host.program()} --config=configs/imagenet.py --mode=prepare'
  lines = [
    'ImageNet has to be downloaded by hand: register at https://image-net.org/download-images, put',
    *files,
    f'into {data_dir} as they are, and then give',
    f'  {command} --config.data.data_dir={shlex.quote(str(data_dir))}',
  ]
  return '\n'.join(lines)


def find_imagenet_tars(data_dir: Path) -> Path | None:
  """Finds the folder with ImageNet's tar files: `data_dir`, or the one below it that tfds uses.

  Returns:
    The folder; None where neither has any of the files.

  Raises:
    UserError: one of the files is missing or incomplete.
  """
  folders = (data_dir, data_dir / 'downloads' / 'manual')
  count = {f: sum((f / a.file_name).is_file() for a in IMAGENET_ARCHIVES) for f in folders}
  folder = max(folders, key=lambda folder: count[folder])
  if not count[folder]:
    return None
  _check_archives(folder)
  return folder


def _check_archives(folder: Path) -> None:
  for archive in IMAGENET_ARCHIVES:
    path = folder / archive.file_name
    if not path.is_file():
      raise UserError(
        f'{folder} lacks {archive.file_name}; put it there, ImageNet takes both files'
      )
    size = path.stat().st_size
    if size != archive.size:
      raise UserError(
        f'{path} has {size:,} of {archive.size:,} bytes: it is still being downloaded, was cut off,'
        f' or is another file; md5sum must give {archive.md5}'
      )


def open_imagenet_tars(folder: Path) -> ImagenetSource:
  """Opens ImageNet 2012 in its tar files, which are not changed.

  Raises:
    UserError: a file is missing or incomplete; or tfds, which has the labels, is missing.
  """
  _check_archives(folder)
  return ImagenetSource(folder, imagenet_synsets())


def _images(path: Path, archive: Archive, synsets: Sequence[str]) -> list[_Stored]:
  """Lists the images of a tar file; raises UserError where it is damaged."""
  list_images = {'train': _train_images, 'validation': _validation_images}[archive.split]
  try:
    with open(path, 'rb', buffering=0) as file:  # file systems may ask for buffers of megabytes
      stored = list_images(file, synsets)
    if len(stored) != archive.num_images:
      raise tarfile.ReadError(f'{len(stored):,} images, not {archive.num_images:,}')
  except tarfile.TarError as error:
    raise UserError(
      f'{path} is damaged ({error}); download it again where md5sum does not give {archive.md5}'
    ) from error
  return stored


def _train_images(file: IO[bytes], synsets: Sequence[str]) -> list[_Stored]:
  """Lists the images of a tar file of tar files, one for each synset."""
  inner = {member.name.removesuffix('.tar'): member for member in _tar_members(file, 0)}
  if mistake := _synset_mistake(sorted(inner)):
    raise tarfile.ReadError(f'of its synsets, {mistake}')
  return [
    _Stored(image.name, label, image.offset_data, image.size)
    for label, synset in enumerate(synsets)
    for image in _tar_members(file, inner[synset].offset_data)
  ]


def _validation_images(file: IO[bytes], synsets: Sequence[str]) -> list[_Stored]:
  """Lists the images of a tar file, whose labels tfds has in the order of their names."""
  label = {synset: number for number, synset in enumerate(synsets)}
  return [
    _Stored(image.name, label[synset], image.offset_data, image.size)
    for image, synset in zip(_tar_members(file, 0), validation_synsets(), strict=False)
  ]


def _tar_members(file: IO[bytes], start: int) -> list[tarfile.TarInfo]:
  """Lists the files of the tar that begins at byte `start`, by name; offsets are those in `file`.

  A damaged header looks like the end of the tar: only their number shows that files are missing.
  """
  file.seek(start)
  with tarfile.open(fileobj=file, mode='r:') as tar:
    return sorted((m for m in tar if m.isfile()), key=operator.attrgetter('name'))


def check_synsets(class_names: Sequence[str]) -> None:
  """Raises UserError unless the classes are the 1,000 synsets of ImageNet 2012, sorted."""
  if mistake := _synset_mistake(class_names):
    raise UserError(f'the classes are not the synsets of ImageNet 2012: {mistake}')


def _synset_mistake(names: Sequence[str]) -> str | None:
  synsets = imagenet_synsets()
  differences = {
    'missing': sorted(set(synsets) - set(names)),
    'unknown': sorted(set(names) - set(synsets)),
  }
  parts = [f'{len(d)} {what}, such as {d[0]!r}' for what, d in differences.items() if d]
  if not parts and tuple(names) != synsets:
    return 'their order is not that of their names'
  return ', and '.join(parts) or None


def imagenet_synsets() -> tuple[str, ...]:
  """The 1,000 classes of ImageNet 2012, sorted: 'n01440764', ...; UserError without tfds."""
  return _tfds_lines('labels.txt')


def validation_synsets() -> tuple[str, ...]:
  """The class of each of the 50,000 validation images; UserError without tfds."""
  return _tfds_lines('validation_labels.txt')


def _tfds_lines(file_name: str) -> tuple[str, ...]:
  """Reads the lines of a file of tfds's imagenet2012; tfds is not imported, which takes seconds."""
  package = importlib.util.find_spec('tensorflow_datasets')
  if package is None or package.origin is None:
    raise UserError(
      'ImageNet\'s labels come with tensorflow_datasets; install it with: pip install -e ".[train]"'
    )
  folder = Path(package.origin).parent / 'datasets' / 'imagenet2012'
  return tuple((folder / file_name).read_text().split())
