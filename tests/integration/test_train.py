"""The training loop: what it leaves, resuming, what stops it."""

import dataclasses
import functools
import io
import json
import logging
import os
import re
import shutil
import signal
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from alexnet_jax import experiment
from alexnet_jax.checkpoints import checkpoint, pretrained, workdir
from alexnet_jax.checkpoints.pretrained import read as read_trained
from alexnet_jax.data import included, pipeline, splits, statistics
from alexnet_jax.evaluation import evaluate, inference
from alexnet_jax.reports import plot_run
from alexnet_jax.training import fine_tuning, logger, loop, resume
from alexnet_jax.training import step as step_lib
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import Stopped, UserError
from alexnet_jax.utils.signals import Signals
from tests.small import assert_close, lines, random_params, tiny_config


def params_at(path, step, config):
  """The parameters of a checkpoint, as numpy arrays."""
  net = experiment.make_network(config)
  shapes, _ = step_lib.state_specs(net, experiment.make_optimizer(config, net))
  on_one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=on_one), shapes.params
  )
  trees, _ = checkpoint.read(path / 'checkpoints', step, {'params': abstract})
  return jax.device_get(trees['params'])


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run of two epochs on four devices, checkpoints at steps 23 and 45, and its result."""
  path = tmp_path_factory.mktemp('finished')
  return path, loop.train_and_evaluate(tiny_config(), path, shows_predictions=True)


@pytest.fixture
def finished_copy(finished, tmp_path):
  """A copy of it, to be changed."""
  path, result = finished
  shutil.copytree(path, tmp_path, dirs_exist_ok=True)
  return tmp_path, result


def test_a_run_leaves_config_metrics_statistics_and_checkpoints(finished):
  config, (tmp_path, result) = tiny_config(), finished
  records = workdir.read_metrics(tmp_path)
  assert json.loads((tmp_path / 'config.json').read_text()) == experiment.resolved(config)
  assert {'step', 'epoch', 'split', 'loss', 'top1_error', 'top5_error'} <= records[0].keys()
  assert {'images_per_second', 'learning_rate'} <= records[0].keys()
  # 1,438 images in batches of 64: epochs end in steps 23 and 45.
  assert [r['step'] for r in records if r['split'] == 'validation'] == [23, 45]
  assert [r['step'] for r in records if r['split'] == 'train'] == [10, 20, 23, 30, 40, 45]
  assert checkpoint.steps(tmp_path / 'checkpoints') == [23, 45]
  assert (tmp_path / 'statistics.npz').exists()
  assert result['best_error'] == min(r['top1_error'] for r in records if r['split'] == 'validation')


def tensorboard_events(folder):
  """The events of the one file of a folder that TensorBoard reads."""
  from tensorboardX.proto.event_pb2 import Event

  [file] = folder.glob('events.out.tfevents*')
  data, events = file.read_bytes(), []
  while data:  # a record: its length, four bytes of checksum, the event, four more
    end = 12 + int.from_bytes(data[:8], 'little')
    events.append(Event.FromString(data[12:end]))
    data = data[end + 4 :]
  return events


def tensorboard_values(folder):
  """What TensorBoard shows of a folder: step, name and value of each summary."""
  return [
    (event.step, value.tag, value)
    for event in tensorboard_events(folder)
    for value in event.summary.value
  ]


def test_tensorboard_has_training_and_validation_by_the_same_names(finished):
  path, _ = finished
  for split in ('train', 'validation'):
    shown = tensorboard_values(path / 'tensorboard' / split)
    errors = [(step, value.simple_value) for step, tag, value in shown if tag == 'top1_error']
    records = [r for r in workdir.read_metrics(path) if r['split'] == split]
    assert errors == [(r['step'], pytest.approx(r['top1_error'])) for r in records]
    assert {'loss', 'top1_error', 'top5_error'} <= {tag for _, tag, _ in shown}


def test_tensorboard_has_the_config_the_best_error_and_the_kernels(finished):
  from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

  path, result = finished
  shown = tensorboard_values(path / 'tensorboard')
  by_name = {tag: value for _, tag, value in shown}
  assert by_name['best_top1_error'].simple_value == pytest.approx(result['best_error'])
  [text] = by_name['config/text_summary'].tensor.string_val
  config = json.loads((path / 'config.json').read_text())
  assert json.loads(text) == config
  start = by_name['_hparams_/session_start_info'].metadata.plugin_data.content
  fields = HParamsPluginData.FromString(start).session_start_info.hparams
  assert fields['optimizer.learning_rate'].number_value == config['optimizer']['learning_rate']
  assert 'train.num_epochs' not in fields  # it does not define the experiment
  for name in ('conv1/column_1', 'conv1/column_2'):
    pictures = [(step, value.image) for step, tag, value in shown if tag == name]
    assert [step for step, _ in pictures] == [23, 45]
    with Image.open(io.BytesIO(pictures[0][1].encoded_image_string)) as picture:
      assert np.ptp(np.asarray(picture)) == 255
  assert shown[-1][1] == '_hparams_/session_end_info'


def test_a_run_ends_with_a_picture_of_predictions_where_it_is_asked_for(finished):
  path, _ = finished
  shown = tensorboard_values(path / 'tensorboard')
  [(step, value)] = [(step, value) for step, tag, value in shown if tag == 'predictions']
  assert step == 45
  with Image.open(io.BytesIO(value.image.encoded_image_string)) as picture:
    assert picture.width > 800  # four images in a row, and their classes
    assert np.ptp(np.asarray(picture)) == 255


def assert_same_run(path, whole):
  """The same parameters in the last checkpoint, to the bit, and the same lines."""
  a, b = params_at(path, 45, tiny_config()), params_at(whole, 45, tiny_config())
  jax.tree.map(np.testing.assert_array_equal, a, b)
  assert lines(path) == lines(whole)


def test_a_run_in_parts_is_the_whole_run(finished, tmp_path):
  whole, _ = finished
  for num_steps in (30, None):
    config = tiny_config({'checkpoint.every_steps': 7, 'train.num_steps': num_steps})
    loop.train_and_evaluate(config, tmp_path)
  a, b = params_at(whole, 45, tiny_config()), params_at(tmp_path, 45, tiny_config())
  jax.tree.map(np.testing.assert_array_equal, a, b)
  # A run cut short by num_steps validates where it ends; this line the whole run does not have.
  extra = [r for r in lines(tmp_path) if r not in lines(whole)]
  assert [r['step'] for r in extra if r['split'] == 'validation'] == [30]
  assert lines(whole)[-1] == lines(tmp_path)[-1]


def test_a_checkpoint_moves_between_four_devices_and_one(finished, finished_copy):
  path, _ = finished_copy
  shutil.rmtree(path / 'checkpoints' / '45')
  one_device = {'mesh.column_devices': 1, 'mesh.data_devices': 1}
  for devices, num_steps in ((one_device, 30), ({}, 45)):
    loop.train_and_evaluate(tiny_config({**devices, 'train.num_steps': num_steps}), path)
  stay, moved = (params_at(each, 45, tiny_config()) for each in (finished[0], path))
  assert_close(stay, moved, 1e-5)


def test_a_run_starts_from_a_trained_network_and_goes_on_from_itself(finished, tmp_path, capfd):
  source = shutil.copytree(finished[0], tmp_path / 'first')
  changes = {
    'train.init_from': str(source),
    'train.num_steps': 3,
    'optimizer.learning_rate': 0.01,
    'optimizer.lr_multipliers.conv1': ((0, 0.0),),
  }
  config = tiny_config(changes)
  loop.train_and_evaluate(config, tmp_path / 'second')
  best = finished[1]['best_step']
  said = capfd.readouterr().err
  assert f'from {source}/checkpoints/{best}: conv1, conv3, fc6, fc8\n' in said
  assert 'initialized from scratch: nothing\n' in said
  first, second = (read_trained(tmp_path / name).params for name in ('first', 'second'))
  jax.tree.map(np.testing.assert_array_equal, first['conv1'], second['conv1'])  # frozen
  moved = np.abs(first['conv3']['kernel'] - second['conv3']['kernel'])
  assert 0 < moved.max() < 0.1 * np.abs(first['conv3']['kernel']).max()
  shutil.rmtree(source)
  config.train.num_steps = 4
  assert loop.train_and_evaluate(config, tmp_path / 'second')['step'] == 4


def start_from(path, class_names=included.DIGITS, **overrides):
  """New parameters of `tiny_config` with these fields, its layers from the run in `path`."""
  config = tiny_config(overrides)
  params = jax.tree.map(jnp.asarray, random_params(experiment.make_network(config)))
  source = read_trained(path)
  mean_image = np.asarray(source.statistics.mean_image)
  with Display() as display:
    return fine_tuning.start_from(source, params, config, class_names, mean_image, display)


@pytest.mark.parametrize(
  ('names', 'overrides', 'said'),
  [
    (
      'abcdefghij',
      {},
      "initialized from scratch: fc8 (pretrained for other classes; '0' is not in both)",
    ),
    ('9876543210', {}, "fc6, fc8\nfc8: its classes are put in the data set's order\n"),
    (
      '0123456789',
      {'model.fc6.features': 32},
      'scratch: fc6 (32x32, pretrained 32x64), fc8 (32x10, pretrained 64x10)',
    ),
  ],
)
def test_a_run_says_what_becomes_of_the_layers_it_starts_from(
  finished, capfd, names, overrides, said
):
  start_from(finished[0], names, **overrides)
  assert said in capfd.readouterr().err


def test_a_run_says_which_settings_its_pretrained_layers_had(finished, capfd):
  start_from(finished[0], **{'model.fc6.bias': 1.0, 'train.seed': 1})
  assert 'other settings' not in capfd.readouterr().err
  overrides = {
    'augment.pixel_scale': 0.5,
    'model.response_norm.layers': ('conv1', 'conv3'),
    'model.conv3.order': 'norm-activation-pool',
    'model.dropout.rate': 0.1,
    'model.fc6.features': 32,
  }
  start_from(finished[0], **overrides)
  said = capfd.readouterr().err
  scale, layers = tiny_config().augment.pixel_scale, tiny_config().model.response_norm.layers
  assert (
    'the loaded layers were trained with other settings, so they compute something else here:\n'
    f'  augment.pixel_scale={scale}, here 0.5\n'
    '  model.conv3.order=activation-norm-pool, here norm-activation-pool\n'
    f'  model.dropout.rate={tiny_config().model.dropout.rate}, here 0.1\n'
    f"  model.response_norm.layers={layers}, here ('conv1', 'conv3')\n"
    f'to train with these settings, in a new --workdir, add --config.augment.pixel_scale={scale} '
  ) in said


def test_a_run_says_that_its_pretrained_layers_had_another_mean_color(finished, tmp_path, capfd):
  source = read_trained(finished[0])
  brighter = source.statistics._replace(mean_image=source.statistics.mean_image + 9)
  pretrained.write(tmp_path / 'x.safetensors', dataclasses.replace(source, statistics=brighter))
  changes = {'train.init_from': str(tmp_path / 'x.safetensors'), 'train.num_steps': 0}
  loop.train_and_evaluate(tiny_config(changes), tmp_path / 'run')
  assert 'is subtracted; the loaded layers were trained with' in capfd.readouterr().err


def test_layers_after_others_that_do_not_fit_are_said_to_be_of_no_use(finished, capfd):
  start_from(
    finished[0], **{'model.conv1.features': 8, 'model.cross_column': ('conv3', 'fc6', 'fc7')}
  )
  said = capfd.readouterr().err
  assert 'so they compute something else here' in said
  assert re.search(r"  model\.conv1\.features=\d+, here 8\n  model\.cross_column=\('conv3', ", said)
  assert """--config.model.cross_column=('conv3', """ in said


def test_a_network_to_start_from_must_be_there_and_fit(finished, tmp_path):
  config = tiny_config({'train.init_from': str(tmp_path / 'nowhere')})
  with pytest.raises(UserError, match=r'there is no .*nowhere'):
    loop.train_and_evaluate(config, tmp_path / 'second')
  assert not (tmp_path / 'second').exists()
  other = {f'model.{layer}.features': 8 for layer in ('conv1', 'conv3', 'fc6')}
  with pytest.raises(UserError, match='has no layer that fits this network'):
    start_from(finished[0], **other)


def test_a_finished_run_does_nothing_more(finished_copy):
  tmp_path, first = finished_copy
  before = (tmp_path / 'metrics.jsonl').read_bytes()
  assert loop.train_and_evaluate(tiny_config(), tmp_path) == first
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_training_leaves_logging_and_warnings_of_the_process_as_they_were(tmp_path, monkeypatch):
  monkeypatch.setattr(logging.root, 'handlers', [])
  filters = warnings.filters[:]
  loop.train_and_evaluate(one_step(), tmp_path)
  assert logging.root.handlers == []
  assert warnings.filters == filters


def test_a_longer_run_goes_on_from_a_shorter_one(finished_copy):
  path, _ = finished_copy
  assert loop.train_and_evaluate(tiny_config({'train.num_epochs': 3}), path)['step'] == 68
  assert [r['step'] for r in lines(path) if r['split'] == 'validation'] == [23, 45, 68]


def data_file(path, step):
  """The largest file of a checkpoint's parameters: their values."""
  params = path / 'checkpoints' / str(step) / 'params'
  return max((f for f in params.rglob('*') if f.is_file()), key=lambda f: f.stat().st_size)


def flip_bits(file):
  """Flips a bit in each sixteenth: how Orbax packs its files varies, and not all bytes are read again."""
  data = bytearray(file.read_bytes())
  for i in range(16):
    data[(2 * i + 1) * len(data) // 32] ^= 1
  file.write_bytes(data)


def truncate(file):
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_damaged_newest_checkpoint_falls_back_and_records_are_handed_on_as_the_file_has_them(
  finished, finished_copy, capfd
):
  path, _ = finished_copy
  flip_bits(data_file(path, 45))
  seen = []
  loop.train_and_evaluate(tiny_config(), path, seen.append)
  assert seen == workdir.read_metrics(path)
  assert [record['step'] for record in seen if record['split'] == 'validation'] == [23, 45]
  said = capfd.readouterr().err
  assert 'checkpoint 45 is damaged' in said
  assert 'resuming at step 23' in said
  assert_same_run(path, finished[0])


def test_evaluation_gives_the_error_of_the_best_checkpoint(finished_copy):
  config, (tmp_path, result) = tiny_config(), finished_copy
  said = evaluate.evaluate_workdir(tmp_path, config)
  assert said['members'][0]['step'] == result['best_step']
  assert said['center_crop']['top1_error'] == pytest.approx(result['best_error'])


def test_the_best_is_of_the_lowest_error_and_of_equal_ones_of_the_lowest_loss():
  progress = resume.Progress()
  assert progress.is_best(0.5, 9.0)
  progress = resume.Progress(best_step=1, best_error=0.5, best_loss=1.0)
  assert progress.is_best(0.4, 2.0)
  assert not progress.is_best(0.6, 0.1)
  assert progress.is_best(0.5, 0.9)
  assert not progress.is_best(0.5, 1.0)
  unknown = resume.Progress(best_step=1, best_error=0.5)  # of an older checkpoint
  assert unknown.is_best(0.5, 2.0)
  assert not unknown.is_best(0.6, 0.1)


def test_a_signal_saves_and_the_run_goes_on_exactly(finished, tmp_path, monkeypatch):
  end_line = loop.Run.end_line

  def end_line_and_be_stopped(run):
    end_line(run)
    if run.step == 10:
      os.kill(os.getpid(), signal.SIGINT)

  with monkeypatch.context() as patch:
    patch.setattr(loop.Run, 'end_line', end_line_and_be_stopped)
    with pytest.raises(Stopped) as stop:
      loop.train_and_evaluate(tiny_config(), tmp_path)
  assert stop.value.signum == signal.SIGINT
  assert checkpoint.steps(tmp_path / 'checkpoints') == [10]
  loop.train_and_evaluate(tiny_config(), tmp_path)
  assert_same_run(tmp_path, finished[0])


def test_a_validation_cut_short_is_done_by_the_run_that_goes_on(finished, tmp_path, monkeypatch):
  (whole, _), stopped = finished, tmp_path
  calls = []

  def evaluate_and_be_stopped(*args, progress, **kwargs):
    calls.append(1)
    if len(calls) == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return original(*args, progress=progress, **kwargs)

  original = inference.evaluate
  monkeypatch.setattr(inference, 'evaluate', evaluate_and_be_stopped)
  with pytest.raises(Stopped) as stop:
    loop.train_and_evaluate(tiny_config(), stopped)
  assert stop.value.signum == signal.SIGTERM
  result = loop.train_and_evaluate(tiny_config(), stopped)
  assert lines(stopped) == lines(whole)
  assert loop.train_and_evaluate(tiny_config(), stopped) == result
  assert len(calls) == 3  # two epochs, and once more


def test_where_no_checkpoint_can_be_read_nothing_is_touched(finished_copy):
  tmp_path, _ = finished_copy
  before = (tmp_path / 'metrics.jsonl').read_bytes()
  for step in (23, 45):
    truncate(data_file(tmp_path, step))
  with pytest.raises(UserError, match='none of the checkpoints'):
    loop.train_and_evaluate(tiny_config(), tmp_path)
  assert checkpoint.steps(tmp_path / 'checkpoints') == [23, 45]
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_parameters_that_are_no_numbers_are_not_saved_and_the_mistake_can_be_corrected(tmp_path):
  with pytest.raises(loop.NotFiniteError):
    loop.train_and_evaluate(tiny_config({'optimizer.learning_rate': 1e30}), tmp_path)
  assert checkpoint.steps(tmp_path / 'checkpoints') == []
  config = tiny_config({'train.num_steps': 5})
  assert loop.train_and_evaluate(config, tmp_path)['step'] == 5
  assert workdir.read_config(tmp_path) == experiment.resolved(config)


def test_a_config_json_that_was_edited_is_not_taken_for_the_network_s(finished_copy):
  path, _ = finished_copy
  config = tiny_config({'model.activation': 'tanh'})
  workdir.write_config(path, experiment.resolved(config))
  for use in (evaluate.evaluate_workdir, plot_run.draw, lambda p, c: loop.train_and_evaluate(c, p)):
    with pytest.raises(UserError, match=r'checkpoints/\d+ holds another experiment: model\.activ'):
      use(path, config)


def test_a_run_that_has_lost_its_metrics_says_so(finished_copy, capfd):
  path, _ = finished_copy
  kept = lines(path)
  (path / 'metrics.jsonl').unlink()
  loop.train_and_evaluate(tiny_config(), path)
  said = capfd.readouterr().err
  assert f'metrics.jsonl has lost {len(kept)} of the {len(kept)} lines that it had' in said
  assert 'finished at step 45' in said


@pytest.mark.parametrize(
  ('length', 'words'),
  [
    (
      {'train.num_epochs': 1, 'train.num_steps': None},
      r'epoch 2, but train\.num_epochs is 1; give train\.num_epochs=2, or more',
    ),
    (
      {'train.num_steps': 7},
      r'step 45, but train\.num_steps is 7; give train\.num_steps=None, or at least 45',
    ),
  ],
)
def test_a_run_that_is_past_its_new_end_is_left_as_it_is(finished_copy, length, words):
  path, _ = finished_copy
  before = {file: file.read_bytes() for file in path.iterdir() if file.is_file()}
  with pytest.raises(UserError, match=f'{path} has been trained to {words}'):
    loop.train_and_evaluate(tiny_config(length), path)
  assert {file: file.read_bytes() for file in path.iterdir() if file.is_file()} == before


def test_another_experiment_does_not_resume_where_config_json_is_gone(finished_copy):
  path, _ = finished_copy
  (path / 'config.json').unlink()
  with pytest.raises(
    UserError, match=r'checkpoints/45 holds another experiment: optimizer\.momentum'
  ):
    loop.train_and_evaluate(tiny_config({'optimizer.momentum': 0.5}), path)
  with pytest.raises(
    UserError, match=r'checkpoints/45 holds another experiment: model\.num_columns'
  ):
    loop.train_and_evaluate(tiny_config({'model.num_columns': 1}), path)
  assert loop.train_and_evaluate(tiny_config(), path)['step'] == 45
  assert workdir.read_config(path) == experiment.resolved(tiny_config())


def test_a_run_with_values_that_new_ones_must_not_have_is_resumed_and_evaluated(
  tmp_path, monkeypatch
):
  old = {'train.seed': 2**33, 'checkpoint.every_steps': 0, 'optimizer.patience': 0}
  config = tiny_config({**old, 'train.num_steps': 1})
  with monkeypatch.context() as earlier:
    earlier.setattr(experiment, 'check_new', lambda config: None)
    loop.train_and_evaluate(config, tmp_path)
  config.train.num_steps = 2
  assert loop.train_and_evaluate(config, tmp_path)['step'] == 2
  assert evaluate.evaluate_workdir(tmp_path, config)['images'] == 359


def test_another_experiment_does_not_replace_a_checkpoint_that_was_being_replaced(finished_copy):
  path, _ = finished_copy
  shutil.rmtree(path / 'checkpoints' / '23')
  (path / 'checkpoints' / '45').rename(path / 'checkpoints' / 'replaced-45')
  with pytest.raises(UserError, match=r'holds another experiment: optimizer\.momentum'):
    loop.train_and_evaluate(tiny_config({'optimizer.momentum': 0.5}), path)
  assert loop.train_and_evaluate(tiny_config(), path)['step'] == 45


def test_a_run_goes_on_with_the_statistics_of_its_checkpoint(finished, finished_copy):
  path, _ = finished_copy
  (path / 'statistics.npz').unlink()
  shutil.rmtree(path / 'checkpoints' / '45')
  loop.train_and_evaluate(tiny_config(), path)
  assert_same_run(path, finished[0])
  assert not (path / 'statistics.npz').exists()


def one_step(**overrides):
  """A config of a run that ends after a step."""
  return tiny_config({'train.num_steps': 1, **overrides})


def statistics_of_digits(path):
  """As a new run in `path` has them."""
  with Display() as display, Signals(None) as signals:
    return resume.compute_statistics(included.digits('train'), path, display, signals)


@pytest.mark.parametrize('there', ['of another size', 'damaged'])
def test_statistics_that_do_not_fit_are_computed_again_and_it_says_so(tmp_path, capfd, there):
  file = tmp_path / 'statistics.npz'
  if there == 'damaged':
    file.write_bytes(b'PK')
  else:
    other = np.zeros((2, 9, 9, 3), np.uint8)
    split = splits.ArraySplit(other, np.zeros(2, np.int32), ['a'])
    statistics.save(file, pipeline.statistics(split))
  computed = statistics_of_digits(tmp_path)
  [line] = [line for line in capfd.readouterr().err.splitlines() if str(file) in line]
  assert line.endswith('computing it again')
  assert ('of images of 9 x 9 pixels' if there == 'of another size' else 'cannot be read') in line
  expected = pipeline.statistics(included.digits('train'))
  for name, found in statistics.load(file, 8).items():
    np.testing.assert_array_equal(found, expected[name])
    np.testing.assert_array_equal(computed[name], expected[name])


def test_statistics_that_fit_are_not_computed_again(tmp_path, monkeypatch):
  expected = pipeline.statistics(included.digits('train'))
  statistics.save(tmp_path / 'statistics.npz', expected)
  monkeypatch.delattr(pipeline, 'statistics')
  for name, found in statistics_of_digits(tmp_path).items():
    np.testing.assert_array_equal(found, expected[name])


def fewer(split):
  return dataclasses.replace(split, images=split.images[1:], labels=split.labels[1:])


def named_otherwise(split):
  return dataclasses.replace(split, class_names=[*split.class_names[::-1]])


def test_a_run_of_a_version_that_held_out_others_does_not_go_on(finished_copy, monkeypatch):
  path, _ = finished_copy
  before = (path / 'metrics.jsonl').read_bytes()
  monkeypatch.setattr(included.IncludedDataSet, 'held_out', True)
  with pytest.raises(UserError, match='older version, which held out other images') as refused:
    loop.train_and_evaluate(tiny_config({'train.num_epochs': 3}), path)
  assert len(str(refused.value).splitlines()) == 2
  assert 'another --workdir' in str(refused.value)
  assert (path / 'metrics.jsonl').read_bytes() == before


@pytest.mark.parametrize(
  ('held_out', 'train', 'validation', 'goes_on'),
  [
    (False, 'train', 'validation', True),
    (True, 'train', 'validation', False),
    (False, 'train[:90%]', 'train[90%:]', False),
  ],
)
def test_a_run_goes_on_with_other_files_unless_others_could_be_held_out(
  tmp_path, monkeypatch, capfd, held_out, train, validation, goes_on
):
  digits = included.digits
  monkeypatch.setattr(included, 'digits', lambda split: digits(split.split('[')[0]))
  monkeypatch.setattr(included.IncludedDataSet, 'held_out', held_out)
  given = {'data.train_split': train, 'data.validation_split': validation}
  monkeypatch.setattr(included.IncludedDataSet, 'fingerprint', 'of now')
  loop.train_and_evaluate(one_step(**given), tmp_path)
  before = (tmp_path / 'metrics.jsonl').read_bytes()
  monkeypatch.setattr(included.IncludedDataSet, 'fingerprint', 'of later')
  longer = one_step(**given, **{'train.num_steps': 2})
  if not goes_on:
    with pytest.raises(UserError, match='could be validated on images that it was') as refused:
      loop.train_and_evaluate(longer, tmp_path)
    assert len(str(refused.value).splitlines()) == 2
    assert (tmp_path / 'metrics.jsonl').read_bytes() == before
  else:
    assert loop.train_and_evaluate(longer, tmp_path)['step'] == 2
    said = 'have changed since checkpoint 1, but not the number of training images; resuming'
    assert said in capfd.readouterr().err


def more(split):
  return dataclasses.replace(
    split,
    images=np.concatenate([split.images, split.images[:2]]),
    labels=np.concatenate([split.labels, split.labels[:2]]),
  )


def renamed(split):
  return dataclasses.replace(split, class_names=['nil', *split.class_names[1:]])


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (fewer, '1,438 training images then, 1,437 now'),
    (more, '1,438 training images then, 1,440 now'),
    (named_otherwise, 'classes in another order'),
    (renamed, "classes that are gone: '0'; new classes: 'nil'"),
  ],
)
def test_a_run_does_not_go_on_with_other_data(finished_copy, monkeypatch, change, words):
  path, _ = finished_copy
  before = (path / 'metrics.jsonl').read_bytes()
  digits = included.digits
  monkeypatch.setattr(included, 'digits', lambda split: change(digits(split)))
  with pytest.raises(UserError) as refused:
    loop.train_and_evaluate(tiny_config({'train.num_epochs': 3}), path)
  message = str(refused.value)
  first, second = message.splitlines()
  assert first == f'{path / "checkpoints"} was trained on other data: {words}'
  assert '--workdir' in second
  assert (f'--config.train.init_from={path}' in second) == (change is more)
  assert (path / 'metrics.jsonl').read_bytes() == before


