"""A workdir holds one experiment, and a log that a killed run leaves readable."""

import json
import math
import os
import re

import pytest

from alexnet_jax.checkpoints import workdir
from alexnet_jax.utils import config_fields
from alexnet_jax.utils.errors import UserError
from tests.sweeps import lines

CONFIG = {
  'model': {'num_columns': 2, 'layers': [1, 2]},
  'data': {
    'name': 'digits',
    'data_dir': None,
    'prepared_dir': None,
    'encoding': 'auto',
    'unreadable_limit': 0.001,
    'memory_megabytes': 100,
  },
  'mesh': {'column_devices': 'auto', 'data_devices': 1},
  'checkpoint': {'keep': 2, 'every_steps': 100},
  'train': {'num_epochs': 90, 'num_steps': None, 'log_every_steps': 10, 'batch_size': 128},
  'seed': 0,
}
CIRCUMSTANCES = {
  'data.data_dir': '/data',
  'data.prepared_dir': '/prepared',
  'data.unreadable_limit': 0.5,
  'mesh.column_devices': 1,
  'mesh.data_devices': 4,
  'checkpoint.keep': 7,
  'checkpoint.every_steps': 1,
  'train.num_epochs': 100,
  'train.num_steps': 3,
  'train.log_every_steps': 1,
  'train.gradient_accumulation_steps': 2,
  'train.profile_steps': [3, 4],
}


def changed(changes, config=CONFIG):
  """A copy of a config with fields, named with dots, set."""
  config = json.loads(json.dumps(config))
  for field, value in changes.items():
    *path, last = field.split('.')
    inner = config
    for name in path:
      inner = inner[name]
    inner[last] = value
  return config


@pytest.mark.parametrize('field', CIRCUMSTANCES)
def test_circumstances_are_no_difference(field):
  assert config_fields.differences(CONFIG, changed({field: CIRCUMSTANCES[field]})) == []


@pytest.mark.parametrize(
  ('changes', 'differences'),
  [
    ({}, []),
    ({'model.num_columns': 1}, ['model.num_columns is 1 there and 2 in this config']),
    ({'data.name': 'cifar10'}, ["data.name is 'cifar10' there and 'digits' in this config"]),
    # It says how images are shuffled.
    ({'data.memory_megabytes': 200}, ['data.memory_megabytes is 200 there and 100 in this config']),
    ({'data.encoding': 'png'}, ["data.encoding is 'png' there and 'auto' in this config"]),
    ({'model.layers': [1, 3]}, ['model.layers is [1, 3] there and [1, 2] in this config']),
    ({'seed': 1, 'mesh.data_devices': 3}, ['seed is 1 there and 0 in this config']),
    ({'train.new': 1}, ['train.new is 1 there and None in this config']),
    # Begins like a circumstance, but is another field.
    ({'train.num_epochs_more': 1}, ['train.num_epochs_more is 1 there and None in this config']),
    (
      {'seed': 1, 'model.num_columns': 1},
      ['model.num_columns is 1 there and 2 in this config', 'seed is 1 there and 0 in this config'],
    ),
  ],
)
def test_differences_name_field_and_values(changes, differences):
  assert config_fields.differences(CONFIG, changed(changes)) == differences


def test_a_field_that_only_this_config_has_is_a_difference():
  assert config_fields.differences(changed({'model.extra': 5}), CONFIG) == [
    'model.extra is None there and 5 in this config'
  ]


def test_a_field_that_was_added_since_is_no_difference_where_it_changes_nothing(monkeypatch):
  monkeypatch.setitem(config_fields.ADDED_FIELDS, 'model.new', 1)
  assert config_fields.differences(changed({'model.new': 1}), CONFIG) == []
  assert config_fields.differences(CONFIG, changed({'model.new': 1})) == []
  assert config_fields.differences(changed({'model.new': 2}), CONFIG) == [
    'model.new is 1 there and 2 in this config'
  ]


def test_prepare_writes_the_config(tmp_path):
  path = tmp_path / 'runs' / 'first'
  assert workdir.read_config(path) is None
  workdir.prepare(path, CONFIG, started=False)
  assert workdir.read_config(path) == CONFIG
  assert [file.name for file in path.iterdir()] == ['config.json']


def test_prepare_refuses_another_experiment_and_leaves_it_alone(tmp_path):
  workdir.write_config(tmp_path, CONFIG)
  with pytest.raises(UserError) as refused:
    workdir.prepare(tmp_path, changed({'model.num_columns': 1}))
  first, second = str(refused.value).splitlines()
  difference = 'model.num_columns is 2 there and 1 in this config'
  assert first == f'{tmp_path} holds another experiment: {difference}'
  assert '--workdir' in second
  assert workdir.read_config(tmp_path) == CONFIG


