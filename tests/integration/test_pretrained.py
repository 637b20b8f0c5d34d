"""A trained network is read from workdirs, checkpoints and files; errors say what is wrong."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alexnet_jax
from alexnet_jax import experiment
from alexnet_jax.checkpoints import checkpoint, pretrained, safetensors_file
from alexnet_jax.checkpoints import workdir as run_files
from alexnet_jax.training import fine_tuning, loop
from alexnet_jax.utils.errors import UserError
from tests.small import random_params, small_config
from tests.trained import write_run


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Of a run on two devices, with two checkpoints, of which the second is the best."""
  path = tmp_path_factory.mktemp('run')
  write_run(path, small_config({'mesh.column_devices': 2}), steps=(7, 10))
  return path


@pytest.fixture
def file(workdir, tmp_path):
  path = tmp_path / 'net.safetensors'
  pretrained.write(path, pretrained.read(workdir))
  return path


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, (a.params, a.statistics), (b.params, b.statistics))
  assert a.config.to_dict() == b.config.to_dict()
  assert (list(a.class_names), a.step) == (list(b.class_names), b.step)


def test_workdir_checkpoints_checkpoint_and_file_are_the_same_network(workdir, file):
  best = pretrained.read(workdir)
  assert best.step == 10
  assert list(best.class_names) == list('0123456789')
  assert best.config.model.conv1.features == 16
  for other in (workdir / 'checkpoints', workdir / 'checkpoints' / '10', file, str(file)):
    assert_same(best, pretrained.read(other))


def test_all_lies_on_the_first_device(workdir, file):
  for path in (workdir, file):
    params = jax.tree.leaves(pretrained.read(path).params)
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in params)


def test_a_damaged_best_checkpoint_is_skipped_with_a_message(workdir, tmp_path):
  copy = tmp_path / 'run'
  shutil.copytree(workdir, copy)
  for data in (copy / 'checkpoints' / '10' / 'params').rglob('d/*'):
    data.write_bytes(data.read_bytes()[:100])
  messages = []
  assert pretrained.read(copy, log=messages.append).step == 7
  assert messages[0].startswith('checkpoint 10 is damaged')
  with pytest.raises(UserError, match=r'is damaged .* use another checkpoint'):
    pretrained.read(copy / 'checkpoints' / '10')


def test_a_safetensors_file_in_the_home_folder_is_written_and_read(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  safetensors_file.write('~/a.safetensors', {'a': np.ones(2)}, {'b': 'c'})
  assert safetensors_file.read_arrays('~/a.safetensors')['a'].tolist() == [1, 1]
  assert safetensors_file.read_metadata(tmp_path / 'a.safetensors') == {'b': 'c'}


def rewrite(file, change):
  arrays, metadata = safetensors_file.read_arrays(file), safetensors_file.read_metadata(file)
  description = json.loads(metadata['alexnet_jax'])
  change(arrays, description)
  safetensors_file.write(file, arrays, {'alexnet_jax': json.dumps(description)})


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda arrays, _: arrays.pop('conv3.bias'), 'has no conv3.bias'),
    (lambda arrays, _: arrays.update({'fc6.bias': np.zeros(3, np.float32)}), r'float32\[3\], not'),
    (lambda arrays, _: arrays.update({'fc6.bias': np.zeros(64)}), r'is float64\[64\], not float32'),
    (lambda _, description: description.update(version=2), 'newer alexnet_jax; upgrade'),
    (lambda _, description: description.update(version='x'), 'description that cannot be read'),
    (lambda _, description: description.update(version=math.inf), 'its version is not an integer'),
    (lambda _, description: description.pop('class_names'), 'description that cannot be read'),
    (
      lambda _, description: description['class_names'].pop(),
      'class names: 9 instead of 10',
    ),
    (
      lambda _, description: description.update(class_names=[1] * 10),
      'cannot be read: class names',
    ),
    (
      lambda _, description: description['class_names'].__setitem__(0, '9'),
      "class names: '9' is there more than once",
    ),
    (lambda _, description: description.update(class_names=['\ud800'] * 10), 'cannot be read'),
    (lambda _, description: description.update(step='x'), 'cannot be read: step or config'),
    (lambda _, description: description.update(step=10**400), 'a number has 401 digits'),
    (
      lambda _, description: description['config']['model']['response_norm'].update(size=10**17),
      r'model\.response_norm\.size is .* must be at most 1000',
    ),
    (
      lambda _, description: description['config']['optimizer'].update(learning_rate='x'),
      r"cannot be used: optimizer\.learning_rate is 'x'",
    ),
    (
      lambda _, description: description['config']['train'].update(num_epochs=2.5),
      r'cannot be used: train\.num_epochs is 2\.5',
    ),
    (
      lambda _, description: description['config']['data'].update(image_size=8.0),
      r'cannot be used: data\.image_size is 8\.0',
    ),
    (
      lambda _, description: description['config']['optimizer'].update(weight_decay='x'),
      r"cannot be used: optimizer\.weight_decay is 'x'",
    ),
    (
      lambda _, description: description['config']['model']['conv2'].update(features=[]),
      r'cannot be used: model\.conv2\.features is \(\); it must be a whole number',
    ),
    (lambda _, description: description.update(config={'model': {}}), 'not one of this version'),
    (
      lambda _, description: description['config']['model'].update(activation='gelu'),
      'cannot be used: model.activation',
    ),
  ],
)
def test_a_file_that_does_not_fit_is_named_with_what_is_wrong(file, change, words):
  rewrite(file, change)
  with pytest.raises(UserError, match=words):
    pretrained.read(file)


