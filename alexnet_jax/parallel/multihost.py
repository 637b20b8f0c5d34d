"""One run in several processes, on one host or many: joining them, and coordinating their work.

Each process runs the same program on its own devices, and JAX computes on all of them together.
Only the first process prints, and writes the files that are not checkpoints.
"""

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from alexnet_jax.parallel import compat
from alexnet_jax.utils import host
from alexnet_jax.utils.errors import EXIT_AGAIN, UserError, first_line

T = TypeVar('T')

HEARTBEAT_SECONDS = 30
"""Without a heartbeat of one process for so long, the others end."""

# Keys in the store of JAX's coordinator.
_STOP, _FAILED, _ALIVE = 'alexnet_jax/stop', 'alexnet_jax/failed', 'alexnet_jax/alive'
_BEAT_SECONDS = 2
_AHEAD = 3  # steps
_turns = itertools.count()  # of `first_alone`, the same in all processes


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> int:
  """Joins the other processes of this run, if there are any; call it before JAX starts a backend.

  Args:
    coordinator: host and port of the first process, as 'node1:1234'; None if a launcher provides
      them.
    num_processes: the number of processes; None likewise.
    process_id: this process's number, from 0; None likewise. Open MPI 5 provides only these two.

  Returns:
    The number of processes.

  Raises:
    UserError: an argument that no launcher provides is missing, or the others cannot be reached.
  """
  identity = (coordinator, num_processes, process_id)
  if identity == (None, None, None):
    if not host.has_peers(os.environ):
      return 1
  elif (
    coordinator and (num_processes, process_id) == (None, None) and host.launched(os.environ) > 1
  ):
    identity = coordinator, host.launched(os.environ), host.rank(os.environ)
    # One device for each process, as JAX does with other launchers.
    if device := os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK'):
      os.environ.setdefault('JAX_LOCAL_DEVICE_IDS', device)
  elif None in identity:
    raise UserError(
      'one process of several needs all of --coordinator=HOST:PORT, --num_processes and --process_id'
    )
  # Even with all arguments JAX would query a Kubernetes cluster, which may not be allowed.
  in_pod = 'KUBERNETES_SERVICE_HOST' in os.environ
  try:
    with compat.without_preemption_service():  # `agreed_stop` handles all signals
      jax.distributed.initialize(
        *identity,
        cluster_detection_method='deactivate' if coordinator and in_pod else None,
        # JAX would abort this process; `watched` notices earlier, and ends it with an exit code.
        heartbeat_timeout_seconds=2 * HEARTBEAT_SECONDS,
      )
  except Exception as error:  # the launchers' libraries raise many types
    hint = (
      '' if coordinator else '\nGive each of them the address of the first: --coordinator=HOST:PORT'
    )
    raise UserError(f'cannot join the other processes: {first_line(error)}{hint}') from error
  return compat.num_processes()


def is_first() -> bool:
  """Whether this is the process that prints and writes; a single process is."""
  return jax.process_index() == 0


def first_alone(work: Callable[[], T]) -> T | None:
  """Runs a function in the first process only; the others wait until it has succeeded.

  Where it raises, launch.py ends the first process by `fail`, and with it the others; another program
  has to call `fail` itself.

  Returns:
    The function's result in the first process; None in the others.
  """
  client = compat.coordinator()
  if client is None:
    return work()
  done = f'alexnet_jax/done/{next(_turns)}'
  if is_first():
    result = work()
    client.key_value_set(done, 'yes')
    return result
  # Not a barrier on devices: a process waiting there sees no failure, only a broken connection.
  while _get(client, done) is None:
    if (code := _get(client, _FAILED)) is not None:
      os._exit(int(code))
    time.sleep(0.2)
  return None


def first_then_others(work: Callable[[], T]) -> T:
  """Runs a function in the first process, as `first_alone`, then in the others.

  The others find the files that the first has written.
  """
  result = first_alone(work)
  return cast(T, result) if is_first() else work()


def _get(client: compat.KeyValueStore, key: str) -> str | None:
  """Returns the coordinator's value of a key; None if there is none."""
  try:
    return client.key_value_try_get(key)
  except jax.errors.JaxRuntimeError:  # not found
    return None


