"""Predicts whether training fits in memory: what it needs by XLA's count, and what is free."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jax
from jax.sharding import Mesh


def needed(train_step: Callable[..., object], arguments: tuple[Any, ...], mesh: Mesh) -> int | None:
  """Returns the bytes that training needs beside its state, on each device.

  Emulated devices share a process's memory and are counted together. XLA compiles the step for
  this; JAX caches the program, so the call that follows does not compile it again.

  Args:
    train_step: a jitted step, as `step.make_train_step` returns it.
    arguments: its arguments, batch and lighting_std as `jax.ShapeDtypeStruct`.
    mesh: the step's mesh.

  Returns:
    Bytes; None where XLA does not report them.
  """
  compiled = cast(jax.stages.Wrapped, train_step).lower(*arguments).compile()
  analysis = compiled.memory_analysis()
  if analysis is None:
    return None
  state, batch = arguments[:2]
  total = analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  # The step's batch, and those that are prefetched.
  total += 4 * sum(
    math.prod(part.sharding.shard_shape(part.shape)) * part.dtype.itemsize
    for part in batch.values()
  )
  if mesh.devices.flat[0].platform == 'cpu':
    # Measured: libraries use up to 9% of XLA's count on top of it, and writing a checkpoint about
    # three times the state.
    total = 1.1 * total * mesh.local_mesh.devices.size
    total += 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  return int(total)


def free(mesh: Mesh) -> int | None:
  """Returns the free bytes of this process's device that has the fewest; None where unknown.

  For CPUs it is `free_on_host`.
  """
  if mesh.devices.flat[0].platform == 'cpu':
    return free_on_host()
  of_devices = [device.memory_stats() or {} for device in mesh.local_mesh.devices.flat]
  if not all({'bytes_limit', 'bytes_in_use'} <= stats.keys() for stats in of_devices):
    return None
  return min(stats['bytes_limit'] - stats['bytes_in_use'] for stats in of_devices)


def batch_that_fits(
  memory: Callable[[int], int | None], batch_size: int, needed: int, multiple: int, free: int
) -> int:
  """Returns the largest batch size that fits in memory, 0 if none does.

  Args:
    memory: returns the bytes that a batch size needs; it may take seconds, and is called two or
      three times.
    batch_size: a batch size that is too large.
    needed: the bytes that it needs.
    multiple: what a batch size must be a multiple of.
    free: the free bytes.
  """
  size, previous, needed_before = batch_size, 0, 0  # the first estimate is in proportion
  while needed > free:
    # The secant method: bytes grow linearly with the batch, on top of a constant.
    bytes_per_image = max(1.0, (needed_before - needed) / (previous - size))
    estimate = int(size - (needed - free) / bytes_per_image) // multiple * multiple
    size, previous, needed_before = min(estimate, size - multiple), size, needed
    if size < multiple:
      return 0
    needed = memory(size) or 0
  return size


def _numbers(path: Path) -> dict[str, int]:
  """Parses a file such as /proc/meminfo: numbers by name."""
  pairs = (line.split()[:2] for line in path.read_text('utf-8').splitlines())
  return {name.rstrip(':'): int(number) for name, number in pairs}


def _left_by_limits(root: Path) -> Iterator[int]:
  """Yields the bytes that each limit of this process's cgroups leaves, cached files included."""
  for line in (root / 'proc/self/cgroup').read_text('utf-8').splitlines():
    _, controllers, group = line.split(':', 2)
    if not controllers:  # version 2
      top, maximum, used, prefix = root / 'sys/fs/cgroup', 'memory.max', 'memory.current', ''
    elif 'memory' in controllers.split(','):
      top, maximum = root / 'sys/fs/cgroup/memory', 'memory.limit_in_bytes'
      used, prefix = 'memory.usage_in_bytes', 'total_'
    else:
      continue
    # In a container it may be a path of the host, which does not exist.
    inner = top / group.lstrip('/')
    for folder in (path for path in (inner, *inner.parents) if path.is_relative_to(top)):
      with contextlib.suppress(OSError, ValueError, KeyError):  # 'max' is not a limit
        left = int((folder / maximum).read_text('utf-8')) - int((folder / used).read_text('utf-8'))
        cached = _numbers(folder / 'memory.stat')
        yield left + cached[f'{prefix}active_file'] + cached[f'{prefix}inactive_file']


def free_on_host(root: Path = Path('/')) -> int | None:
  """Returns the bytes that this process can still allocate; None where unknown, as on a Mac.

  They are the machine's, or fewer if a container, job or service (a cgroup) has a limit. Swap and
  cached files are included, since the system releases them.

  Args:
    root: the folder with `proc` and `sys`.
  """
  try:
    machine = _numbers(root / 'proc/meminfo')
    left, swap = 1024 * machine['MemAvailable'], 1024 * machine['SwapFree']
  except (OSError, ValueError, KeyError):
    return None
  with contextlib.suppress(OSError, ValueError):
    left = min([left, *_left_by_limits(root)])
  return left + swap
