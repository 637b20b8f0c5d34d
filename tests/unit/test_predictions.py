"""Errors, files and tables of predictions against plain numpy."""

import csv

import numpy as np
import pytest

from alexnet_jax.evaluation import predictions
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.utils.errors import UserError

NAMES = ('ant', 'bee, wild', 'cat', 'dog', 'eel', 'fox', 'gnu')


def random_probabilities(seed, images=40, classes=7):
  logits = np.random.default_rng(seed).standard_normal((images, classes))
  return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def random_predictions(seed=0, classes=7):
  labels = np.random.default_rng(100).integers(0, classes - 1, 40).astype(np.int32)  # no last one
  return Predictions(
    random_probabilities(2 * seed, classes=classes),
    random_probabilities(2 * seed + 1, classes=classes),
    labels,
  )


def ranks(probabilities, labels):
  """How many classes are better than the true one."""
  pairs = zip(probabilities, labels, strict=True)
  return np.array([list(np.argsort(-row)).index(label) for row, label in pairs])


def test_errors_are_numpys_for_each_reading():
  predicted = random_predictions()
  values, of_images = predictions.errors(predicted)
  for name in ('center_crop', 'ten_views'):
    probabilities = getattr(predicted, name).astype(np.float64)
    of_true = ranks(probabilities, predicted.labels)
    assert values[name] == {
      'loss': pytest.approx(-np.log(probabilities[np.arange(40), predicted.labels]).mean()),
      'top1_error': np.mean(of_true >= 1),
      'top5_error': np.mean(of_true >= 5),
      'top1_errors': np.sum(of_true >= 1),
      'top5_errors': np.sum(of_true >= 5),
    }
    np.testing.assert_array_equal(of_images[name], of_true >= 1)
  assert values['center_crop'] != values['ten_views']


def test_ties_of_averaged_probabilities_share_the_places_left():
  # float32 neighbors whose logarithms are the same: no tie, so counted on the probabilities.
  low = np.float32(1.1e-3)
  high = np.nextafter(low, np.float32(1))
  assert np.log(low) == np.log(high)
  even = [[0.25] * 4, [0.5, 0.5, 0, 0], [low, high, 0, 0]]
  predicted = np.asarray(even, np.float32)
  both = Predictions(predicted, predicted, np.zeros(3, np.int32))
  values = predictions.errors(both)[0]['ten_views']
  assert values['top1_errors'] == 0.75 + 0.5 + 1
  assert values['top5_errors'] == 0


def test_a_true_class_of_no_probability_has_a_finite_loss():
  predicted = np.asarray([[0, 1], [0.5, 0.5]], np.float32)
  both = Predictions(predicted, predicted, np.zeros(2, np.int32))
  values = predictions.errors(both)[0]['center_crop']
  # 2**-126 is the smallest normal number.
  assert values['loss'] == pytest.approx((126 * np.log(2) + np.log(2)) / 2)


def test_the_interval_of_a_difference_is_that_of_mcnemars_counts():
  labels = np.zeros(1000, np.int32)
  right, wrong = [0.75, 0.25], [0.25, 0.75]

  def errors(wrong_ones):
    probabilities = np.array([wrong if i in wrong_ones else right for i in range(1000)], np.float32)
    return predictions.errors(Predictions(probabilities, probabilities, labels))[1]

  # Of 70 images that the first has wrong, 50 are right in the other, which has 80 others wrong.
  first, other = errors(range(70)), errors(range(50, 150))
  found = predictions.differences(other, first)['ten_views']
  worse, better = 80, 50
  assert found['top1_difference'] == pytest.approx((worse - better) / 1000)
  variance = worse + better - (worse - better) ** 2 / 1000
  assert found['margin_of_error'] == pytest.approx((1.96 * variance**0.5 + 1) / 1000)


def test_four_images_are_too_few_to_tell_two_networks_apart():
  none, four = np.zeros(16), np.repeat([1.0, 0.0], [4, 12])
  found = predictions.differences({'center_crop': four}, {'center_crop': none})['center_crop']
  assert found['top1_difference'] == 0.25
  assert found['margin_of_error'] > 0.25  # McNemar's exact test has p = 0.125


