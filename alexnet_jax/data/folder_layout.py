"""What the folders of photographs mean: splits, classes, or neither.

Where a layout has two readings, or one that nobody is likely to mean, it is refused.
"""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from alexnet_jax.data.folder_tree import Tree
from alexnet_jax.data.sources import SPLITS
from alexnet_jax.utils import shell
from alexnet_jax.utils.errors import UserError, listed, number_of

LAYOUT = '<folder>/train/<class>/<images> or <folder>/<class>/<images>'
"""The layouts that are read, in words."""

# A folder is a split if these are what is left of its name, one of them, without the next.
_SPLIT_OF_WORD = {
  'train': 'train',
  'training': 'train',
  'val': 'validation',
  'valid': 'validation',
  'validation': 'validation',
  'dev': 'validation',
  'test': 'test',
  'testing': 'test',
}
_IMAGE_WORDS = {'image', 'images', 'img', 'imgs', 'jpegimages', 'photo', 'photos'}
_IMAGE_WORDS |= {'pic', 'pics', 'picture', 'pictures', 'jpg', 'jpeg', 'png'}
_FILLERS = {'set', 'sets', 'data', 'dataset', 'datasets', 'seg', 'split', 'splits', 'folder'}
_FILLERS |= _IMAGE_WORDS
_UNLABELED = {'pred', 'predict', 'prediction', 'predictions', 'unlabeled', 'unlabelled', 'unknown'}
# Folders of these names are no classes where there are others beside them.
_NO_CLASSES = {'image', 'images', 'img', 'imgs', 'jpegimages', 'jpg', 'jpeg', 'png'}
_NO_CLASSES |= {'annotation', 'annotations', 'label', 'labels', 'trimaps'}
_NO_CLASSES |= {'segmentation', 'segmentations', 'segmentationclass', 'segmentationobject'}
_ARCHIVES = {'.zip', '.tar', '.tgz', '.gz', '.bz2', '.xz', '.7z', '.rar'}
# Google Drive's name for a part of a download: photos-20240101T000000Z-001.
_DRIVE_PART = re.compile(r'-\d{8}T\d{6}Z-\d+(-\d+)?$')
# Folders that differ in a number, with one of these words, are parts of a whole: images_001.
_PART_WORDS = _IMAGE_WORDS | {'part', 'batch'}
# A camera's folders (JEITA CP-3461): 100APPLE, 101CANON, 100_PANA.
_OF_CAMERA = re.compile(r'\d{3}[A-Z_][A-Z0-9_]{4}')
# A file's name that begins with its class: cat.0.jpg, beagle_12.jpg.
_CLASS_IN_NAME = re.compile(r'([^\W\d_].*?)[ ._-]*\(?\d+\)?\.\w+')


class Layout(NamedTuple):
  """What was found.

  Attributes:
    split_folders: the folder that holds the classes of each split.
    class_folders: of each split, each class's folder by the class's name; all hold images.
    has_splits: whether there are folders of splits; else all images are 'train'.
    unlabeled: folders of images without classes.
    notes: lines for the user: what was skipped, and why.
  """

  split_folders: Mapping[str, Path]
  class_folders: Mapping[str, Mapping[str, Path]]
  has_splits: bool
  unlabeled: Sequence[Path]
  notes: Sequence[str]


def read_layout(
  root: Path, tree: Tree, class_depth: int | None, needs_training: bool = True
) -> Layout:
  """Finds the splits and classes of a folder.

  Args:
    root: the folder.
    tree: to list folders with.
    class_depth: 1 if the folders directly in a split are the classes, 2 if those in these are, and
      so on; None if it must follow from the folders.
    needs_training: whether there must be a training split, of two classes or more, that has the
      classes of all others.

  Raises:
    UserError: the layout is another than LAYOUT, or has two readings.
  """
  notes: list[str] = []
  base = _unwrapped(root, tree, notes)
  outer, unlabeled = _find_splits(base, tree, notes)
  if needs_training and 'train' not in outer:
    names = ' and '.join(repr(folder.name) for folder in outer.values())
    raise UserError(f"{base} has {names}, but no folder 'train'; add one, as in {LAYOUT}")
  split_folders: dict[str, Path] = {}
  class_folders: dict[str, dict[str, Path]] = {}
  for split, folder in outer.items():
    train = class_folders.get('train', {})
    inner = folder if folder == base else _unwrapped_split(folder, tree, train, notes)
    if split != 'train' and _is_flat(inner, tree, train):
      if split == 'validation' and needs_training:
        raise UserError(
          f'{folder} has no images in folders of classes; put them into'
          f' {folder.name}/<class>, or move {folder.name} away: then a part of training is held out'
        )
      held = 'images without classes' if tree.holds_images(folder) else 'no images'
      why = ', and training does not need it' if needs_training else ''
      notes.append(f'{folder} has {held}{why}: it is skipped')
      unlabeled.append(folder)
      continue
    split_folders[split] = inner
    class_folders[split] = _find_classes(inner, tree, split, class_depth, notes)
  _check_links(class_folders)
  if needs_training:
    _check_classes(split_folders, class_folders)
  elif not class_folders:
    raise UserError(f'{root} has no images in folders of classes; give {LAYOUT}')
  has_splits = base not in outer.values()
  return Layout(split_folders, class_folders, has_splits, unlabeled, notes)


