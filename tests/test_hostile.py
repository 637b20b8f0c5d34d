"""Damaged and hostile files are refused in a line or two; `python -m tests.fuzz` looks for longer."""

import hypothesis
import pytest

from tests import fuzz

FEW = {
  'caffemodel': 10,
  'checkpoint': 2,
  'config': 10,
  'metrics': 15,
  'safetensors': 10,
  'sweep': 4,
}
# These draw pictures, which takes a second each.
FORMATS = [name for name in fuzz.FORMATS if name not in ('curves', 'sweep_page')]


@pytest.mark.parametrize('name', FORMATS)
def test_a_mutated_file_is_read_or_refused_in_few_words(name, tmp_path):
  read, tried = fuzz.FORMATS[name], []

  @hypothesis.settings(
    max_examples=FEW.get(name, 30),
    derandomize=True,
    deadline=None,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(read.inputs(tmp_path))
  def try_one(given):
    tried.append(given)
    fuzz.check(read, given)

  try_one()
  assert len(tried) >= FEW.get(name, 30) / 2
