"""Benchmarks run on this version of the project, at a small size; what they measure is not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
  ('command', 'title'),
  [
    (['breakdown.py', '--rounds=1'], 'whole network'),
    (['train_step.py', '--rounds=1', '--steps=1'], 'float32, 1 device'),
    (['predict.py', '--rounds=1', '--steps=1'], 'float32, 1 device'),
  ],
  ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_a_benchmark_prints_its_table(command, title):
  program, *options = command
  arguments = [f'benchmarks/{program}', '--config=configs/digits.py', '--batch_size=4', *options]
  result = subprocess.run(
    [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
  assert f'\n{title}' in result.stdout


@pytest.mark.slow
def test_after_a_cut_the_paper_s_rule_starts_where_pytorch_s_does(tmp_path):
  options = ['--epochs=1', '--repeats=2', '--steps=10', f'--out={tmp_path}']
  subprocess.run([sys.executable, 'benchmarks/after_a_cut.py', *options], cwd=ROOT, check=True)
  _, paper, pytorch = json.loads((tmp_path / 'losses.json').read_text()).values()
  assert [of_repeat[0] for of_repeat in paper] == [of_repeat[0] for of_repeat in pytorch]
  assert paper != pytorch
  assert (tmp_path / 'after_a_cut.png').exists()


@pytest.mark.parametrize(
  ('program', 'options', 'field'),
  [
    ('after_a_cut.py', ['--config=configs/imagenet_source.py'], 'optimizer.bias_lr_multiplier'),
    ('train_in_memory.py', ['--data_dir=x', '--run=a:train.num_steps=9'], 'train.num_steps'),
  ],
)
def test_a_field_that_a_benchmark_does_not_read_is_refused(tmp_path, program, options, field):
  command = [sys.executable, f'benchmarks/{program}', f'--out={tmp_path}', *options]
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert result.returncode == 1
  assert result.stderr.splitlines()[-1].startswith(f'this benchmark does not read {field};')
