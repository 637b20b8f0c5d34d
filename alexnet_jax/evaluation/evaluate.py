"""Errors over every image of a split, on any mesh: centre crops, ten views, and ensembles.

Training validates by `evaluate`, on centre crops alone, which is ten times as fast. `predict` has
the probabilities of each image. In several processes all compute, and the first alone writes.
"""

import contextlib
import functools
import json
import math
import os
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import checkpoint, pretrained, workdir
from alexnet_jax.data import augment, dataset, splits
from alexnet_jax.evaluation import metrics, predictions
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.parallel import multihost, xla
from alexnet_jax.utils import config_fields, files
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError

Array = jax.Array
EvaluationStep = Callable[
  [Any, Mapping[str, Any], augment.Statistics, Mapping[str, Array]], dict[str, Array]
]
ViewStep = Callable[[Any, Array, augment.Statistics, augment.View, Array], Array]

# Where a trained network is used again, its config may differ in these.
_ELSEWHERE = (*config_fields.CIRCUMSTANCES, 'train.batch_size')

_PREDICTIONS = Path('evaluation') / 'predictions.npz'  # in a workdir


def put_batches(batches: Generator[splits.Batch], mesh: Mesh) -> Generator[dict[str, Array]]:
  """Spreads batches over the mesh's 'data' axis, each process giving its `mesh.local_rows`."""
  sharding = mesh_lib.shardings(mesh, mesh_lib.BATCH)
  parts = mesh.shape[mesh_lib.DATA]
  ours = mesh_lib.local_rows(mesh, parts)

  def put(rows: np.ndarray) -> Array:
    # Where columns of a pair lie on two processes, both have its rows, which is more than jax can
    # make a whole of by itself.
    each = len(rows) // (ours.stop - ours.start)
    shape = (each * parts, *rows.shape[1:])

    def part(index: Any) -> np.ndarray:
      first, last, _ = index[0].indices(shape[0])
      return rows[first - each * ours.start : last - each * ours.start]

    return jax.make_array_from_callback(shape, sharding, part)

  with contextlib.closing(batches):
    for batch in batches:
      yield {name: put(array) for name, array in batch.items()}


def make_evaluation_step(
  net: AlexNet,
  mesh: Mesh,
  options: augment.Options,
  *,
  precision: str = 'float32',
  library_fusions: bool = True,
) -> EvaluationStep:
  """A compiled function from (params, batch, statistics, sums) to the sums with the batch's.

  A step waits for the one before, through its sums. Were there two at a time, then on two emulated
  devices of a small CPU each could hold a thread that the other's exchange of columns needs.

  Args:
    net: the global network.
    mesh: on which it runs.
    options: how pixels are prepared.
    precision: as `step.make_train_step` has it.
    library_fusions: see `xla.options`.
  """
  local = net.local(mesh_lib.COLUMN, mesh.shape[mesh_lib.COLUMN])

  def on_device(params: Any, batch: Mapping[str, Array], statistics: Any) -> dict[str, Array]:
    pixels = augment.evaluation_pixels(batch['image'], batch['offset'], statistics, options)
    logits, _ = local.apply({'params': params}, pixels.astype(precision))
    sums = metrics.batch_sums(logits, batch['label'], batch['mask'])
    return jax.lax.psum(sums, mesh_lib.DATA)

  def step(
    params: Any, batch: Mapping[str, Array], statistics: Any, sums: Mapping[str, Array]
  ) -> dict[str, Array]:
    specs = (mesh_lib.parameter_specs(params), mesh_lib.BATCH, mesh_lib.REPLICATED)
    sharded = jax.shard_map(
      on_device, mesh=mesh, in_specs=specs, out_specs=mesh_lib.REPLICATED, check_vma=True
    )
    return metrics.merge(sums, sharded(params, batch, statistics))

  platform = mesh.devices.flat[0].platform
  return jax.jit(step, compiler_options=xla.options(platform, library_fusions))


