"""The tables of docs/results.md and README have no number that the runs' kept metrics do not give."""

import collections
import gzip
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from alexnet_jax.sweeps import figure1, results
from tests import sweeps

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / 'docs' / 'results'
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
    'relu_vs_tanh_seeds',
  ]


def rows_of(heading):
  """The cells of each row of the table in a section of docs/results.md."""
  text = (RESULTS.parent / 'results.md').read_text()
  section = re.split(r'\n##+ ', text.split(f'# {heading}\n')[1])[0].splitlines()
  _, _, *rows = (line for line in section if line.startswith('|'))
  return [[cell.strip() for cell in row.split('|')[1:-1]] for row in rows]


def cells_of(heading):
  """The rows' other cells by the first word of the first."""
  return {re.match("[\\w']+", name)[0]: rest for name, *rest in rows_of(heading)}


def lines_of(name):
  """The objects of a file of JSON lines, which may be compressed."""
  content = (RESULTS / name).read_bytes()
  return list(
    map(json.loads, (gzip.decompress(content) if name.endswith('.gz') else content).splitlines())
  )


def spread(values):
  """As '19.97 ± 0.27'."""
  return f'{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}'


def mean_and_interval(differences):
  """As '+0.41 (-1.29 to +2.10)', with the 95% interval; bold where that does not contain zero."""
  low, high = stats.ttest_1samp(differences, 0).confidence_interval()
  text = f'{np.mean(differences):+.2f} ({low:+.2f} to {high:+.2f})'
  return f'**{text}**' if low * high > 0 else text


def test_the_ablations_on_imagenette_are_those_of_their_runs_metrics():
  errors = collections.defaultdict(dict)  # {run: {seed: (validation, training)}}
  for line in lines_of(
    'imagenette_ablations/metrics.jsonl.gz'
  ):  # of each run the last epoch's stays
    both = (100 * line[split]['top1_error'] for split in ('validation', 'train'))
    errors[line['run']][line['seed']] = tuple(both)
  del errors['no_dropout'][0]  # which did not learn, as the text says
  cells, readme = (
    cells_of('Imagenette: ablations of the full network'),
    (ROOT / 'README.md').read_text(),
  )
  for run, of_seeds in errors.items():
    validation, training = zip(*of_seeds.values(), strict=True)
    assert cells[run][:3] == [f'{len(of_seeds)}', spread(validation), spread(training)]
    if run != 'base':
      differences = [error - errors['base'][seed][0] for seed, (error, _) in of_seeds.items()]
      test = stats.ttest_1samp(differences, 0)
      low, high = test.confidence_interval()
      mean, interval = f'{np.mean(differences):+.2f}', f'{low:+.2f} to {high:+.2f}'
      p = '< 0.001' if test.pvalue < 0.001 else f'{test.pvalue:.3f}'
      assert cells[run][3:6] == [mean, interval, p]
      if run not in ('tanh', 'no_crops', 'no_flips'):
        assert f'{mean} ({interval})' in readme.replace('**', '')
  last = {
    line['seed']: 100 * line['top1_error']
    for line in lines_of('imagenette_ablations/torchvision.jsonl')
  }
  assert cells["torchvision's"][:2] == [f'{len(last)}', spread(list(last.values()))]


def test_the_starts_on_imagenette_are_those_of_their_runs_metrics():
  rows = rows_of("Imagenette: the full network from the paper's own start")
  by_run = collections.defaultdict(list)
  for line in lines_of('imagenette_start/metrics.jsonl.gz'):
    by_run[line['run']].append(line)
  finals = {line['run']: line for line in lines_of('imagenette_start/results.jsonl')}
  computed = []
  for run, lines in by_run.items():
    best = min(lines, key=lambda line: line['validation']['top1_error'])
    assert best['epoch'] == finals[run]['best_epoch']
    cells = [
      f'{lines[-1]["validation"]["top1_error"]:.1%}',
      f'{best["validation"]["top1_error"]:.2%} ({best["epoch"]})',
      f'{finals[run]["ten_views_error"]:.2%}',
      ', '.join(f'{each:.2f}' for each in lines[-1]['selectivity']),
    ]
    computed.append(cells)
  by_start = dict(zip(by_run, computed, strict=True))
  runs = ('paper', 'source', 'he_4', 'he_16', 'he_64')  # from the top
  assert [row[3:] for row in rows] == [by_start[run] for run in runs]


