"""Ten views against a plain loop in numpy; evaluation of runs, files and ensembles; stored predictions."""

import contextlib
import csv
import dataclasses
import itertools
import json
import re
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import alexnet_jax
from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained
from alexnet_jax.data import augment, datasets, folder_layout, included, pipeline, splits
from alexnet_jax.evaluation import evaluate, given_images, inference, predictions
from alexnet_jax.parallel import mesh
from alexnet_jax.training import loop
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError
from configs import cifar10, imagenet
from tests import stored
from tests.launching import launch
from tests.small import small_config, tiny_config
from tests.stored import noise
from tests.trained import add_checkpoint, random_network, write_run


def predict(network, split, devices=(1, 1), batch_size=16, progress=lambda images: None):
  config = network.config
  net = experiment.make_network(config)
  on = mesh.make_mesh(config.model.num_columns, *devices)
  step = inference.make_view_step(net, on, experiment.augment_options(config))
  specs = (mesh.parameter_specs(network.params), mesh.REPLICATED)
  params, statistics = jax.device_put(
    (network.params, network.statistics), mesh.shardings(on, specs)
  )
  return inference.predict(
    step,
    params,
    statistics,
    split,
    batch_size=batch_size,
    crop_size=net.input_size,
    mesh=on,
    progress=progress,
  )


def all_images(split):
  with contextlib.closing(pipeline.whole_images(split)) as batches:
    read = list(batches)
  return tuple(np.concatenate([batch[name] for batch in read]) for name in ('image', 'label'))


def softmax(logits):
  exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
  return exponentials / exponentials.sum(axis=1, keepdims=True)


def plain_predictions(network, split):
  """Probabilities by center crop and by ten views, view by view in the source's order, in float64."""
  config, net = network.config, experiment.make_network(network.config)
  apply = jax.jit(lambda pixels: net.apply({'params': network.params}, pixels)[0])
  images, _ = all_images(split)
  mean_image = np.asarray(network.statistics.mean_image, np.float64)
  size, last = net.input_size, split.image_size - net.input_size
  half = last // 2
  offsets = [(0, 0), (0, last), (half, half), (last, 0), (last, last)]
  by_view = []
  for mirrored, (row, column) in itertools.product((False, True), offsets):
    mean = mean_image[row : row + size, column : column + size]  # at the crop's own place
    if config.augment.mean == 'channel':
      mean = mean_image.mean(axis=(0, 1))
    if mirrored and config.augment.mean == 'pixel':
      mean = mean[:, ::-1]
    if config.augment.mean == 'center':
      mean = mean_image[half : half + size, half : half + size]
    crops = images[:, row : row + size, column : column + size]
    pixels = config.augment.pixel_scale * ((crops[:, :, ::-1] if mirrored else crops) - mean)
    by_view.append(softmax(np.asarray(apply(pixels.astype(np.float32)), np.float64)))
  return by_view[2], np.mean(by_view, axis=0)


def plain_errors(probabilities, labels):
  ahead = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1)
  return np.mean(ahead >= 1), np.mean(ahead >= 5)


