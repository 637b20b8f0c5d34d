"""A run on one page of HTML: curves, mistakes, pictures, config, where it comes from.

Everything is taken from the run's folder, so the page can be made again at any time; it needs no other
file, no script and no network.
"""

import base64
import collections
import csv
import importlib.resources
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jinja2
from PIL import Image

from alexnet_jax.checkpoints import workdir
from alexnet_jax.configs import imagenet
from alexnet_jax.data import imagenet_classes
from alexnet_jax.evaluation import metrics
from alexnet_jax.reports import page_curves
from alexnet_jax.utils import config_fields, files, host
from alexnet_jax.utils.errors import UserError

NAME = 'report.html'

_PICTURES = (
  ('figure2_network', 'The network', ''),
  ('figure3_kernels', "conv1's kernels", "The paper's figure 3."),
  ('kernels_start_and_now', "conv1's kernels at the start and now", ''),
  (
    'figure4_predictions',
    'Predictions',
    "The paper's figure 4, left: images that the network was not trained on, the surest right ones,"
    ' the least sure, and the surest wrong ones.',
  ),
  (
    'evidence',
    'Where the evidence lies',
    'A square of the mean color, an eighth of the side wide, covers a part of the image: how much lower'
    ' the log-odds of its class, log(p / (1 - p)), then are; and how much the score of its class changes'
    ' with each pixel.',
  ),
  (
    'figure4_retrieval',
    'Nearest training images',
    "The paper's figure 4, right. The number is the Euclidean distance between the outputs of the"
    ' layer that the title names.',
  ),
  (
    'best_patches',
    'What maps respond to',
    'For some maps of each layer, the nine training images at which they are strongest, cut to what'
    ' the strongest place of the map depends on.',
  ),
)
_MOST_CLASSES = 25  # of a confusion matrix that is drawn
_MOST_ROWS = 20  # of other tables


_Parsed = TypeVar('_Parsed')


class Confusion(NamedTuple):
  """A confusion matrix as text and shades.

  Attributes:
    class_names: of its rows, the true classes, and columns.
    cells: for each row, counts with the share of the row that they are.
  """

  class_names: Sequence[str]
  cells: Sequence[Sequence[tuple[str, float]]]


def write(path: str | os.PathLike[str]) -> Path:
  """Writes a run's page, from whatever its folder has so far, as report.html there.

  Args:
    path: the workdir.

  Returns:
    The file.

  Raises:
    UserError: it is not the folder of a run, or its files cannot be read.
    OSError: the file cannot be written.
  """
  path = Path(path)
  config = workdir.read_config(path)
  if config is None:
    raise UserError(f'{path} has no config.json, so it is not the folder of a run')
  records = workdir.read_metrics(path)
  starts = workdir.read_starts(path)
  tables = path / 'evaluation'
  confusion, confused = _table(tables / 'confusion.csv', _confusion)
  names, classes = _table(tables / 'per_class.csv', _classes)
  mistakes = _table(tables / 'images.csv', _mistakes)
  template = importlib.resources.files('alexnet_jax.reports') / 'templates' / 'run.html'
  environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
  environment.filters['words'] = lambda name: names.get(name, name)
  validations = [record for record in records if record['split'] == 'validation']
  text = environment.from_string(template.read_text('utf-8')).render(
    title=path.name or str(path),
    data=_data(config['data']['name'], config['data'].get('data_dir')),
    last=validations[-1] if validations else None,
    best=page_curves.best(validations) if validations else None,
    curves=page_curves.curves(records),
    epoch=page_curves.epoch,
    size=page_curves.SIZE,
    evaluation=_evaluation(path / 'evaluation.json'),
    confusion=confusion,
    confused=confused,
    classes=classes,
    mistakes=mistakes[:_MOST_ROWS],
    num_mistakes=len(mistakes),
    pictures=_pictures(path),
    differing=_differing(config),
    starts=starts,
    versions=starts[-1].get('versions', {}) if starts else {},
    commands=list(dict.fromkeys(start['command'] for start in starts if start['command'])),
    callers=list(dict.fromkeys(start.get('caller') for start in starts if not start['command'])),
    command=host.command(f'--workdir={path}'),
  )
  with files.atomic_write(files.inside(path, NAME)) as temporary:
    temporary.write_text(text, 'utf-8')
  return path / NAME


class Evaluation(NamedTuple):
  """What evaluation.json says.

  Attributes:
    step: of the checkpoint.
    images: how many, of `data` (split).
    data, split: which they are.
    errors: by 'center crop' and 'ten views': top-1, and top-5 where there are more than five classes.
  """

  step: int
  images: int
  data: str
  split: str
  errors: Mapping[str, tuple[float, float | None]]


