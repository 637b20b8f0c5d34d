"""A folder of images, `<split>/<class>/<images>` or `<class>/<images>`, as a source to prepare."""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import operator
import os
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_jax.data import folder_layout, folder_tree, images
from alexnet_jax.data.folder_layout import Layout, normal
from alexnet_jax.data.folder_tree import Tree
from alexnet_jax.data.sources import SPLITS, Example, LeftOut, shuffled
from alexnet_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class FolderSource:
  """Image files, a folder for each class.

  Attributes:
    root: the folder that holds all files.
    files: each split's files, as absolute path and label.
    name: see Source, as for the others.
    left_out: all other files below the root; with `files` they are all that there are.
    notes: lines for the user: classes and counts, and how the folder was read.
    held_out: whether the validation images are training images that were held out.
    newest: when the file that was changed last was, in seconds since 1970.
  """

  root: Path
  files: Mapping[str, Sequence[tuple[str, int]]]
  name: str
  class_names: Sequence[str]
  description: Mapping[str, Any]
  left_out: Sequence[LeftOut] = ()
  notes: Sequence[str] = ()
  held_out: bool = False
  newest: float = 0.0
  version: str = '1.0.0'

  @property
  def splits(self) -> Mapping[str, int]:
    """See Source."""
    return {split: len(files) for split, files in self.files.items()}

  def examples(self, split: str, start: int) -> Generator[Example]:
    """See Source."""
    for path, label in shuffled(self.files[split], split, start):
      yield Example(_relative(path, self.root), label, functools.partial(_read, path))


def _read(path: str) -> bytes:
  """Reads a file; raises UnreadableError where that fails."""
  content, reason = folder_tree.read(path)
  if reason:
    raise images.UnreadableError(reason)
  return content


def open_folder(
  path: str | Path, validation_fraction: float | None, class_depth: int | None = None
) -> FolderSource:
  """Finds the images of <path>/<split>/<class>/<images>, or of <path>/<class>/<images>.

  The latter is a split 'train' alone. Images may lie in subfolders of a class. Files are images
  if their names end in one of `folder_tree.IMAGE_SUFFIXES`, or their first bytes say so; all
  others are in `left_out`.

  Folders and files may be links, to anywhere; their targets are decoded as images, or left out.

  Args:
    path: the folder.
    validation_fraction: how much of each class to hold out where there is no validation split; at
      least one image, but never the only one. None for images that are not to be trained on: nothing
      is held out, and any one split is enough, even of a single class.
    class_depth: see `folder_layout.read_layout`.

  Raises:
    UserError: the folder does not exist, or has another layout.
  """
  trains = validation_fraction is not None
  if validation_fraction is not None and not 0 < validation_fraction < 1:
    raise UserError(
      f'data.validation_fraction is {validation_fraction}; it must lie between 0 and 1'
    )
  root, tree = _root(path), Tree()
  layout = folder_layout.read_layout(root, tree, class_depth, needs_training=trains)
  class_names = sorted({name for folders in layout.class_folders.values() for name in folders})
  files = {
    split: _labeled(folders, class_names, tree) for split, folders in layout.class_folders.items()
  }
  left_out = _left_out(root, tree, layout)
  fingerprint, newest = _fingerprint(layout.split_folders, files)
  description: dict[str, Any] = {
    'kind': 'folder',
    'path': str(root),
    'fingerprint': fingerprint,
    'validation': 'folder' if trains else 'none held out',
  }
  if class_depth not in (None, 1):
    description['class_depth'] = class_depth
  held_out = trains and 'validation' not in files
  if held_out:
    assert validation_fraction is not None
    folder = layout.split_folders['train']
    train, validation = _hold_out(files['train'], folder, validation_fraction)
    if not validation:
      raise UserError(
        f'{root} has one image per class, so none can be held out for validation; add some, or a'
        ' folder val beside train'
      )
    divided = {**files, 'train': train, 'validation': validation}
    files = {split: divided[split] for split in SPLITS if split in divided}
    description['validation'] = {
      'fraction': validation_fraction,
      'of_each_class': True,
      'by': 'SHA-256 of class and file name',
    }
  # Other images, or another division, are another data set.
  identity = [fingerprint, description['validation'], class_names]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
  name = f'{_data_set_name(root.name)}_{digest}'
  counts = {split: len(of_split) for split, of_split in files.items()}
  has_splits = layout.has_splits or held_out
  notes = [_summary(root, class_names, counts, held_out, has_splits), *layout.notes]
  lacking = set(range(len(class_names))) - {label for _, label in files.get('validation', ())}
  if trains and lacking:
    names = [class_names[label] for label in sorted(lacking)]
    why = ', of one image each' if held_out else ''
    notes.append(f'validation has no images of {_shortened(names)}{why}')
  if left_out:
    notes.append(_left_out_summary(left_out, len(left_out) + sum(counts.values())))
  return FolderSource(
    root, files, name, class_names, description, left_out, notes, held_out, newest
  )


def _root(path: str | Path) -> Path:
  """The folder's absolute path; raises UserError where there is none, or its path is not Unicode."""
  root = Path(os.path.abspath(path))
  if not root.is_dir():
    what = 'is a file' if root.exists() else 'does not exist'
    raise UserError(f'{root} {what}; give a folder of images, {folder_layout.LAYOUT}')
  try:
    str(root).encode()
  except UnicodeEncodeError as error:
    raise UserError(
      f'the path {str(root)!a} is not Unicode; rename the folder, or give a link to it'
    ) from error
  return root