def test_prepare_counts_the_differences_it_does_not_name(tmp_path):
  workdir.write_config(tmp_path, CONFIG)
  others = {'model.num_columns': 1, 'model.layers': [], 'data.name': 'x', 'seed': 1, 'train.a': 2}
  with pytest.raises(UserError) as refused:
    workdir.prepare(tmp_path, changed(others))
  first, _ = str(refused.value).splitlines()
  assert first.count(' in this config') == 3
  assert first.endswith('(and 2 more)')


def test_prepare_takes_new_circumstances_and_leaves_the_config_to_the_run_that_resumes(tmp_path):
  workdir.write_config(tmp_path, CONFIG)
  workdir.prepare(tmp_path, changed(CIRCUMSTANCES))
  assert workdir.read_config(tmp_path) == CONFIG


@pytest.mark.parametrize('changes', [{}, {'data.name': 'cifar10'}])
def test_what_was_not_started_gives_way_and_its_statistics_too(tmp_path, changes):
  workdir.prepare(tmp_path, CONFIG, started=False)
  (tmp_path / 'statistics.npz').write_bytes(b'')
  workdir.prepare(tmp_path, changed(changes), started=False)
  assert workdir.read_config(tmp_path) == changed(changes)
  assert not (tmp_path / 'statistics.npz').exists()  # images may change where no config does


def test_what_was_started_keeps_its_statistics(tmp_path):
  workdir.prepare(tmp_path, CONFIG, started=False)
  (tmp_path / 'statistics.npz').write_bytes(b'')
  workdir.prepare(tmp_path, CONFIG)
  assert (tmp_path / 'statistics.npz').exists()


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'{"model": ',
    b'[1, 2]',
    b'"text"',
    b'\xff\xfe{}',
    b'[' * 100_000,
    b'{"a":' * 90 + b'1' + b'}' * 90,
  ],
)
def test_a_config_file_that_is_none_is_refused(tmp_path, content):
  (tmp_path / 'config.json').write_bytes(content)
  for use in (lambda: workdir.read_config(tmp_path), lambda: workdir.prepare(tmp_path, CONFIG)):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / 'config.json'))):
      use()
  assert (tmp_path / 'config.json').read_bytes() == content


def test_a_sweeps_folder_is_no_workdir_of_a_run(tmp_path):
  (tmp_path / 'sweep.json').touch()
  with pytest.raises(UserError, match='is the folder of a sweep; give the run a --workdir of its'):
    workdir.check_usable(tmp_path, {}, started=False)


@pytest.mark.parametrize('below', ['', 'run'])
def test_a_workdir_that_is_or_lies_under_a_file_is_refused(tmp_path, below):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'cannot write to the workdir .*file.*; choose another'):
    workdir.prepare(tmp_path / 'file' / below, CONFIG)


@pytest.mark.skipif(
  not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may write anywhere'
)
def test_a_workdir_without_permission_is_refused(tmp_path):
  tmp_path.chmod(0o500)
  try:
    with pytest.raises(UserError, match=r'cannot write to the workdir .*: Permission denied'):
      workdir.prepare(tmp_path, CONFIG)
  finally:
    tmp_path.chmod(0o700)


RECORDS = lines([0.9, 0.8])


def write_log(path, records, keep_lines=0):
  log = workdir.MetricsLog(path, keep_lines)
  for record in records:
    log.write(record)
  log.close()


def test_the_log_is_one_json_object_a_line_flushed_at_once(tmp_path):
  log = workdir.MetricsLog(tmp_path, 0)
  for i, record in enumerate(RECORDS):
    log.write(record)
    assert log.lines == i + 1
    *complete, rest = (tmp_path / 'metrics.jsonl').read_text().split('\n')
    assert [json.loads(line) for line in complete] == RECORDS[: i + 1]
    assert rest == ''
  log.close()
  assert workdir.read_metrics(tmp_path) == RECORDS


