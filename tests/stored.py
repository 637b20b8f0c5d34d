"""tfds data sets of a few small images, whose labels number them, for tests of what reads them."""

import os
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.data import record_split, tfds_reader

TRAIN, VALIDATION, SIZE = 40, 7, 10
BLOCK = 17  # examples; with three shards of 13 or 14, no multiple of anything


def real_data(name):
  """The folder of tfds's data sets in which this one is prepared; without it a test is skipped."""
  folder = os.environ.get('ALEXNET_JAX_TEST_DATA')
  if not folder or not Path(folder, name).is_dir():
    pytest.skip(f'ALEXNET_JAX_TEST_DATA is no folder of tfds with {name}')
  return folder


def noise(number, height, width):
  """An image of random pixels."""
  return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_image(number):
  """An image of 'numbers': of its own size and pixels."""
  return noise(number, SIZE + number % 4, SIZE + number % 3)


def store(folder, name, splits, shards=1, encoding='png', shape=(None, None, 3), labeled=True):
  """Writes a data set.

  Args:
    folder: tfds's data_dir.
    name: the data set's.
    splits: of each the images, pixels or encoded files, by label.
    shards: files a split.
    encoding: 'png' or 'jpeg'.
    shape: what the data set says of its images.
    labeled: whether the labels are stored.
  """
  _, tfds = tfds_reader.import_tensorflow()
  classes = 1 + max(label for images in splits.values() for label in images)
  features = {'image': tfds.features.Image(shape=shape, encoding_format=encoding)}
  if labeled:
    features['label'] = tfds.features.ClassLabel(num_classes=classes)
  tfds.dataset_builders.store_as_tfds_dataset(
    name,
    '1.0.0',
    tfds.features.FeaturesDict(features),
    {
      split: [
        (i, {'image': image, 'label': i} if labeled else {'image': image})
        for i, image in images.items()
      ]
      for split, images in splits.items()
    },
    data_dir=folder,
    download_config=tfds.download.DownloadConfig(num_shards=shards),
  )


def store_numbers(folder):
  """Writes 'numbers', 1.0.0: TRAIN and VALIDATION images of `make_image`, in three shards."""
  numbers = {'train': range(TRAIN), 'validation': range(TRAIN, TRAIN + VALIDATION)}
  images = {split: {i: make_image(i) for i in of_split} for split, of_split in numbers.items()}
  store(folder, 'numbers', images, shards=3)


def open_records(folder, split='train', name='numbers', image_size=SIZE, block=None):
  """A split, shuffled in blocks of so many examples, or whole."""
  builder = tfds_reader.open_builder(name, str(folder))
  info = builder.info.splits[split.split('[')[0]]
  each = info.num_bytes // info.num_examples
  return record_split.RecordSplit(builder, split, image_size, each * block if block else 10**9)
