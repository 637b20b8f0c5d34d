"""What a training step's devices tell each other, read from the compiled program; nothing is run.

  python benchmarks/communication.py --config=configs/imagenet.py --batch_size=1024 --devices=8
  python benchmarks/communication.py --batch_size=65536 --devices=512 --column_devices=1 --json
  python benchmarks/communication.py --plan

The step is compiled for as many emulated CPU devices, of arrays that have shapes and no contents,
and its exchanges are set beside a count from the network's shapes alone; the exit code is 1 where
they differ. --plan prints, as Markdown and from shapes alone, what three ways of spreading the
network would send, and how long that takes beside the arithmetic.

XLA's CPU backend exchanges bfloat16 numbers as float32: a program in bfloat16 is read here at twice
the bytes that its maps have on a GPU.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import re
import runpy
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained
from alexnet_jax.data import augment
from alexnet_jax.evaluation import metrics
from alexnet_jax.models import summary
from alexnet_jax.models.alexnet import AlexNet, array_shapes
from alexnet_jax.models.options import CONVOLUTIONS, LAYERS
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.training import step as step_lib
from alexnet_jax.utils.display import print_table
from alexnet_jax.utils.errors import UserError

ROOT = Path(__file__).parents[1]
KINDS = (
  'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'ragged-all-to-all',
  'collective-permute', 'collective-broadcast',
)  # fmt: skip

# What --plan assumes.
PLAN = ((8, 128), (8, 1024), (64, 16), (64, 128), (512, 2), (512, 16), (512, 128))
LINKS = {'450 GB/s': 450e9, '400 Gb/s': 50e9, '100 Gb/s': 12.5e9}  # out of a device, bytes/s
NODE = 8  # devices with fast links to each other
FLOPS = 200e12  # of a device, as achieved

_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\((.*)$')
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.-]+) \(.*\{$')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')
_BYTES = {'pred': 1, 'bf16': 2, 'c64': 8, 'c128': 16}


@dataclasses.dataclass(frozen=True)
class Exchange:
  """An array that the devices of a group exchange, or several of one purpose.

  Attributes:
    kind: one of KINDS.
    layer: whose inputs, or logits, they are: 'conv3', 'fc6', ...; 'norm' of a response norm over
      all channels; 'gradients' or 'metrics'; '' where the program does not tell.
    backward: whether it belongs to the backward pass.
    axis: mesh axis along which a group's devices lie, 'data+column' for both; '' where it is none.
    group_size: devices of a group.
    operand_bytes: what a device puts in.
    result_bytes: what a device gets out.
    dtype, shape: of a device's result, as HLO has them; empty where there are several. Exchanges
      that differ in nothing else are equal.
  """

  kind: str
  layer: str
  backward: bool
  axis: str
  group_size: int
  operand_bytes: int
  result_bytes: int
  dtype: str = dataclasses.field(default='', compare=False)
  shape: tuple[int, ...] = dataclasses.field(default=(), compare=False)


def bytes_on_the_wire(exchange: Exchange) -> float:
  """What a device sends, and receives, where exchanges run in rings."""
  g = exchange.group_size
  share = (g - 1) / g
  if exchange.kind == 'all-gather':
    return share * exchange.result_bytes
  if exchange.kind == 'all-reduce':  # a reduce-scatter and an all-gather
    return 2 * share * exchange.operand_bytes
  if exchange.kind in ('collective-permute', 'collective-broadcast'):
    return float(exchange.operand_bytes) if g > 1 else 0.0
  return share * exchange.operand_bytes


def grouped(found: Iterable[Exchange]) -> list[Exchange]:
  """Exchanges of one purpose added up, in the order in which they first come."""
  sums: dict[tuple[Any, ...], list[int]] = {}
  for e in found:
    total = sums.setdefault((e.kind, e.layer, e.backward, e.axis, e.group_size), [0, 0])
    total[0] += e.operand_bytes
    total[1] += e.result_bytes
  return [Exchange(*key, *total) for key, total in sums.items()]


def exchanges(
  hlo_text: str, axes: Mapping[str, int] | None = None, *, alone: bool = False
) -> list[Exchange]:
  """The exchanges of a compiled program, one for each array: combined ones are taken apart.

  One in a loop's body is counted once, not as often as the loop runs.

  Args:
    hlo_text: `jitted.lower(...).compile().as_text()`.
    axes: the mesh's axes and their sizes, in order (`mesh.shape`); without them axes have no names.
    alone: whether groups of one device, which send nothing, are listed as well.

  Raises:
    ValueError: the text has an exchange whose groups or numbers are not understood.
  """
  program = _Program(hlo_text)
  names = _axis_names(axes or {})
  found = []
  for instruction in program.instructions.values():
    kind = instruction.opcode.removesuffix('-start')
    if kind not in KINDS:  # or the -done of an exchange that was counted where it starts
      continue
    groups = _groups(instruction.attributes, program.num_devices)
    size = max(map(len, groups))
    if size == 1 and not alone:
      continue
    arrays = _results(instruction)
    for (dtype, shape), op_name in zip(
      arrays, _op_names(instruction.op_name, len(arrays)), strict=True
    ):
      result = _number_bytes(dtype) * math.prod(shape)
      scale = {'all-gather': 1 / size, 'reduce-scatter': size}.get(kind, 1)
      layer, backward = _purpose(kind, op_name), 'transpose(' in op_name
      found.append(
        Exchange(
          kind,
          program.layer_beside(instruction, backward) if layer is None else layer,
          backward,
          names.get(groups, ''),
          size,
          round(result * scale),
          result,
          dtype,
          shape,
        )
      )
  return found


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  type: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str

  @property
  def op_name(self) -> str:
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found[1] if found else ''


class _Program:
  """The instructions of a program, by name; enough of it to see who uses what."""

  def __init__(self, hlo_text: str):
    self.instructions: dict[str, _Instruction] = {}
    self._bodies: dict[str, list[_Instruction]] = {}
    self._users: dict[str, list[str]] = {}
    self.num_devices = 1
    if header := re.search(r'^HloModule .*$', hlo_text, re.MULTILINE):
      for count in re.findall(r'(?:num_partitions|replica_count)=(\d+)', header[0]):
        self.num_devices *= int(count)
    body: list[_Instruction] = []
    for line in hlo_text.splitlines():
      if head := _COMPUTATION.match(line):
        body = self._bodies.setdefault(head[1], [])
      elif parts := _INSTRUCTION.match(line):
        name, type_, opcode, rest = parts.groups()
        end = _closing(rest)
        operands = tuple(re.findall(r'%([\w.-]+)', rest[:end]))
        instruction = _Instruction(name, type_, opcode, operands, rest[end:])
        self.instructions[name] = instruction
        body.append(instruction)
        for operand in operands:
          self._users.setdefault(operand, []).append(name)

  def layer_beside(self, start: _Instruction, backward: bool) -> str:
    """The layer of the nearest instruction that has one: a user, or backward an operand.

    Maps are gathered for the layer that reads them, and its gradient is what is scattered.
    """
    seen, ring = {start.name}, [start]
    while ring:
      names = [
        name for i in ring for name in (i.operands if backward else self._users.get(i.name, ()))
      ]
      ring = [self.instructions[n] for n in dict.fromkeys(names) if n in self.instructions]
      ring = [i for i in ring if i.name not in seen]
      seen.update(i.name for i in ring)
      layers = {layer for i in ring if (layer := self._layer(i))}
      if layers:
        return min(layers, key=LAYERS.index)
    return ''

  def _layer(self, instruction: _Instruction) -> str | None:
    """The layer that an instruction computes, or the only one that a fusion does."""
    if own := _layer_in(instruction.op_name):
      return own
    called = re.findall(r'(?:calls|to_apply)=%?([\w.-]+)', instruction.attributes)
    inside = {_layer_in(i.op_name) for name in called for i in self._bodies.get(name, ())} - {None}
    return inside.pop() if len(inside) == 1 else None


def _closing(text: str) -> int:
  """Where the bracket closes that was opened before the text."""
  depth = 1
  for bracket in re.finditer(r'[()]', text):
    depth += 1 if bracket[0] == '(' else -1
    if not depth:
      return bracket.start()
  return len(text)


def _layer_in(op_name: str) -> str | None:
  named = [part for part in re.split(r'[/()]', op_name) if part in LAYERS]
  return named[-1] if named else None


def _purpose(kind: str, op_name: str) -> str | None:
  """The layer, or what else an exchange is for, as far as its own name tells."""
  if layer := _layer_in(op_name):
    return layer
  if '_response_norm' in op_name:
    return 'norm'
  if kind == 'all-reduce' and 'psum' in op_name:
    if 'transpose(' in op_name:
      return 'gradients'
    if 'jvp(' not in op_name:
      return 'metrics'
  return None


def _op_names(op_name: str, count: int) -> list[str]:
  """A name for each array of a combined exchange: XLA writes 'jit(step)/(a:b:c)'."""
  parts = op_name.split(':')
  if len(parts) > 1 and (whole := re.fullmatch(r'(.*?/)?\((.*)\)', op_name)):
    parts = [f'{whole[1] or ""}{part}' for part in whole[2].split(':')]
  return parts if len(parts) == count else [op_name] * count


def _results(instruction: _Instruction) -> list[tuple[str, tuple[int, ...]]]:
  """Type and shape of each array that a device gets."""
  text = instruction.type
  if instruction.opcode.endswith('-start') and instruction.opcode != 'all-reduce-start':
    text = _elements(text)[1]  # (operands, results, ...)
  return [
    (dtype, tuple(int(size) for size in sizes.split(',') if size))
    for dtype, sizes in _ARRAY.findall(re.sub(r'\{[^}]*\}|/\*.*?\*/', '', text))
  ]


def _elements(tuple_type: str) -> list[str]:
  """The elements of '(a, (b, c), d)': 'a', '(b, c)', 'd'."""
  elements, depth = [''], 0
  for letter in tuple_type[1:-1]:
    depth += (letter in '([{') - (letter in ')]}')
    if letter == ',' and not depth:
      elements.append('')
    else:
      elements[-1] += letter
  return elements


def _number_bytes(dtype: str) -> int:
  if dtype in _BYTES:
    return _BYTES[dtype]
  if (bits := re.fullmatch(r'[fsu](8|16|32|64)(?:e\d\w*)?', dtype)) is None:
    raise ValueError(f'how many bytes has a {dtype}?')
  return int(bits[1]) // 8


_Groups = frozenset[frozenset[int]]


def _groups(attributes: str, num_devices: int) -> _Groups:
  """The groups of devices that exchange, in any of HLO's spellings."""
  if pairs := re.search(r'source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}', attributes):
    return _connected(tuple(map(int, pair)) for pair in re.findall(r'(\d+),(\d+)', pairs[1]))
  if listed := re.search(r'replica_groups=\{((?:\{[\d,]*\},?)*)\}', attributes):
    inner = re.findall(r'\{([\d,]+)\}', listed[1])
    if not inner:  # {}: all in one
      return frozenset({frozenset(range(num_devices))})
    return frozenset(frozenset(map(int, group.split(','))) for group in inner)
  # From JAX 0.11 on, mesh['a'=2,'b'=3] {'b'}: the axes along which devices exchange.
  if named := re.search(r"replica_groups=mesh\[(['\w=,]+)\] \{(['\w,]+)\}", attributes):
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
    return _along(axes, re.findall(r'\w+', named[2]))
  # [groups,size]<=[dimensions]T(order): the devices laid out, turned and cut into rows.
  iota = re.search(
    r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?(?![\w(])', attributes
  )
  if not iota:
    raise ValueError(f'an exchange among which devices? {attributes[:200]}')
  shape, sizes = ([int(n) for n in iota[i].split(',')] for i in (1, 2))
  devices = np.arange(math.prod(sizes)).reshape(sizes)
  if iota[3]:
    devices = devices.transpose([int(n) for n in iota[3].split(',')])
  return frozenset(frozenset(row) for row in devices.reshape(shape[0], -1).tolist())


def _connected(pairs: Iterable[tuple[int, ...]]) -> _Groups:
  groups: list[frozenset[int]] = []
  for pair in pairs:
    touched = [group for group in groups if group & set(pair)]
    groups = [group for group in groups if group not in touched]
    groups.append(frozenset(pair).union(*touched))
  return frozenset(groups)


def _along(axes: Mapping[str, int], some: Sequence[str]) -> _Groups:
  """The groups of devices of a mesh that exchange along some of its axes."""
  devices = np.arange(math.prod(axes.values())).reshape(tuple(axes.values()))
  places = [list(axes).index(name) for name in some]
  rows = np.moveaxis(devices, places, range(-len(some), 0))
  rows = rows.reshape(-1, math.prod(axes[name] for name in some))
  return frozenset(frozenset(row) for row in rows.tolist())


def _axis_names(axes: Mapping[str, int]) -> dict[_Groups, str]:
  """The groups along each axis, and along several at once."""
  wide = [name for name, size in axes.items() if size > 1]
  return {
    _along(axes, some): '+'.join(some)
    for count in range(1, len(wide) + 1)
    for some in itertools.combinations(wide, count)
  }


@functools.cache
def _shapes(
  net: AlexNet,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], dict[str, Any]]:
  """For one image: what each layer reads, and every output by name; and the parameters."""
  outputs, params = array_shapes(net)
  reads: dict[str, tuple[int, ...]] = {}
  here: tuple[int, ...] = (net.input_size, net.input_size, 3)
  for name in LAYERS:
    reads[name] = here
    here = outputs.get(f'{name}_pool', outputs.get(name, here))
  return reads, outputs, params