@pytest.mark.parametrize(
  ('keep_lines', 'half', 'kept'),
  [
    (4, '', 4),
    (2, '', 2),
    (0, '', 0),
    (2, '{"step": 4, "lo', 2),
    (4, '{"step": 4, "lo', 4),
    # The log lost what the checkpoint remembers.
    (5, '{"step": 4, "lo', 4),
    (9, '', 4),
  ],
)
def test_a_continued_log_drops_what_comes_again(tmp_path, keep_lines, half, kept):
  write_log(tmp_path, RECORDS)
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write(half)
  log = workdir.MetricsLog(tmp_path, keep_lines)
  assert log.lines == kept
  log.write(RECORDS[0])
  log.close()
  assert workdir.read_metrics(tmp_path) == [*RECORDS[:kept], RECORDS[0]]


def test_read_metrics_leaves_a_half_written_line_out(tmp_path):
  assert workdir.read_metrics(tmp_path) == []
  write_log(tmp_path, RECORDS)
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 4')
  assert workdir.read_metrics(tmp_path) == RECORDS


def test_a_folder_is_one_process_at_a_time(tmp_path):
  path = tmp_path / 'run'
  assert not workdir.is_locked(path)
  with workdir.lock(path):
    assert workdir.is_locked(path)
    with pytest.raises(UserError, match=r'another process is at work in .*run; wait for it, or'):  # noqa: SIM117
      with workdir.lock(path):
        pass
  assert not workdir.is_locked(path)
  with workdir.lock(path):
    pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with (
    pytest.raises(UserError, match='cannot write to the workdir'),
    workdir.lock(tmp_path / 'file'),
  ):
    pass


def test_a_folder_whose_lock_cannot_be_opened_is_not_waited_for(tmp_path):
  (tmp_path / '.lock').mkdir()
  with pytest.raises(UserError, match='cannot write to the workdir'):
    workdir.is_locked(tmp_path)


def test_the_last_epoch_is_that_of_the_last_whole_line(tmp_path):
  assert workdir.last_epoch(tmp_path) == 0
  for count, half, epoch in (
    (0, '', 0), (0, '{"epo', 0), (1, '', 1), (2, '', 2), (2, '{"epo', 2), (300, '', 300)
  ):  # fmt: skip
    write_log(tmp_path, lines([0.9] * count))
    with (tmp_path / 'metrics.jsonl').open('a') as file:
      file.write(half)
    assert workdir.last_epoch(tmp_path) == epoch


HOSTILE_LINES = {
  'no JSON': 'epoch 1',
  'half of a character': b'\xff',
  'no object': '[1, 2]',
  'a field less': '{"step": 1, "split": "validation", "loss": 0.5}',
  'a name for a number': json.dumps(RECORDS[1] | {'loss': 'low'}),
  'no name': json.dumps(RECORDS[1] | {'split': []}),
  'endless': json.dumps(RECORDS[1] | {'epoch': math.inf}),
  'no number': json.dumps(RECORDS[1] | {'step': math.nan}),
  'below zero': json.dumps(RECORDS[1] | {'step': -1}),
  'of 400 digits': json.dumps(RECORDS[1] | {'step': 10**400}),
  'of 5,000 digits': '{"step": ' + '9' * 5000 + '}',
  'deep': '[' * 100_000 + ']' * 100_000,
  'not so deep': '[' * 500 + ']' * 500,
}


@pytest.mark.parametrize('line', HOSTILE_LINES.values(), ids=HOSTILE_LINES)
def test_a_line_that_is_none_of_metrics_is_named(line, tmp_path):
  write_log(tmp_path, RECORDS[:2])
  with (tmp_path / 'metrics.jsonl').open('ab') as file:
    file.write((line if isinstance(line, bytes) else line.encode()) + b'\n')
  with pytest.raises(
    UserError, match=r'line 3 of .*metrics\.jsonl is not a record of metrics .*remove'
  ):
    workdir.read_metrics(tmp_path)
  with pytest.raises(UserError, match=r'last line of .*metrics\.jsonl is not a record of metrics'):
    workdir.last_epoch(tmp_path)


def test_a_loss_that_is_no_number_is_one_of_metrics(tmp_path):
  write_log(tmp_path, [RECORDS[1] | {'loss': math.nan}])
  assert math.isnan(workdir.read_metrics(tmp_path)[0]['loss'])


def test_the_final_record_is_that_of_the_stated_length():
  records = lines([0.9, 0.8, 0.7])
  assert workdir.final_record(records, 2, None)['top1_error'] == 0.8
  assert workdir.final_record(records, 3, None)['top1_error'] == 0.7
  assert workdir.final_record(records, 4, None) is None
  assert workdir.final_record(records, 4, 30)['top1_error'] == 0.7
  assert workdir.final_record(records[:-1], 3, None) is None  # trained, but not validated
  assert workdir.final_record([], 1, None) is None