def test_the_errors_on_two_cores_are_those_of_the_run_s_evaluation_and_metrics():
  evaluated = json.loads((RESULTS / 'imagenette_cpu' / 'evaluation.json').read_text())
  records = lines_of('imagenette_cpu/metrics.jsonl.gz')
  [row] = rows_of('Imagenette in 20 epochs on 2 CPU cores, and its figure 4')
  assert row[:3] == [
    *(f'{evaluated[views]["top1_error"]:.2%}' for views in ('center_crop', 'ten_views')),
    f'{_training_error(records):.1%}',
  ]
  assert evaluated['center_crop']['top1_error'] == pytest.approx(records[-1]['top1_error'])


def test_the_errors_between_cuts_by_the_plateau_rule_are_those_of_the_run_s_metrics():
  records = lines_of('imagenette_plateau/metrics.jsonl.gz')
  heading = "Imagenette: the learning rate cut by the paper's rule, on 2 CPU cores"
  computed, first = [], 1
  rates = sorted({r['learning_rate'] for r in records if r['split'] == 'train'}, reverse=True)
  for rate in rates:
    end = max(r['step'] for r in records if r.get('learning_rate') == rate)
    until = [r for r in records if r['step'] <= end]
    validations = [r for r in until if r['split'] == 'validation' and r['epoch'] >= first]
    best = min(validations, key=lambda r: r['top1_error'])
    last = int(validations[-1]['epoch'])
    computed.append(
      [
        f'{first} to {last}',
        f'{rate:g}',
        f'{_training_error(until):.1%}',
        f'{validations[-1]["top1_error"]:.2%}',
        f'{best["top1_error"]:.2%} ({int(best["epoch"])})',
      ]
    )
    first = last + 1
  assert rows_of(heading) == computed
  evaluated = json.loads((RESULTS / 'imagenette_plateau' / 'evaluation.json').read_text())
  [network] = evaluated['members']
  best = min((r for r in records if r['split'] == 'validation'), key=lambda r: r['top1_error'])
  assert network['step'] == best['step']
  last, ten_views = records[-1]['top1_error'], network['ten_views']['top1_error']
  assert f'| {last:.1%} | {ten_views:.1%}, at the best epoch |' in (ROOT / 'README.md').read_text()


def test_the_differences_on_cifar10_are_those_of_their_evaluations():
  folder = RESULTS / 'cifar10_ablations_18_epochs'
  evaluated = [json.loads((folder / f'evaluation_seed{i}.json').read_text()) for i in range(3)]
  cells = cells_of('Ablations on CIFAR-10')
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
  by_seed = [
    f'**{difference:+.2f}**'
    if abs(difference) > 100 * each['margin_of_error']
    else f'{difference:+.2f}'
    for difference, each in zip(differences, compared, strict=True)
  ]
  return error, mean_and_interval(differences), ', '.join(by_seed)


def test_the_errors_where_it_overfits_are_those_of_their_evaluations():
  names = ('cifar10_overfitting', 'cifar10_overfitting', 'cifar10_ablations_18_epochs')
  by_run = []  # the members of each row's run, a seed each
  for name, place in zip(names, (0, 1, 0), strict=True):
    files = [RESULTS / name / f'evaluation_seed{seed}.json' for seed in range(3)]
    by_run.append([json.loads(file.read_text())['members'][place] for file in files])
  runs = ((names[0], 'base'), (names[1], 'no_dropout'), (names[2], 'base'))
  rows = rows_of('Where it overfits')
  for (folder, run), members, row in zip(runs, by_run, rows, strict=True):
    assert row[1] == f'{100 * np.mean([_last_epoch(folder, run, seed) for seed in range(3)]):.1f}'
    for views, cells in (('center_crop', row[2:5]), ('ten_views', row[5:8])):
      errors, base = (
        np.array([100 * member[views]['top1_error'] for member in of_run])
        for of_run in (members, by_run[0])
      )
      assert cells[0] == spread(errors)
      if members is not by_run[0]:
        assert cells[1] == mean_and_interval(errors - base)
        assert cells[2] == ', '.join(f'{each:+.2f}' for each in errors - base)


