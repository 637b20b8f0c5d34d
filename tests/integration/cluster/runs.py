"""Runs of a narrow net on the digits, for tests of launchers."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from alexnet_jax.checkpoints import workdir

REPOSITORY = Path(__file__).parents[3]
SMALL = [
  '--config=configs/digits.py',
  *(f'--config.model.conv{i}.features={n}' for i, n in enumerate((8, 16, 16, 16, 16), 1)),
  '--config.model.fc6.features=32',
  '--config.model.fc7.features=32',
  '--config.mesh.column_devices=1',  # so that two processes have one device each
]


def alone(*arguments):
  """Runs the program in one process; returns what it says on stderr."""
  command = [sys.executable, 'launch.py', *SMALL, *arguments]
  done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
  return done.stderr


def losses(path, split='train'):
  """Of a split, as metrics.jsonl has them."""
  records = workdir.read_metrics(path)
  return np.array([record['loss'] for record in records if record['split'] == split])
