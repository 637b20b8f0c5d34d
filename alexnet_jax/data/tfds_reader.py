"""Opens tfds data sets, and reads their original images.

TensorFlow is imported only in this module, and only when a tfds data set is opened.
"""

import difflib
import functools
import json
import os
import re
import sys
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from alexnet_jax.data.sources import Example
from alexnet_jax.utils import files, host
from alexnet_jax.utils.errors import UserError, first_line
from alexnet_jax.utils.silence import silenced

if TYPE_CHECKING:
  from tensorflow_datasets.core import DatasetBuilder

HEADER, FOOTER = 12, 4
"""Bytes of a TFRecord before and after its data: length (8) and its checksum (4), and a checksum (4)."""

_FILE_NAMES = ('file_name', 'filename', 'id')  # features that name an example's file


@functools.cache
def import_tensorflow() -> tuple[Any, Any]:
  """Imports TensorFlow and tfds, without GPUs and, in the program's own process, their messages.

  No variable of the environment would silence those that TensorFlow writes as it is loaded. Where
  TensorFlow runs in this process already, with GPUs, it keeps them, and a warning says so.

  Raises:
    UserError: they are not installed, or in versions that do not work together.
  """
  keeps_gpus = False
  try:
    with silenced():
      import tensorflow as tf

      # `import tensorflow_datasets` logs an error and continues, with an empty module; this raises.
      import tensorflow_datasets.public_api as tfds

      try:
        tf.config.set_visible_devices([], 'GPU')
      except RuntimeError:
        keeps_gpus = True
  except Exception as error:  # protobuf has its own for versions that do not match
    if sys.version_info >= (3, 14) and isinstance(error, ImportError):
      remedy = 'there is none for Python 3.14 and newer yet: use an older Python'
    else:
      remedy = f'install it with: pip install {host.extra("train")}'
    raise UserError(f'this data set needs TensorFlow ({first_line(error)}); {remedy}') from error
  if keeps_gpus:
    warnings.warn(
      'TensorFlow already runs in this process and keeps GPU memory, which JAX may need; to leave it to JAX,'
      " start a new process and first call tf.config.set_visible_devices([], 'GPU')",
      stacklevel=2,
    )
  return tf, tfds


