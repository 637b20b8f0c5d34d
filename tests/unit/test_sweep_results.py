"""The tables of a sweep: means, deviations, differences, signs, significance, and what is missing."""

import csv
import io
import json
import math
import re
import shutil

import pytest

from alexnet_jax.reports import canvas, fonts
from alexnet_jax.sweeps import latex, planning, report, spec, tables
from alexnet_jax.sweeps import results as sweep_results
from alexnet_jax.sweeps.spec import Reported
from alexnet_jax.utils.errors import UserError
from tests import sweeps

FINALS = {'base': (0.20, 0.22), 'no_overlap': (0.30, 0.33), 'tanh': (0.20, 0.21)}


def rows(path, finals=None):
  sweeps.write_sweep(path, finals or FINALS)
  return {row.name: row for row in sweep_results.gather(path).rows}


def test_errors_differences_and_deviations_are_those_of_the_seeds(tmp_path):
  found = rows(tmp_path)
  base, other = found['base'], found['no_overlap']
  assert base.errors == pytest.approx([20, 22])
  assert (base.top1, base.top5) == pytest.approx((21, 10.5))
  assert base.deviation == pytest.approx(math.sqrt(2))  # n - 1
  assert math.isnan(base.difference)
  assert (other.top1, other.difference, other.difference_top5) == pytest.approx((31.5, 10.5, 5.25))
  assert other.difference_deviation == pytest.approx(math.sqrt(0.5))  # of 10 and 11


def test_signs_are_compared_with_the_reported_ones(tmp_path):
  found = rows(tmp_path)
  assert found['no_overlap'].paper == Reported(0.4, 0.3)
  assert found['no_overlap'].agrees(Reported(0.4)) == 'same sign'
  assert found['no_overlap'].agrees(Reported(-0.4)) == 'other sign'
  assert found['no_overlap'].agrees(None) == ''
  assert found['no_overlap'].agrees(Reported(0.0)) == ''  # neither
  assert found['base'].agrees(Reported(0.4)) == ''
  none = rows(tmp_path / 'equal', {'base': (0.2, 0.2), 'no_overlap': (0.2, 0.2)})['no_overlap']
  assert (none.difference, none.agrees(Reported(0.4))) == (0, '')


def test_significance_is_by_the_paired_t_test_over_seeds(tmp_path):
  found = rows(tmp_path)
  assert (found['base'].significance, found['tanh'].significance) == ('', 'not significant')
  assert (tables.p_value(found['base']), tables.p_value(found['tanh'])) == ('', '0.500')
  # 10 and 11 points worse: t = 10.5 / 0.5, of one degree of freedom (the Cauchy distribution).
  row = found['no_overlap']
  assert row.significance == 'significant (p < 0.05)'
  assert row.p == pytest.approx(1 - 2 * math.atan(21) / math.pi, rel=1e-5)
  half = 0.5 * math.tan(0.475 * math.pi)
  assert row.interval == pytest.approx((10.5 - half, 10.5 + half), abs=1e-6)
  # Errors that vary much between seeds, though not within one.
  paired = {'base': (0.190, 0.381), 'no_overlap': (0.200, 0.390)}
  assert rows(tmp_path / 'paired', paired)['no_overlap'].is_significant


@pytest.mark.parametrize('other', [(0.2, 0.4), (0.3, 0.5), (0.3,)])
def test_no_test_of_one_seed_or_of_equal_differences(other, tmp_path):
  row = rows(tmp_path, {'base': (0.2, 0.4), 'no_overlap': other})['no_overlap']
  assert (row.significance, row.is_significant) == ('', False)
  assert tables.cells(row)[4] == ''


def test_a_difference_is_from_the_base_of_the_same_seed(tmp_path):
  row = rows(tmp_path, {'base': (0.2, 0.4), 'no_overlap': (0.3,)})['no_overlap']
  assert math.isnan(row.deviation)
  assert tables.cells(row)[1:4] == ('1 of 2', '30.00', '+10.00')
  row = rows(tmp_path / 'base', {'base': (0.2,), 'no_overlap': (0.3, 0.9)})['no_overlap']
  assert tables.cells(row)[1:4] == ('2', '60.00 ± 42.43', '+10.00')


