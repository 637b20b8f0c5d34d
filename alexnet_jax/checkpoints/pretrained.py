"""A trained network with all that it takes to use it, from a workdir, a checkpoint or a file.

A file is in the safetensors format: arrays named 'conv1.kernel', 'mean_image' and the like, with the
config and the class names among its metadata. It holds what a checkpoint does but for the
optimiser, loads anywhere, and runs no code.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import checkpoint, safetensors_file
from alexnet_jax.data import augment
from alexnet_jax.models.alexnet import AlexNet, parameter_shapes
from alexnet_jax.models.options import DENSE
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

FORMAT = 1
"""Version of the files that `write` writes."""

DESCRIPTION = 'alexnet_jax'
"""Which of their metadata holds what `describe` makes."""

_STATISTICS = augment.Statistics._fields


@dataclasses.dataclass(frozen=True)
class PretrainedNetwork:
  """A trained network.

  Attributes:
    params: {layer: {'kernel', 'bias'}} of global shapes, float32.
    config: the run's whole config.
    statistics: of its training images.
    class_names: in the order of the labels.
    step: steps it was trained for; None where that is not known.
    path: where it came from.
  """

  params: Any
  config: ConfigDict
  statistics: augment.Statistics
  class_names: Sequence[str]
  step: int | None
  path: str


def read(
  path: str | os.PathLike[str],
  mesh: Mesh | None = None,
  log: Callable[[str], None] = lambda text: None,
) -> PretrainedNetwork:
  """Reads a trained network, whatever devices it was trained on.

  Args:
    path: a workdir (its best checkpoint is taken), one of its checkpoints, or a file that `write`
      has written; on disk, or in a bucket that Orbax can read (gs://...).
    mesh: devices for the parameters, in `mesh.parameter_specs`'s parts; None: all on the first
      of this process.
    log: called with a line where a damaged checkpoint is passed over.

  Raises:
    UserError: there is nothing there, nothing that is whole, or it is of a newer version.
  """
  at = epath.Path(os.path.expanduser(os.fspath(path)))
  if not at.exists():
    raise UserError(f'there is no {at}; give a workdir, one of its checkpoints, or a .safetensors')
  if not at.is_dir():
    return _read_file(at, mesh)
  if checkpoint.is_checkpoint(at):
    with _as_user_error(at):
      return _read_checkpoint(at.parent, int(at.name), mesh)
  files.inside(at, 'checkpoints')
  directory = at / 'checkpoints' if (at / 'checkpoints').is_dir() else at
  for step in _best_first(directory):
    try:
      return _read_checkpoint(directory, step, mesh)
    except checkpoint.DamagedError as error:
      log(f'checkpoint {step} is damaged ({error}); trying another')
  raise UserError(f'{directory} has no whole checkpoint; train first, with --workdir={at}')


def _best_first(directory: epath.Path) -> list[int]:
  """Steps of the checkpoints, the best first, then the newest."""
  steps = checkpoint.steps(directory)[::-1]
  best = None
  for step in steps:  # the newest that can be read knows which is best
    with contextlib.suppress(checkpoint.DamagedError, KeyError, TypeError):
      best = checkpoint.read(directory, step, {})[1]['progress']['best_step']
      break
  return sorted(steps, key=lambda step: (step != best, -step))


@contextlib.contextmanager
def _as_user_error(path: epath.Path) -> Iterator[None]:
  try:
    yield
  except checkpoint.DamagedError as error:
    raise UserError(f'{path} is damaged ({error}); take another checkpoint') from error


def _read_checkpoint(directory: epath.Path, step: int, mesh: Mesh | None) -> PretrainedNetwork:
  path = str(directory / str(step))
  description = checkpoint.read(directory, step, {})[1]
  try:
    config, class_names, trained_steps = _parts(description, path)
  except UserError:
    raise
  except (KeyError, TypeError, ValueError) as error:
    raise checkpoint.DamagedError(f'its description lacks {first_line(error)}') from error
  trees = abstract(experiment.make_network(config), config.data.image_size, mesh or _first_device())
  found, _ = checkpoint.read(directory, step, trees)
  statistics = augment.Statistics(**found['statistics'])
  return PretrainedNetwork(found['params'], config, statistics, class_names, trained_steps, path)


def _parts(description: Mapping[str, Any], path: str) -> tuple[ConfigDict, list[str], int | None]:
  """Config, class names and step; raises as `experiment.checked`, KeyError, TypeError, ValueError."""
  resolved, names, step = description['config'], description['class_names'], description['step']
  if not isinstance(step, int | None) or not isinstance(resolved, dict):
    raise TypeError('a step or a config')
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    raise TypeError('class names')
  ''.join(names).encode()  # half a character cannot be printed
  config = experiment.checked(resolved, path)
  if len(names) != config.model.num_classes:
    raise ValueError(f'{config.model.num_classes} class names, of which there are {len(names)}')
  return config, names, step


def _first_device() -> Mesh:
  """This process's: of several, each reads for itself."""
  mesh_lib.tell_missing_gpu()
  return jax.make_mesh(
    (1, 1),
    (mesh_lib.DATA, mesh_lib.COLUMN),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=jax.local_devices()[:1],
  )


def check_classes(network: PretrainedNetwork, data_name: str, class_names: Sequence[str]) -> None:
  """Raises UserError where a data set does not have a network's classes, in its order."""
  if list(class_names) != list(network.class_names):
    raise UserError(
      f'{network.path} was trained on other classes than those of {data_name}, or in another order'
    )


def load_matching_layers(
  params: Any, num_columns: int, source: PretrainedNetwork
) -> tuple[Any, list[str], dict[str, str]]:
  """Puts a trained network's layers in the place of those that have the same shapes.

  Args:
    params: of the network that is to start from it, placed on its devices.
    num_columns: of that network.
    source: the trained network.

  Returns:
    The parameters, placed alike; the layers taken; and each other layer with the reason why not.
  """
  columns = source.config.model.num_columns
  reading_maps = next(name for name in DENSE if name in params)
  kept, taken, reasons = dict(params), [], {}
  for layer, ours in params.items():
    theirs = source.params.get(layer)
    if theirs is None:
      reasons[layer] = 'not there'
    elif (here := _shape(ours)) != (there := _shape(theirs)):
      reasons[layer] = f'{here} here, {there} there'
    elif layer == reading_maps and columns != num_columns:
      reasons[layer] = f'inputs in the order of num_columns={num_columns} here, {columns} there'
    else:
      taken.append(layer)
      places = {kind: array.sharding for kind, array in ours.items()}
      kept[layer] = mesh_lib.place({kind: theirs[kind] for kind in ours}, places)
  return kept, taken, reasons


def _shape(layer: Mapping[str, Any]) -> str:
  return 'x'.join(map(str, layer['kernel'].shape))


def abstract(net: AlexNet, image_size: int, mesh: Mesh) -> dict[str, Any]:
  """The parameters and statistics of a checkpoint for `checkpoint.read`, where they belong."""
  params = parameter_shapes(net)
  statistics = {
    'mean_image': jax.ShapeDtypeStruct((image_size, image_size, 3), jnp.float32),
    'eigenvalues': jax.ShapeDtypeStruct((3,), jnp.float32),
    'eigenvectors': jax.ShapeDtypeStruct((3, 3), jnp.float32),
  }
  specs = {
    'params': mesh_lib.parameter_specs(params),
    'statistics': dict.fromkeys(statistics, mesh_lib.REPLICATED),
  }
  return jax.tree.map(
    lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
    {'params': params, 'statistics': statistics},
    mesh_lib.shardings(mesh, specs),
  )


def flatten(params: Any, statistics: augment.Statistics) -> dict[str, Any]:
  """Parameters and statistics as a file has them: {'conv1.kernel': ..., 'mean_image': ...}."""
  return dict(traverse_util.flatten_dict({**params, **statistics._asdict()}, sep='.'))


def unflatten(arrays: Mapping[str, Any]) -> tuple[Any, augment.Statistics]:
  """The parameters and statistics of which `flatten` made these."""
  params = traverse_util.unflatten_dict(dict(arrays), sep='.')
  return params, augment.Statistics(**{name: params.pop(name) for name in _STATISTICS})


def write(path: str | os.PathLike[str], trained: PretrainedNetwork, program: bytes = b'') -> None:
  """Writes a trained network into a safetensors file, in one move.

  Args:
    path: of the file, by habit ending in .safetensors.
    trained: the network.
    program: a serialised program that reads the other arrays (`convert.export`), kept as the
      array 'program'; empty for none.
  """
  flat = flatten(trained.params, trained.statistics)
  arrays = {name: np.asarray(array) for name, array in flat.items()}
  if program:
    arrays['program'] = np.frombuffer(program, np.uint8)
  safetensors_file.write(path, arrays, {DESCRIPTION: describe(trained)})


def describe(trained: PretrainedNetwork) -> str:
  """All but the arrays of a trained network, as JSON."""
  description = {
    'version': FORMAT,
    'config': experiment.resolved(trained.config),
    'class_names': list(trained.class_names),
    'step': trained.step,
  }
  return json.dumps(description)


def read_description(path: str, text: str) -> tuple[ConfigDict, list[str], int | None]:
  """The config, class names and step that `describe` made into this text.

  Args:
    path: where it was, for messages.
    text: the text.

  Raises:
    UserError: it cannot be read, or is of a newer version.
  """
  try:
    description = files.parse_json(text)
    if not isinstance(description['version'], int):
      raise TypeError('its version is no number')
    if description['version'] > FORMAT:
      raise UserError(f'{path} was written by a newer alexnet_jax; upgrade this one')
    return _parts(description, path)
  except UserError:
    raise
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f'{path} has a description that cannot be read: {first_line(error)}') from error