def test_a_weighted_sum_is_numpys_average():
  each, shares = [random_predictions(seed) for seed in range(3)], [0.25, 0.25, 0.5]
  total = None
  for one, share in zip(each, shares, strict=True):
    total = predictions.add(total, one, share)
  for name in ('center_crop', 'ten_views'):
    expected = np.average([getattr(one, name) for one in each], axis=0, weights=shares)
    np.testing.assert_allclose(getattr(total, name), expected, rtol=1e-6)
    assert getattr(total, name).dtype == np.float32
  np.testing.assert_array_equal(total.labels, each[0].labels)


def test_one_network_by_itself_stays_as_it_is():
  one = random_predictions()
  for a, b in zip(predictions.add(None, one, 1.0), one, strict=True):
    np.testing.assert_array_equal(a, b)


def test_what_is_saved_is_loaded_if_it_is_of_that_identity(tmp_path):
  path, one = tmp_path / 'evaluation' / 'predictions.npz', random_predictions()
  assert predictions.load(path, {}) is None
  predictions.save(path, one, {'step': 3, 'names': ('a', 'b')})
  assert [file.name for file in path.parent.iterdir()] == ['predictions.npz']
  predicted = predictions.load(path, {'step': 3, 'names': ('a', 'b')})
  for a, b in zip(predicted, one, strict=True):
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype
  assert predictions.load(path, {'step': 4, 'names': ('a', 'b')}) is None


@pytest.mark.parametrize('part', [0.0, 0.5, 0.999])
def test_half_a_file_cannot_be_read(tmp_path, part):
  path = tmp_path / 'predictions.npz'
  predictions.save(path, random_predictions(), {})
  whole = path.read_bytes()
  path.write_bytes(whole[: int(part * len(whole))])
  with pytest.raises(UserError, match='cannot be read'):
    predictions.load(path, {})


def read_rows(path):
  with path.open(newline='') as file:
    return list(csv.reader(file))


@pytest.fixture(params=[7, 3], ids=['7 classes', '3 classes'])
def tables(request, tmp_path):
  predicted, names = random_predictions(classes=request.param), NAMES[: request.param]
  predictions.write_tables(tmp_path, predicted.ten_views, predicted.labels, names)
  assert {path.name for path in tmp_path.iterdir()} == {
    'images.csv',
    'confusion.csv',
    'per_class.csv',
    'submission.txt',
  }
  return tmp_path, predicted.ten_views, predicted.labels, names


def test_images_have_their_five_best_classes(tables):
  path, probabilities, labels, names = tables
  header, *rows = read_rows(path / 'images.csv')
  count = min(5, len(names))
  assert header[:4] == ['image', 'class', 'best_1', 'probability_1']
  assert header[-2:] == [f'best_{count}', f'probability_{count}']
  assert len(rows) == len(labels)
  for i, row in enumerate(rows):
    order = np.argsort(-probabilities[i])[:count]
    assert row[:2] == [str(i), names[labels[i]]]
    assert row[2::2] == [names[k] for k in order]
    np.testing.assert_allclose(np.float64(row[3::2]), probabilities[i][order], rtol=1e-5)


def test_images_are_named_by_their_files_where_these_are_known(tmp_path):
  predicted = random_predictions()
  files = [f'cat/{i}, a.jpg' for i in range(len(predicted.labels))]
  names = NAMES[:7]
  predictions.write_tables(tmp_path, predicted.ten_views, predicted.labels, names, files)
  header, *rows = read_rows(tmp_path / 'images.csv')
  assert header[:4] == ['image', 'file', 'class', 'best_1']
  assert [row[1] for row in rows] == files
  assert [row[2] for row in rows] == [names[label] for label in predicted.labels]


