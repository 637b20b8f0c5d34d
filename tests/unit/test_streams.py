"""What the program prints ends no run."""

import faulthandler
import logging
import os
import pty
import subprocess
import sys
import warnings

import absl.logging
import pytest

from alexnet_jax.utils import silence, streams


def test_characters_that_an_encoding_does_not_have_are_escaped(tmp_path):
  with open(tmp_path / 'out', 'w', encoding='ascii') as plain:
    print('caf\u00e9', file=streams.lasting(plain, plain.fileno()))
  assert (tmp_path / 'out').read_bytes() == b'caf\\xe9\n'


def test_what_is_written_to_a_pipe_that_nobody_reads_is_dropped():
  first, second = os.pipe()
  with open(second, 'w', encoding='ascii') as plain:
    stream = streams.lasting(plain, second)
    print('caf\u00e9', file=stream, flush=True)
    assert os.read(first, 100) == b'caf\\xe9\n'
    os.close(first)
    print('more', file=stream, flush=True)
    stream.detach()


def test_what_is_written_to_a_terminal_that_has_closed_is_dropped():
  first, second = pty.openpty()
  with open(second, 'w', encoding='ascii', closefd=False) as plain:
    stream = streams.lasting(plain, second)
    print('caf\u00e9', file=stream)
    assert os.read(first, 100) == b'caf\\xe9\r\n'
    assert stream.isatty()
    os.close(first)
    print('more', file=stream, flush=True)
    stream.detach()
  os.close(second)


def test_nothing_is_redirected_in_a_process_that_is_not_the_program_s(capfd):
  hook = sys.unraisablehook
  with silence.silenced():
    os.write(2, b'said\n')
    assert sys.unraisablehook is hook
  assert capfd.readouterr().err == 'said\n'


CLOSED = """
from alexnet_jax.cli import command
from alexnet_jax.utils import silence, streams
streams.make_last()
with silence.silenced(), open(__import__('os').devnull) as file:
  print(file.fileno() > 2)
"""


@pytest.mark.parametrize('closed', ['2>&-', '<&- 2>&-'])
def test_no_file_takes_the_descriptor_of_a_stream_that_is_closed(closed):
  command = ['sh', '-c', f'exec "$0" -c "$1" {closed}', sys.executable, CLOSED]
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
  assert done.stdout == 'True\n'


THREADS = """
import os, sys, threading, time
from alexnet_jax.cli import command
from alexnet_jax.utils.silence import silenced
first, second = threading.Barrier(2, timeout=0.2), threading.Event()
def silence():
  with silenced():
    os.write(2, b'hidden')
    try: first.wait()  # both within at once, if that could be
    except threading.BrokenBarrierError: pass
threads = [threading.Thread(target=silence) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
os.write(2, b'shown')
"""


def test_what_a_run_changes_in_a_process_is_put_back():
  def state():
    root = logging.getLogger()
    handles = faulthandler.is_enabled()
    return root.handlers[:], root.level, warnings.filters[:], sys.unraisablehook, sys.argv, handles

  before = state()
  with silence.process_state_restored():
    absl.logging.use_absl_handler()
    absl.logging.set_verbosity(absl.logging.FATAL)
    silence.silence_failed_writes()
    sys.argv = ['launch.py']
    faulthandler.enable()
    assert state()[1:5] != before[1:5]
  assert state() == before


def test_threads_that_silence_at_once_leave_stderr_as_it_was():
  done = subprocess.run([sys.executable, '-c', THREADS], capture_output=True, text=True, check=True)
  assert done.stderr == 'shown'