def test_the_table_in_markdown_has_differences_intervals_and_notes(tmp_path):
  sweeps.write_sweep(tmp_path, FINALS)
  text = tables.markdown(sweep_results.gather(tmp_path))
  lines = text.splitlines()
  assert lines[0] == '# A made-up sweep, digits'
  assert lines[5] == (
    '| no_overlap | 2 | 31.50 ± 2.12 | +10.50 | +4.15 to +16.85 | +0.4 |  | same sign |'
    ' 0.030 | pools apart |'
  )
  assert lines[6].endswith(r'| 0.500 | tanh \| \<b>not\</b> ReLU |')
  assert 'Error of the last epoch, center crop, on digits, validation images; 4 epochs;' in text
  assert 'no_overlap, paper: top-1 +0.4, top-5 +0.3.' in text
  assert 'Not applying to this config: same.' in text
  assert f'--config.train.num_epochs={sweeps.EPOCHS}' in text


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('two\n  lines', 'two lines'),
    ('a | b, p < 0.05, R&D, no_overlap, #1', r'a \| b, p < 0.05, R&D, no_overlap, #1'),
    ('<b>x</b> &lt; `y`', r'\<b>x\</b> \&lt; \`y\`'),
    ('_x_ *y* ~z~ $w$', r'\_x\_ \*y\* \~z\~ \$w\$'),
    ('[a](b) \\', r'\[a\](b) \\'),
  ],
)
def test_markdown_shows_text_letter_by_letter(text, expected):
  assert tables.escaped(text) == expected


def test_titles_and_notes_are_escaped_in_markdown_too(tmp_path):
  variant = spec.Variant('a', {'model.activation': 'tanh'}, '', Reported(1.0, where='*section* 3'))
  planned = sweeps.plan(tmp_path, spec.Sweep('*One*\ntitle', (variant,)))
  planning.write(planned)
  for run in planned.runs:
    sweeps.write_run(run, sweeps.lines([0.5, 0.4, 0.3, 0.2]))
  sweeps.report_quickly(tmp_path)
  text = (tmp_path / 'results.md').read_text()
  assert text.startswith(r'# \*One\* title, digits')
  assert r'a, paper: top-1 +1, \*section\* 3.' in text


def test_each_variant_is_called_by_words_of_its_own(tmp_path):
  descriptions = {'a': 'less\ndropout', 'b': 'less dropout', 'c': 'a', 'd': '', 'e': 'no crops'}
  variants = [
    spec.Variant(name, {'train.batch_size': 10 + number}, description)
    for number, (name, description) in enumerate(descriptions.items())
  ]
  planned = sweeps.plan(tmp_path, spec.Sweep('', variants))
  planning.write(planned)
  for run in planned.runs:
    sweeps.write_run(run, sweeps.lines([0.5, 0.4, 0.3, 0.2]))
  results = sweep_results.gather(tmp_path)
  words = {'base': 'the base', 'a': 'a', 'b': 'b', 'c': 'c', 'd': 'd', 'e': 'no crops'}
  assert tables.words(results.rows) == words
  table = latex.table(results)
  assert [table.count(f'    {called} & 1 &') for called in words.values()] == [1] * 6


@pytest.mark.parametrize(
  ('steps', 'said'), [(None, '2 epochs or 4 epochs; seed 0;'), (20, '20 steps; seed 0;')]
)
def test_how_long_the_runs_were_is_said(steps, said, tmp_path):
  overrides = {} if steps is None else {'train.num_steps': steps}
  short = spec.Variant('short', {'train.num_epochs': 2}, '')
  planned = sweeps.plan(tmp_path, spec.Sweep('', (short,)), overrides)
  planning.write(planned)
  for run in planned.runs:
    sweeps.write_run(run, sweeps.lines([0.5, 0.4, 0.3, 0.2]))
  assert said in tables.notes(sweep_results.gather(tmp_path))[0]


def test_the_table_as_csv_has_the_numbers_in_full(tmp_path):
  sweeps.write_sweep(tmp_path, FINALS)
  results = sweep_results.gather(tmp_path)
  table = {row['variant']: row for row in csv.DictReader(io.StringIO(tables.table_csv(results)))}
  # Fractions, as in the other CSV files.
  assert float(table['no_overlap']['top1_error']) == pytest.approx(results.rows[1].top1 / 100)
  assert table['no_overlap']['paper_difference_top5'] == '0.003'
  assert table['no_overlap']['source_difference'] == ''
  low = results.rows[1].interval[0] / 100
  assert float(table['no_overlap']['difference_low']) == pytest.approx(low)
  assert float(table['no_overlap']['p']) == results.rows[1].p
  assert table['base']['difference'] == ''
  assert table['tanh']['description'] == 'tanh | <b>not</b> ReLU'