def test_names_of_files_are_stored_with_predictions(tmp_path):
  path = tmp_path / 'predictions.npz'
  predicted = random_predictions()
  named = predicted._replace(file_names=np.array([f'{i}.jpg' for i in predicted.labels]))
  predictions.save(path, named, {})
  assert predictions.load(path, {}).file_names.tolist() == named.file_names.tolist()
  predictions.save(path, predicted._replace(file_names=np.array(['a.jpg'])), {})
  with pytest.raises(UserError, match='file name for each image'):
    predictions.load(path, {})


def test_the_confusion_counts_every_image_once(tables):
  path, probabilities, labels, names = tables
  header, *rows = read_rows(path / 'confusion.csv')
  assert header == ['class', *names]
  assert [row[0] for row in rows] == list(names)
  expected = np.zeros((len(names), len(names)), int)
  for label, taken in zip(labels, probabilities.argmax(axis=1), strict=True):
    expected[label, taken] += 1
  np.testing.assert_array_equal([[int(cell) for cell in row[1:]] for row in rows], expected)


def test_each_class_has_its_errors(tables):
  path, probabilities, labels, names = tables
  header, *rows = read_rows(path / 'per_class.csv')
  assert header == ['class', 'images', 'top1_error', 'top5_error']
  of_true = ranks(probabilities, labels)
  for k, row in enumerate(rows[:-1]):
    mine = of_true[labels == k]
    assert row[:2] == [names[k], str(len(mine))]
    assert [float(cell) for cell in row[2:]] == [np.mean(mine >= 1), np.mean(mine >= 5)]
  assert rows[-1] == [names[-1], '0', '', '']


def test_a_submission_has_five_classes_a_line_counted_from_one(tables):
  path, probabilities, _, names = tables
  lines = (path / 'submission.txt').read_text().splitlines()
  expected = np.argsort(-probabilities, axis=1)[:, :5] + 1
  assert [line.split(' ') for line in lines] == [[str(k) for k in row] for row in expected]
  assert expected.min() == 1
  assert expected.max() == len(names)


@pytest.mark.parametrize(
  'changes',
  [
    {'labels': np.full(40, 7, np.int32)},
    {'labels': np.full(40, -1, np.int32)},
    {'labels': np.zeros(39, np.int32)},
    {'labels': np.zeros(40, np.int64)},
    {'ten_views': np.zeros((40, 6), np.float32)},
    {'ten_views': np.full((40, 7), np.nan, np.float32)},
    {'center_crop': np.zeros(40, np.float32)},
    dict.fromkeys(('center_crop', 'ten_views'), np.zeros((0, 7), np.float32))
    | {'labels': np.zeros(0, np.int32)},
  ],
)
def test_arrays_that_are_no_predictions_are_refused(tmp_path, changes):
  predictions.save(tmp_path / 'x.npz', random_predictions()._replace(**changes), {})
  with pytest.raises(UserError, match=r'x\.npz cannot be read \(.*\); remove it'):
    predictions.load(tmp_path / 'x.npz', {})


def test_instructive_images_are_the_surest_right_the_least_sure_and_the_surest_wrong():
  sure = np.array([0.9, 0.8, 0.99, 0.3, 0.95, 0.7, 0.4, 0.97, 0.6, 0.98])
  labels = np.array([1, 2, 1, 1, 1, 2, 3, 0, 0, 1])
  predicted = np.where(np.isin(np.arange(10), (3, 4, 5)), 9, labels)
  chosen = dict(predictions.instructive(sure, predicted, labels, 8))
  assert {name: found.tolist() for name, found in chosen.items()} == {
    'surest right': [2, 7],  # of classes 1 and 0, though 9, of class 1 too, is surer than 7
    'least sure': [6, 8, 1],
    'surest wrong': [4, 5, 3],
  }
  few = [
    found.tolist() for _, found in predictions.instructive(sure[:5], predicted[:5], labels[:5], 8)
  ]
  assert few == [[2, 1], [0], [4, 3]]  # the surest right ones come first
  few = [
    found.tolist() for _, found in predictions.instructive(sure[:2], predicted[:2], labels[:2], 8)
  ]
  assert few == [[0, 1], [], []]
