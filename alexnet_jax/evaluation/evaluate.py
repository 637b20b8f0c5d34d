"""Evaluates trained networks, alone and as ensembles, and writes the results as files.

Of several processes all compute, and only the first writes.
"""

import collections
import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import checkpoint, pretrained, workdir
from alexnet_jax.data import datasets, image_folder, splits
from alexnet_jax.evaluation import given_images, inference, predictions
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.parallel import compat, multihost
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils import config_fields, files, provenance
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError, number_of

# Config fields that may differ between the training of a network and its evaluation.
_MAY_DIFFER = (*config_fields.CIRCUMSTANCES, 'train.batch_size')

_PREDICTIONS = Path('evaluation') / 'predictions.npz'  # in a workdir


@compat.default_settings()
def evaluate_workdir(
  path: str | os.PathLike[str], config: ConfigDict, split: str | None = None
) -> dict[str, Any]:
  """Evaluates a workdir's best checkpoint and writes the files of `evaluate_ensemble` there.

  Args:
    path: the run's folder.
    config: the run's; only the devices, the batch size, the data set, where it is and which of its
      folders are classes, and data.validation_split, the split to evaluate on, may differ.
    split: the split to evaluate on; None: data.validation_split, or, where the data are others than
      the run's and it is that of the run, what `datasets.open_for_evaluation` finds.

  Returns:
    The content of evaluation.json, as from `evaluate_ensemble` with one member.

  Raises:
    UserError: there is no complete checkpoint, it is of another experiment, or the folder cannot be
      written to.
    OSError: the results cannot be written, as on a full disk.
  """
  path = files.local(path, '--workdir')
  experiment.check(config)
  others = ('data.name', 'data.class_depth')
  may_differ = (*_MAY_DIFFER, *others, 'data.validation_split')
  workdir.check(path, experiment.resolved(config), may_differ)
  _emulate_devices(config)
  with Display(quiet=not multihost.is_first()) as display, multihost.watched():
    network = pretrained.read(path, log=display.line)
    own = experiment.resolved(network.config)  # config.json may have been edited
    workdir.check_same(network.path, experiment.resolved(config), own, may_differ)
    if split is None and config.data.validation_split != network.config.data.validation_split:
      split = config.data.validation_split
    _prepare(path)
    given = _with_circumstances(network.config, config, (*_MAY_DIFFER, *others))
    evaluated, predicted = _predict(network, given, split, display, _listing_once())
    errors, _ = predictions.errors(predicted)
    member = _Member(str(path), network, 1.0, errors)
    return _write(path, [member], evaluated, predicted, errors)