def agreed_stop(step: int, signum: int | None) -> int | None:
  """Returns the signal by which all processes stop after this step; None to continue.

  A process that received a signal announces a later step, which no process has reached: a step
  ends only when all have begun it, and each process reads the last step's loss, so they are at most
  two steps apart.

  Args:
    step: the number of completed steps; each process calls this after each step.
    signum: the signal that this process has received, if any.
  """
  client = compat.coordinator()
  if client is None:
    return signum
  if signum is not None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another process has announced a step
      client.key_value_set(_STOP, f'{step + _AHEAD} {signum}')
  if (stop := _get(client, _STOP)) is None:
    return None
  last_step, number = map(int, stop.split())
  return number if step >= last_step else None


def fail(message: str, code: int) -> int:
  """Ends a run with a message on stderr, in all of its processes.

  In a single process it returns the exit code. Of several, the first that fails prints its message,
  and all end at once.

  Args:
    message: the message.
    code: the exit code.
  """
  client = compat.coordinator()
  if client is None:
    print(message, file=sys.stderr)
    return code
  try:
    client.key_value_set(_FAILED, str(code))
    print(f'{message} (process {compat.process_id()})', file=sys.stderr)
  except jax.errors.JaxRuntimeError:
    if (first := _get(client, _FAILED)) is not None:  # another failed first, and has said why
      code = int(first)
    else:  # the coordinator is lost, and with it who failed first
      print(f'{message} (process {compat.process_id()})', file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  if compat.process_id() == 0:
    time.sleep(2)  # the others still ask this process whether another failed first
  os._exit(code)


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """Within it this process ends with EXIT_AGAIN if another of several is lost.

  A broken connection is noticed at once, a process or host that hangs after HEARTBEAT_SECONDS.

  Raises:
    UserError: too little memory on a device, in a run of one process; one of several ends with exit
      code 1.
  """
  client = compat.coordinator()
  if client is None:
    try:
      yield
    except jax.errors.JaxRuntimeError as error:
      if not _is_out_of_memory(error):
        raise
      raise UserError(_out_of_memory(error)) from error
    return
  ended = threading.Event()
  watcher = threading.Thread(target=_watch, args=(client, ended), daemon=True)
  watcher.start()
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if _is_out_of_memory(error):
      fail(_out_of_memory(error), 1)  # started again, it would be the same
    _end_after_loss(first_line(error))
  finally:
    ended.set()
    watcher.join()


def _is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
  return str(error).startswith('RESOURCE_EXHAUSTED')


def _out_of_memory(error: jax.errors.JaxRuntimeError) -> str:
  return (
    f'out of memory: {first_line(error)}\nGive more --config.train.gradient_accumulation_steps or, for a'
    ' new run or an evaluation, a smaller --config.train.batch_size.'
  )


def _watch(client: compat.KeyValueStore, ended: threading.Event) -> None:
  """Sends a heartbeat every two seconds, and checks those of the next process.

  Each watches one other, so that the coordinator is asked by n processes n times, not n squared.
  """
  this = compat.process_id()
  other = (this + 1) % compat.num_processes()
  before: str | None = None
  since = 0.0
  for beat in itertools.count():
    is_last = ended.wait(_BEAT_SECONDS)
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # JAX reports a lost coordinator
      value = 'ended' if is_last else str(beat)
      client.key_value_set(f'{_ALIVE}/{this}', value, allow_overwrite=True)
    if is_last:
      return
    now = time.monotonic()
    current = _get(client, f'{_ALIVE}/{other}')
    if current in (None, 'ended') or current != before:
      before, since = current, now
    elif now - since > HEARTBEAT_SECONDS:
      _end_after_loss(f'process {other} has sent no heartbeat for {HEARTBEAT_SECONDS} seconds')


def _end_after_loss(reason: str) -> None:
  """Ends this process because another is lost."""
  fail(
    f'another process is lost: {reason}\nStart all of them again; training resumes from its last'
    ' checkpoint.',
    EXIT_AGAIN,
  )


def whole(array: jax.Array | np.ndarray) -> np.ndarray:
  """All of an array, of which other processes may hold parts; all must ask for it."""
  if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
  return np.asarray(array)