def _evaluation(path: Path) -> Evaluation | None:
  """Reads evaluation.json; None where there is none."""
  if not path.exists():
    return None
  try:
    value = files.parse_json(files.read(path))
    has_top5 = metrics.has_top5(value['classes'])
    errors = {
      name: (
        float(value[views]['top1_error']),
        float(value[views]['top5_error']) if has_top5 else None,
      )
      for views, name in (('center_crop', 'center crop'), ('ten_views', 'ten views'))
    }
    return Evaluation(
      value['members'][0]['step'], int(value['images']), value['data'], value['split'], errors
    )
  except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
    raise UserError(f'{path} cannot be read; remove it, and run --mode=evaluate again') from error


def _data(name: str, folder: str | None) -> str:
  """A data set as a sentence names it."""
  return f'the folder {folder}' if name == 'folder' and folder else name


def _names(class_names: Sequence[str]) -> dict[str, str]:
  """What the page calls classes: of ImageNet's words only the first, unless two classes share it."""
  words = imagenet_classes.display_names(class_names)
  pairs = list(zip(class_names, words, strict=True))
  first = [text if text == name else text.partition(',')[0] for name, text in pairs]
  count = collections.Counter(first)
  return {
    name: short if count[short] == 1 else text
    for (name, text), short in zip(pairs, first, strict=True)
  }


def _table(path: Path, parse: Callable[[list[list[str]]], _Parsed]) -> _Parsed:
  """Parses the rows of a table that an evaluation wrote; without the file there are none.

  Raises:
    UserError: the file cannot be parsed.
  """
  if not path.exists():
    return parse([])
  try:
    with path.open(newline='', encoding='utf-8-sig') as file:
      return parse([row for row in csv.reader(file) if row])
  except (csv.Error, IndexError, KeyError, ValueError) as error:
    raise UserError(
      f'{path} cannot be read, perhaps because another program has saved it; remove the folder {path.parent},'
      ' and run --mode=evaluate again'
    ) from error


def _confusion(
  rows: Sequence[Sequence[str]],
) -> tuple[Confusion | None, list[tuple[int, str, str]]]:
  """The matrix, if it is drawn; and the pairs confused most: how often, the true one, and for which."""
  if not rows:
    return None, []
  _, *class_names = rows[0]
  counts = [list(map(int, of_class)) for _, *of_class in rows[1:]]
  if len(counts) != len(class_names):
    raise ValueError('it does not have a row for each class')
  pairs = [
    (count, actual, name)
    for (actual, *_), of_class in zip(rows[1:], counts, strict=True)
    for name, count in zip(class_names, of_class, strict=True)
    if name != actual and count
  ]
  confused = sorted(pairs, key=lambda pair: -pair[0])[:_MOST_ROWS]
  if len(class_names) > _MOST_CLASSES:
    return None, confused
  cells = [
    [(f'{count}', count / (sum(of_class) or 1)) for count in of_class] for of_class in counts
  ]
  return Confusion(class_names, cells), confused


def _classes(
  rows: Sequence[Sequence[str]],
) -> tuple[dict[str, str], list[tuple[str, int, float]]]:
  """What the page calls classes; and those with images, how many, and their error, the worst first."""
  by_heading = _by_heading(rows)
  known = [row for row in by_heading if row['top1_error']]
  classes = [(row['class'], int(row['images']), float(row['top1_error'])) for row in known]
  return _names([row['class'] for row in by_heading]), sorted(classes, key=lambda each: -each[2])


def _mistakes(rows: Sequence[Sequence[str]]) -> list[Mapping[str, Any]]:
  """The images that the network takes for something else, those of which it is surest first."""
  wrong = [
    {**row, 'file': row.get('file') or f'image {row["image"]}', 'sure': float(row['probability_1'])}
    for row in _by_heading(rows)
    if row['best_1'] != row['class']
  ]
  return sorted(wrong, key=lambda row: -row['sure'])


def _by_heading(rows: Sequence[Sequence[str]]) -> list[dict[str, str]]:
  return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def _pictures(path: Path) -> list[tuple[str, str, str]]:
  """The pictures that there are: title, caption, and content as a data: address.

  Photographs are JPEG, which has a fifth of the bytes; kernels and drawings, which it blurs, stay PNG.
  """
  found = []
  for name, title, caption in _PICTURES:
    file = files.inside(path, f'figures/{name}.png')
    if file.exists():
      kind, content = 'png', file.read_bytes()
      with Image.open(file) as picture:
        picture.convert('RGB').save(jpeg := io.BytesIO(), 'JPEG', quality=90, subsampling=0)
      if len(jpeg.getvalue()) < len(content) / 2:
        kind, content = 'jpeg', jpeg.getvalue()
      address = f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
      found.append((title, caption, address))
  return found


def _differing(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  """Fields by which a run is another experiment than the paper's: their values here and there."""
  # By way of JSON, as workdirs have it.
  paper = dict(config_fields.flatten(json.loads(json.dumps(imagenet.get_config().to_dict()))))
  current = dict(config_fields.flatten(config_fields.with_current_names(config)))
  return [
    (field, json.dumps(value), json.dumps(paper[field]))
    for field, value in current.items()
    if field in paper
    and value != paper[field]
    and not config_fields.is_among(field, config_fields.CIRCUMSTANCES)
  ]
