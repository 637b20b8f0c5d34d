"""Each config opens its data set, here of a few made-up images in the same form, and trains on it."""

import contextlib
import io
import json

import numpy as np
import pytest
import requests
from ml_collections import ConfigDict
from PIL import Image

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained
from alexnet_jax.data import datasets, pipeline, prepare, tfds_reader
from alexnet_jax.evaluation import evaluate
from alexnet_jax.training import loop
from configs import (
  flowers,
  image_folder,
  imagenet2010,
  imagenet_conv6_pretrain,
  imagenet_fall2009,
  imagenette,
  places365_small,
)
from tests.displays import Lines
from tests.mistakes import refusal
from tests.stored import noise

FLOWERS = ('daisy', 'dandelion', 'roses', 'sunflowers', 'tulips')


pytestmark = pytest.mark.usefixtures('no_other_folder')


def photo(number, height=258, width=270):
  """A JPEG of a color of its own."""
  file = io.BytesIO()
  color = tuple(noise(number, 1, 1)[0, 0].tolist())
  Image.new('RGB', (width, height), color).save(file, 'JPEG', quality=95)
  return file.getvalue()


def store(folder, name, labels, **size):
  """Writes a tfds data set by its own builder, with its features, but for images of ours.

  Args:
    folder: tfds's data_dir.
    name: the data set's.
    labels: of each split.
    size: of the images.
  """
  _, tfds = tfds_reader.import_tensorflow()
  folder.mkdir(exist_ok=True)
  builder = tfds.builder(name, data_dir=folder)

  def examples(split):
    for number, label in enumerate(labels[split]):
      row = {'image': io.BytesIO(photo(number + 100 * len(split), **size)), 'label': label}
      file_name = {'filename': f'{number}.jpg'} if 'filename' in builder.info.features else {}
      yield number, row | file_name

  builder._split_generators = lambda dl_manager: {split: examples(split) for split in labels}
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


def fill(root, classes, **images):
  """A folder of so many images of each class, for each split."""
  number = 0
  for split, count in images.items():
    for name in classes:
      folder = root / split / name if split != 'all' else root / name
      folder.mkdir(parents=True)
      for _ in range(count):
        (folder / f'{(number := number + 1)}.jpg').write_bytes(photo(number))
  return root


def config_of(base, tmp_path, **fields):
  """A config with one small convolution, for two steps on the data in a folder."""
  config = base.get_config()
  config.model.num_columns = 1
  config.model.conv1.update(features=4, stride=16)
  config.model.pool.layers = ('conv1',)
  config.model.response_norm.layers = ()
  for name in ('conv2', 'conv3', 'conv4', 'conv5', 'conv6', 'fc6', 'fc7', 'bottleneck'):
    config.model[name].features = 0
  config.augment.lighting.std = ()
  config.data.data_dir = str(tmp_path / 'data')
  config.data.prepared_dir = str(tmp_path / 'prepared')
  config.mesh.column_devices = config.mesh.data_devices = 1
  config.train.batch_size = 4
  config.train.num_steps = 2
  config.update_from_flattened_dict(fields)
  return config


def open_splits(config):
  """The config, its data opened, and the training and validation split."""
  experiment.check(config)
  config, data_set = experiment.open_data(config, Lines())
  splits = [
    data_set.load_split(config.data[field]) for field in ('train_split', 'validation_split')
  ]
  return config, data_set, *splits


def colors(split):
  """The colors of a split's images, each of which has one of its own."""
  with contextlib.closing(pipeline.whole_images(split)) as batches:
    images = np.concatenate([batch['image'] for batch in batches])
  return [tuple(image[128, 128].tolist()) for image in images]


# tfds data sets.


def test_places_trains_on_the_images_as_they_are_stored(tmp_path):
  labels = {'train': range(0, 365, 40), 'test': [-1] * 3, 'validation': [0, 364, 100]}
  store(tmp_path / 'data', 'places365_small', labels, height=256, width=256)
  config = config_of(places365_small, tmp_path)
  assert loop.train_and_evaluate(config, tmp_path / 'run')['step'] == 2
  assert not (tmp_path / 'prepared').exists()
  network = pretrained.read(tmp_path / 'run')
  assert len(network.class_names) == network.config.model.num_classes == 365
  assert network.class_names[:2] == ['airfield', 'airplane_cabin']


@pytest.mark.parametrize('name', ['imagenette/full-size-v2', 'imagenette/320px-v2'])
def test_imagenette_is_shrunk_with_its_mean_image(tmp_path, name):
  store(tmp_path / 'data', name, {'train': range(10), 'validation': range(3)})
  _, data_set, training, validation = open_splits(
    config_of(imagenette, tmp_path, **{'data.name': name})
  )
  [directory] = (tmp_path / 'prepared').iterdir()
  assert directory.name == f'{name.replace("/", "_").replace("-", "_")}_256'
  assert (training.num_examples, validation.num_examples) == (10, 3)
  assert training.image_size == 256
  assert list(training.class_names[:2]) == ['n01440764', 'n02102040']
  mean_image = data_set.stored_statistics('train')['mean_image']
  np.testing.assert_array_equal(mean_image, pipeline.statistics(training)['mean_image'])


