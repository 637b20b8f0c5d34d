"""The files below a folder: which are images, and why the others are not."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alexnet_jax.data import images
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
  '.avif',
  '.jp2',
)
"""How the names of image files end, in small or capital letters; others are told by content."""

# Their first bytes are a TIFF's, but what Pillow would find in them is a thumbnail.
_RAW_SUFFIXES = (
  *('.3fr', '.arw', '.cr2', '.cr3', '.crw', '.dcr', '.dng', '.erf', '.iiq', '.kdc', '.mrw', '.nef'),
  *('.nrw', '.orf', '.pef', '.raf', '.rw2', '.rwl', '.sr2', '.srf', '.srw', '.x3f'),
)
_HEIC_SUFFIXES = ('.heic', '.heif', '.hif')

SYSTEM = 'hidden, or left by the system'
"""The reason for hidden files and those that the operating system made."""
NO_IMAGE = 'not an image'
"""The reason for files that are not images."""

_SYSTEM_NAMES = (  # besides all that begin with a dot
  '#recycle',
  '$recycle.bin',
  '@eadir',
  '__macosx',
  'desktop.ini',
  'ehthumbs.db',
  'icon\r',
  'lost+found',
  'recycler',
  'system volume information',
  'thumbnails',
  'thumbs.db',
)


class Found(NamedTuple):
  """A file.

  Attributes:
    path: its absolute path.
    reason: why it is left out; '' for an image, which may still turn out not to be readable.
    is_photograph: it is an image, or one of a kind that Pillow does not read.
  """

  path: str
  reason: str
  is_photograph: bool


class _Listing(NamedTuple):
  """A folder's subfolders, those of the system, and files; sorted, links last."""

  folders: list[str]
  system_folders: list[str]
  files: list[Found]


class Tree:
  """Lists folders, each once: later questions about the same folder read nothing.

  Folders and files may be links, to anywhere.
  """

  def __init__(self) -> None:
    """Lists nothing yet."""
    self._listed: dict[str, _Listing] = {}
    self._identities: dict[str, tuple[int, int]] = {}
    self._holding: dict[str, bool] = {}

  def files(self, folder: str | Path) -> list[Found]:
    """Lists a folder's own files, not those of its subfolders.

    Raises:
      UserError: the folder cannot be listed.
    """
    return self._list(os.fspath(folder)).files

  def walk(self, folder: str | Path, except_for: frozenset[str] = frozenset()) -> Iterator[Found]:
    """Lists the files in a folder, at any depth.

    Links are followed, but not to folders that this one lies in, and no folder is listed twice:
    links among a few folders can make more paths than could ever be listed.

    Args:
      folder: its path.
      except_for: paths of folders to skip, written as `folder` is.

    Raises:
      UserError: a folder cannot be listed, and is none of the system's.
    """
    above = {self._identity(str(parent)) for parent in Path(os.path.abspath(folder)).parents}
    return self._walk(os.fspath(folder), except_for, above)

  def holds_images(self, folder: str | Path) -> bool:
    """Whether there are images in a folder, at any depth; raises UserError as `walk`."""
    name = os.fspath(folder)
    if name not in self._holding:
      self._holding[name] = any(not file.reason for file in self.walk(folder))
    return self._holding[name]

  def subfolders(self, folder: str | Path) -> list[Path]:
    """Lists a folder's subfolders, without those of the system; raises UserError as `files`."""
    return sorted(map(Path, self._list(os.fspath(folder)).folders))

  def image_folders(self, folder: str | Path) -> list[Path]:
    """Lists the subfolders that hold images, at any depth; raises UserError as `walk`."""
    return [inner for inner in self.subfolders(folder) if self.holds_images(inner)]

  def _walk(
    self, folder: str, except_for: frozenset[str], seen: set[tuple[int, int]]
  ) -> Iterator[Found]:
    identity = self._identity(folder)
    if identity in seen:
      return
    seen.add(identity)
    listing = self._list(folder)
    yield from listing.files
    for inner in listing.folders:
      if inner not in except_for:
        yield from self._walk(inner, except_for, seen)
    for inner in listing.system_folders:
      yield from _system_files(inner)

  def _identity(self, folder: str) -> tuple[int, int]:
    if folder not in self._identities:
      with _refusing(folder):
        status = os.stat(folder)
      self._identities[folder] = status.st_dev, status.st_ino
    return self._identities[folder]

  def _list(self, folder: str) -> _Listing:
    if folder not in self._listed:
      with _refusing(folder), os.scandir(folder) as scanned:
        entries = sorted(scanned, key=lambda entry: (entry.is_symlink(), entry.name))
      listing = _Listing([], [], [])
      for entry in entries:
        if not _is_folder(entry):
          listing.files.append(_found(entry))
        elif _is_system(entry.name):
          listing.system_folders.append(entry.path)
        else:
          listing.folders.append(entry.path)
      self._listed[folder] = listing
    return self._listed[folder]


@contextlib.contextmanager
def _refusing(folder: str) -> Iterator[None]:
  """Raises UserError in place of the OSError of a folder that may not be read."""
  try:
    yield
  except OSError as error:
    raise UserError(
      f'{folder} cannot be listed: {error.strerror}; make it readable, or move it away'
    ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link that leads to itself
    return False


def _is_system(name: str) -> bool:
  return name.startswith('.') or name.lower() in _SYSTEM_NAMES


def _system_files(folder: str) -> Iterator[Found]:
  """Lists the files of a folder of the system's; the folder itself where that is not allowed."""
  errors: list[OSError] = []
  for path, _, names in os.walk(folder, onerror=errors.append):
    yield from (Found(os.path.join(path, name), SYSTEM, False) for name in sorted(names))
  yield from (Found(str(error.filename), SYSTEM, False) for error in errors)


def _found(entry: os.DirEntry[str]) -> Found:
  """Tells what a file is, by its name or, where that does not tell, by its first bytes."""
  if _is_system(entry.name):
    return Found(entry.path, SYSTEM, False)
  name = entry.name.lower()
  if name.endswith(IMAGE_SUFFIXES):
    return Found(entry.path, '', True)
  if name.endswith(_RAW_SUFFIXES):
    return Found(entry.path, images.not_read('raw photograph'), True)
  head, error = read(entry.path, images.HEAD_BYTES)
  if error:
    return Found(entry.path, error, False)
  kind = images.kind_of(head) or ('HEIC' if name.endswith(_HEIC_SUFFIXES) else '')
  if kind in images.FORMATS:
    return Found(entry.path, '', True)
  return Found(entry.path, images.not_read(kind) if kind else NO_IMAGE, bool(kind))


def read(path: str, size: int = -1) -> tuple[bytes, str]:
  """Reads a file; a pipe, a device or a broken link gives a reason instead.

  Args:
    path: the file.
    size: how many bytes to read at most; -1 for all.

  Returns:
    Its content, and ''; or b'' and the reason why it cannot be read.
  """
  try:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device may never end
      return b'', 'not a regular file'
    with open(path, 'rb') as file:
      return file.read(size), ''
  except OSError as error:
    if isinstance(error, FileNotFoundError) and os.path.islink(path):
      return b'', 'broken link'
    return b'', (error.strerror or str(error)).lower()
