"""A finished sweep in two files: the same tables come out of it, and what is damaged is refused."""

import gzip
import json

import pytest

from alexnet_jax.sweeps import archive, origin, planning
from alexnet_jax.sweeps import results as sweep_results
from alexnet_jax.utils.errors import UserError
from tests import sweeps

FINALS = {'base': (0.20, 0.22), 'no_overlap': (0.30, 0.33), 'tanh': (0.20, 0.21)}
BASE, TANH = 'base/seed0', 'tanh/seed0'


@pytest.fixture
def kept(tmp_path):
  """The archive of a sweep."""
  sweeps.write_sweep(tmp_path / 'sweep', FINALS)
  archive.write(tmp_path / 'sweep', tmp_path / 'kept', {'device': 'a CPU'})
  return tmp_path / 'kept'


def lines(kept):
  return gzip.decompress((kept / 'curves.jsonl.gz').read_bytes()).splitlines(keepends=True)


def test_the_archive_gives_the_same_tables_pictures_and_page(tmp_path):
  sweeps.write_sweep(tmp_path / 'sweep', FINALS)
  archive.write(tmp_path / 'sweep', tmp_path / 'kept')
  _, written = sweeps.report_quickly(tmp_path / 'sweep')
  _, again = sweeps.report_quickly(tmp_path / 'kept')
  assert [file.read_bytes() for file in again] == [file.read_bytes() for file in written]


def test_the_runs_files_come_out_as_they_were(kept, tmp_path):
  archive.unpack(kept, tmp_path / 'unpacked')
  files = sorted((tmp_path / 'unpacked').rglob('*.json*'))
  assert len(files) == 3 * 6
  for file in files:
    before = tmp_path / 'sweep' / file.relative_to(tmp_path / 'unpacked')
    if file.name == 'config.json':
      assert json.loads(file.read_text()) == json.loads(before.read_text())
    else:
      assert file.read_bytes() == before.read_bytes()


def test_what_is_kept_is_two_files_the_base_once_and_what_differs(kept, tmp_path):
  assert sorted(file.name for file in kept.iterdir()) == ['curves.jsonl.gz', 'sweep.json']
  description = json.loads((kept / 'sweep.json').read_text())
  assert description['conditions'] == {'device': 'a CPU'}
  assert [run['config'] for run in description['runs'][:3]] == [
    {}, {'model.pool.window': 2}, {'model.activation': 'tanh'},
  ]  # fmt: skip
  assert description['runs'][3]['config'] == {'train.seed': 1}
  assert description['command'] == 'python launch.py --mode=sweep'
  assert description['runs'][3]['starts'] == [sweeps.start()]
  archive.write(tmp_path / 'sweep', tmp_path / 'again', {'device': 'a CPU'})
  for file in kept.iterdir():
    assert file.read_bytes() == (tmp_path / 'again' / file.name).read_bytes()


def test_a_field_that_an_older_run_lacks_is_what_it_was_then(tmp_path):
  sweeps.write_sweep(tmp_path / 'sweep', FINALS)
  file = tmp_path / 'sweep' / TANH / 'config.json'
  config = json.loads(file.read_text())
  del config['train']['gradient_accumulation_steps']
  file.write_text(json.dumps(config))
  archive.write(tmp_path / 'sweep', tmp_path / 'kept')
  archive.unpack(tmp_path / 'kept', tmp_path / 'unpacked')
  unpacked = json.loads((tmp_path / 'unpacked' / TANH / 'config.json').read_text())
  assert unpacked['train']['gradient_accumulation_steps'] == 1
  del config['train']['precision']
  file.write_text(json.dumps(config))
  with pytest.raises(UserError, match=r'tanh/seed0/config\.json has no train\.precision, which'):
    archive.write(tmp_path / 'sweep', tmp_path / 'other')


