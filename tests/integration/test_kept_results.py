"""docs/results has no number that its runs' metrics do not give."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

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
    'cifar10_overfitting',
    'lrn_cifar',
    'relu_vs_tanh',
  ]


def test_the_differences_on_cifar10_are_those_of_their_evaluations():
  folder = RESULTS / 'cifar10_ablations_18_epochs'
  evaluated = [json.loads((folder / f'evaluation_seed{i}.json').read_text()) for i in range(3)]
  text = (RESULTS.parent / 'results.md').read_text()
  section = text.split('\n## Ablations on CIFAR-10\n')[1].split('\n## ')[0].splitlines()
  rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in section if '|' in line]
  cells = {name.partition(' ')[0]: rest for name, *rest in rows}
  by_variant = list(zip(*(each['members'] for each in evaluated), strict=True))
  assert len(by_variant) == 9
  for members in by_variant:
    [name] = {member['path'].partition('/')[0] for member in members}
    assert cells[name][:6] == [*_errors(members, 'center_crop'), *_errors(members, 'ten_views')]


def _errors(members, views):
  """A variant's cells: its errors; the mean difference and its interval; the difference by seed."""
  errors = [100 * member[views]['top1_error'] for member in members]
  error = f'{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}'
  if 'compared_with_first' not in members[0]:
    return error, '', ''
  compared = [member['compared_with_first'][views] for member in members]
  differences = [100 * each['top1_difference'] for each in compared]
  low, high = stats.ttest_1samp(differences, 0).confidence_interval()
  mean = f'{np.mean(differences):+.2f} ({low:+.2f} to {high:+.2f})'
  by_seed = [
    f'**{difference:+.2f}**'
    if abs(difference) > 100 * each['margin_of_error']
    else f'{difference:+.2f}'
    for difference, each in zip(differences, compared, strict=True)
  ]
  return error, f'**{mean}**' if low * high > 0 else mean, ', '.join(by_seed)


def test_the_errors_where_it_overfits_are_those_of_their_evaluation():
  path = RESULTS / 'cifar10_overfitting' / 'evaluation.json'
  text = (RESULTS.parent / 'results.md').read_text()
  rows = (
    text.split('\n### Where it overfits\n')[1].split('\n### ')[0].split('|---:|\n')[1].splitlines()
  )
  for row, member in zip(rows, json.loads(path.read_text())['members'], strict=False):
    for views in ('center_crop', 'ten_views'):
      assert f'| {100 * member[views]["top1_error"]:.2f} |' in row
      if compared := member.get('compared_with_first', {}).get(views):
        difference, margin = (100 * compared[key] for key in ('top1_difference', 'margin_of_error'))
        assert f'{difference:+.2f} ± {margin:.2f}' in row


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
