"""A folder of images, `<split>/<class>/<images>` or `<class>/<images>`, as a source to prepare."""

import dataclasses
import hashlib
import itertools
import json
import operator
import os
import re
import unicodedata
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data.sources import SEED, SPLITS, Example, shuffled
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
_SPLIT_OF_FOLDER = {
  'train': 'train',
  'training': 'train',
  'val': 'validation',
  'valid': 'validation',
  'validation': 'validation',
  'test': 'test',
}


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
    for path, label in shuffled(self.files[split], split, start):
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
      'seed': SEED,
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
  return {split: named[split] for split in SPLITS if split in named}


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
    order = np.random.default_rng([SEED, label]).permutation(len(members))
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