def evaluate(
  step: EvaluationStep,
  params: Any,
  statistics: augment.Statistics,
  split: splits.Split,
  *,
  batch_size: int,
  crop_size: int,
  mesh: Mesh,
  progress: Callable[[int], None] = lambda images: None,
) -> dict[str, float]:
  """Loss and errors over every image of a split, each counted once.

  Args:
    step: from `make_evaluation_step`.
    params: the network's, laid out on the mesh.
    statistics: of the training images.
    split: the images.
    batch_size: images a batch; it must divide over the mesh.
    crop_size: the network's input size.
    mesh: of the step.
    progress: called with the number of images of each batch; what it raises stops the evaluation.

  Returns:
    'loss', 'top1_error' and 'top5_error'.
  """
  sums = mesh_lib.replicate(mesh, metrics.empty())
  left = split.num_examples
  rows = mesh_lib.local_rows(mesh, batch_size)
  read = dataset.evaluation_batches(split, batch_size, crop_size, rows)
  with contextlib.closing(dataset.prefetch(put_batches(read, mesh))) as batches:
    for batch in batches:
      before, sums = sums, step(params, batch, statistics, sums)
      # Two batches on their way are enough. From 32 on XLA's CPU backend makes launches wait, on
      # one emulated device for what the other has not been given yet.
      jax.block_until_ready(before)
      progress(min(batch_size, left))
      left -= batch_size
  return metrics.compute(sums)


def make_view_step(
  net: AlexNet,
  mesh: Mesh,
  options: augment.Options,
  *,
  precision: str = 'float32',
  library_fusions: bool = True,
) -> ViewStep:
  """A compiled function that adds the class probabilities of one view of a batch to a total.

  It takes params, images [N, S, S, 3] uint8, statistics, an `augment.View` and the total
  [N, classes] float32; one program serves all views. Through the total a step waits for the one
  before, as those of `make_evaluation_step` do.

  Args:
    net: the global network.
    mesh: on which it runs.
    options: how pixels are prepared.
    precision: as `step.make_train_step` has it.
    library_fusions: see `xla.options`.
  """
  local = net.local(mesh_lib.COLUMN, mesh.shape[mesh_lib.COLUMN])

  def on_device(
    params: Any, images: Array, statistics: Any, view: augment.View, total: Array
  ) -> Array:
    pixels = augment.view_pixels(images, view, net.input_size, statistics, options)
    logits, _ = local.apply({'params': params}, pixels.astype(precision))
    return total + jax.nn.softmax(logits)

  def step(params: Any, images: Array, statistics: Any, view: augment.View, total: Array) -> Array:
    replicated, batch = mesh_lib.REPLICATED, mesh_lib.BATCH
    specs = (mesh_lib.parameter_specs(params), batch, replicated, replicated, batch)
    sharded = jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=batch, check_vma=True)
    return sharded(params, images, statistics, view, total)

  platform = mesh.devices.flat[0].platform
  return jax.jit(step, compiler_options=xla.options(platform, library_fusions))


def predict(
  step: ViewStep,
  params: Any,
  statistics: augment.Statistics,
  split: splits.Split,
  *,
  batch_size: int,
  crop_size: int,
  mesh: Mesh,
  progress: Callable[[int], None] = lambda images: None,
) -> Predictions:
  """Class probabilities of every image of a split, of its centre crop and of its ten views.

  Args:
    step: from `make_view_step`.
    params: the network's, laid out on the mesh.
    statistics: of the training images.
    split: the images.
    batch_size: images a batch; it must divide over the mesh.
    crop_size: the network's input size.
    mesh: of the step.
    progress: called with the number of images of each batch.

  Raises:
    UserError: they take more memory than there is.
  """
  count, classes = split.num_examples, len(split.class_names)
  needed = 2 * 4 * count * classes
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if needed > memory:
    raise UserError(
      f'the probabilities of {count:,} images and {classes:,} classes take {needed / 1e9:,.0f} GB,'
      f' and there are {memory / 1e9:,.0f} GB of memory; evaluate a part of them, as with'
      " --config.data.validation_split='validation[:1%]'"
    )
  centre_crop = np.empty((count, classes), np.float32)
  ten_views = np.empty((count, classes), np.float32)
  labels = np.empty(count, np.int32)
  centre, *others = augment.ten_views(split.image_size, crop_size)
  nothing = mesh_lib.place(
    np.zeros((batch_size, classes), np.float32), mesh_lib.shardings(mesh, mesh_lib.BATCH)
  )
  rows = mesh_lib.local_rows(mesh, batch_size)
  read = dataset.evaluation_batches(split, batch_size, split.image_size, rows)  # whole images
  done = 0
  with contextlib.closing(dataset.prefetch(put_batches(read, mesh))) as batches:
    for batch in batches:
      of_centre = total = step(params, batch['image'], statistics, centre, nothing)
      for view in others:
        total = step(params, batch['image'], statistics, view, total)
      images = min(batch_size, count - done)
      here = slice(done, done := done + images)
      crops, views, true = multihost_utils.process_allgather(
        (of_centre, total, batch['label']), tiled=True
      )
      centre_crop[here] = crops[:images]
      ten_views[here] = views[:images] / 10
      labels[here] = true[:images]
      progress(images)
  return Predictions(centre_crop, ten_views, labels)