@compat.default_settings()
def evaluate_ensemble(
  paths: Sequence[str | os.PathLike[str]],
  weights: Sequence[float] | None,
  path: str | os.PathLike[str],
  config: ConfigDict | None = None,
) -> dict[str, Any]:
  """Evaluates networks one by one and as an ensemble, averaging probabilities (paper, section 6).

  Each is evaluated on the split that it was validated on, with pixels prepared as in its training;
  where `config` has another folder of images than a network was trained on, on those.
  Its predictions are stored in its workdir, if it has one, and used again until another checkpoint
  is its best, or the files of its folder of images have changed; where it was evaluated on other
  images or another split, they are not stored, and that evaluation stays whole.

  Writes into `path`, each file atomically, evaluation.json and, in the folder `evaluation`,
  predictions.npz (see `predictions.save`) and the tables of `predictions.write_tables`, by ten
  views.

  Args:
    paths: of the networks, as `pretrained.read` takes them.
    weights: of the average, at least 0 (2012 code, `avg-test.py`); None: all equal.
    path: the folder for the results, made if need be.
    config: where the data are (and data.class_depth, if set), the devices and the batch size; its
      other fields are not used. None: each network's own config.

  Returns:
    The content of evaluation.json: 'data', the data set's name, or that of the folder that the
    first network was trained on, or 'folder' and the path of another; 'split'; 'images'; 'classes',
    how many the networks have; 'classes_with_images', how many of them the images are of; 'ties';
    the `predictions.errors` of the average; and 'members', a list of each network's 'path', 'step',
    'weight' (in all 1) and `predictions.errors`.
    Of several networks, the average and each member but the first have 'compared_with_first', their
    `predictions.differences` from the first. The file has 'provenance' beside them, from
    `provenance.describe`.

  Raises:
    UserError: a network cannot be read or is given twice, networks have different classes or data,
      the weights are invalid, `path` is a training run, or the folder cannot be written to.
    OSError: the results cannot be written, as on a full disk.
  """
  shares = _shares(len(paths), weights)
  path = files.local(path, '--workdir')
  if config is not None:
    experiment.check(config)
  if workdir.read_config(path) is not None:
    raise UserError(
      f'{path} is a training run; pass another --workdir for the evaluation of --members'
    )
  for name, count in collections.Counter(str(files.readable(path)) for path in paths).items():
    if count > 1:
      raise UserError(f'{name} is given as {count} members; give it once, with a larger weight')
  emulated = _emulate_devices(config)
  members: list[_Member] = []
  total: Predictions | None = None
  evaluated: _Images | None = None
  of_first: Mapping[str, np.ndarray] = {}
  with Display(quiet=not multihost.is_first()) as display, multihost.watched():
    networks = [pretrained.read(member, log=display.line) for member in paths]
    _check_alike(paths, networks)
    _prepare(path)
    open_folder = _listing_once()
    for member, network, share in zip(paths, networks, shares, strict=True):
      images, predicted = _stored_or_predicted(
        member, network, config, emulated, display, open_folder
      )
      values, of_images = predictions.errors(predicted)
      if total is None:
        evaluated, of_first = images, of_images
      else:
        if str(evaluated) != str(images):
          raise UserError(
            f'{paths[0]} was evaluated on {evaluated}, but {member} on {images}; members must have the'
            ' same data'
          )
        if evaluated != images or not np.array_equal(predicted.labels, total.labels):
          raise UserError(f'{paths[0]} and {member} were not evaluated on the same images')
        values['compared_with_first'] = predictions.differences(of_images, of_first)
      total = predictions.add(total, predicted, share)
      members.append(_Member(str(member), network, share, values))
    assert total is not None
    assert evaluated is not None
    errors, of_images = predictions.errors(total)
    if len(members) > 1:
      errors['compared_with_first'] = predictions.differences(of_images, of_first)
    return _write(path, members, evaluated, total, errors)


class _Images(NamedTuple):
  """What networks are evaluated on.

  Attributes:
    data: a data set's name, with its folder if need be.
    split: its split.
    fingerprint: of the files, where the data set is a folder that the network was trained on.
  """

  data: str
  split: str
  fingerprint: str | None = None

  def __str__(self) -> str:
    return f'{self.data} ({self.split})'


class _Member(NamedTuple):
  path: str
  network: pretrained.PretrainedNetwork
  share: float
  errors: dict[str, Any]


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
  """The weights of `count` members, divided by their sum."""
  if not count:
    raise UserError('there are no members; pass workdirs, checkpoints or .safetensors files')
  if weights is None:
    return [1 / count] * count
  listed = ', '.join(f'{weight:g}' for weight in weights)
  if len(weights) != count:
    raise UserError(
      f'there are {number_of(len(weights), "weight")} ({listed}) for {number_of(count, "member")};'
      ' give one for each'
    )
  if not all(0 <= weight < math.inf for weight in weights) or not sum(weights):
    raise UserError(f'the weights of members are {listed}; they must be at least 0, and not all 0')
  return [weight / sum(weights) for weight in weights]


def _check_alike(
  paths: Sequence[str | os.PathLike[str]], networks: Sequence[pretrained.PretrainedNetwork]
) -> None:
  """Raises UserError, naming two, where networks have different data or classes."""

  def data(network: pretrained.PretrainedNetwork) -> str:
    return f'{network.config.data.name} ({network.config.data.validation_split})'

  first = networks[0]
  for path, network in zip(paths, networks, strict=True):
    if data(network) != data(first):
      raise UserError(
        f'{paths[0]} was validated on {data(first)}, but {path} on {data(network)}; members must'
        ' have the same data'
      )
    if list(network.class_names) != list(first.class_names):
      raise UserError(f'{paths[0]} and {path} have different classes, or different orders of them')


