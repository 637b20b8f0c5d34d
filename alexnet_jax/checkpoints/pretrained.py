"""Reads and writes pretrained networks, with everything that their use needs.

A network is read from a workdir, a checkpoint or a file. A file is in the safetensors format: arrays
named 'conv1.kernel', 'mean_image' and so on, with the config and class names in its metadata. It
holds what a checkpoint holds except for the optimizer, loads anywhere, and runs no code.
"""

import collections
import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
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
from alexnet_jax.models.params import Params
from alexnet_jax.parallel import compat
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils import files, host, shell
from alexnet_jax.utils.errors import UserError, first_line

FORMAT = 1
"""Format number of the files that `write` writes."""

DESCRIPTION = 'alexnet_jax'
"""Key of the metadata that holds the text of `describe`."""

_STATISTICS = augment.Statistics._fields


@dataclasses.dataclass(frozen=True, eq=False)
class PretrainedNetwork:
  """A trained network with everything that its use needs; equal only to itself.

  Attributes:
    params: its parameters, float32.
    config: the complete config of its run.
    statistics: of its training images.
    class_names: in the order of the labels.
    step: number of steps it was trained for; None: unknown.
    path: of the file or folder it was read from.
    training: of a checkpoint the 'fingerprint' of its folder of images, if it has one, and
      'train_examples', how many images it was trained on; None in those from before they were kept.
  """

  params: Params
  config: ConfigDict
  statistics: augment.Statistics
  class_names: Sequence[str]
  step: int | None
  path: str
  training: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@compat.default_settings()
def read(
  path: str | os.PathLike[str], log: Callable[[str], None] = lambda text: None
) -> PretrainedNetwork:
  """Reads a trained network, whatever devices it was trained on, onto this process's first device.

  Args:
    path: a workdir (its best checkpoint is read), one of its checkpoints (both on disk,
      or in a bucket that Orbax can read, gs://...), or a file that `write` has written.
    log: called with a message where a damaged checkpoint is skipped.

  Raises:
    UserError: it is missing, damaged, or of a newer version.
  """
  source = files.readable(path)
  if not source.exists():
    raise UserError(
      f'there is no {source}; pass a workdir, one of its checkpoints, or a .safetensors file'
    )
  mesh_lib.devices()  # else what fails where there are none would be taken for damage
  if not source.is_dir():
    return _read_file(source)
  if checkpoint.is_checkpoint(source):
    try:
      return _read_checkpoint(source.parent, int(source.name))
    except checkpoint.DamagedError as error:
      raise UserError(f'{source} is damaged ({error}); use another checkpoint') from error
  files.inside(source, 'checkpoints')
  directory = source / 'checkpoints' if (source / 'checkpoints').is_dir() else source
  for step in _best_first(directory):
    try:
      return _read_checkpoint(directory, step)
    except checkpoint.DamagedError as error:
      log(f'checkpoint {step} is damaged ({error}); trying another')
  for runs in ('*/checkpoints', '*/*/checkpoints'):  # a sweep's are in its variants' folders
    if found := sorted(source.glob(runs)):
      raise UserError(f'{source} is a folder of runs; give one of them, such as {found[0].parent}')
  is_workdir = any((source / name).exists() for name in ('checkpoints', 'config.json'))
  if not is_workdir and not checkpoint.steps(directory) and any(source.iterdir()):
    raise UserError(
      f'{source} is not a workdir: it has neither checkpoints nor config.json; to load parameters of your own,'
      ' save them with pretrained.write (docs/python.md)'
    )
  raise UserError(
    f'{directory} has no complete checkpoint; train first, with'
    f' --workdir={shell.quote(str(source))}'
  )


def _best_first(directory: epath.Path) -> list[int]:
  """Steps of the checkpoints: the best one, then the others, newest first."""
  steps = checkpoint.steps(directory)[::-1]
  best = None
  for step in steps:  # the newest that can be read says which is best
    with contextlib.suppress(checkpoint.DamagedError, KeyError, TypeError):
      best = checkpoint.read(directory, step, {})[1]['progress']['best_step']
      break
  return sorted(steps, key=lambda step: (step != best, -step))


def _read_checkpoint(directory: epath.Path, step: int) -> PretrainedNetwork:
  path = str(directory / str(step))
  description = checkpoint.read(directory, step, {})[1]
  try:
    config, class_names, trained_steps = _parts(description, path)
  except UserError:
    raise
  except (KeyError, TypeError, ValueError) as error:
    raise checkpoint.DamagedError(f'its description has no valid {first_line(error)}') from error
  trees = abstract(experiment.make_network(config), config.data.image_size, _first_device())
  restored, _ = checkpoint.read(directory, step, trees)
  statistics = augment.Statistics(**restored['statistics'])
  training = {name: description.get(name) for name in ('fingerprint', 'train_examples')}
  return PretrainedNetwork(
    restored['params'], config, statistics, class_names, trained_steps, path, training
  )


def _parts(description: Mapping[str, Any], path: str) -> tuple[ConfigDict, list[str], int | None]:
  """The config, class names and step of a description.

  Raises:
    KeyError, TypeError, ValueError: a part is missing or invalid.
    UserError: the config is, as `experiment.checked` says.
  """
  resolved, names, step = description['config'], description['class_names'], description['step']
  if not isinstance(step, int | None) or not isinstance(resolved, dict):
    raise TypeError('step or config')
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    raise TypeError('class names')
  ''.join(names).encode()  # raises for surrogates, which cannot be printed
  config = experiment.checked(resolved, path)
  if len(names) != config.model.num_classes:
    raise ValueError(f'class names: {len(names)} instead of {config.model.num_classes}')
  if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
    raise ValueError(f'class names: {twice[0]!r} is there more than once')
  return config, names, step


