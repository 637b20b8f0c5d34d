"""The images that a trained network is given: of the data that it was trained on, or of others."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained
from alexnet_jax.data import datasets, image_folder, sources, splits
from alexnet_jax.utils import files
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError


class GivenImages(NamedTuple):
  """Images that a network is given.

  Attributes:
    data: their data set's name, with its folder where it is not what was trained on.
    split_name: their split, as 'validation' or 'all'.
    split: the images, with the network's labels and classes.
    trained_on: the data set that the network was trained on; None where they are of another.
  """

  data: str
  split_name: str
  split: splits.Split
  trained_on: datasets.DataSet | None


def are_others(
  network: pretrained.PretrainedNetwork,
  config: ConfigDict,
  open_folder: datasets.OpenFolder = image_folder.open_folder,
) -> bool:
  """Whether a config has other data than those that a network was trained on.

  A folder of images that was moved or copied is the same. Checkpoints from before its fingerprint was
  kept know it by the number of its training images and its classes.

  Args:
    network: the network.
    config: its config, but for `data.name` and where the data are.
    open_folder: see `datasets.open_data_set`.
  """
  data, own = config.data, network.config.data
  if data.name != own.name:
    return True
  if data.name != 'folder' or not data.data_dir or not own.data_dir:
    return False
  if _real(data.data_dir) == _real(own.data_dir):
    return False
  try:
    source = _open_folder(config, open_folder)
  except UserError:  # one that cannot be trained on
    return True
  training = network.training
  if training.get('fingerprint') is not None:
    return bool(source.description['fingerprint'] != training['fingerprint'])
  return (source.splits['train'], list(source.class_names)) != (
    training.get('train_examples'),
    list(network.class_names),
  )


def _real(folder: str) -> Path:
  return Path(os.path.realpath(files.expanded(folder)))


def fingerprint(config: ConfigDict, open_folder: datasets.OpenFolder) -> str | None:
  """The fingerprint of a folder's files as they are now.

  Args:
    config: of a network, with the data that it was trained on.
    open_folder: see `datasets.open_data_set`.

  Returns:
    SHA-256 in hexadecimal digits; None where the data are no folder, or it is gone.
  """
  if config.data.name != 'folder' or not config.data.data_dir:
    return None
  try:
    source = _open_folder(config, open_folder)
  except UserError:
    return None
  return str(source.description['fingerprint'])


def _open_folder(config: ConfigDict, open_folder: datasets.OpenFolder) -> image_folder.FolderSource:
  data = config.data
  folder = files.local(data.data_dir, 'data.data_dir')
  return open_folder(folder, data.validation_fraction, data.class_depth)


def open_images(
  network: pretrained.PretrainedNetwork,
  config: ConfigDict,
  split: str | None,
  display: Display,
  open_folder: datasets.OpenFolder = image_folder.open_folder,
) -> GivenImages:
  """Opens the images that a network is given; says so where it may have been trained on some.

  Args:
    network: the network.
    config: its config, but for `data.name` and where the data are.
    split: the split; None: the network's own `data.validation_split`, or, of other data than it was
      trained on, what `datasets.open_for_evaluation` finds.
    display: for lines and bars.
    open_folder: see `datasets.open_data_set`.

  Raises:
    UserError: the data cannot be opened, or have other classes.
  """
  data, own, training = config.data, network.config.data, network.training
  if are_others(network, config, open_folder):
    opened, chosen = datasets.open_for_evaluation(
      data.name,
      experiment.storage(config),
      split=split,
      class_names=network.class_names,
      display=display,
      open_folder=open_folder,
    )
    folder = data.data_dir and os.path.abspath(files.expanded(data.data_dir))
    if data.name == own.name == 'folder' and own.data_dir:
      given, of_run = _real(data.data_dir), _real(own.data_dir)
      if given.is_relative_to(of_run) or of_run.is_relative_to(given):
        lies = 'lies in' if given.is_relative_to(of_run) else 'contains'
        display.line(
          f'{folder} {lies} {own.data_dir}, which {network.path} was trained on: some of its images may be'
          ' training images'
        )
    return GivenImages(f'{data.name} {folder}' if folder else data.name, chosen, opened, None)
  _, data_set = experiment.open_data(config, display, open_folder)
  seen = 'images that were trained on may be among its validation images'
  if data_set.fingerprint is not None and training:
    if training.get('fingerprint') is None and data_set.held_out:
      display.line(
        f'{network.path} was trained by an older version, which held out others of the images in'
        f' {data.data_dir}; {seen}'
      )
    elif training.get('fingerprint') not in (None, data_set.fingerprint):
      display.line(f'{data.data_dir} has changed since {network.path} was trained on it; {seen}')
  chosen = split or own.validation_split
  opened = data_set.load_split(chosen)
  _check_classes(network, data.data_dir or data.name, opened.class_names)
  return GivenImages(data.name, chosen, opened, data_set)


def _check_classes(
  network: pretrained.PretrainedNetwork, data_name: str, class_names: Sequence[str]
) -> None:
  """Raises UserError where a data set's classes differ from a network's, or are in another order."""
  if list(class_names) == list(network.class_names):
    return
  unnamed = sources.is_numbered(network.class_names) and not set(class_names) & set(
    network.class_names
  )
  if unnamed and len(class_names) == len(network.class_names):
    raise UserError(
      f'the classes of {network.path} are called 0 to {len(class_names) - 1}, those of {data_name}'
      f' {class_names[0]!r} and so on: {sources.GIVE_NAMES}'
    )
  different = sorted(set(class_names) ^ set(network.class_names))
  how = f'{different[0]!r} is not in both' if different else 'they are in another order'
  raise UserError(
    f'{network.path} was trained on other classes than those of {data_name}: {how}; name them as in'
    ' training, or train again in another --workdir'
  )
