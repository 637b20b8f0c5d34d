"""Class probabilities of every image of a split: storing, averaging, errors, and tables of them."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax.evaluation import metrics
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

TIES = 'classes that tie share the places left among the best, as in the 2012 code'
"""How `errors` counts ties, for evaluation.json."""


class Predictions(NamedTuple):
  """Predictions of a network or an ensemble for a split's images, in the split's order.

  Attributes:
    center_crop: [N, classes] float32, probabilities for the center crop.
    ten_views: [N, classes] float32, mean probabilities of the paper's ten views (section 4.1).
    labels: [N] int32, the true classes.
    file_names: [N] str, the images' files within the data set; [0] where they are not known.
  """

  center_crop: np.ndarray
  ten_views: np.ndarray
  labels: np.ndarray
  file_names: np.ndarray = np.zeros(0, np.str_)


def add(total: Predictions | None, predictions: Predictions, share: float) -> Predictions:
  """Adds a network's probabilities to a weighted sum of several networks'.

  Args:
    total: the sum so far, for the same images; None: this is the first network.
    predictions: the network's.
    share: the network's weight; those of all networks add up to 1.
  """
  weighted = predictions._replace(
    center_crop=np.float32(share) * predictions.center_crop,
    ten_views=np.float32(share) * predictions.ten_views,
  )
  if total is None:
    return weighted
  return total._replace(
    center_crop=total.center_crop + weighted.center_crop,
    ten_views=total.ten_views + weighted.ten_views,
  )


def errors(predictions: Predictions) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Computes loss and errors over all images, by center crop and by ten views.

  The loss is the negative logarithm of the true class's probability (by ten views, of its mean). A
  probability that float32 rounds to zero counts as float32's smallest normal number, so a loss is
  at most 87.

  Returns:
    For each of 'center_crop' and 'ten_views': 'loss', 'top1_error' and 'top5_error' (fractions),
    and 'top1_errors' and 'top5_errors' (numbers of images; fractional where classes tie); and for
    each of the two every image's top-1 error, [N] float64.
  """
  labels, of_all, of_images = predictions.labels, {}, {}
  for views in ('center_crop', 'ten_views'):
    probabilities = getattr(predictions, views)
    true = probabilities[np.arange(len(labels)), labels]
    losses = -np.log(np.maximum(true, np.finfo(np.float32).tiny), dtype=np.float64)
    top1, top5 = _image_errors(probabilities, labels)
    of_all[views] = {
      'loss': float(losses.mean()),
      'top1_error': float(top1.mean()),
      'top5_error': float(top5.mean()),
      'top1_errors': float(top1.sum()),
      'top5_errors': float(top5.sum()),
    }
    of_images[views] = top1
  return of_all, of_images