def test_only_a_sweep_whose_runs_are_finished_is_archived(kept, tmp_path):
  sweeps.write_sweep(tmp_path / 'part', {**FINALS, 'tanh': (0.2,)})
  with pytest.raises(UserError, match=r'the run in .*tanh/seed1 is not finished; --mode=sweep'):
    archive.write(tmp_path / 'part', tmp_path / 'new')
  for folder in (kept, tmp_path / 'nothing'):
    with pytest.raises(UserError, match='is not the folder of a sweep with its runs'):
      archive.write(folder, tmp_path / 'new')
  for target in (kept, tmp_path / 'sweep'):
    with pytest.raises(UserError, match=r'has a sweep\.json already; choose another folder'):
      archive.write(tmp_path / 'sweep', target)
  with pytest.raises(UserError, match='is not the archive of a sweep'):
    archive.unpack(tmp_path / 'sweep', tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


def test_an_archive_of_before_starts_were_recorded_says_so_and_what_was_noted(kept):
  description = json.loads((kept / 'sweep.json').read_text())
  for part in (description, *description['runs']):
    for name in ('command', 'caller', 'starts'):
      part.pop(name, None)
  (kept / 'sweep.json').write_text(
    json.dumps({**description, 'runs': [{**run, 'command': []} for run in description['runs']]})
  )
  assert origin.facts(sweep_results.gather(kept)) == [
    ('command', 'not recorded'),
    ('time', '0.8 minutes in training steps, all runs together'),
    ('start, commit, devices, versions', 'not recorded'),
    ('device (as archived)', 'a CPU'),
  ]


def test_a_start_that_is_none_is_refused(kept):
  description = json.loads((kept / 'sweep.json').read_text())
  description['runs'][2]['starts'] = ['x']
  (kept / 'sweep.json').write_text(json.dumps(description))
  with pytest.raises(
    UserError, match=r"is not the description of a sweep \('x' is of another kind"
  ):
    sweep_results.gather(kept)


def test_conditions_that_are_none_are_refused(kept):
  description = json.loads((kept / 'sweep.json').read_text())
  (kept / 'sweep.json').write_text(json.dumps({**description, 'conditions': None}))
  with pytest.raises(UserError, match=r'is not the description of a sweep \(conditions is None\)'):
    sweep_results.gather(kept)


def test_a_sweep_does_not_run_in_an_archive(kept):
  with pytest.raises(UserError, match=r'holds the archive of a sweep, .* --workdir of its own'):
    planning.check_folder(sweeps.plan(kept))


@pytest.mark.parametrize(
  ('damage', 'said'),
  [
    (lambda content: None, r'curves\.jsonl\.gz is missing, without which'),
    (lambda content: b'', r'curves\.jsonl\.gz has no curve of base/seed0'),
    (lambda content: content[:-20], r'curves\.jsonl\.gz is damaged \(Compressed file ended'),
    (lambda content: gzip.decompress(content), r'curves\.jsonl\.gz is damaged \(Not a gzip'),
    (lambda content: content[:50] + b'?' + content[51:], r'curves\.jsonl\.gz is damaged \('),
    (lambda content: gzip.compress(b'no JSON\n'), r'curves\.jsonl\.gz is damaged \(Expecting'),
    (lambda content: gzip.compress(b'[]\n'), r'curves\.jsonl\.gz is damaged \('),
    (lambda content: gzip.compress(b'{"step": 1}\n'), r"curves\.jsonl\.gz is damaged \('run'\)"),
  ],
)
def test_curves_that_are_damaged_are_refused_in_a_line(damage, said, kept):
  file = kept / 'curves.jsonl.gz'
  content = damage(file.read_bytes())
  file.unlink()
  if content is not None:
    file.write_bytes(content)
  with pytest.raises(UserError, match=said) as caught:
    sweep_results.gather(kept)
  assert '\n' not in str(caught.value)


def test_a_run_without_curves_and_a_line_that_is_none_are_named(kept):
  whole = lines(kept)
  of_tanh = [i for i, line in enumerate(whole) if json.loads(line)['run'] == TANH]
  others = [line for i, line in enumerate(whole) if i not in of_tanh]
  (kept / 'curves.jsonl.gz').write_bytes(gzip.compress(b''.join(others)))
  with pytest.raises(UserError, match=r'gz has no curve of tanh/seed0, which sweep\.json names'):
    sweep_results.gather(kept)
  whole[of_tanh[1]] = b'{"run": "tanh/seed0"}\n'
  (kept / 'curves.jsonl.gz').write_bytes(gzip.compress(b''.join(whole)))
  with pytest.raises(UserError) as caught:
    sweep_results.gather(kept)
  assert str(caught.value) == (
    f"the archive {kept} is damaged: line 2 of tanh/seed0/metrics.jsonl is not a record of metrics ('split')"
  )


def test_no_small_file_fills_the_memory(kept, monkeypatch):
  monkeypatch.setattr(archive, '_MOST', 1000)
  with pytest.raises(UserError, match=r'gz is damaged \(more than 1,000 bytes\)'):
    sweep_results.gather(kept)


@pytest.mark.parametrize(
  ('base', 'fields', 'said'),
  [
    (
      None,
      {'model.nothing.window': 2},
      r"sweep\.json is damaged: the config of tanh/seed0 \('noth",
    ),
    (None, {'model.activation.window': 2}, r'sweep\.json is damaged: the config of tanh/seed0'),
    (None, 5, r'sweep\.json is damaged: the config of tanh/seed0'),
    (['a'], {}, r'sweep\.json is damaged: the config of base/seed0'),
    (5, {}, r'sweep\.json is damaged: the config of base/seed0'),
    (None, {'train.batch_size': 'x'}, r'is damaged: tanh/seed0/config\.json has no train\.batch_s'),
  ],
)
def test_configs_that_are_damaged_are_refused_in_a_line(base, fields, said, kept):
  description = json.loads((kept / 'sweep.json').read_text())
  description['base_config'] = base or description['base_config']
  description['runs'][2]['config'] = fields
  (kept / 'sweep.json').write_text(json.dumps(description))
  with pytest.raises(UserError, match=said) as caught:
    sweep_results.gather(kept)
  assert '\n' not in str(caught.value)
  assert 'remove' not in str(caught.value)


def test_the_command_archives_and_refuses_mistaken_arguments(tmp_path, monkeypatch):
  sweeps.write_sweep(tmp_path / 'sweep', FINALS)
  arguments = [str(tmp_path / 'sweep'), str(tmp_path / 'kept')]
  archive.main([*arguments, 'device=a = b'])
  description = json.loads((tmp_path / 'kept' / 'sweep.json').read_text())
  assert description['conditions'] == {'device': 'a = b'}
  with pytest.raises(SystemExit, match=f'^archive: {tmp_path / "kept"} has a sweep.json already'):
    archive.main(arguments)
  for wrong in ([], arguments[:1], [*arguments, 'device']):
    with pytest.raises(SystemExit, match="archive: pass the sweep's folder, a folder for"):
      archive.main(wrong)


def test_the_commands_help_has_its_usage(capsys):
  archive.main(['--help'])
  usage = 'python -m alexnet_jax.sweeps.archive SWEEP_FOLDER NEW_FOLDER [NAME=VALUE ...]'
  assert capsys.readouterr().out.startswith(f'usage: {usage}\n')
