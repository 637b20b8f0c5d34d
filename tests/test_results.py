"""docs/results has no number that its runs' metrics do not give."""

import shutil
from pathlib import Path

import pytest

from alexnet_jax import sweep_report

RESULTS = Path(__file__).parents[1] / 'docs' / 'results'
SWEEPS = sorted(path.parent for path in RESULTS.glob('*/sweep.json'))


@pytest.mark.parametrize('folder', SWEEPS, ids=lambda folder: folder.name)
def test_a_kept_table_is_what_its_runs_metrics_give(folder, tmp_path):
  again = tmp_path / folder.name
  shutil.copytree(folder, again, ignore=shutil.ignore_patterns('*.png', '*.svg', 'checkpoints'))
  sweep_report.write(again)
  for name in ('results.md', 'results.csv', 'runs.csv'):
    assert (again / name).read_text() == (folder / name).read_text()
