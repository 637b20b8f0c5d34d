"""Finds which arrays of another project's file are which layers', and what follows convolutions there."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from alexnet_jax.convert.layouts import Layout
from alexnet_jax.models.options import DENSE
from alexnet_jax.utils.errors import UserError, first_line, listed

# torch.nn.DataParallel's and torch.compile's, which wrap a network or a part of it.
_WRAPPERS = ('module', '_orig_mod')

# What follows a layer's name in the names of its arrays: conv1.weight, conv1_W, conv1/biases:0.
_KIND = re.compile(
  r'(?:^|[./_-])(?:weights?|kernel|w|bias(?:es)?|b)(?::0)?$|\[[01]\]$', re.IGNORECASE
)

# Of batch norms, in PyTorch, TensorFlow and MMdnn.
_STATISTICS = ('running_mean', 'running_var', 'moving_mean', 'moving_variance', '[mean]', '[var]')

Shapes = Mapping[str, tuple[int, ...]]


class Found(NamedTuple):
  """The arrays of a network's layers.

  Attributes:
    names: by the layout's names, those in the file; a layout's name that the file lacks stands for
      itself.
    by_name: whether all layers but the last have the layout's names, as in the published network.
    has_own_last_layer: whether the last layer has its name.
  """

  names: dict[str, str]
  by_name: bool
  has_own_last_layer: bool


class _Layer(NamedTuple):
  """A layer of a file: its name, and the names of its weights and biases."""

  name: str
  weights: str
  biases: str


def orders(layers: Iterable[tuple[str | None, str | None]]) -> dict[str, str]:
  """What follows each convolution, as {'conv1': 'activation-norm-pool'}.

  Args:
    layers: in the order in which they run, (step, None) for an activation, norm or pool, and for a
      layer with weights (None, name), where the name is None if it is no convolution.
  """
  steps: dict[str, list[str]] = {}
  convolution = None
  for step, name in layers:
    if step is None:
      convolution = name
    elif convolution is not None:
      steps.setdefault(convolution, []).append(step)
  return {name: '-'.join(parts) for name, parts in steps.items()}


def find(path: str, shapes: Shapes, layout: Layout, log: Callable[[str], None]) -> Found:
  """Finds a network's arrays: by the layout's names, by the layers' own, or by order and shape.

  What wraps a network, as `module.` and `model.`, is no part of a name. A last layer of another name,
  which fine-tuning gives it, is found by its shape.

  Args:
    path: of the file, for messages.
    shapes: of its arrays, in their order.
    layout: of the file.
    log: called with a line for what is not as published: arrays that are not used, layers found by
      their order, a last layer of another name.

  Raises:
    UserError: it is ambiguous, or the network has parts that AlexNet does not have.
  """
  bare = _without_wrappers(path, shapes)
  own_names = {layer: (f'{layer}.weight', f'{layer}.bias') for layer in layout.names}
  for scheme in (layout.names, own_names):
    prefix = _prefix(bare, scheme)
    if prefix is not None:
      _check_norms(path, [name for name in bare if name.startswith(prefix)])
      found = _by_name(path, bare, shapes, layout, scheme, prefix, log)
      modules = {prefix + name.partition('.')[0] + '.' for pair in scheme.values() for name in pair}
      within = [file for name, file in bare.items() if name.startswith(tuple(modules))]
      break
  else:
    found, within = _by_order(path, shapes, layout, log), []
  if unused := [name for name in shapes if name not in found.names.values()]:
    _check_unused(path, unused, [name for name in within if name in unused])
    log(f'{path}: not used: {_some(unused)}')
  return found


def _without_wrappers(path: str, shapes: Shapes) -> dict[str, str]:
  """The file's names by what is left of them without wrappers."""
  bare: dict[str, str] = {}
  for name in shapes:
    short = '.'.join(part for part in name.split('.') if part not in _WRAPPERS)
    if short in bare:
      raise UserError(f'{path} has both {first_line(bare[short])} and {first_line(name)}')
    bare[short] = name
  return bare


def _prefix(bare: Mapping[str, str], scheme: Mapping[str, tuple[str, str]]) -> str | None:
  """What stands before the names of a scheme, the shortest of several; None where they are missing."""
  first = next(iter(scheme.values()))[0]
  before_last = [name for layer, pair in scheme.items() if layer != 'fc8' for name in pair]
  prefixes = [
    name.removesuffix(first) for name in bare if name == first or name.endswith(f'.{first}')
  ]
  complete = [prefix for prefix in prefixes if all(prefix + name in bare for name in before_last)]
  return min(complete, key=len, default=None)


