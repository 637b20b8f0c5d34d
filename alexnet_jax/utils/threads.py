"""Work in threads, a few more than cores, whose results keep their order."""

import collections
import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_AHEAD = 4  # items per core
_WAITING = 2  # more threads than cores, because some wait for TensorFlow's threads or for the disk

A = TypeVar('A')
B = TypeVar('B')


def num_cores() -> int:
  """The number of cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def map_ahead(
  function: Callable[[A], B],
  items: Iterable[A],
  *,
  num_threads: int | None = None,
  ahead: int | None = None,
) -> Generator[B]:
  """Yields a function's results in the order of its arguments, computed in threads.

  What the function or `items` raises is raised here, in its place. Closing the generator drops what has
  not begun, and waits for what has.

  Args:
    function: called in one of the threads.
    items: its arguments, taken in the caller's thread.
    num_threads: how many; None: two more than cores.
    ahead: how many results are computed ahead of the one that is wanted; None: four per core.
  """
  most = _AHEAD * num_cores() if ahead is None else ahead
  pending: collections.deque[Future[B]] = collections.deque()
  pool = ThreadPoolExecutor(num_threads or num_cores() + _WAITING)
  try:
    for item in items:
      pending.append(pool.submit(function, item))
      if len(pending) > most:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)