def normal(name: str) -> str:
  """Normalizes a name, so that characters that look the same are the same (Unicode NFC)."""
  return unicodedata.normalize('NFC', name)


def _words(name: str) -> list[str]:
  """Splits a name into words: 'Train_Set', 'trainSet' and 'trainset' into 'train' and 'set'."""
  words = re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+', name)
  return [part for word in words for part in _halves(word.lower())]


def _halves(word: str) -> list[str]:
  for split in _SPLIT_OF_WORD:
    if word.startswith(split) and word[len(split) :] in _FILLERS:
      return [split, word[len(split) :]]
  return [word]


def _split_of(name: str) -> tuple[str | None, str]:
  """The split that a folder's name names, if it is one; and what else the name says."""
  said = [word for word in _words(name) if word not in _FILLERS]
  splits = [word for word in said if word in _SPLIT_OF_WORD]
  if len(splits) != 1:
    return None, ' '.join(said)
  return _SPLIT_OF_WORD[splits[0]], ' '.join(word for word in said if word != splits[0])


def _is_split(folder: Path) -> bool:
  split, rest = _split_of(folder.name)
  return split is not None and not rest


def _are_several_splits(folders: Sequence[Path]) -> bool:
  """Whether all folders are splits, and not all the same."""
  return all(map(_is_split, folders)) and len({_split_of(f.name)[0] for f in folders}) > 1


def _has_other_files_alone(folder: Path, tree: Tree) -> bool:
  """Whether a folder has files, but no photographs, not even of kinds that are not read."""
  files = list(tree.walk(folder))
  return bool(files) and not any(file.is_photograph for file in files)


def _wrapped(folder: Path, tree: Tree) -> Path | None:
  """The folder in which all images of a folder are, if that holds folders of images itself."""
  inner = tree.image_folders(folder)
  if len(inner) != 1 or not tree.image_folders(inner[0]):
    return None
  if any(not file.reason for file in tree.files(folder)):
    return None
  others = (other for other in tree.subfolders(folder) if other != inner[0])
  return inner[0] if all(_has_other_files_alone(other, tree) for other in others) else None


def _innermost(folder: Path, tree: Tree) -> Path:
  """The folder that is reached where all images are in one folder of folders, again and again."""
  while inner := _wrapped(folder, tree):
    folder = inner
  return folder


def _unwrapped(root: Path, tree: Tree, notes: list[str]) -> Path:
  """Goes down while all images are in one folder of folders, which is no split."""
  folder = root
  while inner := _wrapped(folder, tree):
    if _is_split(inner) and not _are_several_splits(tree.image_folders(inner)):
      break
    _note_skipped([other for other in tree.subfolders(folder) if other != inner], folder, notes)
    folder = inner
  if folder != root:
    notes.append(f'{root} has its images in {folder.relative_to(root)}: read from there')
  return folder


def _unwrapped_split(folder: Path, tree: Tree, train: Mapping[str, Path], notes: list[str]) -> Path:
  """Goes down in a split while all images are in one folder of folders, which is no class."""
  inner, known = folder, {name.split('/')[0] for name in train}
  while (deeper := _wrapped(inner, tree)) and normal(deeper.name) not in known:
    _note_skipped([other for other in tree.subfolders(inner) if other != deeper], inner, notes)
    inner = deeper
  if inner != folder:
    notes.append(f'{folder} has its images in {inner.relative_to(folder)}: read from there')
  return inner


