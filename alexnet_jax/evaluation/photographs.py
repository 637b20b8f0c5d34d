"""Classifies photographs that have no labels, from files and folders into a table."""

import csv
import dataclasses
import operator
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from alexnet_jax.checkpoints import pretrained
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.data import folder_tree
from alexnet_jax.evaluation import predictions
from alexnet_jax.evaluation.classifier import Classifier, Prediction
from alexnet_jax.utils import files
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError, number_of

_TOGETHER = 128  # images classified at a time


@dataclasses.dataclass(frozen=True)
class Classified:
  """What became of some files.

  Attributes:
    predictions: of each image that could be read, its path as `image`.
    unreadable: of each other file its path and why.
    passed_over: other files in the folders, which are no images.
    target: the table that was written.
  """

  predictions: Sequence[Prediction]
  unreadable: Sequence[tuple[str, str]]
  passed_over: Sequence[str]
  target: Path


def find(paths: Sequence[str]) -> tuple[list[str], list[tuple[str, str]], list[str]]:
  """Lists the images among files and in folders, at any depth.

  Args:
    paths: each a file, which is taken whatever its name, or a folder, of which the images are taken,
      told by their names' endings or first bytes; see `folder_tree.Tree`.

  Returns:
    The images, in the order of `paths` and within a folder by name; the folders' photographs of kinds
    that are not read, and files that cannot be, each with a message; and the folders' other files.

  Raises:
    UserError: a path does not exist, or there are no images.
  """
  images: list[str] = []
  unreadable: list[tuple[str, str]] = []
  others: list[str] = []
  tree = folder_tree.Tree()
  for path in map(files.expanded, paths):
    if not os.path.exists(path):
      comma = ', and a name with a comma in double quotes, as \'"a,b.jpg"\'' * (len(paths) > 1)
      raise UserError(f'there is no {path} (--images); give folders and files, as a,b/c.jpg{comma}')
    if not os.path.isdir(path):
      images.append(path)
      continue
    for found in sorted(tree.walk(path), key=operator.attrgetter('path')):
      if not found.reason:
        images.append(found.path)
      elif found.reason in (folder_tree.NO_IMAGE, folder_tree.SYSTEM):
        others.append(found.path)
      else:
        unreadable.append((found.path, f'{found.path} cannot be read: {found.reason}'))
  if not images:
    such_as = f'; {unreadable[0][1]}' if unreadable else ''
    raise UserError(f'{", ".join(paths) or "--images"} has no images that can be read{such_as}')
  return images, unreadable, others


def classify(
  path: str | os.PathLike[str],
  paths: Sequence[str],
  target: str | os.PathLike[str] | None,
  read: Callable[..., PretrainedNetwork] = pretrained.read,
) -> Classified:
  """Classifies images and writes a table: of each its file and its five most probable classes.

  Args:
    path: of the network, as `read` takes it.
    paths: files and folders; see `find`.
    target: the table, a .csv file; None: predictions.csv in `path`, which must be a workdir.
    read: reads the network; called with `path`, and as `log` with a function for lines to the user.

  Raises:
    UserError: there is no network, there are no images, none can be read, or the table has no place.
  """
  if '://' not in os.fspath(path) and not Path(path).exists():
    raise UserError(f'there is no {path} (--workdir); give the workdir of a trained network')
  if target is None and not Path(path, 'checkpoints').is_dir():
    raise UserError(f'{path} is not a workdir; say where to write with --target=FILE.csv')
  written = Path(path, 'predictions.csv') if target is None else files.local(target, '--target')
  if written.suffix != '.csv':
    raise UserError(f'{written} (--target) must end in .csv')
  images, unreadable, others = find(paths)
  try:
    written.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=written.parent).close()
  except OSError as error:
    raise UserError(
      f'cannot write {written}: {error.strerror}; give another place with --target=FILE.csv'
    ) from error
  predicted: list[Prediction] = []
  with Display() as display:
    classifier = Classifier(**vars(read(path, log=display.line)))
    update_progress = display.task('images', len(images))
    with (
      files.atomic_write(written) as temporary,
      temporary.open('w', newline='', encoding='utf-8', errors='replace') as file,
    ):
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(['file', *predictions.best_headings(len(classifier.class_names))])
      for start in range(0, len(images), _TOGETHER):
        together = images[start : start + _TOGETHER]
        of_readable, not_read = classifier.predict_readable(together)
        unreadable += not_read
        for prediction in of_readable:
          cells = predictions.best_cells(prediction.display_names, prediction.probabilities)
          writer.writerow([prediction.image, *cells])
          predicted.append(prediction)
        update_progress(len(together))
      if not predicted:
        raise UserError(
          f'{number_of(len(unreadable), "file")} given, none can be read; the first: {unreadable[0][1]}'
        )
  return Classified(predicted, unreadable, others, written)
