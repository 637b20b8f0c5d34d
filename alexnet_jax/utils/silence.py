"""Silencing other libraries' messages, in the program's own process alone."""

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator

from alexnet_jax.utils import host

# File descriptors are the whole process's: two threads that redirected one at once would put back
# what the other had put there.
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
  """Within it nothing is written to stderr, by Python, C++ or another thread.

  This includes exceptions that nobody can catch, such as those of discarded coroutines. In a process
  that is not the program's own (`host.owns_process`) nothing is redirected.
  """
  if not host.owns_process():
    yield
    return
  with _ONE_AT_A_TIME:
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
      os.dup2(null, 2)
      yield
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)
      os.close(null)
      sys.unraisablehook = hook


@contextlib.contextmanager
def root_logger_kept() -> Iterator[None]:
  """At its end restores the root logger, to which absl, for Orbax, adds a handler of its own.

  With that handler `logging.basicConfig` would do nothing.
  """
  root = logging.getLogger()
  handlers, level = root.handlers[:], root.level
  try:
    yield
  finally:
    root.handlers[:] = handlers
    root.setLevel(level)


@contextlib.contextmanager
def process_state_restored() -> Iterator[None]:
  """At its end restores what a run of the program changes in its process.

  That is the root logger, warnings' filters, the command line, and what handles crashes and exceptions
  that nobody can catch.
  """
  hook, argv, handles_crashes = sys.unraisablehook, sys.argv, faulthandler.is_enabled()
  with root_logger_kept(), warnings.catch_warnings():
    try:
      yield
    finally:
      sys.unraisablehook, sys.argv = hook, argv
      if not handles_crashes:
        faulthandler.disable()


def silence_failed_writes() -> None:
  """Silences, in this process, the warnings that follow a failed write of a checkpoint.

  Orbax raises the failure itself, which is reported, and abandons the rest: it closes its event
  loop, about which tensorstore complains for every other file, and discards coroutines that have
  not started.
  """
  show = sys.unraisablehook

  def show_others(unraisable: 'sys.UnraisableHookArgs') -> None:
    if str(unraisable.exc_value) != 'Event loop is closed':
      show(unraisable)

  sys.unraisablehook = show_others
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
