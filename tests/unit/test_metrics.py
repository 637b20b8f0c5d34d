"""Loss and top-k errors against numpy, their ties, and sums over batches."""

import jax
import numpy as np
import pytest

from alexnet_jax.evaluation import metrics

batch_sums = jax.jit(metrics.batch_sums)


def random_batch(n, classes=10, seed=0):
  rng = np.random.default_rng(seed)
  logits = 3 * rng.standard_normal((n, classes)).astype(np.float32)
  return logits, rng.integers(0, classes, n).astype(np.int32)


def numpy_sums(logits, labels):
  logits = logits.astype(np.float64)
  log_sums = np.log(np.exp(logits).sum(axis=1))
  ranks = [list(np.argsort(-row)).index(label) for row, label in zip(logits, labels, strict=True)]
  return {
    'loss': (log_sums - logits[np.arange(len(labels)), labels]).sum(),
    'top1_errors': sum(rank >= 1 for rank in ranks),
    'top5_errors': sum(rank >= 5 for rank in ranks),
    'count': len(labels),
  }


def assert_sums(sums, expected):
  assert sums.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(sums[name], value, rtol=1e-5, err_msg=name)


def test_batch_sums_are_numpys():
  logits, labels = random_batch(64)
  sums = batch_sums(logits, labels)
  assert_sums(sums, numpy_sums(logits, labels))
  assert 0 < float(sums['top5_errors']) < float(sums['top1_errors']) < 64
  assert {name: value.dtype for name, value in sums.items()} == {
    name: value.dtype for name, value in metrics.empty().items()
  }


@pytest.mark.parametrize(
  ('logits', 'top1', 'top5'),
  [
    ([0.0] * 10, 0.9, 0.5),  # chance
    ([1.0] * 2 + [0.0] * 8, 0.5, 0.0),  # two share the first place
    ([1.0] * 10 + [2.0] * 2, 1.0, 0.7),  # ten share the three places left
    ([0.0, -1.0, -1.0], 0.0, 0.0),  # fewer than five classes
    ([0.0, 0.0, 0.0], 2 / 3, 0.0),
    ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 1.0, 1.0),
    ([1.0, 1.0, 2.0, 3.0, 4.0, 5.0], 1.0, 0.5),  # two share the fifth place
  ],
)
def test_ties_share_the_places_left(logits, top1, top5):
  sums = batch_sums(np.asarray([logits], np.float32), np.zeros(1, np.int32))
  np.testing.assert_allclose(sums['top1_errors'], top1, atol=1e-6)
  np.testing.assert_allclose(sums['top5_errors'], top5, atol=1e-6)


@pytest.mark.parametrize(
  ('where', 'top1', 'top5'),
  [
    (range(10), 1, 1),
    ([0], 1, 1),  # the true class itself
    ([7], 1, 0),  # another one counts as ahead
    (range(5, 10), 1, 1),
  ],
)
def test_logits_that_are_not_numbers_err(where, top1, top5):
  logits = np.zeros((1, 10), np.float32)
  logits[0, 0] = 1
  logits[0, list(where)] = np.nan
  sums = batch_sums(logits, np.zeros(1, np.int32))
  assert float(sums['top1_errors']) == top1
  assert float(sums['top5_errors']) == top5


@pytest.mark.parametrize('padding', [0.0, np.nan, np.inf])
def test_mask_leaves_padding_out(padding):
  logits, labels = random_batch(12)
  real = np.arange(12) % 4 != 1
  filled = np.where(real[:, None], logits, np.float32(padding))
  sums = batch_sums(filled, labels, real)
  assert_sums(sums, numpy_sums(logits[real], labels[real]))


def test_batches_merge_to_the_whole_and_every_image_counts_once():
  logits, labels = random_batch(50)
  merged = metrics.empty()
  for start, stop in ((0, 25), (25, 50)):
    part = batch_sums(logits[start:stop], labels[start:stop])
    merged = metrics.merge(merged, part)
  expected = numpy_sums(logits, labels)
  assert_sums(merged, expected)
  assert metrics.compute(merged) == {
    'loss': pytest.approx(expected['loss'] / 50, rel=1e-5),
    'top1_error': pytest.approx(expected['top1_errors'] / 50),
    'top5_error': pytest.approx(expected['top5_errors'] / 50),
  }
