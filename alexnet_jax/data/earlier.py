"""Images that earlier preparations have stored, to be taken from there instead of made again."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from alexnet_jax.data import tfds_reader
from alexnet_jax.data.tfds_reader import FOOTER, HEADER

ORIGINAL = 'original'
"""The feature of a stored example that has its original's `fingerprint`."""


def fingerprint(encoded: bytes) -> bytes:
  """The SHA-256 of an original file's content, 32 bytes."""
  return hashlib.sha256(encoded).digest()


class Earlier:
  """The images of prepared data sets, by the content of the files that they were made from.

  Attributes:
    damaged: the files that cannot be read to their ends.
  """

  def __init__(self, directories: Iterable[Path]):
    """Reads which images there are.

    Of a damaged file only the images before the damage are used.

    Args:
      directories: of data sets that were prepared as the new one is.
    """
    self._tf, _ = tfds_reader.import_tensorflow()
    self._places: dict[bytes, tuple[Path, int, int]] = {}  # file, offset and bytes
    self.damaged: list[Path] = []
    for directory in directories:
      for path in sorted(directory.glob('*.tfrecord-*')):
        try:
          self._index(path)
        except (OSError, self._tf.errors.OpError):
          self.damaged.append(path)

  def __len__(self) -> int:
    """How many different images there are."""
    return len(self._places)

  def _index(self, path: Path) -> None:
    offset = 0
    for record in self._tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
      stored = self._tf.train.Example.FromString(record).features.feature[ORIGINAL]
      for digest in stored.bytes_list.value:  # older versions have none
        self._places[digest] = path, offset + HEADER, len(record)
      offset += HEADER + len(record) + FOOTER

  def find(self, original: bytes) -> bytes | None:
    """The stored image, encoded, that was made from the file with this fingerprint, if there is one."""
    if original not in self._places:
      return None
    path, offset, size = self._places[original]
    try:
      with path.open('rb', buffering=0) as file:
        file.seek(offset)
        record = file.read(size)
    except OSError:  # it was removed meanwhile
      return None
    if len(record) != size:
      return None
    [image] = self._tf.train.Example.FromString(record).features.feature['image'].bytes_list.value
    return bytes(image)
