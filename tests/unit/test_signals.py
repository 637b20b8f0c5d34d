"""A run is asked to stop once, and ends at the second time; a kernel does not."""

import os
import signal
import subprocess
import sys

import pytest

from alexnet_jax.utils import host, signals
from alexnet_jax.utils.errors import Stopped


@pytest.fixture(autouse=True)
def default_signals():
  """Python's own, whatever pytest was started with; put back afterward."""
  before = {number: signal.getsignal(number) for number in (signal.SIGINT, *signals.PREEMPTION)}
  for number in before:
    signal.signal(number, signal.SIG_DFL)
  signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.mark.parametrize('signum', [signal.SIGINT, *signals.PREEMPTION])
def test_a_signal_is_recorded_and_told_by_check(signum):
  with signals.Signals(None) as received:
    received.check(saved=True)
    os.kill(os.getpid(), signum)
    assert received.signum == signum
    for saved in (True, False):
      with pytest.raises(Stopped, match=signum.name) as stopped:
        received.check(saved=saved)
      assert stopped.value.saved == saved
  assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_hangups_that_are_ignored_stay_so():
  signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
  with signals.Signals(None) as received:
    os.kill(os.getpid(), signal.SIGHUP)
    received.check(saved=True)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_closing_terminal_s_second_hangup_does_not_end_what_saves():
  with signals.Signals(None) as received:
    for _ in range(2):
      os.kill(os.getpid(), signal.SIGHUP)
    assert received.signum == signal.SIGHUP


def test_in_a_process_not_the_program_s_a_second_interrupt_is_an_exception():
  assert not host.owns_process()
  with signals.Signals(None) as received:
    os.kill(os.getpid(), signal.SIGINT)
    received.signum = None
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)


def test_a_second_interrupt_ends_the_program():
  code = (
    'import os, signal, sys\n'
    'sys.path.insert(0, "")\n'
    'from alexnet_jax.cli import command\n'
    'from alexnet_jax.utils.signals import Signals\n'
    'with Signals("stopping"):\n'
    '  for _ in range(2): os.kill(os.getpid(), signal.SIGINT)\n'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (
    -signal.SIGINT,
    '\nstopping; once more to stop at once\n',
  )
