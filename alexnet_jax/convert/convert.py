"""Converts trained networks between this project's files and those of Caffe, TensorFlow, PyTorch, ONNX.

Files of other projects hold parameters only. The network's constants come from a config; class
names and the mean image come from files, or else are numbers and the color that users of the format
subtract. Nor do they have the eigenvectors of the colors' covariance, which training with color
augmentation would need; the eigenvalues are set to zero. What this project writes for PyTorch has all
of that, as far as `write` says.
"""

import base64
import dataclasses
import importlib.util
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained, safetensors_file
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.convert import caffe, export, foreign, npy, onnx_file, pytorch, pytorch_module
from alexnet_jax.convert.layouts import TORCHVISION, encode
from alexnet_jax.parallel import compat
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

# Keys of the metadata in .torch.safetensors and .onnx.
_STATE_DICT_DESCRIPTION = 'alexnet_jax_state_dict'
_MEAN_COLOR = 'mean_color'
_LIGHTING = 'lighting'


@compat.default_settings()
def convert(
  source: str | os.PathLike[str],
  target: str | os.PathLike[str],
  config: ConfigDict | None = None,
  *,
  mean: str | os.PathLike[str] | None = None,
  class_names: str | os.PathLike[str] | None = None,
  log: Callable[[str], None] = lambda text: None,
) -> PretrainedNetwork:
  """Reads a network from a file or workdir and writes it to another file.

  Args:
    source: as `read` takes it.
    target: as `write` takes it.
    config: as `read` takes it.
    mean: a file of Caffe's that replaces the source's mean; see `with_mean`.
    class_names: a file with one name per line, in the order of the labels, that replaces the
      source's names.
    log: called with a line for what is not as expected, as `read` says, and where the target does
      not hold all of the network.

  Returns:
    The network.

  Raises:
    UserError: a file is missing, incomplete, or does not fit.
  """
  check_target(target)
  network = read(source, config, log, mean=mean)
  if class_names is not None:
    names = read_class_names(class_names, network.config.model.num_classes)
    network = dataclasses.replace(network, class_names=names)
  write(target, network)
  if os.fspath(target).endswith('.pth'):
    log(
      f'{target} has the weights and the mean image, but not the config, class names, steps and principal'
      ' axes of the colors; --config and --class_names read it again, and a .torch.safetensors has all'
    )
  return network


@compat.default_settings()
def read(
  path: str | os.PathLike[str],
  config: ConfigDict | None = None,
  log: Callable[[str], None] = lambda text: None,
  *,
  mean: str | os.PathLike[str] | None = None,
) -> PretrainedNetwork:
  """Reads a network from a file of any known format, or a workdir.

  Args:
    path: what `pretrained.read` takes, or a file of another project, as `foreign.read` takes it.
    config: the network's config, as `foreign.read` takes it; not allowed for a source with its own.
    log: called with a line where a damaged checkpoint is skipped, and as `foreign.read` says.
    mean: a file of Caffe's that replaces the source's mean; see `with_mean`.

  Raises:
    UserError: it is missing, incomplete, or not the network of the config.
  """
  source = files.readable(path)
  if not source.exists():
    raise UserError(
      f'there is no {source}; pass a workdir, one of its checkpoints, or a file of weights'
    )
  network = _read_described(source, log)
  if network is None:
    network = foreign.read(source, config, log, assume_mean=mean is None)
  elif config is not None:
    raise UserError(f'{source} has a config of its own; leave --config out')
  return network if mean is None else with_mean(network, mean, log)