def _read_file(path: epath.Path, mesh: Mesh | None) -> PretrainedNetwork:
  metadata = safetensors_file.read_metadata(path)
  if DESCRIPTION not in metadata:
    raise UserError(f'{path} was not written by alexnet_jax; convert it first (--mode=convert)')
  config, class_names, step = read_description(str(path), metadata[DESCRIPTION])
  shapes = abstract(
    experiment.make_network(config), config.data.image_size, mesh or _first_device()
  )
  wanted = flatten(shapes['params'], augment.Statistics(**shapes['statistics']))
  arrays = safetensors_file.read_arrays(path)
  check_arrays(str(path), arrays, wanted)
  placed = {name: jax.device_put(arrays[name], leaf.sharding) for name, leaf in wanted.items()}
  params, statistics = unflatten(placed)
  return PretrainedNetwork(params, config, statistics, class_names, step, str(path))


def check_arrays(path: str, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> None:
  """Raises UserError, naming the first, where arrays are not those wanted, in name, shape, dtype."""
  for name, leaf in wanted.items():
    if name not in arrays:
      raise UserError(f'{path} has no {name}')
    there = arrays[name]
    if (there.shape, there.dtype) != (leaf.shape, leaf.dtype):
      raise UserError(
        f'{name} in {path} is {there.dtype}{list(there.shape)},'
        f' not {np.dtype(leaf.dtype)}{list(leaf.shape)}'
      )