def expected(
  net: AlexNet, batch: int, data_devices: int, column_devices: int, bytes_per_number: int = 4
) -> list[Exchange]:
  """What a training step has to exchange, by hand: from the network's shapes alone.

  Args:
    net: the global network.
    batch: images of a step, over all devices.
    data_devices: over which the batch is spread.
    column_devices: over which the columns are.
    bytes_per_number: of maps; logits and gradients are float32 whatever the maps are.

  Returns:
    Exchanges as `grouped` has them: maps before a layer that reads every column, and back; the
    logits' sum, whose gradient every device has already; the gradients of what a device holds of
    the parameters; and the metrics.
  """
  reads, outputs, params = _shapes(net)
  images = batch // data_devices
  found = []
  if column_devices > 1:
    maps = [(name, reads[name]) for name in net.cross_column if name in params]
    if net.response_norm.over == 'all_channels':
      norms = (f'{name}_norm' for name in net.response_norm.layers)
      maps += [('norm', outputs[name]) for name in norms if name in outputs]
    for layer, shape in maps:
      whole = images * math.prod(shape) * bytes_per_number
      share = whole // column_devices
      along = mesh_lib.COLUMN, column_devices
      found.append(Exchange('all-gather', layer, False, *along, share, whole))
      found.append(Exchange('reduce-scatter', layer, True, *along, whole, share))
    logits = images * net.num_classes * 4
    found.append(
      Exchange('all-reduce', 'fc8', False, mesh_lib.COLUMN, column_devices, logits, logits)
    )
  if data_devices > 1:

    def held(array: Any, spec: Any) -> int:
      share: int = array.size // (column_devices if mesh_lib.COLUMN in spec else 1)
      return share * 4

    here = jax.tree.map(held, params, mesh_lib.parameter_specs(params))
    gradients = sum(jax.tree.leaves(here))
    # The sums of a batch, and the loss.
    scalars = 4 * (len(jax.eval_shape(metrics.empty)) + 1)
    along = mesh_lib.DATA, data_devices
    found.append(Exchange('all-reduce', 'gradients', True, *along, gradients, gradients))
    found.append(Exchange('all-reduce', 'metrics', False, *along, scalars, scalars))
  return grouped(found)