def _read_described(path: epath.Path, log: Callable[[str], None]) -> PretrainedNetwork | None:
  """Reads the network of a file or folder that holds its config too; returns None for others."""
  if path.is_dir():
    return pretrained.read(path, log=log)
  foreign.check_is_weights(path)
  is_onnx = onnx_file.is_onnx(path)
  if is_onnx:
    metadata = onnx_file.read_metadata(path)
  elif foreign.is_safetensors(path):
    metadata = safetensors_file.read_metadata(path)
    if pretrained.DESCRIPTION in metadata:
      return pretrained.read(path)
  else:
    return None
  if _STATE_DICT_DESCRIPTION not in metadata:
    return None
  description = metadata[_STATE_DICT_DESCRIPTION]
  config, class_names, step = pretrained.read_description(str(path), description)
  try:
    red, green, blue = map(float, files.parse_json(metadata[_MEAN_COLOR]))
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} has a {_MEAN_COLOR} that cannot be read: {first_line(error)}'
    ) from error
  arrays = _read_onnx(path, metadata, config) if is_onnx else safetensors_file.read_arrays(path)
  names = {name: name for pair in TORCHVISION.names.values() for name in pair}
  network = foreign.network(path, arrays, names, TORCHVISION, config, (red, green, blue))
  statistics = network.statistics
  if _LIGHTING in metadata:
    statistics = statistics._replace(**_read_lighting(path, metadata[_LIGHTING]))
  return dataclasses.replace(network, statistics=statistics, class_names=class_names, step=step)