def test_a_file_cut_short_is_no_file(file):
  file.write_bytes(file.read_bytes()[:-1])
  with pytest.raises(UserError, match='not a safetensors file, or is incomplete'):
    pretrained.read(file)


def test_a_file_of_another_project_must_be_converted(tmp_path):
  safetensors_file.write(tmp_path / 'x.safetensors', {'features.0.weight': np.zeros(1)}, {})
  with pytest.raises(UserError, match='not written by alexnet_jax; convert it first'):
    pretrained.read(tmp_path / 'x.safetensors')


def test_a_missing_file_or_checkpoint_is_named(tmp_path):
  with pytest.raises(UserError, match=r'there is no .*nowhere'):
    pretrained.read(tmp_path / 'nowhere')
  with pytest.raises(UserError, match='no complete checkpoint; train first'):
    pretrained.read(tmp_path)
  (tmp_path / 'default').mkdir()  # as Orbax's own checkpoints have
  with pytest.raises(UserError, match=r'is not a workdir: .* pretrained\.write'):
    pretrained.read(tmp_path)


@pytest.mark.parametrize('run', ['digits', 'dropout_0/seed0'])
def test_a_folder_of_runs_is_answered_with_one_of_them(tmp_path, run):
  (tmp_path / run / 'checkpoints').mkdir(parents=True)
  with pytest.raises(UserError, match=rf'is a folder of runs; give one of them, .*/{run}$'):
    pretrained.read(tmp_path)


def test_a_file_is_written_completely_or_not_at_all(workdir, tmp_path):
  network = pretrained.read(workdir)
  pretrained.write(tmp_path / 'net.safetensors', network)
  assert [path.name for path in tmp_path.iterdir()] == ['net.safetensors']
  with pytest.raises(UserError, match='cannot write'):
    pretrained.write(tmp_path / 'net.safetensors' / 'net.safetensors', network)


@pytest.mark.parametrize(
  'content',
  [[], {}, {'config': {}, 'class_names': [], 'step': 'x'}, {'config': 1, 'class_names': 2}],
)
def test_a_complete_checkpoint_that_describes_no_network_is_damaged(tmp_path, content):
  writer = checkpoint.Writer(tmp_path / 'checkpoints', 1)
  writer.save(1, {'params': {'x': np.zeros(2)}}, content, None)
  writer.close()
  with pytest.raises(UserError, match='no complete checkpoint'):
    pretrained.read(tmp_path)
  with pytest.raises(UserError, match=r'1 is damaged .* use another'):
    pretrained.read(tmp_path / 'checkpoints' / '1')


def test_a_checkpoint_of_a_newer_format_asks_for_an_upgrade(workdir, monkeypatch, tmp_path):
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, 'FORMAT', 2)
    writer = checkpoint.Writer(tmp_path / 'checkpoints', 1)
    writer.save(3, {}, {'progress': {'best_step': 3}}, 3)
    writer.close()
  with pytest.raises(UserError, match='written by a newer alexnet_jax; upgrade'):
    pretrained.read(tmp_path)


# As the version that wrote the checkpoint of format 1 had them: two images' logits, and the loss of
# the two steps after it.
FORMAT1 = Path(__file__).parents[1] / 'data' / 'format1'
FORMAT1_DIGEST = 'f7cc4394525ef89ade7c3bf55e6836f07444d8633a2a33b9fc346003404e77aa'
FORMAT1_LOGITS = [
  [-0.7125, -0.7549, -2.4882, 0.2949, -0.8580, 2.1562, -2.3165, 2.9675, 1.2176, 1.8446],
  [0.3005, -2.4774, -4.7748, -2.7548, 3.6678, 2.5389, -0.1871, 4.9745, 2.0779, 3.9592],
]
FORMAT1_LOSS = 0.6859549283981323


def test_a_checkpoint_of_format_1_is_read_and_predicts_as_it_did():
  classifier = alexnet_jax.load(FORMAT1)
  assert classifier.step == 300
  assert list(classifier.class_names) == list('0123456789')
  assert checkpoint.digest(classifier.params) == FORMAT1_DIGEST
  images = (np.arange(2 * 8 * 8 * 3) * 7 % 256).reshape(2, 8, 8, 3).astype(np.uint8)
  np.testing.assert_allclose(classifier.logits(images), FORMAT1_LOGITS, atol=1e-3)


