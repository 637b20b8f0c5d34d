"""Too little memory, foreseen: what training takes by XLA's own account, and what is free."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh


def needed(train_step: Callable[..., Any], arguments: tuple[Any, ...], mesh: Mesh) -> int | None:
  """Bytes that training takes beside its state, on each device; None where XLA does not say.

  Emulated devices share a process's memory, and count together. To say it XLA compiles the step;
  jax keeps that, so that the call that follows does not compile it again.

  Args:
    train_step: compiled, as `step.make_train_step` makes it.
    arguments: its arguments, batch and lighting_std as `jax.ShapeDtypeStruct`.
    mesh: of the step.
  """
  lower = getattr(train_step, 'lower', None)
  found = lower(*arguments).compile().memory_analysis() if lower else None
  if found is None:
    return None
  state, batch = arguments[:2]
  total = found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
  # The step's batch, and those that are made ahead.
  total += 4 * sum(
    math.prod(part.sharding.shard_shape(part.shape)) * part.dtype.itemsize
    for part in batch.values()
  )
  if mesh.devices.flat[0].platform == 'cpu':
    # Measured: libraries take up to 9 % of what XLA counts for themselves, and a checkpoint that
    # is being written about three times the state.
    total = 1.1 * total * mesh.local_mesh.devices.size
    total += 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  return int(total)


def free(mesh: Mesh) -> int | None:
  """Bytes free on that of this process's devices that has the fewest; None where none says.

  Of CPUs it is `free_on_host`.
  """
  if mesh.devices.flat[0].platform == 'cpu':
    return free_on_host()
  found = [device.memory_stats() or {} for device in mesh.local_mesh.devices.flat]
  if not all({'bytes_limit', 'bytes_in_use'} <= stats.keys() for stats in found):
    return None
  return min(stats['bytes_limit'] - stats['bytes_in_use'] for stats in found)


def batch_that_fits(
  memory: Callable[[int], int | None], batch_size: int, needed: int, multiple: int, free: int
) -> int:
  """The largest batch for which there is memory, 0 where there is none.

  Args:
    memory: the bytes that a batch needs; it may take seconds, and is asked two or three times.
    batch_size: of a batch that is too large.
    needed: its bytes.
    multiple: what a batch must be a multiple of.
    free: the bytes that there are.
  """
  size, larger, of_larger = batch_size, 0, 0  # the first guess is in proportion
  while needed > free:
    # On a line through the last two: bytes grow with the batch, beside those of any batch.
    each = max(1.0, (of_larger - needed) / (larger - size))
    guess = int(size - (needed - free) / each) // multiple * multiple
    size, larger, of_larger = min(guess, size - multiple), size, needed
    if size < multiple:
      return 0
    needed = memory(size) or 0
  return size


def _numbers(path: Path) -> dict[str, int]:
  """What a file such as /proc/meminfo says, by name."""
  pairs = (line.split()[:2] for line in path.read_text().splitlines())
  return {name.rstrip(':'): int(number) for name, number in pairs}


def _left_by_limits(root: Path) -> Iterator[int]:
  """Bytes that each limit on this process's cgroups leaves it, those of cached files included."""
  for line in (root / 'proc/self/cgroup').read_text().splitlines():
    _, controllers, group = line.split(':', 2)
    if not controllers:  # version 2
      top, maximum, used, prefix = root / 'sys/fs/cgroup', 'memory.max', 'memory.current', ''
    elif 'memory' in controllers.split(','):
      top, maximum = root / 'sys/fs/cgroup/memory', 'memory.limit_in_bytes'
      used, prefix = 'memory.usage_in_bytes', 'total_'
    else:
      continue
    inner = top / group.lstrip('/')  # in a container this may be the host's name, not there
    for folder in (path for path in (inner, *inner.parents) if path.is_relative_to(top)):
      with contextlib.suppress(OSError, ValueError, KeyError):  # 'max' is no limit
        left = int((folder / maximum).read_text()) - int((folder / used).read_text())
        cached = _numbers(folder / 'memory.stat')
        yield left + cached[f'{prefix}active_file'] + cached[f'{prefix}inactive_file']


def free_on_host(root: Path = Path('/')) -> int | None:
  """Bytes that this process can still have; None where the system does not say, as on a Mac.

  They are the machine's, or fewer where a container, a job or a service (a cgroup) has a limit.
  Swap and cached files count, for the system gives them up.

  Args:
    root: above `proc` and `sys`.
  """
  try:
    machine = _numbers(root / 'proc/meminfo')
    left, swap = 1024 * machine['MemAvailable'], 1024 * machine['SwapFree']
  except (OSError, ValueError, KeyError):
    return None
  with contextlib.suppress(OSError, ValueError):
    left = min([left, *_left_by_limits(root)])
  return left + swap