def test_the_table_in_latex_has_the_same_numbers_and_where_they_come_from(tmp_path):
  sweeps.write_sweep(tmp_path, FINALS)
  lines = latex.table(sweep_results.gather(tmp_path)).splitlines()
  above = lines.index(r'\begin{table}')
  assert lines[:2] == [r'% \usepackage{array,booktabs}', '% command: python launch.py --mode=sweep']
  assert f'% commit: {"a" * 40}' in lines[:above]
  lines = lines[above:]
  assert r'\caption{A made-up sweep, digits. Top-1 error in percent $\pm$ standard' in lines[2]
  assert lines[5:7] == [
    r'  \begin{tabular}{@{}>{\raggedright\arraybackslash}p{0.18\linewidth}rrrrrr@{}}',
    r'    \toprule',
  ]
  first = lines.index(r'    \midrule')
  assert lines[first - 1] == (
    r'    variant & runs & top-1 error, \% & difference & 95\% interval & $p$ & paper \\'
  )
  assert lines[first + 2 : first + 4] == [
    r'    pools apart & 2 & 31.50 $\pm$ 2.12 & $+10.50$ & $+4.15$ to $+16.85$ & 0.030 & $+0.4$ \\',
    r'    tanh \textbar{} \textless{}b\textgreater{}not\textless{}/b\textgreater{} ReLU & 2 & 20.50 $\pm$ 0.71 & $-0.50$ & $-6.85$ to $+5.85$ & 0.500 &  \\',
  ]


@pytest.mark.parametrize(
  ('text', 'written'),
  [
    ('50 % of a_b~\\', r'50 \% of a\_b\textasciitilde{}\textbackslash{}'),
    ('$x^2$ & #{y}', r'\$x\textasciicircum{}2\$ \& \#\{y\}'),
    ('[a] *', '{[}a] {*}'),  # else an option of the line's end before it
    ('a < b', r'a \textless{} b'),  # else an exclamation mark turned over
    ('--flag', '-{}-flag'),  # else a dash
    ('λ ≤ \N{MINUS SIGN}1, Δ', r'$\lambda$ $\le$ $-$1, $\Delta$'),
    ('two\n\nlines', 'two lines'),  # else a paragraph
    ('Größe', 'Größe'),
  ],
)
def test_latex_sets_a_text_letter_by_letter(text, written):
  assert latex.escape(text) == written


def test_letters_that_pdflatex_refuses_are_named_above_the_table(tmp_path):
  for title, named in (('Größe “λ”', False), ('字 漢', True)):
    planned = sweeps.plan(tmp_path / title, spec.Sweep(title, ()))
    planning.write(planned, {'command': 'a\nb', 'caller': None})
    sweeps.write_run(planned.runs[0], sweeps.lines([0.5] * 4))
    lines = latex.table(sweep_results.gather(tmp_path / title)).splitlines()
    said = '% needs LuaLaTeX or XeLaTeX, and a font that has 字 漢'
    assert (said in lines) == named
    assert '% command: a b' in lines  # no line of it is set


def test_pictures_call_variants_by_their_words_and_by_name_where_these_are_alike(
  tmp_path, monkeypatch
):
  alike = spec.Sweep(
    '',
    (
      spec.Variant('tanh', {'model.activation': 'tanh'}, 'another activation'),
      spec.Variant('a', {'model.pool.window': 2}, 'twice'),
      spec.Variant('b', {'model.conv4.features': 0}, 'twice'),
    ),
  )
  planned = sweeps.plan(tmp_path, alike)
  planning.write(planned)
  for run in planned.runs:
    sweeps.write_run(run, sweeps.lines([0.5, 0.4, 0.35, 0.3]))
  drawn = {}
  monkeypatch.setattr(
    canvas, 'save', lambda picture, path: drawn.update({path.name: picture}) or []
  )
  monkeypatch.setattr(report, '_markdown', lambda *_: '')
  monkeypatch.setattr(report, 'html', lambda *_: '')
  report.write(tmp_path)
  labels = drawn['differences'].axes[0].get_yticklabels()
  assert [label.get_text() for label in labels] == ['another activation', 'a', 'b']