def _is_flat(folder: Path, tree: Tree, train: Mapping[str, Path]) -> bool:
  """Whether a split has no images in classes: none in folders, or all in one, of no class's name."""
  inner = tree.image_folders(folder)
  if len(inner) != 1:
    return not inner
  said = set(_words(inner[0].name))
  says_nothing = said <= _FILLERS | _UNLABELED | set(_SPLIT_OF_WORD) or inner[0].name == folder.name
  return says_nothing and normal(inner[0].name) not in {name.split('/')[0] for name in train}


def _find_splits(base: Path, tree: Tree, notes: list[str]) -> tuple[dict[str, Path], list[Path]]:
  """Finds the folder of each split, the base itself where it holds classes; and unlabeled ones."""
  folders = tree.image_folders(base)
  named = _splits_by_name(folders, base)
  if not named:
    return {'train': base}, []
  splits: dict[str, Path] = {}
  for folder, split in [*named.items(), *_splits_without_images(base, tree, folders)]:
    if split in splits:
      raise UserError(
        f'{base} has two folders for the split {split!r}, {splits[split].name!r} and'
        f' {folder.name!r}; put their classes into one'
      )
    splits[split] = folder
  others = [folder for folder in folders if folder not in named]
  unlabeled = [folder for folder in others if set(_words(folder.name)) & _UNLABELED]
  if strange := [folder.name for folder in others if folder not in unlabeled]:
    first = splits.get('train', next(iter(named)))
    raise UserError(
      f'{base} has {first.name!r}, which is read as a split, beside {listed(strange)}: if it'
      f' is a class, rename it, to {f"{first.name}_class"!r} for one;\n'
      f'if it is a split, {_mending_of(strange, first, splits)}'
    )
  notes += [f'{folder} has images without classes: it is skipped' for folder in unlabeled]
  passed = [f for f in tree.subfolders(base) if f not in folders and f not in splits.values()]
  _note_skipped(passed, base, notes)
  return {split: splits[split] for split in SPLITS if split in splits}, unlabeled


def _mending_of(strange: Sequence[str], first: Path, splits: Mapping[str, Path]) -> str:
  """What to do with folders beside those of splits, the first of which is given."""
  for name in strange:
    split = _split_of(name)[0]
    if split and split not in splits:
      return f'rename {name!r} to {split!r} if it is one, too, or move it away'
  rename = '' if 'validation' in splits else "rename the folder of the validation images to 'val', "
  return f'{rename}move the others away, or put them into {first.name} if they are classes'


def _splits_by_name(folders: Sequence[Path], base: Path) -> dict[Path, str]:
  """The folders that are splits; all of them may have words in common: mnist_train, mnist_test."""
  named = {folder: split for folder in folders if (split := _split_of(folder.name)[0])}
  plain = {folder: split for folder, split in named.items() if _is_split(folder)}
  if plain:
    return plain
  by_rest: dict[str, dict[str | None, Path]] = {}
  for folder in folders:
    split, rest = _split_of(folder.name)
    by_rest.setdefault(rest, {})[split] = folder
  if len(by_rest) == 1 and len(folders) == len(named) and len({*named.values()}) > 1:
    return named
  for of_splits in by_rest.values():
    if len(of_splits) > 1:
      first, second, *_ = (repr(folder.name) for folder in of_splits.values())
      raise UserError(
        f'{base} has {first} and {second}, which differ in the name of a split alone; give'
        f' {LAYOUT}, or rename them if they are two classes'
      )
  return {}


def _splits_without_images(
  base: Path, tree: Tree, folders: Sequence[Path]
) -> list[tuple[Path, str]]:
  """The folders that are named as splits but hold no images; with the names of their splits."""
  return [
    (folder, split)
    for folder in tree.subfolders(base)
    if folder not in folders and (split := _split_of(folder.name)[0]) and _is_split(folder)
  ]


def _find_classes(
  split_folder: Path, tree: Tree, split: str, class_depth: int | None, notes: list[str]
) -> dict[str, Path]:
  """Finds the folder of each class of a split, by the class's name."""
  folders = tree.image_folders(split_folder)
  others = sorted({*tree.subfolders(split_folder)} - {*folders})
  for other in others:
    _check_is_no_class(other, tree, split)
  if not folders:
    raise UserError(
      f'{split_folder} has no images in folders of classes{_hint(split_folder, tree)}; give'
      f' {LAYOUT}'
    )
  _note_skipped(others, split_folder, notes)
  if split == 'train':
    _check_names(split_folder, folders)
    if class_depth is None:
      _check_repeated(split_folder, tree, folders)
      _check_depth(split_folder, tree, folders, notes)
  classes = {folder.name: folder for folder in folders}
  for depth in range(2, (class_depth or 1) + 1):
    classes = _below(classes, tree)
    if not classes:
      raise UserError(
        f'data.class_depth is {class_depth}, but there are no folders of images so deep in'
        f' {split_folder}; the deepest are at {depth - 1}'
      )
  return _named(split_folder, classes)


