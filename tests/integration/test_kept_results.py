"""docs/results has no number that its runs' metrics do not give."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from tests import sweeps

RESULTS = Path(__file__).parents[2] / 'docs' / 'results'
SWEEPS = sorted(path.parent for path in RESULTS.glob('*/sweep.json'))


@pytest.mark.parametrize('folder', SWEEPS, ids=lambda folder: folder.name)
def test_a_kept_table_is_what_its_runs_metrics_give(folder, tmp_path):
  again = tmp_path / folder.name
  again.mkdir()
  for name in ('sweep.json', 'curves.jsonl.gz'):
    shutil.copy(folder / name, again)
  sweeps.report_quickly(again)
  for name in ('results.md', 'results.tex', 'results.csv', 'runs.csv'):
    assert (again / name).read_text() == (folder / name).read_text()


def test_the_kept_sweeps_are_found():
  assert [folder.name for folder in SWEEPS] == [
    'cifar10_ablations',
    'cifar10_ablations_18_epochs',
    'lrn_cifar',
    'relu_vs_tanh',
  ]


@pytest.mark.parametrize('seed', [0, 1])
def test_the_differences_on_cifar10_are_those_of_their_evaluations(seed):
  path = RESULTS / 'cifar10_ablations_18_epochs' / f'evaluation_seed{seed}.json'
  text = (RESULTS.parent / 'results.md').read_text()
  section = text.split('\n## Ablations on CIFAR-10\n')[1].split('\n## ')[0].splitlines()
  members = json.loads(path.read_text())['members']
  assert len(members) == 9
  for member in members:
    name = member['path'].partition('/')[0]
    [row] = [line for line in section if line.startswith(f'| {name} ')]
    for views in ('center_crop', 'ten_views'):
      assert f'{100 * member[views]["top1_error"]:.2f}' in row
      if name != 'base':
        compared = member['compared_with_first'][views]
        difference, half = (compared[key] for key in ('top1_difference', 'margin_of_error'))
        assert f'{100 * difference:+.2f} ± {100 * half:.2f}' in row


def test_the_errors_on_flowers_are_those_of_their_runs_metrics():
  lines = gzip.decompress((RESULTS / 'flowers' / 'metrics.jsonl.gz').read_bytes()).splitlines()
  validations = [record for record in map(json.loads, lines) if record['split'] == 'validation']
  last = {record['run']: 100 * record['top1_error'] for record in validations}
  assert list(last) == ['from_scratch', 'conv1_over_4', 'fine_tuned']
  text = (RESULTS.parent / 'results.md').read_text()
  assert all(f' | {error:.2f} | ' in text for error in last.values())


def test_the_lowest_cifar10_error_is_that_of_its_runs_metrics():
  lines = gzip.decompress((RESULTS / 'cifar10_best' / 'metrics.jsonl.gz').read_bytes())
  last = json.loads(lines.splitlines()[-1])
  assert last['split'] == 'validation'
  assert f'**{last["top1_error"]:.1%}**' in (RESULTS.parent / 'results.md').read_text()