def test_flowers_that_are_held_out_are_neither_trained_on_nor_in_the_mean_image(tmp_path):
  store(tmp_path / 'data', 'tf_flowers', {'train': [0, 1, 2, 3, 4] * 6})
  config, data_set, training, validation = open_splits(config_of(flowers, tmp_path))
  assert (training.num_examples, validation.num_examples) == (27, 3)
  of_training, held_out = colors(training), colors(validation)
  assert len({*of_training, *held_out}) == 30
  assert loop.train_and_evaluate(config, tmp_path / 'run')['step'] == 2
  network = pretrained.read(tmp_path / 'run')
  assert list(network.class_names) == ['dandelion', 'daisy', 'tulips', 'sunflowers', 'roses']
  mean_color = np.asarray(network.statistics.mean_image, np.float64).mean(axis=(0, 1))
  whole = pipeline.statistics(training)['mean_image'].mean(axis=(0, 1))
  np.testing.assert_allclose(mean_color, whole, rtol=1e-5)
  together = data_set.load_split('train')
  assert np.abs(pipeline.statistics(together)['mean_image'].mean(axis=(0, 1)) - whole).max() > 0.1


def test_labels_that_are_not_public_are_refused(tmp_path):
  labels = {'train': range(4), 'test': [-1] * 4}
  store(tmp_path / 'data', 'places365_small', labels, height=256, width=256)
  for megabytes in (1, 512):  # read as it is used, and into memory
    config = config_of(places365_small, tmp_path, **{'data.memory_megabytes': megabytes})
    config, data_set = experiment.open_data(config, Lines())

    def read_all(data_set=data_set):
      return colors(data_set.load_split('test'))

    assert "places365_small/2.1.0 has no labels of its split 'test'" in refusal(read_all)


def test_images_without_labels_count_for_no_class_when_they_are_shrunk(tmp_path):
  labels = {'train': range(10), 'validation': [-1, -1]}
  store(tmp_path / 'data', 'imagenette/full-size-v2', labels)
  _, data_set = experiment.open_data(config_of(imagenette, tmp_path), Lines())
  counts = prepare.read_metadata(data_set.directory)['images_per_class']
  assert counts == {'train': [1] * 10, 'validation': [0] * 10}


@pytest.mark.parametrize(
  ('base', 'name', 'there', 'labels'),
  [
    (flowers, 'imagenette/full-size-v2', 10, {'train': [0], 'validation': [0]}),
    (imagenette, 'tf_flowers', 5, {'train': [0]}),
    (places365_small, 'tf_flowers', 5, {'train': [0]}),
  ],
)
def test_a_tfds_data_set_of_other_classes_is_refused(tmp_path, base, name, there, labels):
  store(tmp_path / 'data', name, labels)
  config = config_of(base, tmp_path, **{'data.name': name})
  message = refusal(open_splits, config)
  asked = config.model.num_classes
  assert message.startswith(f'{name} has {there} classes but model.num_classes is {asked}')
  assert not (tmp_path / 'prepared').exists()


@pytest.mark.parametrize(
  ('field', 'split'), [('validation_split', 'validation'), ('train_split', 'trian[:90%]+train')]
)
def test_a_split_that_is_not_there_is_named_before_anything_is_prepared(tmp_path, field, split):
  store(tmp_path / 'data', 'tf_flowers', {'train': range(5)})
  message = refusal(open_splits, config_of(flowers, tmp_path, **{f'data.{field}': split}))
  assert f"data.{field} is '{split}', but tf_flowers has only 'train'" in message
  assert not (tmp_path / 'prepared').exists()


@pytest.mark.parametrize('split', ['train[90%:', 'train[:200%]', 'train[5:5]', 'train[99:]'])
def test_a_part_of_a_split_that_cannot_be_is_named(tmp_path, split):
  store(tmp_path / 'data', 'tf_flowers', {'train': range(5)})
  message = refusal(open_splits, config_of(flowers, tmp_path, **{'data.validation_split': split}))
  assert repr(split) in message


@pytest.fixture(scope='session')
def no_internet():
  """Every request fails, until the process ends: after one has failed, tfds's threads begin others."""

  def fail(*args, **kwargs):
    raise requests.ConnectionError('Failed to resolve')

  requests.Session.request = fail