def test_the_first_lines_say_how_images_are_shuffled(finished_copy, capfd, monkeypatch):
  path, _ = finished_copy
  loop.train_and_evaluate(tiny_config(), path)
  assert '1,438 training and 359 validation images' in (first := capfd.readouterr().err)
  assert 'shuffled whole' in first
  monkeypatch.setattr(splits.ArraySplit, 'block_size', 1000)
  loop.train_and_evaluate(tiny_config(), path)
  assert 'shuffled in blocks of 1,000 images' in capfd.readouterr().err


def test_a_batch_of_more_than_all_images_is_said(tmp_path, capfd):
  loop.train_and_evaluate(tiny_config({'train.num_steps': 0, 'train.batch_size': 1440}), tmp_path)
  assert 'set train.batch_size to at most 1,438' in ' '.join(capfd.readouterr().err.split())


def test_rates_follow_a_rule_for_batches_and_are_cut_at_given_epochs_and_layers_freeze(
  tmp_path, capfd, monkeypatch
):
  monkeypatch.setattr(logger, '_SECONDS_BETWEEN_LINES', 0)
  changes = {
    'optimizer.batch_size_rule': 'sqrt',
    'optimizer.base_batch_size': 16,
    'optimizer.lr_decay_epochs': (1,),
    'optimizer.lr_multipliers.conv1': ((1, 0.0),),
    'train.num_steps': 40,
  }
  config = tiny_config(changes)
  loop.train_and_evaluate(config, tmp_path)
  err = capfd.readouterr().err
  assert 'learning rate 0.04 (0.02 x 2: sqrt rule, batch 64 instead of 16)' in err
  printed = [re.sub('%.*', '', line) for line in err.splitlines() if line.startswith('step')]
  assert printed[3] == 'step 24/40  learning rate 0.004'
  for line, step in zip(printed[:3] + printed[4:], (10, 20, 23, 30, 40), strict=True):
    assert re.fullmatch(rf'step {step}/40  train [\d. ]+', line)
  rates = {r['step']: r['learning_rate'] for r in lines(tmp_path) if r['split'] == 'train'}
  assert rates[23] == pytest.approx(0.04)  # the first epoch's last steps
  assert rates[30] == pytest.approx(0.004)
  first, last = params_at(tmp_path, 23, config), params_at(tmp_path, 40, config)
  np.testing.assert_array_equal(first['conv1']['kernel'], last['conv1']['kernel'])
  assert np.abs(first['conv3']['kernel'] - last['conv3']['kernel']).max() > 0
  with pytest.raises(UserError, match=r"batch_size_rule is 'sqrt' there and 'none'"):
    loop.train_and_evaluate(tiny_config(), tmp_path)