def test_every_run_is_in_runs_csv(tmp_path):
  sweeps.write_sweep(tmp_path, {'base': (0.2,), 'tanh': (0.3,)})
  results = sweep_results.gather(tmp_path)
  runs = list(csv.DictReader(io.StringIO(tables.runs_csv(results))))
  assert [(run['variant'], run['seed'], run['state'], run['top1_error']) for run in runs[:3]] == [
    ('base', '0', 'finished', '0.2'),
    ('no_overlap', '0', 'not run yet', ''),
    ('tanh', '0', 'finished', '0.3'),
  ]
  assert runs[0]['command'].startswith('python launch.py --config=configs/digits.py ')


def test_runs_that_are_not_finished_say_why(tmp_path):
  planned = sweeps.write_sweep(tmp_path, {'base': (0.2,)})
  failed, cut = planned.runs[1], planned.runs[2]
  failed.path.mkdir(parents=True)
  (failed.path / 'failure.txt').write_text('the loss is nan\n')
  sweeps.write_run(cut, sweeps.lines([0.9, 0.8]))
  results = sweep_results.gather(tmp_path)
  assert tables.notes(results)[-1] == (
    'Not finished: no_overlap, seed 0: failed: the loss is nan; tanh, seed 0: at epoch 2 of 4;'
    ' base, seed 1: not run yet; no_overlap, seed 1: not run yet; tanh, seed 1: not run yet.'
  )
  assert tables.cells(results.rows[1])[1:4] == ('0 of 2', '', '')


def test_a_run_that_went_on_for_longer_counts_where_it_should_have_ended(tmp_path):
  planned = sweeps.write_sweep(tmp_path, FINALS)
  sweeps.write_run(planned.runs[0], sweeps.lines([0.9, 0.8, 0.7, 0.25, 0.1]))
  results = sweep_results.gather(tmp_path)
  assert results.rows[0].errors[0] == pytest.approx(25)
  assert results.runs[0].records[-1]['epoch'] == 4


def test_runs_of_another_length_than_the_bases_are_not_compared_with_it(tmp_path):
  longer = spec.Variant('longer', {'train.num_epochs': 5, 'model.pool.window': 2}, '')
  planned = sweeps.plan(tmp_path, spec.Sweep('', (longer,)))
  planning.write(planned)
  for run in planned.runs:
    sweeps.write_run(run, sweeps.lines([0.5, 0.4, 0.3, 0.2, 0.1]))
  base, row = sweep_results.gather(tmp_path).rows
  assert (base.top1, row.top1) == pytest.approx((20, 10))
  assert math.isnan(row.difference)


def test_seconds_are_those_of_the_training_lines(tmp_path):
  sweeps.write_sweep(tmp_path, FINALS)
  run = sweep_results.gather(tmp_path).runs[0]
  assert run.seconds == pytest.approx(40 * run.config['train']['batch_size'] / 320)


