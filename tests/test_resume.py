"""A run killed at any moment and started again is the run that was never stopped."""

import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.small import small_config
from tests.test_train import lines, params_at

ROOT = Path(__file__).parents[1]
OVERRIDES = {
  'train.num_epochs': 8,
  'train.log_every_steps': 5,
  'checkpoint.every_steps': 5,
  'optimizer.cut_epochs': (),
  'optimizer.patience': 1,
}
PROGRAM = """
import sys
from alexnet_jax import train
from tests.small import small_config
train.train_and_evaluate(small_config({overrides!r}), sys.argv[1])
"""


def start(path):
  program = PROGRAM.format(overrides=OVERRIDES)
  return subprocess.Popen(
    [sys.executable, '-c', program, str(path)], cwd=ROOT, stderr=subprocess.DEVNULL
  )


@pytest.mark.slow
def test_a_run_killed_three_times_is_the_run_that_was_not(tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  assert start(whole).wait(timeout=300) == 0
  expected = lines(whole)
  moments = sorted(random.Random(2012).sample(range(3, len(expected) - 3), 3))
  for moment in moments:
    process = start(killed)
    while not (killed / 'metrics.jsonl').exists() or len(lines(killed)) < moment:
      assert process.poll() is None
      time.sleep(0.002)
    process.kill()
    process.wait()
  assert start(killed).wait(timeout=300) == 0
  assert lines(killed) == expected
  last = expected[-1]['step']
  config = small_config(OVERRIDES)
  jax.tree.map(
    np.testing.assert_array_equal, params_at(whole, last, config), params_at(killed, last, config)
  )