def test_the_rate_is_cut_when_the_validation_error_stalls(tmp_path):
  config = tiny_config(
    {
      'optimizer.lr_decay_epochs': (),
      'optimizer.learning_rate': 1e-8,  # nothing is learned
      'optimizer.patience': 1,
      'optimizer.max_lr_decays': 1,
      'train.num_epochs': 3,
    }
  )
  loop.train_and_evaluate(config, tmp_path)
  rates = [r['learning_rate'] for r in lines(tmp_path) if r['split'] == 'train']
  assert rates[0] == pytest.approx(1e-8)
  assert rates[-1] == pytest.approx(1e-9)


def test_the_number_of_classes_is_that_of_the_data(tmp_path):
  config = tiny_config({'train.num_steps': 1, 'model.num_classes': None})
  loop.train_and_evaluate(config, tmp_path)
  assert config.model.num_classes is None
  assert workdir.read_config(tmp_path)['model']['num_classes'] == 10
  # The run goes on, and is evaluated, with the number left open, or not.
  assert loop.train_and_evaluate(tiny_config({'train.num_steps': 1}), tmp_path)['step'] == 1
  assert evaluate.evaluate_workdir(tmp_path, config)['members'][0]['step'] == 1


def test_the_wrong_number_of_classes_is_named(tmp_path):
  with pytest.raises(UserError, match=r'10 classes.*--config\.model\.num_classes=10'):
    loop.train_and_evaluate(tiny_config({'model.num_classes': 12}), tmp_path)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('train.log_every_steps', 0),
    ('train.batch_size', 0),
    ('train.gradient_accumulation_steps', 0),
    ('data.image_size', 0),
    ('data.memory_megabytes', 0),
    ('train.seed', -1),
    ('train.seed', 2**32),
    ('train.num_epochs', 0),
    ('train.num_steps', -1),
    ('augment.images_per_draw', 0),
    ('augment.crop_offsets', 0),
    ('checkpoint.keep', 0),
    ('checkpoint.every_steps', 0),
    ('augment.lighting.std', (0, 0.1)),
    ('augment.lighting.std', ((0, -0.1),)),
    ('augment.lighting.std', ((0, 0.1), (2.16, 0.0))),
    ('optimizer.learning_rate', -0.01),
    ('optimizer.momentum', 9.0),
    ('optimizer.weight_decay', -0.1),
    ('optimizer.patience', 0),
    ('optimizer.max_lr_decays', -1),
    ('optimizer.lr_decay_epochs', (6.5,)),
    ('model.response_norm.k', 0.0),
    ('model.within_norm.alpha', -1.0),
    ('optimizer.lr_multipliers.conv1', ((0, 'x'),)),
    ('optimizer.lr_decay_epochs', ('a',)),
    ('optimizer.lr_multipliers.conv1', (0.1,)),
    ('optimizer.lr_decay_factor', 0.0),
    ('optimizer.weight_decay', float('nan')),
    ('optimizer.weight_decay_multipliers.conv1', -1.0),
    ('augment.pixel_scale', float('nan')),
    ('augment.pixel_scale', (1.0, float('inf'), 1.0)),
    ('augment.lighting.std', ((0, float('inf')),)),
    ('model.fc6.bias', float('nan')),
    ('model.response_norm.beta', float('inf')),
    ('train.profile_steps', (3,)),
    ('train.profile_steps', (0, 2)),
    ('train.profile_steps', (3, 2)),
    ('train.profile_steps', (1.5, 2)),
  ],
)
def test_a_value_that_cannot_be_used_is_named(tmp_path, field, value):
  with pytest.raises(UserError, match=f'^{re.escape(field)} is {re.escape(repr(value))}; it must'):
    loop.train_and_evaluate(tiny_config({field: value}), tmp_path)