def test_what_is_no_sweep_and_what_has_no_finished_run_is_named(tmp_path):
  with pytest.raises(UserError, match=r'has no sweep\.json; it is not the folder of a sweep'):
    sweep_results.gather(tmp_path)
  planning.write(sweeps.plan(tmp_path))
  wrong = r'no run of the sweep in .* is finished \(the first, base/seed0: {}\); --mode=sweep runs'
  with pytest.raises(UserError, match=wrong.format('not run yet')):
    report.write(tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['sweep.json']
  (tmp_path / 'base' / 'seed0').mkdir(parents=True)
  (tmp_path / 'base' / 'seed0' / 'failure.txt').write_text('the disk is full (exit code 1)\n')
  with pytest.raises(UserError, match=wrong.format(r'failed: the disk is full \(exit code 1\)')):
    report.write(tmp_path)


def test_a_run_with_metrics_but_no_config_is_named(tmp_path):
  planned = sweeps.write_sweep(tmp_path, FINALS)
  (planned.runs[1].path / 'config.json').unlink()
  with pytest.raises(UserError, match=rf'{planned.runs[1].path} has metrics.jsonl but no config'):
    sweep_results.gather(tmp_path)


def test_a_variant_is_shown_before_the_base_is_there(tmp_path):
  found = rows(tmp_path, {'tanh': (0.3, 0.3)})
  assert found['tanh'].top1 == pytest.approx(30)
  assert math.isnan(found['tanh'].difference)
  sweeps.report_quickly(tmp_path)
  assert '| tanh | 2 | 30.00 ' in (tmp_path / 'results.md').read_text()


def test_the_report_has_all_its_files_and_the_same_ones_again(tmp_path):
  sweeps.write_sweep(tmp_path, FINALS)
  _, written = report.write(tmp_path)
  assert [file.relative_to(tmp_path).as_posix() for file in written] == [
    *(
      f'figures/{name}.{kind}'
      for name in ('figure1', 'differences', 'learning_curves')
      for kind in ('png', 'pdf', 'svg')
    ),
    'results.md', 'results.tex', 'results.csv', 'runs.csv', 'report.html',
  ]  # fmt: skip
  contents = [file.read_bytes() for file in written]
  report.write(tmp_path)
  assert [file.read_bytes() for file in written] == contents


@pytest.mark.parametrize(('classes', 'columns'), [(10, 5), (5, 4)])  # of 5 there is no top-5 error
def test_why_a_run_is_not_finished_takes_the_place_of_its_numbers(tmp_path, classes, columns):
  planned = sweeps.write_sweep(tmp_path, {'base': (0.2,)})
  config = json.loads((planned.runs[0].path / 'config.json').read_text())
  config['model']['num_classes'] = classes
  (planned.runs[0].path / 'config.json').write_text(json.dumps(config))
  page = report.html(sweep_results.gather(tmp_path), [])
  assert page.count(f'<td colspan="{columns}" class="state">not run yet</td>') == 5


def test_metrics_alone_make_the_tables_again(tmp_path):
  """As docs/results keeps them: no checkpoints."""
  sweeps.write_sweep(tmp_path / 'a', FINALS)
  sweeps.report_quickly(tmp_path / 'a')
  for file in (tmp_path / 'a').rglob('*'):
    if file.name in ('sweep.json', 'config.json', 'metrics.jsonl', 'starts.jsonl'):
      target = tmp_path / 'b' / file.relative_to(tmp_path / 'a')
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(file, target)
  sweeps.report_quickly(tmp_path / 'b')
  for name in ('results.csv', 'results.md'):
    assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()


def test_pictures_of_an_earlier_table_are_removed(tmp_path):
  sweeps.write_sweep(tmp_path, {'base': (0.2, 0.2), 'tanh': (0.3, 0.3)})
  _, written = sweeps.report_quickly(tmp_path)
  (tmp_path / 'figures' / 'mine.png').touch()
  assert {file.stem for file in written if file.suffix == '.svg'} >= {'differences', 'figure1'}
  planning.write(sweeps.plan(tmp_path, spec.Sweep('', ())))
  sweeps.report_quickly(tmp_path)
  assert [file.name for file in (tmp_path / 'figures').iterdir()] == ['mine.png']


def test_no_number_is_not_a_number_in_the_files(tmp_path):
  sweeps.write_sweep(tmp_path, {'base': (0.2,)})
  _, written = sweeps.report_quickly(tmp_path)
  for file in written:
    if file.suffix in ('.md', '.tex', '.csv'):
      assert not re.search(r'\bnan\b', file.read_text())


def test_a_run_whose_config_lacks_a_field_is_named(tmp_path):
  sweeps.write_sweep(tmp_path, FINALS)
  (tmp_path / 'tanh' / 'seed0' / 'config.json').write_text('{"train": {"batch_size": "x"}}')
  with pytest.raises(UserError, match=r'tanh/seed0/config\.json has no train\.batch_size; remove'):
    sweep_results.gather(tmp_path)


def test_characters_of_descriptions_that_no_font_has_are_said(tmp_path, monkeypatch, capsys):
  variant = spec.Variant('tanh', {'model.activation': 'tanh'}, 'tanh \U0001f984')
  planned = sweeps.plan(tmp_path, spec.Sweep('', (variant,)))
  planning.write(planned)
  monkeypatch.setattr(fonts, '_installed', list)
  monkeypatch.setattr(fonts, '_search', fonts._search.__wrapped__)
  for run in planned.runs:
    sweeps.write_run(run, sweeps.lines([0.5, 0.4, 0.3, 0.2]))
  report.show(*sweeps.report_quickly(tmp_path))
  assert 'no installed font has 1 character (\U0001f984)' in capsys.readouterr().err


def test_a_link_in_the_current_folder_does_not_stop_a_report(tmp_path, monkeypatch):
  sweep, here = tmp_path / 'sweep', tmp_path / 'here'
  sweeps.write_sweep(sweep, FINALS)
  here.mkdir()
  (here / 'base').symlink_to(tmp_path)
  monkeypatch.chdir(here)
  _, written = sweeps.report_quickly(sweep)
  assert sweep / 'report.html' in written