def _read_onnx(
  path: epath.Path, metadata: Mapping[str, str], config: ConfigDict
) -> dict[str, np.ndarray]:
  """The arrays of an .onnx as of a state dict; raises UserError where they are not there as such."""
  arrays = onnx_file.read(path).arrays
  arrays.pop(pytorch_module.MEAN_IMAGE, None)  # where it is one color: [3, 1, 1]
  changed = [la for la in config.model.locally_connected if TORCHVISION.names[la][0] not in arrays]
  if changed:
    raise UserError(
      f'{path} has the weights of {", ".join(changed)} in another form, as PyTorch exports those of'
      ' locally connected layers; read a .safetensors of this network'
    )
  if text := metadata.get(pytorch_module.MEAN_IMAGE):
    try:
      image = np.frombuffer(base64.b64decode(text, validate=True), '<f4')
      arrays[pytorch_module.MEAN_IMAGE] = image.reshape(3, math.isqrt(len(image) // 3), -1)
    except ValueError as error:
      reason = first_line(error)
      raise UserError(f'{path} has a mean image that cannot be read: {reason}') from error
  return arrays


def _read_lighting(path: epath.Path, text: str) -> dict[str, jax.Array]:
  """The statistics that are not of the mean image; raises UserError where they cannot be read."""
  try:
    lighting = files.parse_json(text)
    with np.errstate(over='ignore'):
      arrays = {
        name: jnp.asarray(np.array(lighting[name], np.float32))
        for name in ('eigenvalues', 'eigenvectors')
      }
    if [array.shape for array in arrays.values()] != [(3,), (3, 3)]:
      raise ValueError('its arrays are of other shapes')
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f'{path} has a {_LIGHTING} that cannot be read: {first_line(error)}') from error
  return arrays


def with_mean(
  network: PretrainedNetwork,
  path: str | os.PathLike[str],
  log: Callable[[str], None] = lambda text: None,
) -> PretrainedNetwork:
  """Replaces a network's mean image by that of a file of Caffe's.

  Args:
    network: the network.
    path: a .binaryproto or .npy of blue, green and red planes, 0 to 255: as large as images
      (data.image_size), each pixel's mean; as large as the network's input, which is subtracted from
      every crop (augment.mean='center'), as Caffe does where images are not cropped; or the mean color,
      three numbers.
    log: called with a line where augment.mean is changed.

  Raises:
    UserError: it is missing, incomplete, or has another size.
  """
  config = network.config
  size, crop = config.data.image_size, config.model.input_size
  mean = read_mean(path, size, crop)
  if len(mean) == crop != size:
    log(f'{path} is as large as a crop, and subtracted from every crop: augment.mean is now center')
    config = config.copy_and_resolve_references()
    config.augment.mean = 'center'
    before = (size - crop) // 2
    margins = (before, size - crop - before)
    mean = np.pad(mean, (margins, margins, (0, 0)), mode='edge')  # the margin is not used
  image = jnp.asarray(np.broadcast_to(mean, (size, size, 3)))
  statistics = network.statistics._replace(mean_image=image)
  return dataclasses.replace(network, config=config, statistics=statistics)


def read_mean(path: str | os.PathLike[str], image_size: int, crop_size: int) -> np.ndarray:
  """Reads a mean image or color of Caffe's, in which blue comes first.

  Args:
    path: a .binaryproto or .npy, [3, H, W], [1, 3, H, W], or of three numbers.
    image_size: side in pixels that it may have.
    crop_size: the other side that it may have.

  Returns:
    [side, side, 3] float32, red, green and blue, 0 to 255; [1, 1, 3] of a color.

  Raises:
    UserError: it is missing, incomplete, has another size, or has NaN or infinity in it, or what is
      infinity in float32.
  """
  file = files.readable(path)
  if not file.exists():
    raise UserError(f'there is no {file} (--mean)')
  is_npy = file.suffix == '.npy'
  planes = npy.read_array(file) if is_npy else caffe.read_binaryproto(file)
  shape = planes.shape[1:] if planes.ndim == 4 and planes.shape[0] == 1 else planes.shape
  if shape == (3,):
    shape = (3, 1, 1)
  if shape not in [(3, side, side) for side in (image_size, crop_size, 1)]:
    raise UserError(
      f'{file} is {" x ".join(map(str, planes.shape))}, but data.image_size requires'
      f' 3 x {image_size} x {image_size}, or model.input_size 3 x {crop_size} x {crop_size}'
    )
  if planes.dtype.kind not in 'fiu':
    raise UserError(f'{file} is of {planes.dtype}, not of numbers')
  with np.errstate(over='ignore', invalid='ignore'):
    mean = planes.astype(np.float32).reshape(shape)[::-1].transpose(1, 2, 0)
  pretrained.check_finite(str(file), {'the mean': mean})
  return mean


def read_class_names(path: str | os.PathLike[str], num_classes: int) -> list[str]:
  """Reads class names from a text file with one name per line, in the order of the labels.

  Spaces around a name are not part of it.

  Raises:
    UserError: it is missing, is not text, does not have `num_classes` lines, has an empty line, or
      has a name twice.
  """
  file = files.readable(path)
  if not file.exists():
    raise UserError(f'there is no {file} (--class_names)')
  files.check_kind(file)
  try:
    lines = file.read_bytes().decode('utf-8-sig').splitlines()  # with the mark that Windows writes
  except UnicodeDecodeError as error:
    raise UserError(f'{file} is not text in UTF-8: {first_line(error)}') from error
  names = [line.strip() for line in lines]
  if len(names) != num_classes:
    raise UserError(f'{file} has {len(names):,} lines, but the network has {num_classes:,} classes')
  found: dict[str, int] = {}
  for line, name in enumerate(names, 1):
    if not name:
      raise UserError(
        f'{file} has no name in line {line}; give each class one, in a line of its own'
      )
    if (first := found.setdefault(name, line)) < line:
      raise UserError(
        f'{file} has {name!r} in lines {first} and {line}; labels are matched by name, so each class'
        ' needs its own'
      )
  return names


def check_target(path: str | os.PathLike[str]) -> None:
  """Raises UserError where `write` cannot write a file of this name, or would replace another's."""
  suffix = files.local(path, '--target').suffix
  if suffix not in ('.safetensors', '.jaxexport', '.pth', '.onnx'):
    raise UserError(
      f'cannot write {path}: its name must end in .safetensors, in .jaxexport (with the program), in'
      ' .torch.safetensors or .pth (a PyTorch state dict and its module), or in .onnx'
    )
  needed = {'.pth': ('torch',), '.onnx': onnx_file.PACKAGES}.get(suffix, ())
  if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
    raise UserError(
      f'writing {path} needs what is not installed; pip install {" ".join(missing)}, or write a'
      ' .torch.safetensors, which does not need it'
    )
  module = module_path(path)
  if module is not None and module.exists() and not _is_written_module(module):
    raise UserError(
      f'{module}, which this program has not written, would be replaced by the code for {path};'
      ' choose another name'
    )


def module_path(target: str | os.PathLike[str]) -> Path | None:
  """The file of code that `write` writes beside a state dict: x.py for x.pth; None for others."""
  path = files.local(target, '--target')
  for ending in ('.torch.safetensors', '.pth'):
    if path.name.endswith(ending):
      return path.with_name(f'{path.name.removesuffix(ending)}.py')
  return None


def _is_written_module(path: Path) -> bool:
  files.check_kind(path)
  if not path.is_file():
    return False
  beginning = f'{pytorch_module.FIRST_LINE}\n'.encode()
  with path.open('rb') as file:
    return file.read(len(beginning)) == beginning


def write(path: str | os.PathLike[str], network: PretrainedNetwork) -> None:
  """Writes a network atomically into a file of the format that its name ends in.

  - '.torch.safetensors': a PyTorch state dict with torchvision's names, readable by
    `safetensors.torch.load_file`, with the config, class names, step and the colors' principal axes
    as metadata. Beside it comes `module_path`, code of `pytorch_module.source` that makes the module
    of that state dict.
  - '.pth': the same state dict and module, without metadata; needs PyTorch.
  - '.onnx': the program and its weights, with metadata as '.torch.safetensors'; needs
    `onnx_file.PACKAGES`.
  - '.safetensors': the file of `pretrained.write`.
  - '.jaxexport': the file of `export.export`.

  All have the whole mean image. State dicts have it as 'mean_image', but where it is the one color
  that torchvision's users subtract: so torchvision's own weights come out as they went in.

  Args:
    path: the file.
    network: the network.

  Raises:
    UserError: the file cannot be written.
  """
  check_target(path)
  name = os.fspath(path)
  if name.endswith('.safetensors') and not name.endswith('.torch.safetensors'):
    pretrained.write(path, network)
    return
  if name.endswith('.jaxexport'):
    export.export(network, path)
    return
  arrays = _state_dict(network)
  source = pytorch_module.source(
    experiment.make_network(network.config),
    experiment.augment_options(network.config),
    network.config.data.image_size,
    network.class_names,
    None if pytorch_module.MEAN_IMAGE in arrays else TORCHVISION.mean_color,
  )
  if name.endswith('.onnx'):
    input_size = network.config.model.input_size
    metadata = _metadata(network)
    if pytorch_module.MEAN_IMAGE in arrays:  # of which the program has only what it subtracts
      image = arrays[pytorch_module.MEAN_IMAGE].astype('<f4').tobytes()
      metadata[pytorch_module.MEAN_IMAGE] = base64.b64encode(image).decode()
    files.write(path, onnx_file.serialize(source, arrays, input_size, metadata))
    return
  if name.endswith('.pth'):
    files.write(path, pytorch.serialize(arrays))
  else:
    safetensors_file.write(path, arrays, _metadata(network))
  module = module_path(path)
  assert module is not None
  files.write(module, source.encode())


def _state_dict(network: PretrainedNetwork) -> dict[str, np.ndarray]:
  """The arrays that a PyTorch state dict holds, contiguous."""
  net = experiment.make_network(network.config)
  encoded = encode(jax.tree.map(np.asarray, network.params), net, TORCHVISION)
  arrays = {name: np.ascontiguousarray(array) for name, array in encoded.items()}
  mean_image = np.asarray(network.statistics.mean_image, np.float32)
  if (mean_image != np.array(TORCHVISION.mean_color, np.float32)).any():
    arrays[pytorch_module.MEAN_IMAGE] = np.ascontiguousarray(mean_image.transpose(2, 0, 1))
  return arrays


def _metadata(network: PretrainedNetwork) -> dict[str, str]:
  """What a .torch.safetensors and an .onnx hold beside the arrays."""
  statistics = network.statistics
  mean_color = np.asarray(statistics.mean_image, np.float64).mean(axis=(0, 1))
  lighting = {
    name: np.asarray(getattr(statistics, name), np.float64).tolist()
    for name in ('eigenvalues', 'eigenvectors')
  }
  return {
    'format': 'pt',
    _STATE_DICT_DESCRIPTION: pretrained.describe(network),
    _MEAN_COLOR: json.dumps(mean_color.tolist()),
    _LIGHTING: json.dumps(lighting),
  }