def evaluate_workdir(path: str | os.PathLike[str], config: ConfigDict) -> dict[str, Any]:
  """Evaluates a workdir's best checkpoint and writes there what `evaluate_ensemble` writes.

  Args:
    path: the run's folder.
    config: the run's, but for where and in what batches it runs, and on which split: that of
      data.validation_split.

  Returns:
    What evaluation.json holds, as of `evaluate_ensemble`, with one member.

  Raises:
    UserError: there is no whole checkpoint, it is of another experiment, or nothing can be written.
  """
  experiment.check(config)
  open_fields = ('model.num_classes',) if config.model.num_classes is None else ()
  free = (*_ELSEWHERE, 'data.validation_split', *open_fields)
  workdir.check(path, experiment.resolved(config), free)
  _emulate_devices(config)
  with Display(quiet=not multihost.is_first()) as display, multihost.watched():
    network = pretrained.read(path, log=display.line)
    network.config.data.validation_split = config.data.validation_split
    _prepare(Path(path))
    found = _predict(network, config, display)
    member = _Member(str(path), network, 1.0, predictions.errors(found))
    return _write(Path(path), [member], found)


def evaluate_ensemble(
  paths: Sequence[str | os.PathLike[str]],
  weights: Sequence[float] | None,
  path: str | os.PathLike[str],
  config: ConfigDict | None = None,
) -> dict[str, Any]:
  """Evaluates networks one by one and together, their probabilities averaged (paper, section 6).

  Each is evaluated on the split that it was validated on, its pixels prepared as in its training.
  What it makes of them is kept in its workdir, if it has one, and used again as long as that is
  its best checkpoint.

  Into `path` are written, each in one move, evaluation.json and, in the folder `evaluation`,
  predictions.npz (see `predictions.save`) and the tables of `predictions.write_tables`, by ten
  views.

  Args:
    paths: of the networks, as `pretrained.read` takes them.
    weights: of the average, at least 0 (2012 source, `avg-test.py`); None: all alike.
    path: the folder for the results, made if need be.
    config: says where their data lie, and where and in what batches they run; its other fields are
      not looked at. None: as each network's own config has it.

  Returns:
    What evaluation.json holds: 'data', 'split', 'images', 'classes', 'ties', what
    `predictions.errors` gives of the average, and 'members', a list of each one's 'path', 'step',
    'weight' (they add up to 1) and `predictions.errors`.

  Raises:
    UserError: a network cannot be read, they are not of the same classes and data, the weights
      cannot be used, `path` is a training run, or nothing can be written there.
  """
  shares = _shares(len(paths), weights)
  if config is not None:
    experiment.check(config)
  if workdir.read_config(path) is not None:
    raise UserError(
      f'{path} is a training run; give the evaluation of --members a --workdir of its own'
    )
  _emulate_devices(config)
  members, total = [], None
  with Display(quiet=not multihost.is_first()) as display, multihost.watched():
    networks = [pretrained.read(each, log=display.line) for each in paths]
    _check_alike(paths, networks)
    _prepare(Path(path))
    for each, network, share in zip(paths, networks, shares, strict=True):
      found = _kept_or_predicted(each, network, config, display)
      if total is not None and not np.array_equal(found.labels, total.labels):
        raise UserError(f'{paths[0]} and {each} were not evaluated on the same images')
      total = predictions.add(total, found, share)
      members.append(_Member(str(each), network, share, predictions.errors(found)))
    assert total is not None
    return _write(Path(path), members, total)


class _Member(NamedTuple):
  path: str
  network: pretrained.PretrainedNetwork
  share: float
  errors: dict[str, dict[str, float]]


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
  """The weights of so many members, made to add up to 1."""
  if not count:
    raise UserError('there are no members; give workdirs, checkpoints or .safetensors files')
  if weights is None:
    return [1 / count] * count
  given = ', '.join(f'{weight:g}' for weight in weights)
  if len(weights) != count:
    raise UserError(f'there are {len(weights)} weights ({given}) for {count} members')
  if not all(0 <= weight < math.inf for weight in weights) or not sum(weights):
    raise UserError(f'the weights of members are {given}; they must be at least 0, and not all 0')
  return [weight / sum(weights) for weight in weights]


def _check_alike(
  paths: Sequence[str | os.PathLike[str]], networks: Sequence[pretrained.PretrainedNetwork]
) -> None:
  """Raises UserError, naming two, where networks are not of the same data and classes."""

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
      raise UserError(f'{paths[0]} and {path} have other classes, or the same in another order')