@pytest.mark.parametrize(
  ('field', 'value', 'may_be'),
  [
    ('data.encoding', 'webp', "'auto', 'jpeg', 'png'"),
    ('data.unreadable_limit', -0.1, 'from 0 to 1'),
    ('data.unreadable_limit', 1.5, 'from 0 to 1'),
    ('data.unreadable_limit', float('nan'), 'from 0 to 1'),
    ('data.class_depth', 0, 'None, 1, 2 or more'),
  ],
)
def test_what_a_value_may_be_is_named(field, value, may_be):
  with pytest.raises(
    UserError, match=f'^{re.escape(field)} is {re.escape(repr(value))}; it .*'
  ) as refused:
    experiment.check(tiny_config({field: value}))
  assert may_be in str(refused.value)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'data.image_size': 32}, 'set data.image_size to 8, not 32'),
    ({'data.train_split': 'test'}, "'validation', not 'test'"),
  ],
)
def test_digits_have_one_size_and_two_splits(tmp_path, change, words):
  with pytest.raises(UserError, match=words):
    loop.train_and_evaluate(tiny_config(change), tmp_path)


def traced_steps(path):
  """The numbers of the steps in the one trace of a run."""
  [trace] = (path / 'profile').rglob('*.xplane.pb')
  assert list(trace.parent.glob('perfetto_trace.json.gz'))
  with warnings.catch_warnings():
    # jaxlib makes the type of `event.stats` when it is first asked for. Python 3.12 and later warn
    # of how it does, and the warning as an error, inside C++, would abort the interpreter.
    warnings.filterwarnings('ignore', 'builtin type event_stats', DeprecationWarning)
    return sorted(
      dict(event.stats)['step_num']
      for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
      for line in plane.lines
      for event in line.events
      if event.name == 'train'
    )


