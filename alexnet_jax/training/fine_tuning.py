"""Fine-tuning: a new run that starts from the layers of a pretrained network (`train.init_from`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.models.options import DENSE, LAYERS
from alexnet_jax.models.params import Params
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils import config_fields, shell
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError


def start_from(
  source: PretrainedNetwork,
  params: Any,
  config: ConfigDict,
  class_names: Sequence[str],
  mean_image: np.ndarray,
  display: Display,
) -> Params:
  """Replaces parameters by a trained network's layers of the same shape, and says which.

  It also says which settings that these layers depend on, and which mean color, were others where they were
  trained.

  Args:
    source: the trained network.
    params: initial parameters of the network to be trained, on its devices.
    config: the config of that network.
    class_names: of the data that it will be trained on, in the order of the labels.
    mean_image: [S, S, 3], theirs.
    display: for lines to the user.

  Raises:
    UserError: no layer fits.
  """
  params, taken, reasons = load_matching_layers(
    params, config.model.num_columns, class_names, source
  )
  initialized = ', '.join(f'{layer} ({reason})' for layer, reason in reasons.items())
  if not taken:
    raise UserError(
      f'train.init_from={source.path} has no layer that fits this network: {initialized}'
    )
  display.line(f'from {source.path}: {", ".join(taken)}')
  if 'fc8' in taken and list(source.class_names) != list(class_names):
    display.line("fc8: its classes are put in the data set's order")
  display.line(f'initialized from scratch: {initialized or "nothing"}')
  if unused := [layer for layer in source.params if layer not in params]:
    display.line(f'not used: {", ".join(unused)}')
  if others := other_settings(config, source, taken):
    display.line(
      'the loaded layers were trained with other settings, so they compute something else here:'
    )
    for field, (trained, here) in others.items():
      display.line(f'  {field}={trained}, here {here}')
    options = shell.join(f'--config.{field}={trained}' for field, (trained, _) in others.items())
    display.line(f'to train with these settings, in a new --workdir, add {options}')
  means = mean_image, np.asarray(source.statistics.mean_image)
  colors = [mean.mean(axis=(0, 1)) for mean in means]
  if np.abs(colors[0] - colors[1]).max() > 1:
    here, there = (' '.join(f'{value:.1f}' for value in color) for color in colors)
    display.line(
      f'the mean color {here} of these images is subtracted; the loaded layers were trained with {there}'
    )
  return params


def load_matching_layers(
  params: Mapping[str, Mapping[str, jax.Array]],
  num_columns: int,
  class_names: Sequence[str],
  source: PretrainedNetwork,
) -> tuple[Params, list[str], dict[str, str]]:
  """Replaces each layer whose shapes match a pretrained network's by that network's.

  The last one is replaced where the classes are the same; its outputs are put in their order.

  Args:
    params: initial parameters of the network to be trained, on its devices.
    num_columns: of that network.
    class_names: of the data that it will be trained on, in the order of the labels.
    source: the pretrained network.

  Returns:
    The parameters, on the same devices; the names of the loaded layers; and for each other layer
    the reason why it was not loaded.
  """
  source_columns = source.config.model.num_columns
  first_dense = next(name for name in DENSE if name in params)  # it reads the columns' maps
  result: dict[str, Mapping[str, jax.Array]] = dict(params)
  loaded, reasons = [], {}
  for layer, initial in params.items():
    trained = source.params.get(layer)
    if trained is None:
      reasons[layer] = 'not pretrained'
    elif (shape := _shape(initial)) != (source_shape := _shape(trained)):
      reasons[layer] = f'{shape}, pretrained {source_shape}'
    elif layer == first_dense and source_columns != num_columns:
      reasons[layer] = f'inputs ordered for num_columns={num_columns}, pretrained {source_columns}'
    elif layer == 'fc8' and (other := sorted(set(source.class_names) ^ set(class_names))):
      reasons[layer] = f'pretrained for other classes; {other[0]!r} is not in both'
    else:
      loaded.append(layer)
      if layer == 'fc8' and list(source.class_names) != list(class_names):
        order = [list(source.class_names).index(name) for name in class_names]
        trained = {kind: np.asarray(array)[..., order] for kind, array in trained.items()}
      shardings = {kind: array.sharding for kind, array in initial.items()}
      result[layer] = mesh_lib.place({kind: trained[kind] for kind in initial}, shardings)
  return result, loaded, reasons


# Fields of a model that do not change what its trained layers compute: their initial values, and the
# sizes of the input and of the output.
_NO_EFFECT = ('bias', 'initialization', 'input_size', 'num_classes', 'weight_std')


def other_settings(
  config: ConfigDict, source: PretrainedNetwork, layers: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
  """The fields on which a pretrained network's layers depend, where a config has other values.

  Layers after the last of them are left out.

  Args:
    config: of the network that the layers are put into.
    source: the pretrained network.
    layers: the names of those that are put into it.

  Returns:
    The pretrained network's value and the config's own, by field.
  """
  after = LAYERS[max(map(LAYERS.index, layers)) + 1 :]
  found = {}
  trained = dict(config_fields.flatten(source.config.to_dict()))
  for field, value in config_fields.flatten(config.to_dict()):
    section, *inner, name = field.split('.')
    if section == 'model':
      relevant = name not in _NO_EFFECT and not set(inner) & set(after)
    else:
      relevant = field in ('augment.mean', 'augment.pixel_scale')
    if relevant and trained.get(field, value) != value:
      found[field] = trained[field], value
  return found


def _shape(layer: Mapping[str, jax.Array | np.ndarray]) -> str:
  return 'x'.join(map(str, layer['kernel'].shape))