def _image_errors(probabilities: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
  """Each image's top-1 error, and its top-5 error, [N] float64, whose sum is exact."""
  return [np.asarray(each, np.float64) for each in _top1_and_top5(probabilities, labels)]


@jax.jit  # which ranks the classes once for both
def _top1_and_top5(probabilities: jax.Array, labels: jax.Array) -> list[jax.Array]:
  return [metrics.errors(probabilities, labels, k) for k in (1, 5)]


def differences(
  errors: Mapping[str, np.ndarray], of_first: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
  """Compares a network's top-1 errors with another's, image by image, as McNemar's test does.

  The interval is for these two trained networks, on other images of the same kind. It does not
  include how errors vary from seed to seed.

  Args:
    errors: each image's of the network, from `errors`.
    of_first: the other network's, for the same images.

  Returns:
    For each of 'center_crop' and 'ten_views': 'top1_difference', a fraction, positive where the
    network is wrong on more images than the other, and 'margin_of_error', half the width of its
    95% interval (normal approximation, with the continuity correction of one image).
  """
  by_view = {views: of_images - of_first[views] for views, of_images in errors.items()}
  return {
    views: {
      'top1_difference': float(each.mean()),
      'margin_of_error': float(1.96 * each.std() / np.sqrt(len(each)) + 1 / len(each)),
    }
    for views, each in by_view.items()
  }


def instructive(
  probabilities: np.ndarray, predicted: np.ndarray, labels: np.ndarray, count: int
) -> list[tuple[str, np.ndarray]]:
  """Chooses images that show both what a network can do and where it fails.

  A quarter are the surest right ones, spread over the classes. Of the rest, half are the surest wrong
  ones, and half the least sure, right or wrong. Where fewer are wrong, more are right.

  Args:
    probabilities: [N] of each image's most probable class.
    predicted: [N] int, those classes.
    labels: [N] int, the true ones.
    count: how many to choose at most.

  Returns:
    'surest right', 'least sure' and 'surest wrong', each with the images' indices [n] int, in this
    order.
  """
  rest = count - count // 4
  surest = np.argsort(-np.asarray(probabilities), kind='stable')
  is_right = (np.asarray(predicted) == labels)[surest]
  right, wrong = surest[is_right], surest[~is_right][: rest // 2]
  _, firsts = np.unique(np.asarray(labels)[right], return_index=True)  # of each class the surest
  right = np.concatenate([right[np.sort(firsts)], np.delete(right, firsts)])
  others = surest[~np.isin(surest, [*wrong, *right[: count // 4]])]
  unsure = others[::-1][: rest - rest // 2]
  right = right[~np.isin(right, unsure)][: count - len(wrong) - len(unsure)]
  return [('surest right', right), ('least sure', unsure), ('surest wrong', wrong)]


def save(path: Path, predictions: Predictions, identity: Mapping[str, Any]) -> None:
  """Writes predictions atomically as .npz.

  Args:
    path: the file.
    predictions: the arrays.
    identity: the data and networks they are of, as values for JSON.
  """
  with files.atomic_write(path) as temporary:
    np.savez(temporary, identity=np.asarray(json.dumps(identity)), **predictions._asdict())


def load_identity(path: Path) -> dict[str, Any] | None:
  """The identity with which `save` wrote a file; None where it is missing.

  Raises:
    UserError: the file cannot be read.
  """
  if not path.exists():
    return None
  try:
    return dict(files.parse_json(str(files.read_npz(path, ['identity'])['identity'])))
  except Exception as error:  # a damaged file fails in many ways
    raise _unreadable(path, error) from error


def load(path: Path, identity: Mapping[str, Any]) -> Predictions | None:
  """Reads a file of `save`; returns None where it is missing or of another identity.

  Where `identity` has no 'fingerprint', as the images are gone, the stored one is not compared.

  Raises:
    UserError: the file cannot be read.
  """
  if not path.exists():
    return None
  try:
    written, *arrays = files.read_npz(path, ['identity', *Predictions._fields]).values()
    stored = files.parse_json(str(written))
    if 'fingerprint' not in identity:
      stored.pop('fingerprint', None)
    if stored != json.loads(json.dumps(identity)):
      return None
    predictions = Predictions(*arrays)
    _check(predictions)
  except Exception as error:  # a damaged file fails in many ways
    raise _unreadable(path, error) from error
  return predictions


def _unreadable(path: Path, error: Exception) -> UserError:
  return UserError(f'{path} cannot be read ({first_line(error)}); remove it')


def _check(predictions: Predictions) -> None:
  """Raises ValueError where arrays are not valid predictions."""
  images, classes = predictions.center_crop.shape
  for probabilities in (predictions.center_crop, predictions.ten_views):
    if probabilities.shape != (images, classes) or probabilities.dtype != np.float32:
      raise ValueError('its probabilities have the wrong shape or dtype')
    if not (np.isfinite(probabilities).all() and (probabilities >= 0).all()):
      raise ValueError('its probabilities are not all finite and at least 0')
  labels = predictions.labels
  if labels.shape != (images,) or labels.dtype != np.int32 or not images:
    raise ValueError('it does not have a label for each image')
  if labels.min() < 0 or labels.max() >= classes:
    raise ValueError('it has labels that no class has')
  names = predictions.file_names
  if names.shape not in ((0,), (images,)) or names.dtype.kind != 'U':
    raise ValueError('it does not have a file name for each image')
  ''.join(names.tolist()).encode()  # raises for half a character


def write_tables(
  folder: Path,
  probabilities: np.ndarray,
  labels: np.ndarray,
  class_names: Sequence[str],
  file_names: Sequence[str] | np.ndarray = (),
) -> None:
  """Writes tables of the results for each image and each class.

  - `images.csv`: for each image its index in the split, its file where that is known, its class,
    and its five most probable classes with their probabilities.
  - `confusion.csv`: the confusion matrix, with a row for each true class.
  - `per_class.csv`: for each class its number of images and their errors as fractions.
  - `submission.txt`: for each image its five most probable classes, the best first, counted from 1
    in the order of the labels, as the 2012 code's `txt-preds.py` writes them.

  Of classes that tie the first counts as the best here, while errors are shared (`metrics.errors`).

  Args:
    folder: for the files, each written atomically.
    probabilities: [N, classes] float32.
    labels: [N] int32.
    class_names: the names of the classes.
    file_names: [N] the images' files; empty where they are not known.
  """
  count = metrics.num_best(len(class_names))
  best_probabilities, best = map(np.asarray, lax.top_k(jnp.asarray(probabilities), count))
  _write_rows(
    folder / 'images.csv',
    ['image', *(['file'] if len(file_names) else []), 'class', *best_headings(len(class_names))],
    _image_rows(best, best_probabilities, labels, class_names, file_names),
  )
  confusion = np.zeros((len(class_names), len(class_names)), np.int64)
  np.add.at(confusion, (labels, best[:, 0]), 1)
  _write_rows(
    folder / 'confusion.csv',
    ['class', *class_names],
    ([name, *row] for name, row in zip(class_names, confusion, strict=True)),
  )
  _write_rows(
    folder / 'per_class.csv',
    ['class', 'images', 'top1_error', 'top5_error'],
    _class_rows(probabilities, labels, class_names),
  )
  with files.atomic_write(folder / 'submission.txt') as temporary:
    temporary.write_text(''.join(' '.join(map(str, order)) + '\n' for order in best + 1), 'utf-8')


def best_headings(num_classes: int) -> list[str]:
  """The headings of the columns in which a table has each image's most probable classes."""
  ranks = range(1, metrics.num_best(num_classes) + 1)
  return [f'{what}_{k}' for k in ranks for what in ('best', 'probability')]


def best_cells(class_names: Sequence[str], probabilities: Iterable[float]) -> list[str]:
  """An image's cells below `best_headings`: its most probable classes and their probabilities, 0 to 1."""
  pairs = zip(class_names, probabilities, strict=True)
  return [cell for name, value in pairs for cell in (name, f'{value:.6g}')]


def _image_rows(
  best: np.ndarray,
  probabilities: np.ndarray,
  labels: np.ndarray,
  class_names: Sequence[str],
  file_names: Sequence[str] | np.ndarray,
) -> Iterator[list[Any]]:
  for image, label in enumerate(labels):
    cells = best_cells([class_names[k] for k in best[image]], probabilities[image])
    file = [file_names[image]] if len(file_names) else []
    yield [image, *file, class_names[label], *cells]


def _class_rows(
  probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Iterator[list[Any]]:
  top1, top5 = _image_errors(probabilities, labels)
  for k, name in enumerate(class_names):
    of_class = labels == k
    means = [top1[of_class].mean(), top5[of_class].mean()] if of_class.any() else ['', '']
    yield [name, of_class.sum(), *means]


def _write_rows(path: Path, header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
  with (
    files.atomic_write(path) as temporary,
    temporary.open('w', newline='', encoding='utf-8') as file,
  ):
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(rows)