def test_a_trace_has_the_steps_that_were_asked_for(tmp_path, capfd):
  config = tiny_config({'train.num_steps': 6, 'train.profile_steps': (3, 4)})
  loop.train_and_evaluate(config, tmp_path)
  assert traced_steps(tmp_path) == [3, 4]
  [line] = [line for line in capfd.readouterr().err.splitlines() if 'ui.perfetto.dev' in line]
  assert f'steps 3 to 4 in {tmp_path}/profile/' in line
  config.train.profile_steps, config.train.num_steps = (1, 2), 7  # they are past
  loop.train_and_evaluate(config, tmp_path)
  assert traced_steps(tmp_path) == [3, 4]
  said = capfd.readouterr().err
  assert 'train.profile_steps (1, 2) are past: the run is at step 6, and nothing is traced' in said


@pytest.mark.slow
def test_a_run_that_ends_within_the_steps_to_trace_leaves_what_there_is(tmp_path, capfd):
  config = tiny_config({'train.num_steps': 3, 'train.profile_steps': (2, 10)})
  loop.train_and_evaluate(config, tmp_path / 'ended')
  assert traced_steps(tmp_path / 'ended') == [2, 3]
  assert 'steps 2 to 3 in' in capfd.readouterr().err
  config.optimizer.learning_rate = 1e30
  with pytest.raises(loop.NotFiniteError):
    loop.train_and_evaluate(config, tmp_path / 'failed')
  assert traced_steps(tmp_path / 'failed')[0] == 2