def default_data_dir() -> str:
  """The folder that tfds uses: $TFDS_DATA_DIR, or ~/tensorflow_datasets.

  Raises:
    UserError: there is no home folder.
  """
  return files.expanded(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')


def open_builder(
  name: str, data_dir: str | None, other_names: Sequence[str] = ()
) -> 'DatasetBuilder':
  """Opens a tfds builder, whose data may not be prepared yet.

  Args:
    name: the data set's.
    data_dir: the folder of tfds's data sets; None for tfds's own.
    other_names: of data sets that are not tfds's, for a message where one of them may be meant.

  Raises:
    UserError: neither tfds nor the folder has this data set, or it is damaged.
  """
  if data_dir and not os.path.isdir(data_dir) and '://' not in data_dir:
    raise UserError(f'there is no folder {data_dir} (data.data_dir)')
  own_folder = Path(data_dir or default_data_dir(), re.split('[/:]', name)[0])
  _check_kinds(own_folder)
  _, tfds = import_tensorflow()
  try:
    with silenced():
      return tfds.builder(name, data_dir=data_dir)
  except Exception as error:  # tfds's own of many kinds, and those of damaged descriptions
    folder = data_dir or default_data_dir()
    if any(map(_is_damaged, own_folder.rglob('*.json'))):
      raise UserError(
        f'{own_folder} cannot be read ({first_line(error)}); copy it again, or remove it to have it'
        ' prepared again'
      ) from error
    if isinstance(error, OSError):
      raise
    if not isinstance(error, ValueError | AssertionError):
      raise UserError(f'tfds cannot open {name!r} in {folder}: {first_line(error)}') from error
    known = [*other_names, *tfds.list_builders(with_community_datasets=False)]
    near = difflib.get_close_matches(name, known)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise UserError(
      f'tfds has no data set {name!r}, and {folder} has none prepared{hint}'
    ) from error


def _is_damaged(path: Path) -> bool:
  """Whether a file of JSON is not whole."""
  try:
    json.loads(path.read_bytes())
  except ValueError:
    return True
  return False


def _check_kinds(folder: Path) -> None:
  """Raises UserError where a data set's folder has a pipe, for which tfds would wait forever."""
  for path in folder.rglob('*'):
    files.check_kind(path)


def let_tfds_prepare(builder: 'DatasetBuilder') -> None:
  """Has tfds download and prepare a data set; raises UserError where that fails."""
  try:
    builder.download_and_prepare()
  except Exception as error:  # whatever tfds, a download or a missing archive raises
    *name, _ = builder.info.full_name.split('/')
    raise UserError(
      f'{builder.info.full_name} is not prepared in {builder.data_path.parents[len(name)]}, and'
      f' preparing it failed: {first_line(error)}\n'
      'Set data.data_dir to the folder where tfds has prepared it. Without internet, run'
      f' `tfds build {"/".join(name)}` on a machine that has it, and copy the result.'
    ) from error


def open_directory(directory: Path) -> 'DatasetBuilder':
  """Opens the tfds data set in a folder.

  Raises:
    UserError: the folder holds none that can be read.
  """
  _check_kinds(Path(directory))  # etils's own paths do not look into subfolders
  _, tfds = import_tensorflow()
  try:
    return tfds.builder_from_directory(directory)
  except Exception as error:  # whatever a damaged file of metadata makes tfds raise
    raise UserError(
      f'{directory} is no tfds data set that can be read ({first_line(error)});'
      ' remove it to have it prepared again'
    ) from error


def plain_name(builder: 'DatasetBuilder') -> str:
  """Names a data set and its config, without the version, so that a folder can have the name."""
  name: str = builder.info.full_name.rsplit('/', 1)[0]
  return name.replace('/', '_').replace('-', '_')


def class_names(builder: 'DatasetBuilder') -> Sequence[str]:
  """The names of a data set's classes, in the order of the labels; raises as `supervised_keys`."""
  _, label_key = supervised_keys(builder.info)
  names: Sequence[str] = builder.info.features[label_key].names
  return names


def needs_shrinking(builder: 'DatasetBuilder', image_size: int) -> bool:
  """Whether images differ in size, or all have shorter sides of more than so many pixels."""
  image_key, _ = supervised_keys(builder.info)
  sides = builder.info.features[image_key].shape[:2]
  return None in sides or min(sides) > image_size


def supervised_keys(info: Any) -> tuple[str, str]:
  """The feature names of a data set's image and label; raises UserError where it has none."""
  _, tfds = import_tensorflow()
  keys = info.supervised_keys or ('image', 'label')
  if len(keys) != 2 or not all(isinstance(key, str) for key in keys):
    keys = ('image', 'label')
  for key, what, feature in zip(
    keys, ('image', 'class label'), (tfds.features.Image, tfds.features.ClassLabel), strict=True
  ):
    if key not in info.features or not isinstance(info.features[key], feature):
      raise UserError(f'{info.full_name} has no {what}; it has {", ".join(info.features)}')
  return cast(tuple[str, str], keys)


def file_name_key(info: Any) -> str | None:
  """The feature that names each example's file; None where there is none."""
  _, tfds = import_tensorflow()
  text = tfds.features.Text
  there = [key for key in _FILE_NAMES if key in info.features]
  return next((key for key in there if isinstance(info.features[key], text)), None)


def unreadable(builder: 'DatasetBuilder', error: Exception) -> UserError:
  """The error of a failed read, without the places in TensorFlow's own code."""
  # '{{function_node ...}} corrupted record at 9 [Op:DatasetToSingleElement] name:'
  reason = re.sub(r'\{\{.*?\}\}| \[Op:.*', '', str(error))
  # 'Graph execution error:\n\nDetected at node ...\n  File ...\n\nInvalid PNG data'
  reason = re.sub(r'(?s)^Graph execution error:.*?\n\n(?!\s|Detected at )', '', reason)
  reason = reason.strip() or type(error).__name__
  return UserError(f'{builder.data_path} cannot be read: {reason.splitlines()[0]}')


class TfdsSource:
  """A tfds data set as a source of original images; see `sources.Source`."""

  def __init__(self, builder: 'DatasetBuilder'):
    """Raises UserError where the data set has no images with labels."""
    info = builder.info
    self._builder = builder
    self._image_key, self._label_key = supervised_keys(info)
    self.name = plain_name(builder)
    self.version = str(info.version)
    self.class_names: Sequence[str] = class_names(builder)
    self.splits = {name: split.num_examples for name, split in info.splits.items()}
    self.description = {'kind': 'tfds', 'name': info.full_name, 'path': str(builder.data_path)}

  def examples(self, split: str, start: int) -> Generator[Example]:
    """See `sources.Source`; the order is that of the files.

    Raises:
      UserError: the files are damaged.
    """
    tf, tfds = import_tensorflow()
    key = file_name_key(self._builder.info)

    def example(number: int, row: dict[str, Any]) -> Example:
      name = row[key].decode(errors='replace') if key else f'{number}'
      return Example(name, int(row[self._label_key]), lambda: row[self._image_key])

    try:
      stored = self._builder.as_dataset(
        split=tfds.core.ReadInstruction(split, from_=start, unit='abs'),
        shuffle_files=False,
        decoders={self._image_key: tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
      )
      for number, row in enumerate(stored.prefetch(16).as_numpy_iterator(), start):
        yield example(number, row)
    except (OSError, tf.errors.OpError) as error:
      raise unreadable(self._builder, error) from error
