"""One run in several processes, on one host or many: who they are, and what they do in turn.

Each process runs the same program on devices of its own; jax makes one machine of them. The first
one alone prints, and writes what is not a checkpoint.
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

from alexnet_jax.parallel import compat
from alexnet_jax.utils import host
from alexnet_jax.utils.errors import EXIT_AGAIN, UserError, first_line

T = TypeVar('T')

HEARTBEAT_SECONDS = 30
"""After so long without a sign of life of a process, the others end."""

# Keys that jax's coordinator keeps.
_STOP, _FAILED, _ALIVE = 'alexnet_jax/stop', 'alexnet_jax/failed', 'alexnet_jax/alive'
_BEAT_SECONDS = 2
_AHEAD = 3  # steps
_turns = itertools.count()  # of `first_alone`, the same in all processes


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> int:
  """Makes this process one of several, where it is; call it before jax looks for devices.

  Args:
    coordinator: host and port of the first process, as 'node1:1234'; None where a launcher says it.
    num_processes: how many there are; None likewise.
    process_id: which one this is, from 0; None likewise. Open MPI 5 says these two alone.

  Returns:
    How many there are.

  Raises:
    UserError: what no launcher says is not given, or the others cannot be reached.
  """
  given = (coordinator, num_processes, process_id)
  if given == (None, None, None):
    if not host.has_peers(os.environ):
      return 1
  elif (
    coordinator and (num_processes, process_id) == (None, None) and host.launched(os.environ) > 1
  ):
    given = coordinator, host.launched(os.environ), host.rank(os.environ)
    if device := os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK'):  # one for each, as jax has it
      os.environ.setdefault('JAX_LOCAL_DEVICE_IDS', device)
  elif None in given:
    raise UserError(
      'one process of several needs all of --coordinator=HOST:PORT, --num_processes and --process_id'
    )
  # Told all, jax would still ask a Kubernetes cluster, which may not be allowed, for the rest.
  in_pod = 'KUBERNETES_SERVICE_HOST' in os.environ
  try:
    with compat.without_preemption_service():  # `agreed_stop` takes all signals
      jax.distributed.initialize(
        *given,
        cluster_detection_method='deactivate' if coordinator and in_pod else None,
        # jax would abort this process; `watched` sees it before, and ends it with a code.
        heartbeat_timeout_seconds=2 * HEARTBEAT_SECONDS,
      )
  except Exception as error:  # the libraries of launchers raise many kinds
    hint = (
      '' if coordinator else '\nGive each of them the address of the first: --coordinator=HOST:PORT'
    )
    raise UserError(f'cannot join the other processes: {first_line(error)}{hint}') from error
  return compat.num_processes()


def is_first() -> bool:
  """Whether this is the process that prints and writes; alone, it is."""
  return jax.process_index() == 0


def first_alone(work: Callable[[], T], what: str) -> T | None:
  """Does the work in the first process alone; the others wait until it has ended well.

  Where it fails, the process ends (`fail`), and so do they.

  Args:
    work: what to do.
    what: a name for it.

  Returns:
    What the work returns; None in the others.
  """
  client = compat.coordinator()
  if client is None:
    return work()
  done = f'alexnet_jax/done/{next(_turns)}'
  if is_first():
    result = work()
    client.key_value_set(done, what)
    return result
  # No barrier of devices: one who waits there sees no failure, but a connection that breaks.
  while _said(client, done) is None:
    if (code := _said(client, _FAILED)) is not None:
      os._exit(int(code))
    time.sleep(0.2)
  return None


def first_then_others(work: Callable[[], T], what: str) -> T:
  """Does the work in the first process, as `first_alone`, then in the others too.

  So the others find what it has made.
  """
  result = first_alone(work, what)
  return cast(T, result) if is_first() else work()


def _said(client: compat.KeyValueStore, key: str) -> str | None:
  """What the coordinator keeps under a key; None for nothing."""
  try:
    return client.key_value_try_get(key)
  except jax.errors.JaxRuntimeError:  # not found
    return None


def agreed_stop(step: int, signum: int | None) -> int | None:
  """The signal by which all processes stop after this step; None to go on.

  One that is asked to stop names a step that none has come to yet: a step ends only when all have
  begun it, and each process looks at the last step's loss, so they are at most two apart.

  Args:
    step: steps done; each process asks after each.
    signum: the signal that has come to this process, if one has.
  """
  client = compat.coordinator()
  if client is None:
    return signum
  if signum is not None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another one has named its step
      client.key_value_set(_STOP, f'{step + _AHEAD} {signum}')
  if (said := _said(client, _STOP)) is None:
    return None
  at, number = map(int, said.split())
  return number if step >= at else None


def fail(message: str, code: int) -> int:
  """Ends a run with a message on stderr, in all of its processes.

  Alone, it returns the code for the process to end with. Of several, the first that fails prints
  and all end at once: what they would wait for does not come.
  """
  client = compat.coordinator()
  if client is None:
    print(message, file=sys.stderr)
    return code
  try:
    client.key_value_set(_FAILED, str(code))
    print(f'{message} (process {compat.process_id()})', file=sys.stderr)
  except jax.errors.JaxRuntimeError:  # another was first
    code = int(_said(client, _FAILED) or code)
  sys.stdout.flush()
  sys.stderr.flush()
  if compat.process_id() == 0:
    time.sleep(2)  # the others ask here whether another was first
  os._exit(code)


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """Ends this process with EXIT_AGAIN where, of several, another is gone while they compute.

  That is seen at once where a connection breaks, and after HEARTBEAT_SECONDS where a process or
  its host hangs.
  """
  client = compat.coordinator()
  if client is None:
    yield
    return
  ended = threading.Event()
  watcher = threading.Thread(target=_watch, args=(client, ended), daemon=True)
  watcher.start()
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    _gone(first_line(error))
  finally:
    ended.set()
    watcher.join()


def _watch(client: compat.KeyValueStore, ended: threading.Event) -> None:
  """Says every two seconds that this process is alive, and looks whether the others do."""
  this, count = compat.process_id(), compat.num_processes()
  seen: dict[int, tuple[str | None, float]] = {
    other: (None, 0.0) for other in range(count) if other != this
  }
  for beat in itertools.count():
    last = ended.wait(_BEAT_SECONDS)
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator is gone: jax says so
      client.key_value_set(f'{_ALIVE}/{this}', 'ended' if last else str(beat), allow_overwrite=True)
    if last:
      return
    now = time.monotonic()
    for other, (before, since) in seen.items():
      said = _said(client, f'{_ALIVE}/{other}')
      if said in (None, 'ended') or said != before:
        seen[other] = (said, now)
      elif now - since > HEARTBEAT_SECONDS:
        _gone(f'process {other} has given no sign of life for {HEARTBEAT_SECONDS} seconds')


def _gone(reason: str) -> None:
  """Ends this process, for another is gone."""
  fail(
    f'another process is gone: {reason}\nStart all of them again; training resumes from its last'
    ' checkpoint.',
    EXIT_AGAIN,
  )