def _below(folders: Mapping[str, Path], tree: Tree) -> dict[str, Path]:
  """The folders of images in folders that have names, as 'name/inner'."""
  return {
    f'{name}/{inner.name}': inner
    for name, folder in folders.items()
    for inner in tree.image_folders(folder)
  }


def _note_skipped(folders: Sequence[Path], within: Path, notes: list[str]) -> None:
  """Notes the folders without images, if there are any."""
  if folders:
    names = listed([folder.name for folder in folders])
    notes.append(f'{within} has folders without images, which are skipped: {names}')


def _check_is_no_class(folder: Path, tree: Tree, split: str) -> None:
  """Raises UserError where a folder without images may be meant to have some."""
  files = list(tree.walk(folder))
  unread = [file for file in files if file.is_photograph]
  if unread:
    raise UserError(
      f'{folder} has no image that can be read, but {number_of(len(unread), "file")} such as'
      f' {Path(unread[0].path).name!r}\n{unread[0].reason}, or move the folder away'
    )
  if not files and split == 'train':
    raise UserError(
      f'the class {folder.name!r} is empty: {folder} has no images; add some, or remove it'
    )


def _check_names(split_folder: Path, folders: Sequence[Path]) -> None:
  """Raises UserError for folders that can hardly be classes beside each other."""
  if len(folders) > 1 and _are_several_splits(folders):
    raise UserError(
      f'{split_folder} has {listed([f.name for f in folders])}, which are splits, not'
      f' classes; give {LAYOUT}'
    )
  for folder in folders:
    if part := _DRIVE_PART.search(folder.name):
      raise UserError(
        f'{split_folder} has {folder.name!r}, which is how Google Drive names a part of a download;'
        f' put what is in its parts together, in folders without {part.group()!r}'
      )
  if len(folders) > 1 and _are_parts([folder.name for folder in folders]):
    raise UserError(
      f'{split_folder} has {listed([f.name for f in folders])}, which are parts by their names,'
      ' not classes;\nput the images into a folder for each class, or rename them if they are classes'
    )
  for folder in folders:
    if len(folders) > 1 and folder.name.lower() in _NO_CLASSES:
      raise UserError(
        f'{split_folder} has images in {listed([f.name for f in folders])}, and'
        f' {folder.name!r} is probably not a class; give {LAYOUT},\n'
        'and move other images away; if it is a class, rename it'
      )


def _are_parts(names: Sequence[str]) -> bool:
  """Whether folders are called as parts of one: 100APPLE and 101APPLE, images_001 and images_002."""
  if all(map(_OF_CAMERA.fullmatch, names)):
    return True
  return len({tuple(_words(name)) for name in names}) == 1 and bool(
    _PART_WORDS & set(_words(names[0]))
  )


def _check_repeated(split_folder: Path, tree: Tree, folders: Sequence[Path]) -> None:
  """Raises UserError for a folder of folders that are called as two or more of those beside it."""
  names = {folder.name for folder in folders}
  for folder in folders:
    inner = {below.name for below in tree.image_folders(folder)}
    if len(both := sorted(inner & names)) > 1:
      raise UserError(
        f'{split_folder} has {folder.name!r}, in which there are {listed(both)} again; move it'
        ' away if it is a copy, or set data.class_depth=1 if it is a class'
      )