def one_weird_trick(
  net: AlexNet, batch: int, devices: int, group: int | None = None
) -> list[Exchange]:
  """What Krizhevsky's arrangement of 2014 exchanges (arXiv:1404.5997), by hand, in float32.

  Convolutions are data-parallel. Each fully connected layer's units are spread over the devices,
  and its inputs are gathered for all their images at once (his scheme a); the inputs' gradients go
  back. Of the softmax, two numbers an image and the right class's logit are summed.

  Args:
    net: the global network, all its columns on every device.
    batch: images of a step, over all devices.
    devices: how many there are.
    group: over how many of them the units are spread; among such groups, fully connected layers
      are data-parallel. None: over all.
  """
  _, _, params = _shapes(net)
  group = min(group or devices, devices)
  images = batch * group // devices  # of a group
  found = []
  gradients = 0
  for name, arrays in params.items():
    size = sum(array.size for array in arrays.values()) * 4
    if name in CONVOLUTIONS:
      gradients += size
      continue
    whole = images * arrays['kernel'].shape[0] * 4
    found.append(Exchange('all-gather', name, False, 'group', group, whole // group, whole))
    found.append(Exchange('reduce-scatter', name, True, 'group', group, whole, whole // group))
    if group < devices:
      share = -(-size // group)
      found.append(
        Exchange('all-reduce', 'gradients', True, 'groups', devices // group, share, share)
      )
  softmax = 3 * images * 4
  found.append(Exchange('all-reduce', 'softmax', False, 'group', group, softmax, softmax))
  found.append(Exchange('all-reduce', 'gradients', True, 'all', devices, gradients, gradients))
  return grouped(found)


def _data_parallel(net: AlexNet, batch: int, devices: int) -> list[Exchange]:
  return expected(net, batch, devices, 1)


def _columns(net: AlexNet, batch: int, devices: int) -> list[Exchange]:
  return expected(net, batch, devices // 2, 2)


def _in_groups(net: AlexNet, batch: int, devices: int) -> list[Exchange]:
  return one_weird_trick(net, batch, devices, NODE)


ARRANGEMENTS = {
  'data-parallel': _data_parallel,
  'pairs of columns': _columns,
  'one weird trick': one_weird_trick,
  f'trick in groups of {NODE}': _in_groups,
}


@functools.cache
def training_flop(net: AlexNet) -> int:
  """Additions and multiplications of a training step for one image."""
  rows = summary.rows(net)
  # conv1 has no gradient of its input: no one asks for the image's.
  return 2 * (3 * sum(row.multiply_adds for row in rows) - rows[0].multiply_adds)


def _sent(net: AlexNet, name: str, devices: int, images: int) -> tuple[float, float]:
  """Bytes that a device sends in a step with so many images a device: gradients, all else."""
  gradients, rest = 0.0, 0.0
  for exchange in ARRANGEMENTS[name](net, devices * images, devices):
    if exchange.layer == 'gradients':
      gradients += bytes_on_the_wire(exchange)
    else:
      rest += bytes_on_the_wire(exchange)
  return gradients, rest


def _linear(net: AlexNet, name: str, devices: int) -> tuple[float, float]:
  """What a device sends: so many bytes, and so many more for each image that it has."""
  one, two = (sum(_sent(net, name, devices, images)) for images in (1, 2))
  return 2 * one - two, two - one


def least_images(net: AlexNet, name: str, devices: int, link: float, flops: float = FLOPS) -> float:
  """Images a device from which on its arithmetic takes longer than its exchanges.

  Args:
    net: the network.
    name: a key of ARRANGEMENTS.
    devices: how many there are.
    link: bytes/s that a device sends while it receives as many.
    flops: FLOP/s of a device.

  Returns:
    The number; infinite where each further image adds more exchange than arithmetic.
  """
  fixed, more = _linear(net, name, devices)
  gain = training_flop(net) / flops - more / link
  return fixed / link / gain if gain > 0 else math.inf


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def _ms(seconds: float) -> str:
  return f'{1e3 * seconds:.3g}' if seconds < 1 else f'{1e3 * seconds:,.0f}'


def plan(net: AlexNet, flops: float = FLOPS) -> Iterator[str]:
  """Tables, as Markdown, of what the arrangements send and how long it takes."""
  flop, speeds = training_flop(net), ' / '.join(LINKS)
  yield 'MB that a device sends in a step (gradients + all else):\n'
  rows = []
  for devices, images in PLAN:
    sent = [_sent(net, name, devices, images) for name in ARRANGEMENTS]
    cells = [f'{sum(s) / 1e6:,.1f} ({s[0] / 1e6:,.1f} + {s[1] / 1e6:,.1f})' for s in sent]
    rows.append([str(devices), f'{images:,}', f'{devices * images:,}', *cells])
  columns = ['devices', 'images each', 'batch']
  yield _markdown([*columns, *ARRANGEMENTS], rows)

  yield (
    f'Milliseconds of a step: arithmetic ({flop / 1e9:.2f} GFLOP an image, {flops / 1e12:g}'
    f' TFLOP/s), and exchange over {speeds}:\n'
  )
  rows = []
  for devices, images in PLAN:
    sent = [_sent(net, name, devices, images) for name in ARRANGEMENTS]
    cells = [' / '.join(_ms(sum(s) / link) for link in LINKS.values()) for s in sent]
    rows.append([str(devices), f'{images:,}', _ms(images * flop / flops), *cells])
  yield _markdown([*columns[:2], 'arithmetic', *ARRANGEMENTS], rows)

  yield f'Images a device from which on arithmetic takes longer than exchange, over {speeds}:\n'
  rows = []
  for devices in dict.fromkeys(devices for devices, _ in PLAN):
    row = [str(devices)]
    for name in ARRANGEMENTS:
      least = [least_images(net, name, devices, link, flops) for link in LINKS.values()]
      row.append(' / '.join('never' if math.isinf(n) else f'{math.ceil(n):,}' for n in least))
    rows.append(row)
  yield _markdown([columns[0], *ARRANGEMENTS], rows)

  # A ring of g sends (g - 1) / g of the whole, and so half of it on two devices, which have two
  # images of the batch for each of theirs.
  (one, _), (trick, image) = (_linear(net, n, 2) for n in ('data-parallel', 'one weird trick'))
  yield (
    f'- One weird trick sends {image / 1e3:,.1f} kB for each image of the whole batch, so less'
    f' than data parallelism up to a batch of {2 * (one - trick) / image:,.0f}, whatever the'
    ' number of devices.'
  )
  most = (str(math.ceil(flop / flops * link / image)) for link in LINKS.values())
  yield (
    '- Its arithmetic can take longer than its exchange on at most'
    f' {" / ".join(most)} devices over {speeds}, whatever the batch.'
  )
  (one, _), (pairs, more) = (_linear(net, n, 8) for n in ('data-parallel', 'pairs of columns'))
  yield (
    '- Pairs of columns send less than data parallelism up to'
    f' {(one - pairs) / more:,.0f} images a device, whatever the number of devices.'
  )
  # What two devices would send of the gradients in one ring is one whole set of them.
  whole = sum(_sent(net, 'data-parallel', 2, 1))
  for devices in sorted({devices for devices, _ in PLAN if devices > NODE}):
    nodes = devices // NODE
    out = 2 * whole / NODE * (nodes - 1) / nodes
    times = ' / '.join(_ms(out / link) for link in LINKS.values())
    as_long = ' / '.join(f'{math.ceil(out / link * flops / flop):,}' for link in LINKS.values())
    yield (
      f'- On {nodes} nodes of {NODE} devices, each with a link of its own to other nodes, a device'
      f' sends {out / 1e6:,.1f} MB of gradients over it, however its node shares the work: {times}'
      f' ms over {speeds}, the arithmetic of {as_long} images.'
    )


def compiled_step(config: ConfigDict, mesh: Mesh) -> str:
  """The program of a config's training step on a mesh, as HLO text; no array is made."""
  net = experiment.make_network(config)
  tx = experiment.make_optimizer(config, net)
  options = experiment.augment_options(config)
  step: Any = step_lib.make_train_step(
    net, tx, mesh, options, config.train.seed, precision=config.train.precision
  )

  def abstract(array: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

  shapes, specs = step_lib.state_specs(net, tx)
  state = jax.tree.map(abstract, shapes, mesh_lib.shardings(mesh, specs))
  batch_size, size = config.train.batch_size, net.input_size
  batch = {
    'image': jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8),
    'label': jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    'offset': jax.ShapeDtypeStruct((batch_size, 2), jnp.int32),
  }
  spread = mesh_lib.shardings(mesh, mesh_lib.BATCH)
  batch = {name: abstract(array, spread) for name, array in batch.items()}
  arrays: Any = pretrained.abstract(net, config.data.image_size, mesh)['statistics']
  known = augment.Statistics(**arrays)
  everywhere = mesh_lib.shardings(mesh, mesh_lib.REPLICATED)
  lighting = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
  # The level is that of the machine code: what devices exchange is settled before.
  lowered = step.lower(state, batch, known, lighting)
  text: str = lowered.compile(compiler_options={'xla_backend_optimization_level': 0}).as_text()
  return text


def _print(title: str, found: Sequence[Exchange], by_hand: Sequence[Exchange]) -> None:
  def number(exchanges: Iterable[Exchange]) -> str:
    return f'{sum(map(bytes_on_the_wire, exchanges)):,.0f}'

  def key(exchange: Exchange) -> tuple[str, ...]:
    back = 'backward' if exchange.backward else 'forward'
    return (
      exchange.kind, exchange.layer, back, exchange.axis or 'none', str(exchange.group_size)
    )  # fmt: skip

  keys = dict.fromkeys(key(exchange) for exchange in [*found, *by_hand])
  rows = []
  for row in keys:
    here, hand = ([e for e in some if key(e) == row] for some in (found, by_hand))
    result = f'{sum(e.result_bytes for e in here):,}'
    rows.append([*row, result, number(here), number(hand)])
  print_table(
    title,
    ['exchange', 'layer', 'pass', 'axis', 'devices', 'result, bytes', 'sent, bytes', 'by hand'],
    rows,
    ['in all', '', '', '', '', '', number(found), number(by_hand)],
  )


def main() -> None:
  """Prints the tables."""
  parser = argparse.ArgumentParser(description='Prints what a training step exchanges.')
  parser.add_argument('--config', default='configs/imagenet.py', metavar='FILE')
  parser.add_argument('--batch_size', type=int, help="over all devices (default: the config's)")
  parser.add_argument('--devices', type=int, default=8, help='(default: %(default)s)')
  parser.add_argument(
    '--column_devices', type=int, help='over which columns are spread (default: one for each)'
  )
  parser.add_argument('--json', action='store_true', help='print exchanges as JSON')
  parser.add_argument('--plan', action='store_true', help='print what arrangements would send')
  parser.add_argument(
    '--teraflops', type=float, default=FLOPS / 1e12, help="a device's, for --plan (%(default)g)"
  )
  args = parser.parse_args()
  sys.path.insert(0, str(ROOT))  # configs import each other
  jax.config.update('jax_platforms', 'cpu')
  try:
    config = runpy.run_path(args.config)['get_config']()
    net = experiment.make_network(config)
    if args.plan:
      if net.num_columns != 2:
        parser.error('--plan is of networks of two columns')
      print(*plan(net, args.teraflops * 1e12), sep='\n')
      return
    columns = args.column_devices
    if columns is None:
      columns = 1 if args.devices % net.num_columns else net.num_columns
    if args.devices % columns:
      parser.error(f'--devices={args.devices} do not divide by --column_devices={columns}')
    config.train.batch_size = args.batch_size or config.train.batch_size
    config.mesh.column_devices, config.mesh.data_devices = columns, args.devices // columns
    mesh = experiment.make_mesh(config)
  except (UserError, OSError) as error:
    parser.error(str(error))
  found = grouped(exchanges(compiled_step(config, mesh), mesh.shape))
  by_hand = expected(net, config.train.batch_size, *mesh.devices.shape)
  if args.json:
    lists = {'exchanges': found, 'by_hand': by_hand}
    print(
      json.dumps(
        {
          'devices': dict(mesh.shape),
          'batch_size': config.train.batch_size,
          **{
            name: [{**dataclasses.asdict(e), 'sent_bytes': bytes_on_the_wire(e)} for e in some]
            for name, some in lists.items()
          },
        }
      )
    )
  else:
    data, column = mesh.devices.shape
    title = f'{args.config}, batch {config.train.batch_size:,}: a device of {data} x {column}'
    _print(f'{title} (data x column), each step', found, by_hand)
  if set(found) != set(by_hand):
    sys.exit('the program does not exchange what the count by hand says')


if __name__ == '__main__':
  main()