def _labeled(
  folders: Mapping[str, Path], class_names: Sequence[str], tree: Tree
) -> list[tuple[str, int]]:
  """Lists the images of a split's classes, sorted by class and path, as path and label."""
  return [
    (path, label)
    for label, name in enumerate(class_names)
    if name in folders
    for path in sorted((f.path for f in tree.walk(folders[name]) if not f.reason), key=normal)
  ]


def _left_out(root: Path, tree: Tree, layout: Layout) -> list[LeftOut]:
  """Lists the files below the root that are not used: in the classes, and outside of them."""
  left_out = [
    LeftOut(split, name, _relative(file.path, root), file.reason, file.is_photograph)
    for split, folders in layout.class_folders.items()
    for name, folder in sorted(folders.items())
    for file in tree.walk(folder)
    if file.reason
  ]
  classes = frozenset(
    str(folder) for folders in layout.class_folders.values() for folder in folders.values()
  )
  for file in tree.walk(root, except_for=classes):
    split = _folder_of(file.path, layout.split_folders)
    unlabeled = any(file.path.startswith(f'{folder}{os.sep}') for folder in layout.unlabeled)
    why = 'without a class' if unlabeled else 'outside of the folders of classes'
    left_out.append(LeftOut(split, '', _relative(file.path, root), file.reason or why))
  return left_out


def _folder_of(path: str, folders: Mapping[str, Path]) -> str:
  """The name of the folder that a path lies in; '' where it lies in none."""
  inside = (name for name, folder in folders.items() if path.startswith(f'{folder}{os.sep}'))
  return next(inside, '')


def _hold_out(
  files: Iterable[tuple[str, int]], train_folder: Path, fraction: float
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
  """Divides files, sorted by label, into those for training and, of each class, some held out.

  A file's hash decides, so that files that are added leave all others where they are; but for a
  class that has only one image to train on, which may change as there are more.
  """
  train: list[tuple[str, int]] = []
  validation: list[tuple[str, int]] = []
  for _, group in itertools.groupby(files, operator.itemgetter(1)):
    ranked = sorted((_position(path, train_folder), path, label) for path, label in group)
    count = sum(position < fraction for position, _, _ in ranked)
    count = min(max(count, 1), len(ranked) - 1)
    held_out = {path for _, path, _ in ranked[:count]}
    for _, path, label in sorted(ranked, key=lambda member: normal(member[1])):
      (validation if path in held_out else train).append((path, label))
  return train, validation


def _position(path: str, train_folder: Path) -> float:
  """A number from 0 to 1 that follows from a file's class and name alone."""
  name = normal(_relative(path, train_folder)).replace(os.sep, '/')
  return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _fingerprint(
  split_folders: Mapping[str, Path], files: Mapping[str, Sequence[tuple[str, int]]]
) -> tuple[str, float]:
  """SHA-256 of the files' names and sizes, in hexadecimal digits, and when the newest was changed.

  The digits are the same wherever the files are.
  """
  lines, newest = [], 0.0
  for split, of_split in files.items():
    for path, _ in of_split:
      size, changed = _size_and_time(path)
      lines.append(f'{normal(split + path.removeprefix(str(split_folders[split])))}\0{size}\n')
      newest = max(newest, changed)
  return hashlib.sha256(os.fsencode(''.join(sorted(lines)))).hexdigest(), newest


def _size_and_time(path: str) -> tuple[int, float]:
  """A file's size in bytes, and when it was last changed, in seconds since 1970."""
  try:
    found = os.stat(path)
  except OSError:  # a link to nowhere, which reading will report
    return -1, 0.0
  return found.st_size, found.st_mtime


def _summary(
  root: Path,
  class_names: Sequence[str],
  counts: Mapping[str, int],
  held_out: bool,
  has_splits: bool,
) -> str:
  """Describes in a line what will be trained or evaluated on."""
  said = {'validation': ' (held out of train)'} if held_out else {}
  by_split = ', '.join(f'{split} {n:,}{said.get(split, "")}' for split, n in counts.items())
  images = by_split if has_splits else f'{sum(counts.values()):,}, in no splits'
  return f'{root}: {_shortened(class_names)}; images: {images}'


def _shortened(names: Sequence[str]) -> str:
  """Counts and names classes, the first few and the last of many: '2 classes (cats, dogs)'."""
  names = [repr(name) if ',' in name else name for name in names]
  few = names if len(names) <= 8 else [*names[:4], '...', names[-1]]
  return f'{len(names):,} {"class" if len(names) == 1 else "classes"} ({", ".join(few)})'


def _left_out_summary(left_out: Sequence[LeftOut], total: int) -> str:
  """Describes in a line how many files are left out, and why."""
  reasons = collections.Counter(file.reason for file in left_out)
  parts = []
  for reason, count in reasons.most_common():
    names = (Path(file.file_name) for file in left_out if file.reason == reason)
    ends = sorted({name.suffix.lower() or name.name for name in names})
    more = ', ...' if len(ends) > 5 else ''
    kinds = f' ({", ".join(ends[:5])}{more})' if reason == folder_tree.NO_IMAGE else ''
    parts.append(f'{count:,} {reason}{kinds}')
  return f'left out: {len(left_out):,} of {total:,} files: {"; ".join(parts)}'


def _data_set_name(folder: str) -> str:
  """Names a data set after a folder: 'Cats & dogs' becomes 'cats_dogs', '101' 'folder_101'."""
  name = re.sub('[^a-z0-9]+', '_', folder.lower()).strip('_')
  return name if name[:1].isalpha() else f'folder_{name}'.rstrip('_')


def _relative(path: str, root: Path) -> str:
  """The part of a path below the root, with which it begins; bytes that are not Unicode are replaced."""
  return os.fsencode(path.removeprefix(str(root)).lstrip(os.sep)).decode(errors='replace')