def _check_depth(split_folder: Path, tree: Tree, folders: Sequence[Path], notes: list[str]) -> None:
  """Raises UserError where folders within the folders may as well be the classes.

  Where only some of the folders have such folders, a line says that each is read as one class.
  """
  innermost = {folder: _innermost(folder, tree) for folder in folders}
  deeper = {folder: tree.image_folders(inner) for folder, inner in innermost.items()}
  own = {f for f in folders if any(not file.reason for file in tree.files(innermost[f]))}
  if own:
    if several := [f for f in folders if f not in own and len(deeper[f]) > 1]:
      first, others = several[0], len(several) - 1
      also = f', as in {number_of(others, "other folder")}' if others else ''
      notes.append(
        f'{first} has {listed([f.name for f in deeper[first]])}, which are read as one class,'
        f' {first.name!r}{also}; if these are the classes, put them beside the others'
      )
    return
  if len(folders) < 2 or all(len(inner) == 1 for inner in deeper.values()):
    return  # the same division, by either reading
  folder, inner = next((f, inner) for f, inner in deeper.items() if len(inner) > 1)
  if _are_several_splits(inner):
    raise UserError(
      f'{folder} has {listed([f.name for f in inner])}, which are splits: put them above the'
      f' classes, as in {inner[0].name}/{folder.name}; or set data.class_depth=1, to read'
      f' {folder.name!r} as one class'
    )
  repeated = [other.name for f in folders if f != folder for other in deeper[f]]
  if any(each.name in repeated for each in inner):
    raise UserError(
      f'{split_folder} has several folders with the same folders in them, such as'
      f' {str(inner[0].relative_to(split_folder))!r}: choose one,'
      f' --config.data.data_dir={shell.quote(str(folder))},\nor rename them to train'
      f' and val if they are splits; else say which are the classes: {_depths(tree, folders)}'
    )
  raise UserError(
    f'{split_folder} has its images in folders of folders; say which are the classes:\n'
    f'{_depths(tree, folders)}'
  )


def _depths(tree: Tree, folders: Sequence[Path]) -> str:
  """Lists the depths at which there may be classes, each with their number and one of them."""
  level = {folder.name: folder for folder in folders}
  said: list[str] = []
  depth, count = 1, 0
  while level:
    if len(level) > count:  # else it is the same division
      said.append(f'{depth} for {len(level):,} such as {next(iter(level))!r}')
    if any(not file.reason for folder in level.values() for file in tree.files(folder)):
      break  # an image of a folder would have no class
    depth, count, level = depth + 1, len(level), _below(level, tree)
  *first, last = said
  before = f'{", ".join(first)}, or ' if first else ''
  return f'--config.data.class_depth={before}{last}'


def _named(split_folder: Path, folders: Mapping[str, Path]) -> dict[str, Path]:
  """Checks and normalizes the names of classes."""
  named: dict[str, Path] = {}
  seen: dict[str, str] = {}
  for written, folder in folders.items():
    name = normal(written)
    if (
      name.splitlines() != [name]
      or any(part.strip() != part for part in name.split('/'))
      or name.encode(errors='replace').decode() != name
    ):
      raise UserError(
        f'{split_folder} has a folder {written!r}, which cannot be a class name; rename it, without'
        ' line breaks, spaces at its ends, or what is not Unicode'
      )
    other = seen.setdefault(name.casefold(), written)
    if other != written:
      show = ascii if normal(other) == name else repr  # of those that look the same, what differs
      raise UserError(
        f'{split_folder} has two classes whose names are the same but for capitals or the encoding of'
        f' accents, {show(other)} and {show(written)}; rename one, or put their images together'
      )
    named[name] = folder
  return named


def _check_links(class_folders: Mapping[str, Mapping[str, Path]]) -> None:
  """Raises UserError where links make one folder two classes, or a class of two splits."""
  seen: dict[str, Path] = {}
  for folders in class_folders.values():
    for folder in folders.values():
      other = seen.setdefault(os.path.realpath(folder), folder)
      if other != folder:
        raise UserError(f'{other} and {folder} are the same folder, by a link; remove one of them')


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
      f'{split_folders["train"]} has a single class, {next(iter(train))!r}; give {LAYOUT}'
    )


def _hint(folder: Path, tree: Tree) -> str:
  """Describes, in parentheses, what a folder has in place of images in classes."""
  files = list(tree.walk(folder))
  if images := [Path(file.path).name for file in files if not file.reason]:
    matches = [_CLASS_IN_NAME.fullmatch(name) for name in images]
    begins = sorted({match.group(1) for match in matches if match})
    if 1 < len(begins) <= len(images) // 2 and all(matches):
      return (
        f' (those in it have names that begin with {listed(begins)}: if these are the classes,'
        ' put each into a folder of its own)'
      )
    return ' (those in it lie outside of such folders)'
  if files:
    ends = sorted({Path(file.path).suffix or Path(file.path).name for file in files})
    reasons = sorted({file.reason for file in files if file.is_photograph})
    unpack = '; unpack them' if {end.lower() for end in ends} & _ARCHIVES else ''
    return f' (its files end in {", ".join([*ends[:5], *reasons[:1]])}{unpack})'
  return ''