def _emulate_devices(config: ConfigDict | None) -> bool:
  """Emulates CPU devices, which must be before jax first looks for devices.

  Returns:
    Whether a single process computes on devices that it emulates.
  """
  if config is None:
    emulated = mesh_lib.emulate_cpu_devices(2, 'auto', 'auto')  # as many as a network has columns
  else:
    emulated = mesh_lib.emulate_cpu_devices(
      config.model.num_columns, config.mesh.column_devices, config.mesh.data_devices
    )
  platform = mesh_lib.devices()[0].platform  # raises where JAX has none
  return emulated and platform == 'cpu' and jax.process_count() == 1


def _on_one_pair(config: ConfigDict) -> ConfigDict:
  """Sets mesh.data_devices to 1 where it is 'auto': a network of one column would take both emulated devices."""
  if config.mesh.data_devices != 'auto':
    return config
  config = config.copy_and_resolve_references()
  with config.ignore_type():
    config.mesh.data_devices = 1
  return config


def _with_circumstances(
  config: ConfigDict, other: ConfigDict | None, fields: Sequence[str] = _MAY_DIFFER
) -> ConfigDict:
  """A network's config, but with the fields and sections that an evaluation may change from another."""
  if other is None:
    return config
  config = config.copy_and_resolve_references()
  with config.ignore_type():
    for field in fields:
      section, _, name = field.partition('.')
      if name:
        config[section][name] = other[section][name]
      else:
        config[section] = other[section]
  return config


def _listing_once() -> datasets.OpenFolder:
  """Opens folders of images, but each only once, however many networks are evaluated on it."""
  return functools.cache(image_folder.open_folder)


def _open(
  network: pretrained.PretrainedNetwork,
  config: ConfigDict,
  split: str | None,
  display: Display,
  open_folder: datasets.OpenFolder,
) -> tuple[_Images, splits.Split]:
  """Opens what a network is evaluated on, as `given_images.open_images`; says which, if others."""
  given = given_images.open_images(network, config, split, display, open_folder)
  if given.trained_on is None:
    of = 'all its images are' if given.split_name == 'all' else f'its {given.split_name!r} is'
    display.line(
      f'{given.data} is not the data set that {network.path} was trained on: its classes are'
      f' matched by name, and {of} evaluated'
    )
  fingerprint = None if given.trained_on is None else given.trained_on.fingerprint
  return _Images(given.data, given.split_name, fingerprint), given.split


def _predict(
  network: pretrained.PretrainedNetwork,
  config: ConfigDict,
  split: str | None,
  display: Display,
  open_folder: datasets.OpenFolder,
) -> tuple[_Images, Predictions]:
  """What a network is evaluated on, as `_open` says, and its predictions."""
  mesh = experiment.make_mesh(config)
  images, opened = multihost.first_then_others(
    functools.partial(_open, network, config, split, display, open_folder)
  )
  net = experiment.make_network(config)
  shardings = mesh_lib.shardings(mesh, mesh_lib.parameter_specs(network.params))
  update_progress = display.task('evaluation', opened.num_examples)
  predicted = inference.predict(
    inference.make_view_step(
      net,
      mesh,
      experiment.augment_options(config),
      precision=config.train.precision,
      library_fusions=config.train.library_fusions,
    ),
    mesh_lib.place(network.params, shardings),
    mesh_lib.replicate(mesh, network.statistics),
    opened,
    batch_size=config.train.batch_size,
    crop_size=net.input_size,
    mesh=mesh,
    progress=update_progress,
  )
  update_progress(done=True)
  if multihost.is_first() and (names := opened.file_names()) is not None:
    predicted = predicted._replace(file_names=np.array(names, np.str_))
  return images, predicted


def _identity(
  networks: Sequence[pretrained.PretrainedNetwork], shares: Sequence[float], images: _Images
) -> dict[str, Any]:
  """Identifies the data and networks of predictions; by digests, since runs share step numbers."""
  return {
    **{name: value for name, value in images._asdict().items() if value is not None},
    'class_names': list(networks[0].class_names),
    'members': [
      {
        'step': network.step,
        'share': share,
        'digest': checkpoint.digest((network.params, network.statistics)),
      }
      for network, share in zip(networks, shares, strict=True)
    ],
  }