@pytest.mark.usefixtures('no_internet')
@pytest.mark.parametrize('base', [flowers, imagenette, places365_small])
def test_without_internet_it_says_what_to_do(tmp_path, base):
  tfds_reader.import_tensorflow()  # its absence would be what is said
  (tmp_path / 'data').mkdir()
  config = config_of(base, tmp_path)
  display = Lines()
  message = refusal(experiment.open_data, config, display)
  [line] = display.lines
  assert line.endswith('tfds downloads and prepares it there, which needs an internet connection')
  first, second = message.splitlines()
  assert 'is not prepared in' in first
  assert f'{tmp_path / "data"}, and preparing it failed: ' in first
  assert 'Set data.data_dir' in second
  assert f'`tfds build {config.data.name}`' in second


# Folders.


@pytest.mark.parametrize(
  ('data', 'title'),
  [
    ({'name': 'cifar10', 'data_dir': '/data/tfds'}, 'cifar10'),
    ({'name': 'folder', 'data_dir': '/data/birds/'}, 'birds'),
    ({'name': 'folder', 'data_dir': None}, 'folder'),
  ],
)
def test_a_folder_is_called_by_its_name_in_titles(data, title):
  assert datasets.title(data) == datasets.title(ConfigDict(data)) == title


def test_the_tutorials_folder_of_flowers_is_one_of_photographs(tmp_path):
  root = fill(tmp_path / 'flower_photos', FLOWERS, all=5)
  (root / 'LICENSE.txt').write_text('by their photographers')
  fields = {'data.data_dir': str(root), 'data.validation_fraction': 0.2}
  config = config_of(image_folder, tmp_path, **fields)
  config, _, training, validation = open_splits(config)
  assert config.model.num_classes == 5
  assert tuple(training.class_names) == FLOWERS
  assert training.num_examples + validation.num_examples == 25
  assert {*validation.labels} == {*training.labels} == {*range(5)}  # some of each class
  assert not {*colors(training)} & {*colors(validation)}


def test_classes_may_lie_in_folders_of_letters(tmp_path):
  places = ('a/abbey', 'a/airport', 'b/bar')
  root = tmp_path / 'places'
  for letter in 'ab':
    fill(root / letter, [name[2:] for name in places if name[0] == letter], all=3)
  fields = {'data.data_dir': str(root), 'data.class_depth': 2}
  config, _, training, validation = open_splits(config_of(image_folder, tmp_path, **fields))
  assert config.model.num_classes == 3
  assert tuple(training.class_names) == places
  assert training.num_examples + validation.num_examples == 9


@pytest.mark.parametrize(
  ('base', 'classes'),
  [(imagenet2010, 1_000), (imagenet_fall2009, 10_184), (imagenet_conv6_pretrain, 21_843)],
)
def test_a_folder_of_other_classes_is_refused(tmp_path, base, classes):
  fill(tmp_path / 'data', ('n01', 'n02', 'n03'), all=2)
  message = refusal(open_splits, config_of(base, tmp_path))
  assert f'has 3 classes but model.num_classes is {classes}' in message
  assert '--config.model.num_classes=3' in message
  assert not (tmp_path / 'prepared').exists()


def test_ilsvrc_2010_trains_and_is_evaluated_on_its_test_images(tmp_path):
  fill(tmp_path / 'data', ('n01', 'n02', 'n03'), train=3, val=1, test=2)
  config = config_of(imagenet2010, tmp_path, **{'model.num_classes': 3})
  assert loop.train_and_evaluate(config, tmp_path / 'run')['step'] == 2
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert json.loads(lines[-1])['split'] == 'validation'
  assert evaluate.evaluate_workdir(tmp_path / 'run', config)['images'] == 3
  config.data.validation_split = 'test'
  said = evaluate.evaluate_workdir(tmp_path / 'run', config)
  assert (said['split'], said['images'], said['classes']) == ('test', 6, 3)
  written = json.loads((tmp_path / 'run' / 'evaluation.json').read_text())
  assert {name: written[name] for name in said} == said
  config.data.validation_split = 'tset'
  assert "only 'train', 'validation', 'test'" in refusal(
    evaluate.evaluate_workdir, tmp_path / 'run', config
  )


@pytest.mark.parametrize(
  ('base', 'least', 'most'),
  [(imagenet_fall2009, 9, 21), (imagenet_conv6_pretrain, 2, 4)],
)
def test_a_release_in_a_folder_is_divided_class_by_class(tmp_path, base, least, most):
  """About a half and a hundredth of it are held out, as files' hashes have it."""
  fill(tmp_path / 'data', ('n01', 'n02'), all=15)
  fields = {'model.num_classes': 2, 'data.validation_split': 'validation'}
  _, _, training, validation = open_splits(config_of(base, tmp_path, **fields))
  assert least <= validation.num_examples <= most
  assert training.num_examples + validation.num_examples == 30
  assert {*validation.labels} == {*training.labels} == {0, 1}
  assert not {*colors(training)} & {*colors(validation)}
