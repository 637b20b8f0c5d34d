"""Where a sweep's results come from is in all its files, and what its runs do not have alike."""

import csv
import io

from alexnet_jax.checkpoints import workdir
from alexnet_jax.sweeps import origin, planning, report, tables
from alexnet_jax.sweeps import results as sweep_results
from tests import sweeps

FINALS = {'base': (0.20, 0.22), 'no_overlap': (0.30, 0.33), 'tanh': (0.20, 0.21)}


def gather(path, **starts):
  """Results of a sweep of which the runs of some variants have these starts."""
  for run in sweeps.write_sweep(path, FINALS).runs:
    if run.variant in starts:
      (run.path / workdir.STARTS).unlink()
      for start in starts[run.variant]:
        workdir.record_start(run.path, start)
  return sweep_results.gather(path)


def test_what_all_runs_have_alike_is_said_once(tmp_path):
  later = sweeps.start(date='2026-11-29T01:30:00+01:00')
  results = gather(tmp_path, tanh=[later])
  assert origin.facts(results) == [
    ('command', 'python launch.py --mode=sweep'),
    ('time', '0.8 minutes in training steps, all runs together'),
    ('runs started', '2026-11-28 10:00 to 2026-11-29 00:30 UTC'),
    ('commit', 'a' * 40),
    ('devices', '1 H100'),
    ('versions', 'python 3.11.9, jax 0.10.2'),
  ]
  assert origin.differences(results) == []


def test_what_differs_is_told_by_run(tmp_path, capsys):
  newer = {'versions': {'python': '3.11.9', 'jax': '0.11.2'}}
  results = gather(
    tmp_path,
    tanh=[sweeps.start(commit='b' * 40), sweeps.start(step=20, commit=None, **newer)],
    no_overlap=[sweeps.start(devices='2 cpu (A)')],
  )
  facts = dict(origin.facts(results))
  others, resumed = f'{"a" * 40}: all others', 'tanh/seed0 from step 20, tanh/seed1 from step 20'
  assert facts['commit'] == (
    f'{"b" * 40}: tanh/seed0, tanh/seed1; no checkout: {resumed}; {others}'
  )
  assert facts['devices'] == '2 cpu (A): no_overlap/seed0, no_overlap/seed1; 1 H100: all others'
  assert facts['jax'] == f'0.11.2: {resumed}; 0.10.2: all others'
  assert facts['versions'] == 'python 3.11.9'
  report.show(results, [])
  said = ' '.join(capsys.readouterr().out.split())
  assert f'Not all runs have the same jax: 0.11.2: {resumed}; 0.10.2: all others.' in said


def test_runs_of_before_starts_were_recorded_are_named(tmp_path):
  facts = dict(origin.facts(gather(tmp_path, tanh=[])))
  assert facts['commit'] == 'a' * 40
  assert facts['start, commit, devices, versions'] == 'not recorded of tanh/seed0, tanh/seed1'


def test_a_start_after_the_end_of_a_run_is_not_of_its_results(tmp_path):
  results = gather(tmp_path, tanh=[sweeps.start(), sweeps.start(step=40, commit='b' * 40)])
  assert dict(origin.facts(results))['commit'] == 'a' * 40


def test_a_sweep_from_python_has_no_command(tmp_path):
  planned = sweeps.plan(tmp_path)
  planning.write(planned, {'command': None, 'caller': 'study.py'})
  sweeps.write_run(planned.runs[0], sweeps.lines([0.5] * 4))
  facts = dict(origin.facts(sweep_results.gather(tmp_path)))
  assert facts['command'] == 'none: it was started from Python, by study.py'


def test_every_file_says_where_it_comes_from(tmp_path):
  results = gather(tmp_path, tanh=[sweeps.start(commit='b' * 40)])
  report.write(tmp_path)
  for name in ('results.md', 'results.tex', 'report.html'):
    text = (tmp_path / name).read_text()
    assert 'python launch.py --mode=sweep' in text
    assert f'{"b" * 40}: tanh/seed0, tanh/seed1; {"a" * 40}: all others' in text
  texts = [tables.table_csv(results), tables.runs_csv(results)]
  variants, runs = (list(csv.DictReader(io.StringIO(text))) for text in texts)
  assert [row['commit'][0] for row in variants] == ['a', 'a', 'b']
  assert runs[2]['commit'] == 'b' * 40
  for row in (variants[2], runs[2]):
    assert (row['devices'], row['versions']) == ('1 H100', 'python 3.11.9, jax 0.10.2')
  assert runs[2]['started'] == '2026-11-28T10:00:00+00:00'
