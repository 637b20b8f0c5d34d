"""docs/results has no number that its runs' metrics do not give."""

import shutil
from pathlib import Path

import pytest

from alexnet_jax.checkpoints import workdir
from alexnet_jax.sweeps import report

RESULTS = Path(__file__).parents[1] / 'docs' / 'results'
SWEEPS = sorted(path.parent for path in RESULTS.glob('*/sweep.json'))


@pytest.mark.parametrize('folder', SWEEPS, ids=lambda folder: folder.name)
def test_a_kept_table_is_what_its_runs_metrics_give(folder, tmp_path):
  again = tmp_path / folder.name
  shutil.copytree(folder, again, ignore=shutil.ignore_patterns('*.png', '*.svg', 'checkpoints'))
  report.write(again)
  for name in ('results.md', 'results.csv', 'runs.csv'):
    assert (again / name).read_text() == (folder / name).read_text()


def test_the_lowest_cifar10_error_is_that_of_its_runs_metrics():
  *_, last = workdir.read_metrics(RESULTS / 'cifar10_best')
  assert last['split'] == 'validation'
  assert (
    f'**{last["top1_error"]:.1%}**'.replace('%', ' %')
    in (RESULTS.parent / 'results.md').read_text()
  )