def _stored_or_predicted(
  path: str | os.PathLike[str],
  network: pretrained.PretrainedNetwork,
  config: ConfigDict | None,
  emulated: bool,
  display: Display,
  open_folder: datasets.OpenFolder,
) -> tuple[_Images, Predictions]:
  """The predictions stored in a member's workdir, if they are of its network, else new ones."""
  folder = Path(files.expanded(path))
  of_workdir = (folder / 'checkpoints').is_dir()  # not a file or a checkpoint
  # The other fields of the config are not used.
  given = config is not None and config.data.class_depth is not None
  fields = (*_MAY_DIFFER, 'data.class_depth') if given else _MAY_DIFFER
  config = _with_circumstances(network.config, config, fields)
  if emulated:  # two devices, of which a network of one column needs one
    config = _on_one_pair(config)
  if not of_workdir or given_images.are_others(network, config, open_folder):
    return _predict(network, config, None, display, open_folder)
  fingerprint = given_images.fingerprint(config, open_folder)
  images = _Images(network.config.data.name, network.config.data.validation_split, fingerprint)
  identity = _identity([network], [1.0], images)
  file = files.inside(folder, _PREDICTIONS)

  def load() -> Predictions | None:
    try:
      return predictions.load(file, identity)
    except UserError as error:
      display.line(f'{error}; the predictions are computed again')
      return None

  stored = multihost.first_then_others(load)
  if stored is not None:
    display.line(f'{path}: using the predictions of its own evaluation')
    return images, stored
  _, predicted = _predict(network, config, None, display, open_folder)
  if not multihost.is_first():
    return images, predicted
  if others := _evaluated_others(file, images):
    display.line(f'{path} keeps its own evaluation, on {others}; its predictions are not stored')
    return images, predicted
  try:
    predictions.save(file, predicted, identity)
  except OSError as error:  # such as another user's folder
    display.line(f'{path}: its predictions cannot be stored there: {error.strerror}')
  return images, predicted


def _evaluated_others(file: Path, images: _Images) -> str | None:
  """The images that stored predictions are of, if of others; None where there are none, or damaged."""
  try:
    identity = predictions.load_identity(file)
  except UserError:
    return None
  if identity is None:
    return None
  evaluated = str(_Images(identity.get('data', ''), identity.get('split', '')))
  return None if evaluated == str(images) else evaluated


def _prepare(path: Path) -> None:
  """Makes the folder for results; raises UserError where it cannot be written to."""
  files.inside(path, _PREDICTIONS)
  if not multihost.is_first():
    return
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise workdir.cannot_write(path, error) from error
  workdir.check_writable(path, path)


def _write(
  path: Path,
  members: Sequence[_Member],
  images: _Images,
  predicted: Predictions,
  errors: Mapping[str, Any],
) -> dict[str, Any]:
  """Writes an evaluation's files; returns the content of evaluation.json."""
  identity = _identity(
    [member.network for member in members], [member.share for member in members], images
  )
  of_folder = images.data == 'folder'  # the one that was trained on
  result = {
    'data': datasets.title(members[0].network.config.data) if of_folder else images.data,
    'split': images.split,
    'images': len(predicted.labels),
    'classes': len(identity['class_names']),
    'classes_with_images': len(np.unique(predicted.labels)),
    'ties': predictions.TIES,
    **errors,
    'members': [
      {'path': member.path, 'step': member.network.step, 'weight': member.share, **member.errors}
      for member in members
    ],
  }
  if multihost.is_first():
    predictions.save(path / _PREDICTIONS, predicted, identity)
    predictions.write_tables(
      path / _PREDICTIONS.parent,
      predicted.ten_views,
      predicted.labels,
      identity['class_names'],
      predicted.file_names,
    )
    with files.atomic_write(path / 'evaluation.json') as temporary:
      content = {**result, 'provenance': provenance.describe(jax.devices())}
      temporary.write_text(json.dumps(content, indent=2) + '\n', 'utf-8')
  return result