def test_steps_to_trace_that_the_run_does_not_reach_are_named(tmp_path):
  config = tiny_config({'train.num_steps': 3, 'train.profile_steps': (5, 6)})
  with pytest.raises(UserError, match=r'profile_steps is \(5, 6\), but the run ends with step 3;'):
    loop.train_and_evaluate(config, tmp_path)


def test_a_batch_that_does_not_divide_is_named(tmp_path):
  config = tiny_config({'train.batch_size': 63, 'mesh.data_devices': 2})
  with pytest.raises(UserError, match='batch_size=63 does not divide over 2'):
    loop.train_and_evaluate(config, tmp_path)


def test_microbatches_that_do_not_divide_are_named(tmp_path):
  changes = {'train.gradient_accumulation_steps': 3, 'mesh.data_devices': 2}
  with pytest.raises(
    UserError,
    match=r'steps=3 does not divide the 32 images .* it must be one of 1, 2, 4, 8, 16, 32$',
  ):
    loop.train_and_evaluate(tiny_config(changes), tmp_path)


@pytest.mark.slow
def test_a_run_goes_on_with_other_microbatches(tmp_path):
  for steps, in_parts in ((2, 1), (4, 4)):
    changes = {'train.num_steps': steps, 'train.gradient_accumulation_steps': in_parts}
    result = loop.train_and_evaluate(tiny_config(changes), tmp_path / 'parts')
  whole = loop.train_and_evaluate(tiny_config({'train.num_steps': 4}), tmp_path / 'whole')
  assert result['step'] == whole['step'] == 4
  assert result['loss'] == pytest.approx(whole['loss'], rel=1e-5)
  assert_close(*(params_at(tmp_path / name, 4, tiny_config()) for name in ('whole', 'parts')), 1e-5)