def test_a_run_resumes_from_a_checkpoint_of_format_1_as_it_did(tmp_path):
  """As with `--workdir` alone: with the stored config, which lacks fields that were added since."""
  shutil.copytree(FORMAT1, tmp_path / 'run')
  config = experiment.from_resolved(run_files.read_config(tmp_path / 'run'))
  config.train.num_steps = 302
  assert loop.train_and_evaluate(config, tmp_path / 'run')['step'] == 302
  [line] = [
    record
    for record in run_files.read_metrics(tmp_path / 'run')
    if record['split'] == 'train' and record['step'] == 302
  ]
  assert line['loss'] == pytest.approx(FORMAT1_LOSS, rel=1e-3)


def on_digits(**updates):
  config = small_config({f'model.{field}': value for field, value in updates.items()})
  net = experiment.make_network(config)
  return jax.tree.map(jnp.asarray, random_params(net)), net.num_columns


def test_layers_whose_shapes_match_are_loaded(workdir):
  source = pretrained.read(workdir)
  initial, columns = on_digits(num_classes=6, **{'conv4.features': 16, 'conv6.features': 4})
  loaded, taken, reasons = fine_tuning.load_matching_layers(
    initial, columns, source.class_names, source
  )
  assert taken == ['conv1', 'conv2', 'conv3', 'fc7']
  assert reasons == {
    'conv4': '3x3x16x16, pretrained 3x3x16x32',
    'conv5': '3x3x8x32, pretrained 3x3x16x32',
    'conv6': 'not pretrained',
    'fc6': '4x64, pretrained 32x64',
    'fc8': '64x6, pretrained 64x10',
  }
  expected = {layer: (source.params if layer in taken else initial)[layer] for layer in initial}
  jax.tree.map(np.testing.assert_array_equal, loaded, expected)


def test_maps_of_one_column_are_not_read_as_those_of_two(workdir):
  initial, columns = on_digits(num_columns=1, one_column_halves=())
  source = pretrained.read(workdir)
  _, taken, reasons = fine_tuning.load_matching_layers(initial, columns, source.class_names, source)
  assert reasons['fc6'] == 'inputs ordered for num_columns=1, pretrained 2'
  assert taken == ['conv1', 'conv3', 'fc7', 'fc8']


def test_outputs_for_other_classes_are_not_loaded(workdir):
  source = pretrained.read(workdir)
  initial, columns = on_digits()
  names = ['zero', *source.class_names[1:]]
  loaded, taken, reasons = fine_tuning.load_matching_layers(initial, columns, names, source)
  assert reasons == {'fc8': "pretrained for other classes; '0' is not in both"}
  assert 'fc7' in taken
  jax.tree.map(np.testing.assert_array_equal, loaded['fc8'], initial['fc8'])


def test_outputs_for_the_same_classes_in_another_order_are_put_in_it(workdir):
  source = pretrained.read(workdir)
  initial, columns = on_digits()
  names = ['3', '0', '1', '2', *'987654']
  loaded, taken, reasons = fine_tuning.load_matching_layers(initial, columns, names, source)
  assert (taken[-1], reasons) == ('fc8', {})
  for label, name in enumerate(names):
    for kind in ('kernel', 'bias'):
      np.testing.assert_array_equal(
        loaded['fc8'][kind][..., label], source.params['fc8'][kind][..., int(name)]
      )


def test_a_file_from_before_a_field_was_added_is_read(file):
  expected = pretrained.read(file)
  rewrite(file, lambda _, description: description['config']['model'].pop('bottleneck'))
  read = pretrained.read(file)
  jax.tree.map(np.testing.assert_array_equal, read.params, expected.params)
  assert experiment.make_network(read.config) == experiment.make_network(expected.config)


def test_a_network_that_could_not_be_read_again_is_not_written(workdir, tmp_path):
  network = pretrained.read(workdir)
  half = jax.tree.map(lambda array: array.astype(jnp.bfloat16), network.params)
  with pytest.raises(UserError, match=r'conv1.* in the network is bfloat16.*, not float32'):
    pretrained.write(tmp_path / 'x.safetensors', dataclasses.replace(network, params=half))
  nowhere = jax.tree.map(lambda array: array * jnp.nan, network.params)
  for changes, words in (
    ({'class_names': ['a', 'b']}, 'the network .* class names: 2 instead of 10'),
    ({'class_names': ['a'] * 10}, "class names: 'a' is there more than once"),
    ({'params': nowhere}, 'in the network has values that are not finite numbers'),
  ):
    with pytest.raises(UserError, match=words):
      pretrained.write(tmp_path / 'x.safetensors', dataclasses.replace(network, **changes))
  assert not list(tmp_path.iterdir())