def _emulate_devices(config: ConfigDict | None) -> None:
  """Asks for CPU devices, before jax looks for any."""
  if config is None:
    mesh_lib.emulate_cpu_devices(2, 'auto', 'auto')  # as many as a network has columns
  else:
    mesh_lib.emulate_cpu_devices(
      config.model.num_columns, config.mesh.column_devices, config.mesh.data_devices
    )


def _at_hand(config: ConfigDict, given: ConfigDict | None) -> ConfigDict:
  """A network's config, but for where and in what batches it runs, which is as in another."""
  if given is None:
    return config
  config = config.copy_and_resolve_references()
  with config.ignore_type():
    for field in _ELSEWHERE:
      section, _, name = field.partition('.')
      if name:
        config[section][name] = given[section][name]
      else:
        config[section] = given[section]
  return config


def _predict(
  network: pretrained.PretrainedNetwork, given: ConfigDict | None, display: Display
) -> Predictions:
  """What a network makes of its validation images."""
  config = _at_hand(network.config, given)
  mesh = experiment.make_mesh(config)
  config, data_set = multihost.first_then_others(
    functools.partial(experiment.open_data, config, display), 'data'
  )
  split = data_set.load_split(config.data.validation_split)
  pretrained.check_classes(network, config.data.name, split.class_names)
  net = experiment.make_network(config)
  places = mesh_lib.shardings(mesh, mesh_lib.parameter_specs(network.params))
  update_progress = display.task('evaluation', split.num_examples)
  found = predict(
    make_view_step(
      net,
      mesh,
      experiment.augment_options(config),
      precision=config.train.precision,
      library_fusions=config.train.library_fusions,
    ),
    mesh_lib.place(network.params, places),
    mesh_lib.replicate(mesh, network.statistics),
    split,
    batch_size=config.train.batch_size,
    crop_size=net.input_size,
    mesh=mesh,
    progress=update_progress,
  )
  update_progress(done=True)
  return found


def _identity(
  networks: Sequence[pretrained.PretrainedNetwork], shares: Sequence[float]
) -> dict[str, Any]:
  """What predictions are of. A step would not do: another run may have come to the same one."""
  data = networks[0].config.data
  return {
    'data': data.name,
    'split': data.validation_split,
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


def _kept_or_predicted(
  path: str | os.PathLike[str],
  network: pretrained.PretrainedNetwork,
  given: ConfigDict | None,
  display: Display,
) -> Predictions:
  """The predictions kept in a member's workdir, if they are its network's, else new ones."""
  folder = Path(path).expanduser()
  if not (folder / 'checkpoints').is_dir():  # a file, or a checkpoint by itself
    return _predict(network, given, display)
  identity = _identity([network], [1.0])
  file = files.inside(folder, _PREDICTIONS)

  def kept() -> Predictions | None:
    try:
      return predictions.load(file, identity)
    except UserError as error:
      display.line(f'{error}; they are made again')
      return None

  found = multihost.first_then_others(kept, 'kept predictions')
  if found is not None:
    display.line(f'{path}: the predictions of its own evaluation are used')
    return found
  found = _predict(network, given, display)
  if not multihost.is_first():
    return found
  try:
    predictions.save(file, found, identity)
  except OSError as error:  # another user's, say
    display.line(f'{path}: its predictions cannot be kept there: {error.strerror}')
  return found


def _prepare(path: Path) -> None:
  """Makes a folder for results; raises UserError where nothing can be written in it."""
  files.inside(path, _PREDICTIONS)
  if not multihost.is_first():
    return
  try:
    path.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path).close()
  except OSError as error:
    raise UserError(
      f'cannot write to the workdir {path}: {error.strerror}; choose another with --workdir'
    ) from error


def _write(path: Path, members: Sequence[_Member], found: Predictions) -> dict[str, Any]:
  """Writes an evaluation's files; returns what evaluation.json holds."""
  identity = _identity([member.network for member in members], [member.share for member in members])
  result = {
    'data': identity['data'],
    'split': identity['split'],
    'images': len(found.labels),
    'classes': len(identity['class_names']),
    'ties': predictions.TIES,
    **predictions.errors(found),
    'members': [
      {'path': one.path, 'step': one.network.step, 'weight': one.share, **one.errors}
      for one in members
    ],
  }
  if multihost.is_first():
    predictions.save(path / _PREDICTIONS, found, identity)
    predictions.write_tables(
      path / _PREDICTIONS.parent, found.ten_views, found.labels, identity['class_names']
    )
    with files.whole(path / 'evaluation.json') as temporary:
      temporary.write_text(json.dumps(result, indent=2) + '\n')
  return result