@pytest.mark.parametrize(
  'config', [None, {}, tiny_config().to_dict()], ids=['None', 'empty', 'dict']
)
def test_what_is_no_config_is_named(tmp_path, config):
  with pytest.raises(
    UserError, match=r'the config is of type .*; pass a ConfigDict, such as digits'
  ):
    loop.train_and_evaluate(config, tmp_path)


@pytest.mark.parametrize(
  ('field', 'advice'),
  [
    ('mesh.column_devices', r'start from imagenet\.'),
    ('train.seed', r'start from imagenet\.'),
    ('model.num_columns', r'start from imagenet\.'),
    ('model.pool.layers', r'to change some fields of model\.pool, use config\.model\.pool\.update'),
  ],
)
def test_a_field_that_a_config_lacks_is_named(tmp_path, field, advice):
  config = tiny_config()
  *sections, name = field.split('.')
  with config.unlocked():
    del functools.reduce(getattr, sections, config)[name]
  with pytest.raises(UserError, match=rf'^the config has no field {field}; {advice}'):
    loop.train_and_evaluate(config, tmp_path)


def test_of_a_config_without_sections_a_field_is_named(tmp_path):
  with pytest.raises(UserError, match=r'^the config has no field model\.input_size; start from'):
    loop.train_and_evaluate(ConfigDict({'optimizer': {'learning_rate': 0.1}}), tmp_path)


