"""The device mesh, and how each array is sharded over it.

The mesh has two axes. Along 'column' a network's columns are sharded: two devices hold one each,
one device holds both. Along 'data' each batch is sharded over such pairs.
"""

import contextlib
import functools
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from alexnet_jax.parallel import compat
from alexnet_jax.utils import host
from alexnet_jax.utils.errors import UserError, first_line

DATA, COLUMN = 'data', 'column'
BATCH = PartitionSpec(DATA)
REPLICATED = PartitionSpec()

_DEVICE_FILES = Path('/dev')


def emulate_cpu_devices(
  num_columns: int, column_devices: int | str, data_devices: int | str
) -> bool:
  """Makes JAX emulate as many CPU devices as the mesh needs; call it before a backend starts.

  Accelerators remain JAX's default devices. A count that the user set in XLA_FLAGS or
  JAX_NUM_CPU_DEVICES, or a backend that already runs (as in a notebook), is left alone. Several
  processes have equal shares; 'auto' is one pair for each process.

  Args:
    num_columns: the network's number of columns.
    column_devices: as for `make_mesh`.
    data_devices: as for `make_mesh`.

  Returns:
    Whether it did; False where the count is left alone.

  Raises:
    UserError: as `check`.
  """
  check(column_devices, data_devices)
  if (
    'xla_force_host_platform_device_count' in host.xla_flags(os.environ)
    or jax.config.jax_num_cpu_devices > 0  # type: ignore[attr-defined, unused-ignore]
  ):
    return False
  num_processes = compat.num_processes()
  columns = num_columns if column_devices == 'auto' else int(column_devices)
  pairs = num_processes if data_devices == 'auto' else int(data_devices)
  try:
    jax.config.update('jax_num_cpu_devices', -(-columns * pairs // num_processes))
  except RuntimeError:  # a backend already runs
    return False
  return True


def devices() -> list[jax.Device]:
  """Returns all devices, as `jax.devices`; raises UserError where JAX cannot start."""
  try:
    return jax.devices()
  except (AssertionError, RuntimeError) as error:
    reason = first_line(error) if str(error) else 'there is no such device, or no plugin for it'
    chosen = jax.config.jax_platforms  # type: ignore[attr-defined, unused-ignore]
    if not chosen:
      raise UserError(f'JAX cannot start: {reason}') from error
    raise UserError(
      f'JAX cannot start with JAX_PLATFORMS={chosen}: {reason}; unset it, or set it to cpu'
    ) from error


@functools.cache
def warn_missing_gpu() -> None:
  """Prints the message of `missing_gpu` to stderr, once, and in the first process only."""
  message = missing_gpu()
  if message and jax.process_index() == 0:
    print(message, file=sys.stderr)


def missing_gpu() -> str | None:
  """Returns why JAX uses only CPUs although there should be an NVIDIA GPU, and what to do.

  JAX itself only warns, and skips a plugin that does not match its jaxlib, as after an upgrade of
  one of the two.

  Returns:
    One or two lines; None if JAX sees an accelerator, if the user chose the CPU (JAX_PLATFORMS,
    CUDA_VISIBLE_DEVICES), or if there is neither a GPU nor a plugin that does not match.
  """
  hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1', 'NoDevFiles')  # the last is Slurm's
  platforms = jax.config.jax_platforms  # type: ignore[attr-defined, unused-ignore]
  if platforms or hidden or devices()[0].platform != 'cpu':
    return None
  plugins = {}
  for cuda in ('cuda13', 'cuda12'):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      plugins[cuda] = importlib.metadata.version(f'jax-{cuda}-plugin')
  jaxlib = importlib.metadata.version('jaxlib')
  install = f'pip install "jax[{next(iter(plugins), "cuda13")}]=={jax.__version__}"'
  if plugins and jaxlib not in plugins.values():
    cuda, version = next(iter(plugins.items()))
    return (
      f'JAX computes on the CPU: jax-{cuda}-plugin {version} does not match jaxlib {jaxlib}.'
      f'\nInstall the one that does: {install}'
    )
  if not any(_DEVICE_FILES.glob('nvidia[0-9]*')):
    return None
  if plugins:
    return (
      'JAX computes on the CPU: it could not use the NVIDIA GPU of this machine, although its plugin'
      ' is installed.\nnvidia-smi shows whether the driver works; CUDA 13 needs driver 580 or newer,'
      ' CUDA 12 driver 525.'
    )
  return (
    'JAX computes on the CPU: the plugin with which it would use the NVIDIA GPU of this machine is not'
    f' installed.\nInstall it: {install} (jax[cuda12] for drivers older than 580)'
  )


def check(column_devices: int | str, data_devices: int | str) -> None:
  """Raises UserError for values that `make_mesh` accepts on no machine."""
  for field, value in (('column_devices', column_devices), ('data_devices', data_devices)):
    if value != 'auto' and (not isinstance(value, int) or value < 1):
      raise UserError(f"mesh.{field} is {value!r}; it must be 'auto' or a number from 1")


def make_mesh(
  num_columns: int, column_devices: int | str = 'auto', data_devices: int | str = 'auto'
) -> Mesh:
  """Arranges the devices as a mesh with the axes ('data', 'column').

  Args:
    num_columns: the network's number of columns.
    column_devices: over how many devices a network's columns are sharded; 'auto' is one device
      for each column if a process has enough of them, so that columns communicate within it, else
      one device for all.
    data_devices: over how many of those pairs (or single devices) a batch is sharded; 'auto' is
      all.

  Raises:
    UserError: there are too few devices, or their number does not divide; the message says
      what there is, what is needed and what to set.
  """
  check(column_devices, data_devices)
  warn_missing_gpu()
  present = devices()
  available = f'{len(present)} {present[0].platform} device{"s" if len(present) > 1 else ""}'
  if column_devices == 'auto':
    pairs = 1 if data_devices == 'auto' else int(data_devices)
    within = jax.local_device_count() % num_columns == 0  # so that no pair lies across processes
    fits = within and len(present) % num_columns == 0 and len(present) >= num_columns * pairs
    column_devices = num_columns if fits else 1
  if num_columns % int(column_devices):
    raise UserError(
      f'{num_columns} column{"s" if num_columns > 1 else ""} cannot be sharded over'
      f' {column_devices} devices; set mesh.column_devices to 1 or auto'
    )
  if data_devices == 'auto':
    if len(present) % int(column_devices) and len(present) > int(column_devices):
      raise UserError(
        f'{available} do not divide into pairs of columns; set mesh.column_devices=1, or'
        f' mesh.data_devices={len(present) // int(column_devices)} to leave one idle'
      )
    data_devices = max(1, len(present) // int(column_devices))
  wanted = int(column_devices) * int(data_devices)
  if wanted > len(present):
    raise UserError(
      f'there {"are" if len(present) > 1 else "is"} {available}, but mesh.column_devices='
      f'{column_devices} times mesh.data_devices={data_devices} needs {wanted}; set'
      ' mesh.column_devices=1 or fewer mesh.data_devices'
      + (
        f', or XLA_FLAGS=--xla_force_host_platform_device_count={wanted} to emulate them'
        if present[0].platform == 'cpu'
        else ''
      )
    )
  if wanted > 1 and jax.config.jax_disable_jit:  # type: ignore[attr-defined, unused-ignore]
    raise UserError(
      f'JAX_DISABLE_JIT is set, with which JAX computes on one device only, and not on {wanted};'
      ' unset it, or set mesh.column_devices=1 and mesh.data_devices=1'
    )
  idle = set(range(jax.process_count())) - {device.process_index for device in present[:wanted]}
  if idle:
    raise UserError(
      f'mesh.column_devices={column_devices} times mesh.data_devices={data_devices} leaves'
      f' process {min(idle)} without a device; start fewer processes, or set mesh.data_devices=auto'
    )
  return jax.make_mesh(
    (int(data_devices), int(column_devices)),
    (DATA, COLUMN),
    axis_types=(AxisType.Auto, AxisType.Auto),
    devices=present[:wanted],
  )


def parameter_specs(params: Any) -> Any:
  """Returns how each parameter is sharded: over columns on its output axis, fc8's on its input axis.

  Column 0 owns the first half of each output axis, column 1 the second. fc8 has one output for
  both columns, so its kernel's rows are sharded and its bias is replicated.

  Args:
    params: the network's parameters, {layer: {'kernel', 'bias'}}, arrays or shapes.

  Returns:
    A tree of the same structure with a PartitionSpec for each.
  """

  def spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
    layer, kind = (entry.key for entry in path[-2:])
    if layer == 'fc8':
      return PartitionSpec(COLUMN, None) if kind == 'kernel' else REPLICATED
    return PartitionSpec(*[None] * (len(leaf.shape) - 1), COLUMN)

  return jax.tree_util.tree_map_with_path(spec, params)


def shardings(mesh: Mesh, specs: Any) -> Any:
  """Returns the NamedSharding of each PartitionSpec of a tree."""
  return jax.tree.map(
    lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec)
  )


def place(tree: Any, places: Any) -> Any:
  """Puts arrays or numbers, the same in each process, onto the devices of all processes.

  Args:
    tree: a tree of arrays, complete in this process, or numbers.
    places: a tree of the same structure with the sharding of each.

  Returns:
    A tree of the same structure of `jax.Array`.
  """

  def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    array = np.asarray(jnp.asarray(leaf))
    # device_put would make the processes compare the array. The array is NumPy's, because a process
    # cannot read the parts of a jax.Array that are on other processes' devices.
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

  return jax.tree.map(put, tree, places)


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Replicates a tree of arrays or numbers, the same in each process, on all devices."""
  sharding = NamedSharding(mesh, REPLICATED)
  return place(tree, jax.tree.map(lambda leaf: sharding, tree))


def local_rows(mesh: Mesh, batch_size: int) -> slice:
  """Returns the rows of a global batch that this process's devices need: all in a single process."""
  shards = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,))
  ranges = [index[0].indices(batch_size) for index in shards.values() if index is not None]
  return slice(min(first for first, _, _ in ranges), max(last for _, last, _ in ranges))