def _first_device() -> Mesh:
  """A mesh of this process's first device: of several processes, each reads for itself."""
  mesh_lib.warn_missing_gpu()
  return jax.make_mesh(
    (1, 1),
    (mesh_lib.DATA, mesh_lib.COLUMN),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=jax.local_devices()[:1],
  )


def abstract(net: AlexNet, image_size: int, mesh: Mesh) -> dict[str, Any]:
  """The shapes, dtypes and shardings of a checkpoint's parameters and statistics.

  Args:
    net: the network.
    image_size: side of the mean image in pixels.
    mesh: the devices.

  Returns:
    {'params', 'statistics'} of jax.ShapeDtypeStruct, as `checkpoint.read` takes it.
  """
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
    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    {'params': params, 'statistics': statistics},
    mesh_lib.shardings(mesh, specs),
  )


def flatten(params: Params, statistics: augment.Statistics) -> dict[str, Any]:
  """Parameters and statistics by their names in a file: {'conv1.kernel': ..., 'mean_image': ...}."""
  return dict(traverse_util.flatten_dict({**params, **statistics._asdict()}, sep='.'))


def unflatten(arrays: Mapping[str, Any]) -> tuple[Params, augment.Statistics]:
  """The parameters and statistics in these arrays; the inverse of `flatten`."""
  params = traverse_util.unflatten_dict(dict(arrays), sep='.')
  return params, augment.Statistics(**{name: params.pop(name) for name in _STATISTICS})


def write(path: str | os.PathLike[str], network: PretrainedNetwork, program: bytes = b'') -> None:
  """Writes a network atomically into a safetensors file.

  Args:
    path: of the file, usually ending in .safetensors.
    network: the network.
    program: a serialized program that reads the other arrays (`convert.export`), stored as the
      array 'program'; empty for none.

  Raises:
    UserError: the file cannot be written, or the network is not whole, so that `read` would refuse it.
  """
  flat = flatten(network.params, network.statistics)
  arrays = {name: np.asarray(array) for name, array in flat.items()}
  description = describe(network)
  check_arrays('the network', arrays, _expected(network.config))
  check_finite('the network', arrays)
  if program:
    arrays['program'] = np.frombuffer(program, np.uint8)
  safetensors_file.write(path, arrays, {DESCRIPTION: description})


def describe(network: PretrainedNetwork) -> str:
  """All of a network but its arrays, as JSON for `read_description`, which reads it once for a check.

  Raises:
    UserError: the config, the class names or the step cannot be read again.
  """
  description = {
    'version': FORMAT,
    'config': experiment.resolved(network.config),
    'class_names': list(network.class_names),
    'step': network.step,
  }
  text = json.dumps(description)
  read_description('the network', text)
  return text


def read_description(path: str, text: str) -> tuple[ConfigDict, list[str], int | None]:
  """Parses the text of `describe`.

  Args:
    path: the file that holds it, for messages.
    text: the text.

  Returns:
    The config, the class names and the step.

  Raises:
    UserError: it is damaged, or of a newer version.
  """
  try:
    description = files.parse_json(text)
    if not isinstance(description['version'], int):
      raise TypeError('its version is not an integer')
    if description['version'] > FORMAT:
      raise UserError(f'{path} was written by a newer alexnet_jax; upgrade this one')
    return _parts(description, path)
  except UserError:
    raise
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f'{path} has a description that cannot be read: {first_line(error)}') from error


def _expected(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
  """The arrays that a file of a config's network has, for one device."""
  shapes = abstract(experiment.make_network(config), config.data.image_size, _first_device())
  return flatten(shapes['params'], augment.Statistics(**shapes['statistics']))


def _read_file(path: epath.Path) -> PretrainedNetwork:
  advice = host.command('--mode=convert', f'--source={path}', '--target=net.safetensors')
  try:
    metadata = safetensors_file.read_metadata(path)
  except UserError as error:
    raise UserError(f'{error}\nWeights of another program are converted first: {advice}') from error
  if DESCRIPTION not in metadata:
    raise UserError(f'{path} was not written by alexnet_jax; convert it first:\n{advice}')
  config, class_names, step = read_description(str(path), metadata[DESCRIPTION])
  expected = _expected(config)
  arrays = safetensors_file.read_arrays(path)
  check_arrays(str(path), arrays, expected)
  check_finite(str(path), {name: arrays[name] for name in expected})
  placed = {name: jax.device_put(arrays[name], leaf.sharding) for name, leaf in expected.items()}
  params, statistics = unflatten(placed)
  return PretrainedNetwork(params, config, statistics, class_names, step, str(path))


def check_arrays(
  path: str, arrays: Mapping[str, np.ndarray], expected: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
  """Raises UserError, naming the first, where an expected array is missing or of another type.

  Args:
    path: the file that holds the arrays, for messages.
    arrays: by name.
    expected: by name, their shapes and dtypes.
  """
  for name, leaf in expected.items():
    if name not in arrays:
      raise UserError(f'{path} has no {name}')
    array = arrays[name]
    if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
      raise UserError(
        f'{name} in {path} is {array.dtype}{list(array.shape)},'
        f' not {np.dtype(leaf.dtype)}{list(leaf.shape)}'
      )


def check_finite(path: str, arrays: Mapping[str, np.ndarray]) -> None:
  """Raises UserError, naming the first, where an array has NaN or infinity in it."""
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise UserError(
        f'{name} in {path} has values that are not finite numbers, so every prediction would be NaN;'
        ' use another checkpoint'
      )