def test_too_few_devices_are_named(tmp_path):
  with pytest.raises(UserError, match=r'there are 4 cpu devices.*needs 8'):
    loop.train_and_evaluate(
      tiny_config({'mesh.data_devices': 4, 'mesh.column_devices': 2}), tmp_path
    )


def test_a_workdir_that_cannot_be_used_is_refused_before_data_are_opened(
  finished_copy, monkeypatch
):
  path, _ = finished_copy
  (path / 'file').write_text('')

  def open_data(*_):
    raise AssertionError('the data are opened')

  monkeypatch.setattr(experiment, 'open_data', open_data)
  with pytest.raises(
    UserError, match=r"holds another .*model.activation is 'relu' there and 'tanh'"
  ):
    loop.train_and_evaluate(tiny_config({'model.activation': 'tanh'}), path)
  with pytest.raises(UserError, match='cannot write to the workdir'):
    loop.train_and_evaluate(tiny_config(), path / 'file' / 'run')
  with workdir.lock(path), pytest.raises(UserError, match='another process is at work'):
    loop.train_and_evaluate(tiny_config({'train.num_epochs': 3}), path)
  with pytest.raises(AssertionError, match='the data are opened'):  # it can be used
    loop.train_and_evaluate(tiny_config({'model.num_classes': None}), path)