def _by_name(
  path: str,
  bare: Mapping[str, str],
  shapes: Shapes,
  layout: Layout,
  scheme: Mapping[str, tuple[str, str]],
  prefix: str,
  log: Callable[[str], None],
) -> Found:
  names = {
    own: bare.get(prefix + name, own)
    for layer, pair in layout.names.items()
    for own, name in zip(pair, scheme[layer], strict=True)
  }
  of_network = {file: shapes[file] for name, file in bare.items() if name.startswith(prefix)}
  others = [layer for layer in _layers(of_network) if layer.weights not in names.values()]
  last = [layer for layer in others if len(shapes[layer.weights]) >= 2]
  if all(prefix + name in bare for name in scheme['fc8']):
    features = shapes[names[layout.names['fc8'][1]]]
    if after := [la for la in last if _inputs(shapes[la.weights], layout) == features]:
      raise UserError(
        f'{path} has a layer after fc8, {first_line(after[0].name)}; AlexNet has none'
      )
    return Found(names, scheme is layout.names, True)
  *_, before, _ = layout.names
  features = shapes[names[layout.names[before][1]]]
  if len(last) > 1:
    candidates = listed([first_line(layer.name) for layer in last])
    raise UserError(f'{path} has {len(last)} layers after {before}, {candidates}; AlexNet has one')
  if not last:  # it may be in a module around the network
    around = [layer for layer in _layers(shapes) if layer.weights not in names.values()]
    dense = [layer for layer in around if len(shapes[layer.weights]) == 2]
    if len(dense) == 1:
      _check_norms(path, shapes)
      last = dense
  last = [layer for layer in last if _inputs(shapes[layer.weights], layout) == features]
  if last:
    log(f'{path}: the last layer is {first_line(last[0].name)}')
    names |= dict(zip(layout.names['fc8'], last[0][1:], strict=True))
  return Found(names, scheme is layout.names, False)


def _by_order(path: str, shapes: Shapes, layout: Layout, log: Callable[[str], None]) -> Found:
  """Takes the convolutions and the fully connected layers in the order of the file."""
  names = {name: name for pair in layout.names.values() for name in pair}
  layers = list(_layers(shapes))
  by_axes = {axes: [one for one in layers if len(shapes[one.weights]) == axes] for axes in (4, 2)}
  dense = [layer for layer in layout.names if layer in DENSE]
  convolutions = [layer for layer in layout.names if layer not in DENSE]
  if (len(by_axes[4]), len(by_axes[2])) != (len(convolutions), len(dense)):
    if not any(name in shapes for name in names):
      raise UserError(
        f'AlexNet has {len(convolutions)} convolutions and {len(dense)} fully connected layers with'
        f' weights and biases; {path} has {len(by_axes[4])} and {len(by_axes[2])}'
      )
    return Found(names, False, False)  # so that the first array that is missing is named
  _check_norms(path, shapes)
  for layer in layers:
    if len(shapes[layer.weights]) == 1:
      raise UserError(
        f'{path} has the layer {first_line(layer.name)} with {shapes[layer.weights][0]} weights, a'
        ' norm or the like, which AlexNet does not have'
      )
  for own, found in zip([*convolutions, *dense], [*by_axes[4], *by_axes[2]], strict=True):
    names |= dict(zip(layout.names[own], found[1:], strict=True))
  in_order = ', '.join(first_line(found.name) for found in [*by_axes[4], *by_axes[2]])
  log(
    f'{path}: layers are matched by their order, as {", ".join(layout.names)}: {in_order}; the file does'
    " not describe norms and pools, so the config's are used"
  )
  return Found(names, False, False)


def _layers(shapes: Shapes) -> Iterator[_Layer]:
  """The layers that have weights and biases, in the order of the weights."""
  by_layer: dict[str, list[str]] = {}
  for name in shapes:
    by_layer.setdefault(_KIND.sub('', name), []).append(name)
  for layer, names in by_layer.items():
    if len(names) >= 2:
      weights, biases = sorted(names, key=lambda name: -len(shapes[name]))[:2]
      if len(shapes[biases]) == 1:
        yield _Layer(layer, weights, biases)


def _inputs(weights: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
  return weights[1:] if layout.channels_first else weights[:1]


def _check_norms(path: str, names: Mapping[str, object] | list[str]) -> None:
  """Raises UserError where a network has batch norms, which change what its other layers mean."""
  for name in names:
    if name.endswith(_STATISTICS):
      raise UserError(f'{path} has batch norms ({first_line(name)}), which AlexNet does not have')


def _check_unused(path: str, unused: list[str], within: list[str]) -> None:
  """Raises UserError where arrays that are not used change what the network computes.

  Args:
    path: of the file, for messages.
    unused: the names of all such arrays.
    within: of those in the modules of the network's layers.
  """
  if adapters := [name for name in unused if 'lora_' in name]:
    raise UserError(
      f'{path} has adapters beside its weights ({first_line(adapters[0])}); merge them in PyTorch first,'
      ' as by merge_and_unload()'
    )
  if within:
    raise UserError(
      f'{path} has parameters among its layers that AlexNet does not have: {_some(within)}; without'
      ' them it would compute something else'
    )


def _some(names: list[str]) -> str:
  some = ', '.join(map(first_line, names[:4]))
  return some + (f' and {len(names) - 4:,} more' if len(names) > 4 else '')