def test_the_errors_with_norms_are_those_of_their_metrics_and_evaluation():
  rows = rows_of('Section 3.3: response normalization on CIFAR-10')
  variants = ('base', 'response_norm', 'response_norm_and_wider_conv3')
  curves = lines_of('lrn_cifar/curves.jsonl.gz')
  of_runs, means = rows[:9], rows[9:]
  for variant, (_, seed, error, _, _, _, training) in zip(3 * variants, of_runs, strict=True):
    lines = [line for line in curves if line['run'] == f'{variant}/seed{seed}']
    assert error == f'{100 * lines[-1]["top1_error"]:.2f}'
    assert training == f'{100 * _last_epoch("lrn_cifar", variant, seed):.1f}'
  evaluated = [
    json.loads((RESULTS / 'lrn_cifar' / f'evaluation_seed{seed}.json').read_text())['members']
    for seed in (1, 2)
  ]
  for member, row in zip(itertools.chain(*evaluated), of_runs[3:], strict=True):
    for views, place in (('center_crop', 2), ('ten_views', 4)):
      assert row[place] == f'{100 * member[views]["top1_error"]:.2f}'
      if 'compared_with_first' in member:
        compared = member['compared_with_first'][views]
        difference, margin = (100 * compared[of] for of in ('top1_difference', 'margin_of_error'))
        assert row[place + 1] == f'{difference:+.2f} ± {margin:.2f}'
  for place in (2, 4):
    of_variants = np.array([float(row[place]) for row in of_runs]).reshape(3, 3).T
    for row, errors in zip(means, of_variants[1:], strict=True):
      assert row[place + 1] == mean_and_interval(errors - of_variants[0])


def test_the_epochs_to_25_percent_are_those_of_the_kept_figure():
  folder = RESULTS / 'relu_vs_tanh_seeds'
  found = results.gather(folder)
  by_run = {run.name: figure1.epochs_to_error(run.records, run.window) for run in found.runs}
  for seed, relu, tanh, times in rows_of('Figure 1: ReLU and tanh'):
    epochs = by_run[f'base/seed{seed}'], by_run[f'tanh_rate_x8/seed{seed}']
    assert [relu, tanh] == [f'{each:.1f}' for each in epochs]
    assert times == f'{epochs[1] / epochs[0]:.1f}'


def _last_epoch(folder, run, seed):
  """The training error of the last epoch of a sweep's run."""
  curves = lines_of(f'{folder}/curves.jsonl.gz')
  return _training_error([line for line in curves if line['run'] == f'{run}/seed{seed}'])


def _training_error(lines):
  """The training error of a run's last epoch: the steps after its last validation but one."""
  start = [line['step'] for line in lines if line['split'] == 'validation'][-2]
  training = [line for line in lines if line['split'] == 'train' and line['step'] > start]
  steps = np.diff([line['step'] for line in training], prepend=start)
  return np.average([line['top1_error'] for line in training], weights=steps)


def test_the_errors_on_flowers_are_those_of_their_runs_metrics():
  records = lines_of('flowers/metrics.jsonl.gz')
  validations = [record for record in records if record['split'] == 'validation']
  last = {record['run']: f'{100 * record["top1_error"]:.2f}' for record in validations}
  assert list(last) == ['from_scratch', 'conv1_over_4', 'fine_tuned']
  assert [row[1] for row in rows_of("Five flowers: photographs of one's own")] == list(
    last.values()
  )


def test_the_lowest_cifar10_error_is_that_of_its_runs_metrics():
  last = lines_of('cifar10_best/metrics.jsonl.gz')[-1]
  assert last['split'] == 'validation'
  first, *_ = rows_of('The lowest CIFAR-10 error')
  assert f'**{last["top1_error"]:.1%}** by the center crop' in first[1]


def test_the_losses_after_a_cut_are_those_that_are_kept():
  losses = json.loads((RESULTS / 'after_a_cut' / 'losses.json').read_text()).values()
  by_five = [np.reshape(of_way, (10, 12, 5)).mean(axis=2) for of_way in losses]  # [repeat, row]
  _, paper, pytorch = by_five
  means = [f'{each:.3f}' for each in np.mean(by_five, axis=1).T.ravel()]
  above = paper - pytorch
  for first, *cells in rows_of('After a cut of the learning rate'):
    row = int(first.partition(' ')[0]) // 5
    error = np.std(above[:, row], ddof=1) / 10**0.5
    assert cells == [*means[3 * row : 3 * row + 3], f'{above[:, row].mean():+.3f} ± {error:.3f}']