def assert_plain(network, split, predicted):
  """Compares predictions with plain_predictions, for every image."""
  center_crop, ten_views = plain_predictions(network, split)
  _, labels = all_images(split)
  np.testing.assert_array_equal(predicted.labels, labels)
  np.testing.assert_allclose(predicted.center_crop, center_crop, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(predicted.ten_views, ten_views, rtol=1e-4, atol=1e-6)
  errors, _ = predictions.errors(predicted)
  for name, probabilities in (('center_crop', center_crop), ('ten_views', ten_views)):
    top1, top5 = plain_errors(probabilities, labels)
    assert (errors[name]['top1_error'], errors[name]['top5_error']) == (top1, top5)
    loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    assert errors[name]['loss'] == pytest.approx(loss, rel=1e-4)


IMAGES, SIZE, INPUT = 50, 10, 7  # offsets of 0, 1 and 3: the center is not a corner


@pytest.fixture(scope='module')
def split():
  rng = np.random.default_rng(0)
  spots = rng.integers(0, 256, (IMAGES, 5, 5, 3), dtype=np.uint8)
  images = spots.repeat(SIZE // 5, axis=1).repeat(SIZE // 5, axis=2)
  labels = rng.integers(0, 10, IMAGES).astype(np.int32)
  return splits.ArraySplit(images, labels, included.DIGITS)


def network_of(split, **changes):
  config = tiny_config({'model.input_size': INPUT, 'data.image_size': SIZE, **changes})
  return random_network(config, split)


def test_the_paper_has_ten_views_of_256_pixels():
  views = augment.ten_views(256, 224)
  assert views[0] == ((16, 16), False)
  assert sorted(views) == sorted(
    (offset, mirrored)
    for offset in [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    for mirrored in (False, True)
  )


@pytest.mark.parametrize('mean', augment.MEANS)
def test_predictions_are_those_of_a_plain_loop_over_ten_crops(split, mean):
  network = network_of(split, **{'augment.mean': mean})
  predicted = predict(network, split)
  assert_plain(network, split, predicted)
  assert np.abs(predicted.center_crop - predicted.ten_views).max() > 0.01


@pytest.mark.parametrize('batch_size', [7, 128])
def test_any_batch_size_counts_every_image_once(split, batch_size):
  network, moved = network_of(split), []
  whole = predict(network, split, batch_size=IMAGES)
  predicted = predict(network, split, batch_size=batch_size, progress=moved.append)
  assert sum(moved) == IMAGES
  np.testing.assert_array_equal(predicted.labels, split.labels)
  np.testing.assert_allclose(predicted.center_crop, whole.center_crop, rtol=1e-5)
  np.testing.assert_allclose(predicted.ten_views, whole.ten_views, rtol=1e-5)


@pytest.mark.parametrize('devices', [(2, 1), (2, 2)])
def test_any_mesh_predicts_as_one_device_does(split, devices):
  network = network_of(split)
  one, many = predict(network, split), predict(network, split, devices)
  np.testing.assert_allclose(many.center_crop, one.center_crop, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(many.ten_views, one.ten_views, rtol=1e-4, atol=1e-6)


def test_at_most_two_batches_of_a_validation_are_in_flight(split):
  """On two emulated devices the 32nd launch would wait for what only comes after it."""
  network = random_network(tiny_config(), split)
  net, on = experiment.make_network(network.config), mesh.make_mesh(2, 2, 1)
  step = inference.make_evaluation_step(net, on, experiment.augment_options(network.config))
  outputs = []

  def watched(params, batch, statistics, sums):
    assert all(leaf.is_ready() for earlier in outputs[:-1] for leaf in earlier.values())
    outputs.append(step(params, batch, statistics, sums))
    return outputs[-1]

  params, statistics = jax.device_put(
    (network.params, network.statistics),
    mesh.shardings(on, (mesh.parameter_specs(network.params), mesh.REPLICATED)),
  )
  values = inference.evaluate(
    watched, params, statistics, split, batch_size=2, crop_size=net.input_size, mesh=on
  )
  assert len(outputs) == split.num_examples // 2 > 4
  assert 0 < values['top1_error'] <= 1


def test_mirrored_views_are_mirrored_as_in_training(split):
  """With an augmentation that always mirrors."""
  images = split.images
  statistics = network_of(split).statistics
  for mean in augment.MEANS:
    options = experiment.augment_options(tiny_config({'augment.mean': mean}))
    view = augment.View((1, 2), True)
    cut = images[:, 1 : 1 + INPUT, 2 : 2 + INPUT]
    pixels = augment.view_pixels(images, view, INPUT, statistics, options)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(augment, 'flip', lambda key, pixels, *_: pixels[:, :, ::-1])
      expected = augment.training_pixels(
        jax.random.key(0),
        cut,
        np.full((IMAGES, 2), (1, 2), np.int32),
        np.arange(IMAGES),
        statistics,
        np.float32(0),
        options,
      )
    np.testing.assert_allclose(pixels, expected, rtol=1e-6, atol=1e-6)


# Runs: workdirs with checkpoints, whose data are the digits.


def run_config(**changes):
  few_layers = {f'model.{name}.features': 0 for name in ('conv3', 'conv4', 'fc7')}
  sizes = {'model.input_size': 6, 'augment.crop_offsets': 1, 'mesh.data_devices': 1}
  return small_config({**few_layers, **sizes, **changes})


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """Three runs of different networks, not evaluated yet."""
  path = tmp_path_factory.mktemp('runs')
  write_run(path / 'a', run_config(), 1)
  write_run(path / 'b', run_config(**{'model.num_columns': 1, 'train.batch_size': 100}), 2)
  write_run(path / 'c', run_config(**{'augment.mean': 'channel', 'model.input_size': 7}), 3)
  return path


@pytest.fixture
def runs(written, tmp_path, monkeypatch):
  """Copies, in the folder in which the test runs."""
  shutil.copytree(written, tmp_path, dirs_exist_ok=True)
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def calls(monkeypatch):
  """The paths of the networks that were made to predict."""
  made, predict = [], evaluate._predict

  def counted(network, *args):
    made.append(Path(network.path).parents[1].name)
    return predict(network, *args)

  monkeypatch.setattr(evaluate, '_predict', counted)
  return made


def kept(path):
  with np.load(Path(path) / 'evaluation' / 'predictions.npz') as arrays:
    return {name: arrays[name] for name in arrays.files}


def test_a_run_is_evaluated_with_all_its_files(runs):
  errors = evaluate.evaluate_workdir('a', run_config())
  written = json.loads(Path('a/evaluation.json').read_text())
  assert written.pop('provenance')['versions']['jax'] == jax.__version__
  assert errors == written
  assert errors['images'] == 359
  assert (errors['data'], errors['split'], errors['classes']) == ('digits', 'validation', 10)
  [member] = errors['members']
  assert (member['path'], member['step']) == ('a', 10)
  for name in ('center_crop', 'ten_views'):
    assert errors[name] == member[name]

  split = included.digits('validation')
  arrays = kept('a')
  identity = json.loads(str(arrays.pop('identity')))
  assert identity['members'][0]['step'] == 10
  assert identity['class_names'] == list(included.DIGITS)
  predicted = predictions.Predictions(**arrays)
  assert_plain(pretrained.read('a'), split, predicted)
  lines = Path('a/evaluation/submission.txt').read_text().splitlines()
  order = np.argsort(-predicted.ten_views, axis=1)[:, :5] + 1
  assert lines == [' '.join(map(str, row)) for row in order]
  assert {path.name for path in Path('a/evaluation').iterdir()} == {
    'predictions.npz',
    'images.csv',
    'confusion.csv',
    'per_class.csv',
    'submission.txt',
  }


def test_where_and_in_what_batches_it_runs_may_change_and_nothing_else(runs):
  first = evaluate.evaluate_workdir('a', run_config())
  changes = {'train.batch_size': 50, 'mesh.column_devices': 1, 'model.num_classes': None}
  again = evaluate.evaluate_workdir('a', run_config(**changes))
  assert again['images'] == first['images'] == 359
  for name in ('top1_errors', 'top5_errors'):
    assert again['ten_views'][name] == first['ten_views'][name]
  with pytest.raises(
    UserError, match=r"augment\.mean is 'pixel' there and 'center' in this config"
  ):
    evaluate.evaluate_workdir('a', run_config(**{'augment.mean': 'center'}))


def test_a_run_is_evaluated_on_another_split(runs, calls):
  errors = evaluate.evaluate_workdir('a', run_config(**{'data.validation_split': 'train'}))
  assert (errors['split'], errors['images']) == ('train', 1438)
  assert_plain(
    pretrained.read('a'),
    included.digits('train'),
    predictions.Predictions(**{k: v for k, v in kept('a').items() if k != 'identity'}),
  )
  # An ensemble is of the split that its members were validated on.
  errors = evaluate.evaluate_ensemble(['a'], None, 'alone')
  assert (errors['split'], errors['images']) == ('validation', 359)
  assert calls == ['a', 'a']


def test_probabilities_that_no_memory_holds_are_refused_before_anything_is_read():
  split = SimpleNamespace(num_examples=10**9, class_names=range(10_184))
  with pytest.raises(
    UserError, match=r'10,184 classes needs 81,472\.0 GB of memory, but'
  ) as caught:
    inference.predict(None, None, None, split, batch_size=1, crop_size=1, mesh=None)
  assert 'data.validation_split' in str(caught.value)


def test_an_ensemble_is_numpys_average(runs):
  for weights in (None, [1, 1, 2], [0, 0.1, 0]):
    errors = evaluate.evaluate_ensemble(['a', 'b', 'c'], weights, 'together')
    each = [kept(name) for name in 'abc']
    together = kept('together')
    for name in ('center_crop', 'ten_views'):
      average = np.average([one[name] for one in each], axis=0, weights=weights)
      np.testing.assert_allclose(together[name], average, rtol=1e-5, atol=1e-7)
      top1, top5 = plain_errors(together[name], together['labels'])
      assert (errors[name]['top1_error'], errors[name]['top5_error']) == (top1, top5)
      for one, member in zip(each, errors['members'], strict=True):
        top1, top5 = plain_errors(one[name], one['labels'])
        assert (member[name]['top1_error'], member[name]['top5_error']) == (top1, top5)
    np.testing.assert_array_equal(together['labels'], included.digits('validation').labels)
    shares = np.array(weights or [1, 1, 1]) / sum(weights or [1, 1, 1])
    assert [member['weight'] for member in errors['members']] == pytest.approx(shares)
    assert [member['path'] for member in errors['members']] == ['a', 'b', 'c']
    assert 'compared_with_first' not in errors['members'][0]
    for name in ('center_crop', 'ten_views'):
      first = errors['members'][0][name]['top1_error']
      for one in (*errors['members'][1:], errors):
        compared = one['compared_with_first'][name]
        assert compared['top1_difference'] == pytest.approx(one[name]['top1_error'] - first)


def test_members_may_be_workdirs_checkpoints_and_files(runs):
  pretrained.write('c.safetensors', pretrained.read('c'))
  errors = evaluate.evaluate_ensemble(['a', 'b/checkpoints/10', 'c.safetensors'], None, 'mixed')
  plain = evaluate.evaluate_ensemble(['a', 'b', 'c'], None, 'plain')
  assert errors['ten_views'] == plain['ten_views']
  alone = evaluate.evaluate_ensemble(['c.safetensors'], None, 'alone')
  assert alone['ten_views'] == plain['members'][2]['ten_views']


def test_what_a_members_evaluation_has_left_is_used(runs, calls, capfd):
  evaluate.evaluate_workdir('a', run_config())
  evaluate.evaluate_ensemble(['a', 'b'], None, 'ab')
  assert calls == ['a', 'b']
  said = capfd.readouterr().err.splitlines(keepends=True)
  # XLA of JAX 0.8 and 0.9 logs lines of its own for programs out of a cache.
  assert [line for line in said if not re.match(r'[WE]\d{4} ', line)] == [
    'a: using the predictions of its own evaluation\n'
  ]
  evaluate.evaluate_ensemble(['b', 'a', 'c'], [1, 2, 3], 'bac')
  assert calls == ['a', 'b', 'c']
  evaluate.evaluate_workdir('a', run_config())  # a run evaluated alone is always evaluated again
  assert calls == ['a', 'b', 'c', 'a']


def test_an_ensemble_leaves_an_evaluation_on_another_split_as_it_was(runs, calls, capfd):
  on_training = evaluate.evaluate_workdir('a', run_config(**{'data.validation_split': 'train'}))
  left = {file.name: file.read_bytes() for file in Path('a/evaluation').iterdir()}
  errors = evaluate.evaluate_ensemble(['a', 'b'], None, 'ab')
  assert errors['images'] != on_training['images']
  assert {file.name: file.read_bytes() for file in Path('a/evaluation').iterdir()} == left
  words = 'a keeps its own evaluation, on digits (train); its predictions are not stored\n'
  assert words in capfd.readouterr().err
  assert Path('b/evaluation/predictions.npz').exists()


def test_what_is_left_of_an_older_or_another_checkpoint_is_not_used(runs, calls):
  first = evaluate.evaluate_ensemble(['a', 'b'], None, 'ab')
  other = random_network(run_config(), included.digits('validation'), seed=5)
  add_checkpoint(runs / 'a', other, step=11)
  newer = evaluate.evaluate_ensemble(['a', 'b'], None, 'ab')
  assert calls == ['a', 'b', 'a']
  assert newer['members'][0]['step'] == 11
  assert newer['members'][0]['ten_views'] != first['members'][0]['ten_views']
  assert newer['members'][1]['ten_views'] == first['members'][1]['ten_views']
  shutil.rmtree('a/checkpoints')  # another run comes to the same step
  again = random_network(run_config(), included.digits('validation'), seed=6)
  add_checkpoint(runs / 'a', again, step=11)
  evaluate.evaluate_ensemble(['a', 'b'], None, 'ab')
  assert calls == ['a', 'b', 'a', 'a']


def test_half_a_file_of_predictions_is_made_again_aloud(runs, calls, capfd):
  first = evaluate.evaluate_ensemble(['a', 'b'], None, 'ab')
  path = runs / 'a' / 'evaluation' / 'predictions.npz'
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  assert evaluate.evaluate_ensemble(['a', 'b'], None, 'ab') == first
  assert calls == ['a', 'b', 'a']
  assert 'predictions.npz cannot be read' in capfd.readouterr().err
  assert path.read_bytes() == whole


def test_members_run_where_the_config_given_says(runs, monkeypatch):
  meshes, make_mesh = [], experiment.make_mesh

  def watched(config):
    meshes.append((make_mesh(config).devices.shape, config.train.batch_size))
    return make_mesh(config)

  monkeypatch.setattr(experiment, 'make_mesh', watched)
  config = cifar10.get_config()
  config.mesh.column_devices, config.mesh.data_devices, config.train.batch_size = 1, 3, 60
  evaluate.evaluate_ensemble(['a', 'b'], None, 'ab', config)
  assert meshes == [((3, 1), 60), ((3, 1), 60)]


@pytest.mark.parametrize(
  ('members', 'weights', 'words'),
  [
    ([], None, 'there are no members; pass workdirs'),
    (['a', 'b'], [1, 1, 1], r'there are 3 weights \(1, 1, 1\) for 2 members; give one'),
    (['a', 'b'], [], r'there are 0 weights \(\) for 2 members; give one'),
    (['a', 'b'], [1, -0.5], 'are 1, -0.5; they must be at least 0'),
    (['a', 'b'], [0, 0], 'not all 0'),
    (['a', 'b'], [1, float('nan')], 'are 1, nan; they must'),
    (['a', 'b'], [1, float('inf')], 'are 1, inf; they must'),
    (['a', 'b', 'a/'], None, 'a is given as 2 members; give it once'),
    (['a', 'nowhere'], None, 'there is no nowhere; pass a workdir'),
    (['a', 'ab'], None, 'has no complete checkpoint'),
  ],
)
def test_members_that_cannot_be_are_named(runs, calls, members, weights, words):
  (runs / 'ab').mkdir()
  with pytest.raises(UserError, match=words):
    evaluate.evaluate_ensemble(members, weights, 'together')
  assert not calls
  assert not Path('together').exists()


def test_members_of_other_classes_or_data_are_named(runs, calls):
  write_run(runs / 'd', run_config(), 4, class_names='9876543210')
  write_run(runs / 'e', run_config(**{'data.validation_split': 'train'}), 4)
  with pytest.raises(
    UserError, match='a and d have different classes, or different orders of them'
  ):
    evaluate.evaluate_ensemble(['a', 'b', 'd'], None, 'together')
  with pytest.raises(UserError, match=r'a was validated on digits \(val.*\), but e on digits \(tr'):
    evaluate.evaluate_ensemble(['a', 'e'], None, 'together')
  assert not calls
  with pytest.raises(UserError, match='trained on other classes than those of digits'):
    evaluate.evaluate_ensemble(['d'], None, 'together')


def test_a_network_whose_classes_have_no_names_is_said_to_need_them(runs, monkeypatch):
  monkeypatch.setattr(included, 'DIGITS', tuple('abcdefghij'))
  with pytest.raises(
    UserError, match=r"classes of .* are called 0 to 9, those of digits 'a'"
  ) as no:
    evaluate.evaluate_ensemble(['a'], None, 'together')
  assert '--mode=convert --class_names=FILE' in str(no.value)


def test_members_of_other_images_are_named(runs):
  evaluate.evaluate_ensemble(['a', 'b'], None, 'ab')
  path = Path('b/evaluation/predictions.npz')
  arrays = kept('b')
  arrays['labels'] = arrays['labels'][::-1]
  np.savez(path, **arrays)
  with pytest.raises(UserError, match='a and b were not evaluated on the same images'):
    evaluate.evaluate_ensemble(['a', 'b'], None, 'ab')


def test_results_do_not_take_the_place_of_a_runs(runs):
  with pytest.raises(UserError, match=r'^a is a training run; pass another --workdir'):
    evaluate.evaluate_ensemble(['a', 'b'], None, 'a')


def test_where_nothing_can_be_written_it_is_said_before_anything_is_computed(runs, calls):
  Path('file').write_text('')
  with pytest.raises(UserError, match='cannot write to the workdir file/together'):
    evaluate.evaluate_ensemble(['a', 'b'], None, 'file/together')
  assert not calls


# Data that a network was not trained on: folders, whose images keep their pixels, for they are small.


NAMES = ('blue', 'gray', 'green', 'red')


def write_images(folder, counts, seed=0):
  """Images of noise, 8x8: folder/<class>/<number>.png for each class and its count."""
  rng = np.random.default_rng(seed)
  for name, count in counts.items():
    (folder / name).mkdir(parents=True)
    for i in range(count):
      pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(folder / name / f'{i}.png')


def folder_config(path, **changes):
  given = {
    'data.name': 'folder',
    'data.data_dir': str(path / 'training'),
    'data.prepared_dir': str(path / 'prepared'),
    'data.validation_fraction': 0.25,
    'model.num_classes': 4,
  }
  return run_config(**{**given, **changes})


@pytest.fixture(scope='module')
def folder_run(tmp_path_factory):
  """A folder of images, and a run that was trained on it for a step."""
  path = tmp_path_factory.mktemp('folder')
  write_images(path / 'training', dict.fromkeys(NAMES, 8))
  loop.train_and_evaluate(
    folder_config(path, **{'train.num_steps': 1, 'train.batch_size': 8}), path / 'run'
  )
  return path


def evaluate_on(path, data_dir, split=None, **changes):
  config = folder_config(path, **{'data.data_dir': str(data_dir), 'train.batch_size': 8, **changes})
  return evaluate.evaluate_workdir(path / 'run', config, split)


def assert_classified(path, data_dir, files):
  """Compares an evaluation's predictions with those of the Classifier for the same files."""
  arrays = kept(path / 'run')
  assert sorted(arrays['file_names']) == sorted(files)
  classifier = alexnet_jax.load(path / 'run')
  logits = classifier.logits([data_dir / name for name in arrays['file_names']])
  np.testing.assert_allclose(arrays['center_crop'], softmax(logits), rtol=1e-4, atol=1e-6)
  labels = [NAMES.index(Path(name).parent.name) for name in arrays['file_names']]
  np.testing.assert_array_equal(arrays['labels'], labels)


def test_another_folder_is_evaluated_whole_with_labels_by_name(folder_run, tmp_path, capfd):
  write_images(tmp_path / 'other', {'red': 5, 'gray': 3}, seed=1)
  result = evaluate_on(folder_run, tmp_path / 'other')
  assert (result['data'], result['split']) == (f'folder {tmp_path / "other"}', 'all')
  assert (result['images'], result['classes'], result['classes_with_images']) == (8, 4, 2)
  files = [f'{name}/{i}.png' for name, count in (('red', 5), ('gray', 3)) for i in range(count)]
  assert_classified(folder_run, tmp_path / 'other', files)
  with (folder_run / 'run' / 'evaluation' / 'images.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert all(row['file'].startswith(f'{row["class"]}/') for row in rows)
  assert {row['best_1'] for row in rows} <= set(NAMES)
  said = capfd.readouterr().err
  assert 'its classes are matched by name, and all its images are evaluated' in said


def test_a_folder_of_the_same_size_and_names_is_still_another(folder_run, tmp_path):
  write_images(tmp_path / 'other', dict.fromkeys(NAMES, 8), seed=2)
  next((tmp_path / 'other' / 'red').iterdir()).write_bytes(b'')  # it is left out
  result = evaluate_on(folder_run, tmp_path / 'other')
  assert (result['split'], result['images']) == ('all', 31)


@pytest.mark.parametrize(
  ('splits', 'split', 'evaluated', 'images'),
  [
    (('val', 'test'), None, 'validation', 2),
    (('train', 'test'), None, 'test', 2),
    (('test',), None, 'test', 2),
    (('train',), None, 'all', 2),
    (('val', 'test'), 'test', 'test', 2),
    (('val', 'test'), 'validation+test', 'validation+test', 4),
  ],
)
def test_of_another_folder_the_split_that_is_for_it_is_evaluated(
  folder_run, tmp_path, splits, split, evaluated, images
):
  for seed, name in enumerate(splits):
    write_images(tmp_path / 'other' / name, {'green': 2}, seed)
  result = evaluate_on(folder_run, tmp_path / 'other', split)
  assert (result['split'], result['images'], result['classes_with_images']) == (
    evaluated, images, 1,
  )  # fmt: skip
  of = {'validation': 'val', 'all': 'train'}
  folders = [of.get(part, part) for part in evaluated.split('+')]
  files = [f'{folder}/green/{i}.png' for folder in folders for i in range(2)]
  assert_classified(folder_run, tmp_path / 'other', files)


def test_the_folder_of_training_keeps_its_division_wherever_it_is(folder_run, tmp_path):
  own = evaluate_on(folder_run, folder_run / 'training')
  assert (own['data'], own['split'], own['images']) == ('training', 'validation', 8)
  shutil.copytree(folder_run / 'training', tmp_path / 'moved')
  assert evaluate_on(folder_run, tmp_path / 'moved') == own


@pytest.mark.parametrize(
  ('added', 'fingerprint', 'words'),
  [
    (4, '', 'has changed since'),
    (0, None, 'was trained by an older version, which held out others'),
  ],
)
def test_images_that_may_have_been_trained_on_are_told(
  folder_run, tmp_path, capfd, added, fingerprint, words
):
  path = tmp_path / 'all'
  shutil.copytree(folder_run / 'run', path / 'run')
  shutil.copytree(folder_run / 'training', path / 'training')
  write_images(path / 'training', {'red/more': added}, seed=3)
  config = folder_config(path, **{'train.batch_size': 8})
  network = pretrained.read(path / 'run')
  network.config.data.data_dir = str(path / 'training')
  training = {'fingerprint': fingerprint, 'train_examples': 24}
  network = dataclasses.replace(network, training=training)
  with Display() as display:
    given = given_images.open_images(network, config, None, display)
  assert given.trained_on is not None
  message = capfd.readouterr().err
  assert words in message
  assert 'images that were trained on may be among its validation images' in message


@pytest.mark.parametrize(
  ('trained_on', 'given', 'words'),
  [
    ('photos', 'photos/train', 'photos/train lies in'),
    ('photos/train', 'photos', 'photos contains'),
    ('photos/train', 'photos/val', None),
  ],
)
def test_a_folder_within_that_of_training_may_have_its_images(
  folder_run, tmp_path, capfd, trained_on, given, words
):
  for seed, split in enumerate(('train', 'val')):
    write_images(tmp_path / 'photos' / split, {'red': 2, 'blue': 2}, seed)
  network = dataclasses.replace(pretrained.read(folder_run / 'run'), training={'fingerprint': 'x'})
  network.config.data.data_dir = str(tmp_path / trained_on)
  config = folder_config(folder_run, **{'data.data_dir': str(tmp_path / given)})
  with Display() as display:
    opened = given_images.open_images(network, config, None, display)
  assert opened.trained_on is None
  told = [line for line in capfd.readouterr().err.splitlines() if 'may be training images' in line]
  assert [words in line for line in told] == ([True] if words else [])


@pytest.fixture
def listed(monkeypatch):
  """The folders that are listed from now on."""
  roots, read_layout = [], folder_layout.read_layout

  def counted(root, *args, **keywords):
    roots.append(root)
    return read_layout(root, *args, **keywords)

  monkeypatch.setattr(folder_layout, 'read_layout', counted)
  return roots


def test_a_folder_that_was_moved_is_listed_once_for_all_members(folder_run, tmp_path, listed):
  moved = shutil.copytree(folder_run / 'training', tmp_path / 'moved')
  checkpoint_of_run = next((folder_run / 'run' / 'checkpoints').iterdir())
  config = folder_config(folder_run, **{'data.data_dir': str(moved), 'train.batch_size': 8})
  members = [folder_run / 'run', checkpoint_of_run]
  result = evaluate.evaluate_ensemble(members, None, tmp_path / 'together', config)
  assert (result['data'], result['split'], result['images']) == ('training', 'validation', 8)
  assert listed == [moved]


def test_another_folder_is_listed_once_for_all_members(folder_run, tmp_path, listed):
  other = tmp_path / 'other'
  write_images(other, {'red': 2, 'blue': 2})
  checkpoint_of_run = next((folder_run / 'run' / 'checkpoints').iterdir())
  config = folder_config(folder_run, **{'data.data_dir': str(other), 'train.batch_size': 8})
  members = [folder_run / 'run', checkpoint_of_run]
  assert evaluate.evaluate_ensemble(members, None, tmp_path / 'together', config)['images'] == 4
  assert listed == [other, other]  # to see whether it is that of training, and to evaluate on it


def open_for_evaluation(folder, class_names):
  """The labels and class names of its images, as a network of these classes has them."""
  config = folder_config(folder.parent, **{'data.data_dir': str(folder)})
  with Display() as display:
    split, _ = datasets.open_for_evaluation(
      'folder', experiment.storage(config), split=None, class_names=class_names, display=display
    )
  [batch] = pipeline.whole_images(split)
  return sorted(batch['label'].tolist()), split.class_names


def test_a_folder_is_prepared_once_for_networks_with_the_classes_in_any_order(tmp_path):
  decomposed = unicodedata.normalize('NFD', 'été')
  write_images(tmp_path / 'other', {'red': 3, 'été': 1})
  for names, labels in (
    (['red', 'été', 'blue'], [0, 0, 0, 1]),
    ([decomposed, 'blue', 'gray', 'red'], [0, 3, 3, 3]),
  ):
    assert open_for_evaluation(tmp_path / 'other', names) == (labels, names)
  assert len(list((tmp_path / 'prepared').iterdir())) == 1


def test_a_class_that_the_network_does_not_have_is_named(folder_run, tmp_path):
  other = tmp_path / 'other'
  write_images(other, {'red': 2, 'violet': 2})
  message = f"{other} has a class that the network does not have: 'violet'; the network has 'blue'"
  with pytest.raises(UserError, match=f'^{re.escape(message)}'):
    evaluate_on(folder_run, other)
  numbered = (
    f"{other} has 'red', 'violet', but the classes of the network are called 0 to 1: name them"
  )
  with pytest.raises(UserError, match=f'^{re.escape(numbered)}'):
    open_for_evaluation(other, ['0', '1'])
  assert not (tmp_path / 'prepared').exists()


def test_an_evaluation_on_other_data_is_not_taken_for_a_members_own(folder_run, tmp_path, calls):
  write_images(tmp_path / 'other', {'red': 2})
  other = evaluate_on(folder_run, tmp_path / 'other')
  own = evaluate.evaluate_ensemble([folder_run / 'run'], None, tmp_path / 'together')
  assert (own['data'], own['split'], own['images']) == ('training', 'validation', 8)
  config = folder_config(folder_run, **{'data.data_dir': str(tmp_path / 'other')})
  on_other = evaluate.evaluate_ensemble([folder_run / 'run'], None, tmp_path / 'others', config)
  assert on_other['data'] == other['data']
  assert on_other['ten_views'] == other['ten_views']
  assert len(calls) == 3


def test_predictions_are_made_again_once_the_images_have_changed(folder_run, tmp_path, calls):
  run = shutil.copytree(folder_run / 'run', tmp_path / 'run')
  shutil.rmtree(run / 'evaluation', ignore_errors=True)
  for _ in range(2):
    evaluate.evaluate_ensemble([run], None, tmp_path / 'together')
  assert len(calls) == 1
  image = folder_run / 'training' / 'red' / '0.png'
  whole = image.read_bytes()
  image.write_bytes(whole + bytes(1))  # in place of the one that was there, of the same class
  try:
    evaluate.evaluate_ensemble([run], None, tmp_path / 'together')
  finally:
    image.write_bytes(whole)
  assert len(calls) == 2


def test_which_folders_are_classes_may_be_said_of_another_folder(folder_run, tmp_path):
  write_images(tmp_path / 'other', {'red/2019': 2, 'red/2020': 1, 'blue/2020': 1})
  with pytest.raises(UserError, match=r'data\.class_depth=1'):
    evaluate_on(folder_run, tmp_path / 'other')
  config = folder_config(
    folder_run, **{'data.data_dir': str(tmp_path / 'other'), 'data.class_depth': 1}
  )
  assert evaluate.evaluate_workdir(folder_run / 'run', config)['images'] == 4


def test_the_command_line_evaluates_another_folder_by_its_workdir_alone(folder_run, tmp_path):
  """Of it the split that is given, in place of the one that would be chosen."""
  write_images(tmp_path / 'other' / 'train', {'red': 2, 'blue': 1})
  write_images(tmp_path / 'other' / 'val', {'red': 1})
  path = shutil.copytree(folder_run / 'run', tmp_path / 'run')
  changes = (f'--config.data.data_dir={tmp_path}/other', '--config.data.validation_split=train')
  code, out, err = launch(f'--workdir={path}', '--mode=evaluate', *changes)
  assert code == 0, err
  assert f'{path}, folder {tmp_path}/other, 3 images (train) of 2 of 4 classes' in out
  assert 'ensor' not in err  # TensorFlow has no say


def test_a_split_that_is_asked_for_is_not_replaced(folder_run, tmp_path):
  write_images(tmp_path / 'other', {'red': 2})
  with pytest.raises(
    UserError, match=r"^data\.validation_split is 'validation', but .*only 'train'"
  ):
    evaluate_on(folder_run, tmp_path / 'other', 'validation')


def test_another_tfds_set_is_evaluated_with_labels_by_name(runs):
  """The classes of `stored` are numbers, as those of the digits are, but fewer."""
  images = {i: noise(i, 8, 8) for i in range(4)}
  stored.store(Path('tfds'), 'others', {'train': images, 'test': images}, shape=(8, 8, 3))
  config = run_config(**{'data.name': 'others', 'data.data_dir': 'tfds'})
  result = evaluate.evaluate_workdir('a', config)
  assert result['data'] == f'others {Path("tfds").absolute()}'
  assert (result['split'], result['images']) == ('test', 4)
  assert (result['classes'], result['classes_with_images']) == (10, 4)
  assert sorted(kept('a')['labels']) == [0, 1, 2, 3]


# On real photographs, against the plain loop.


def open_real(config, **changes):
  config.data.data_dir = stored.real_data(config.data.name)
  config.update_from_flattened_dict(changes)
  with Display() as display:
    config, data_set = experiment.open_data(config, display)
  return config, data_set.load_split(config.data.validation_split)


@pytest.mark.slow
def test_cifar10_is_that_of_the_plain_loop():
  changes = {
    'model.input_size': 24,
    'augment.pixel_scale': 1 / 64,
    'data.validation_split': 'test[:300]',
  }
  assert_plain_on(*open_real(cifar10.get_config(), **changes), (1, 1), 128, 300)


@pytest.mark.slow
def test_the_imagenet_sample_is_that_of_the_plain_loop(tmp_path):
  narrow = {f'model.conv{i}.features': 16 for i in range(1, 6)}
  changes = {
    'model.fc6.features': 64,
    'model.fc7.features': 64,
    'augment.pixel_scale': 1 / 64,
    'data.prepared_dir': str(tmp_path),
  }
  opened = open_real(imagenet.get_config(), **narrow, **changes)
  assert_plain_on(*opened, (2, 1), 32, 100)


def assert_plain_on(config, split, devices, batch_size, images):
  network = random_network(config, split)
  predicted = predict(network, split, devices, batch_size)
  assert len(predicted.labels) == images
  assert_plain(network, split, predicted)


def test_a_member_of_one_column_is_evaluated_with_its_odd_batch(tmp_path):
  for name, columns in (('one', 1), ('two', 2)):
    config = tiny_config({'model.num_columns': columns, 'train.batch_size': 33})
    write_run(tmp_path / name, config)
  for members in ('one', 'two,one'):
    paths = ','.join(str(tmp_path / name) for name in members.split(','))
    args = ('--mode=evaluate', f'--members={paths}', f'--workdir={tmp_path / "together"}')
    code, _, err = launch(*args)
    assert code == 0, err
