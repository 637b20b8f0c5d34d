"""ImageNet 2012 in its two tar files, as a source to prepare."""

import contextlib
import dataclasses
import functools
import importlib.util
import operator
import os
import tarfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from alexnet_jax.data import imagenet_classes
from alexnet_jax.data.sources import Example, shuffled
from alexnet_jax.utils import host
from alexnet_jax.utils.errors import UserError


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


ARCHIVES = (
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
    return {archive.split: archive.num_images for archive in ARCHIVES}

  @property
  def description(self) -> Mapping[str, Any]:
    """See Source."""
    archives = [{'file_name': a.file_name, 'size': a.size, 'md5': a.md5} for a in ARCHIVES]
    path = str(self.folder.absolute())
    return {'kind': 'imagenet tars', 'path': path, 'archives': archives}

  def examples(self, split: str, start: int) -> Generator[Example]:
    """See Source; the first one takes long, for the whole file is searched for its images.

    Raises:
      UserError: the split's file is damaged, or cannot be read.
    """
    archive = next(archive for archive in ARCHIVES if archive.split == split)
    path = self.folder / archive.file_name
    for image in shuffled(_images(path, archive, self.class_names), split, start):
      yield Example(image.file_name, image.label, functools.partial(_read, path, image))


def _read(path: Path, image: _Stored) -> bytes:
  """Reads an image of a tar file."""
  with _opened(path) as file:
    return os.pread(file.fileno(), image.size, image.offset)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
  """Opens a tar file; raises UserError where it cannot be read."""
  try:
    with open(path, 'rb', buffering=0) as file:  # file systems may ask for buffers of megabytes
      yield file
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror or error}') from error


def instructions(data_dir: Path) -> str:
  """Lines of text that say how to get ImageNet's files."""
  files = [f'  {a.file_name}  {a.size:,} bytes, MD5 {a.md5}' for a in ARCHIVES]
  prepare = ('--config=configs/imagenet.py', '--mode=prepare')
  lines = [
    'ImageNet has to be downloaded by hand: register at https://image-net.org/download-images, put',
    *files,
    f'into {data_dir} as they are, and then give',
    f'  {host.command(*prepare, f"--config.data.data_dir={data_dir}")}',
  ]
  return '\n'.join(lines)


def find(data_dir: Path) -> ImagenetSource | None:
  """Finds ImageNet's tar files in `data_dir`, or in the folder below it that tfds uses.

  Returns:
    Their images; None where neither folder has any of the files.

  Raises:
    UserError: one of the files is missing or incomplete.
  """
  folders = (data_dir, data_dir / 'downloads' / 'manual')
  count = {f: sum((f / a.file_name).is_file() for a in ARCHIVES) for f in folders}
  folder = max(folders, key=lambda folder: count[folder])
  if not count[folder]:
    return None
  _check_archives(folder)
  return ImagenetSource(folder, class_synsets())


def _check_archives(folder: Path) -> None:
  for archive in ARCHIVES:
    path = folder / archive.file_name
    if not path.is_file():
      raise UserError(f'{folder} lacks {archive.file_name}; put it there, both files are needed')
    size = path.stat().st_size
    if size != archive.size:
      raise UserError(
        f'{path} has {size:,} of {archive.size:,} bytes: it is still being downloaded, was cut off,'
        f' or is another file; md5sum must give {archive.md5}'
      )


def _images(path: Path, archive: Archive, synsets: Sequence[str]) -> list[_Stored]:
  """Lists the images of a tar file; raises UserError where it is damaged, or cannot be read."""
  list_images = {'train': _train_images, 'validation': _validation_images}[archive.split]
  try:
    with _opened(path) as file:
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
  synsets = class_synsets()
  differences = {
    'missing': sorted(set(synsets) - set(names)),
    'unknown': sorted(set(names) - set(synsets)),
  }
  parts = [f'{len(d)} {what}, such as {d[0]!r}' for what, d in differences.items() if d]
  if not parts and tuple(names) != synsets:
    return 'their order is not that of their names'
  return ', and '.join(parts) or None


def class_synsets() -> tuple[str, ...]:
  """The 1,000 classes of ImageNet 2012, sorted: 'n01440764', ..."""
  return tuple(imagenet_classes.words())


def validation_synsets() -> tuple[str, ...]:
  """The class of each of the 50,000 validation images; UserError without tfds."""
  # tfds is not imported, which takes seconds.
  package = importlib.util.find_spec('tensorflow_datasets')
  if package is None or package.origin is None:
    raise UserError(
      "ImageNet's labels come with tensorflow_datasets; install it with: pip install"
      f' {host.extra("train")}'
    )
  folder = Path(package.origin).parent / 'datasets' / 'imagenet2012'
  return tuple((folder / 'validation_labels.txt').read_text('utf-8').split())
