"""What a mode of the program prints, and draws, when it is done."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained, workdir
from alexnet_jax.data import datasets, imagenet_classes, left_out_list, prepare
from alexnet_jax.evaluation import metrics
from alexnet_jax.models import summary
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.parallel import xla
from alexnet_jax.utils import host
from alexnet_jax.utils.display import Display, duration, fill, print_table, waiting
from alexnet_jax.utils.errors import number_of

if TYPE_CHECKING:
  from alexnet_jax.evaluation import photographs

_SHOWN = 20  # images of a prediction that are printed


def training(config: ConfigDict, path: Path, result: Mapping[str, Any], seconds: float) -> None:
  """Draws the learning curves, and prints the errors, where everything lies, and what may follow.

  Args:
    config: the run's.
    path: the run's folder.
    result: what `loop.train_and_evaluate` returned.
    seconds: since the run was started, or resumed.
  """
  with waiting('drawing the learning curves'):
    from alexnet_jax.reports import canvas, curves, fonts, run_page  # which nothing else here needs

    page = run_page.write(path)  # before the picture, which is the last file that a run writes
    records = workdir.read_metrics(path)
    drawn = curves.learning_curves({str(path): records}, str(path))
    picture, *_ = canvas.save(drawn, path / workdir.LEARNING_CURVES)
  if missing := fonts.missing([str(path)]):
    print(missing, file=sys.stderr)
  stored = workdir.read_config(path)
  assert stored is not None  # the run has written it
  num_classes = stored['model']['num_classes']
  headings = _headings(num_classes)
  validations = {record['step']: record for record in records if record['split'] == 'validation'}
  best = validations.get(result['best_step'])  # None where metrics.jsonl was removed
  best_cells = (
    _errors(best, num_classes)
    if best
    else (f'{result["best_error"]:.2%}', *[''] * (len(headings) - 1))
  )
  print_table(
    f'{datasets.title(config.data)}, {config.data.validation_split} images',
    ('', 'step', *headings),
    [
      ('last', f'{result["step"]}', *_errors(result, num_classes)),
      ('best', f'{result["best_step"]}', *best_cells),
    ],
  )
  starts = workdir.read_starts(path)
  since = starts[-1].get('step') if starts else None
  _print_list(
    {
      'time': duration(seconds) + (f' since step {since}' if since else ''),
      'checkpoints': path / 'checkpoints',
      'metrics': path / 'metrics.jsonl',
      'picture': picture,
      'page': page,
    }
  )
  if not result['best_step']:  # nothing was trained, so there is no checkpoint
    return
  modes = ['--mode=evaluate', '--mode=figures']
  if config.data.name != 'digits':
    modes.append('--mode=predict --images=PHOTOGRAPHS')
  print('next:')
  for mode in modes:
    print(f'  {host.command(f"--workdir={path}")} {mode}')


def _print_list(values: Mapping[str, object]) -> None:
  """Prints values, one a line, behind their aligned names."""
  for name, value in values.items():
    print(f'{name:14}{value}')


def evaluation(path: Path, result: Mapping[str, Any]) -> None:
  """Prints the errors of a network, or of several and their average, and where everything lies.

  Args:
    path: the folder of the results.
    result: what evaluation.json holds.
  """
  members = result['members']
  num_classes = result['classes']
  classes = f'{result["classes_with_images"]:,} classes'
  if result['classes_with_images'] != num_classes:
    classes = f'{result["classes_with_images"]:,} of {num_classes:,} classes'
  rows = [row for member in members for row in _views(member['path'], member, num_classes)]
  compared: list[tuple[str, ...]] = []
  if len(members) > 1:
    weighted = len({member['weight'] for member in members}) > 1
    average = f'{"weighted " * weighted}average of {len(members)}'
    rows += _views(average, result, num_classes)
    others = [(member['path'], member) for member in members[1:]] + [(average, result)]
    compared = [(name, *_differences(of['compared_with_first'])) for name, of in others]
  stored = workdir.read_config(path)  # None: it is the folder of --members
  print_table(
    f'{path}, {result["data"]}, {number_of(result["images"], "image")} ({result["split"]}) of {classes}',
    ('network', 'step', 'views', *_headings(num_classes)),
    rows,
  )
  if compared:
    print_table(
      f'\ntop-1 error minus that of {members[0]["path"]}, percentage points and 95% interval',
      ('network', 'center crop', 'ten views'),
      compared,
    )
  files = {'results': path / 'evaluation.json', 'tables': path / 'evaluation'}
  if stored is not None:
    from alexnet_jax.reports import run_page  # which nothing else here needs

    files['page'] = run_page.write(path)
  _print_list(files)


def classified(result: 'photographs.Classified') -> None:
  """Prints the classes of the first images, and which files could not be read.

  Args:
    result: what `photographs.classify` returned.
  """
  shown = result.predictions[:_SHOWN]
  print_table(
    number_of(len(result.predictions), 'image'),
    ('file', 'class', 'probability', 'next', 'probability'),
    [
      (_printable(each.image), *_cells(each.display_names, each.probabilities, 2)) for each in shown
    ],
  )
  if rest := len(result.predictions) - len(shown):
    print(f'and {rest:,} more')
  print(f'written       {result.target}')
  for _, reason in result.unreadable[:_SHOWN]:
    print(reason, file=sys.stderr)
  if (more := len(result.unreadable) - _SHOWN) > 0:
    print(f'and {more:,} more', file=sys.stderr)
  if bad := len(result.unreadable):
    print(
      f'{bad:,} of {number_of(bad + len(result.predictions), "file")} cannot be read',
      file=sys.stderr,
    )
  if others := result.passed_over:
    some = ', '.join(others[:3]) + (', ...' if len(others) > 3 else '')
    what = 'file is no image and is' if len(others) == 1 else 'files are no images and are'
    print(f'{len(others):,} {what} skipped: {some}', file=sys.stderr)


def _printable(name: str) -> str:
  """A file's name, the bytes in it that are not Unicode replaced."""
  return os.fsencode(name).decode(errors='replace')


def _cells(names: Sequence[str], probabilities: Sequence[float], count: int) -> list[str]:
  """The first classes and their probabilities; empty cells where there are fewer."""
  pairs = list(zip(names, probabilities, strict=True))[:count]
  cells = [cell for name, share in pairs for cell in (name, f'{share:.1%}')]
  return cells + [''] * (2 * count - len(cells))


def _views(name: str, of: Mapping[str, Any], num_classes: int) -> list[tuple[str, ...]]:
  step = '' if of.get('step') is None else f'{of["step"]}'
  return [
    (name, step, 'center crop', *_errors(of['center_crop'], num_classes)),
    ('', '', 'ten views', *_errors(of['ten_views'], num_classes)),
  ]


def _differences(compared: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
  """'+2.33 ± 0.69' by center crop and by ten views; see `predictions.differences`."""
  return tuple(
    f'{100 * values["top1_difference"]:+.2f} ± {100 * values["margin_of_error"]:.2f}'
    for values in (compared['center_crop'], compared['ten_views'])
  )


def pictures(path: Path, written: Sequence[Path], color_selectivity: Sequence[np.ndarray]) -> None:
  """Prints which figures were written, and how color-selective the columns' kernels are.

  Args:
    path: the run's folder.
    written: the files.
    color_selectivity: for each column, that of each kernel; see `figures.color_selectivity`. [] of a
      network for gray images, of which nothing is printed.
  """
  if color_selectivity:
    print_table(
      f'{path}, color selectivity of conv1: 0 gray, 2/3 at random, 1 color only',
      ('', 'kernels', 'mean', 'least', 'most'),
      [
        (
          f'column {i + 1}',
          f'{len(one)}',
          *(f'{value:.2f}' for value in (one.mean(), one.min(), one.max())),
        )
        for i, one in enumerate(color_selectivity)
      ],
    )
  for file in written:
    if file.suffix == '.png':
      print(f'picture       {file}')
  print('              each as .pdf and .svg too')
  from alexnet_jax.reports import run_page  # which nothing else here needs

  print(f'page          {run_page.write(path)}')


def preparation(config: ConfigDict) -> None:
  """Prepares the data, and prints what there is.

  Args:
    config: the config of a run that will use them.

  Raises:
    UserError: as `experiment.open_data`.
  """
  experiment.check(config)
  with Display() as display:
    _, data_set = experiment.open_data(config, display)
  if not isinstance(data_set, datasets.TfdsDataSet):
    print(f'{config.data.name} comes with the program and needs no preparation')
    return
  rows = [
    (name, f'{split.num_examples:,}', f'{split.num_shards:,}', f'{split.num_bytes / 1e6:,.1f}')
    for name, split in data_set.builder.info.splits.items()
  ]
  print_table(
    f'{data_set.builder.info.full_name}, {len(data_set.class_names):,} classes',
    ('split', 'images', 'files', 'MB'),
    rows,
  )
  found = data_set.stored_statistics(config.data.train_split)
  if found is not None:
    color = ', '.join(f'{value:.2f}' for value in found['mean_image'].mean(axis=(0, 1)))
    axes = ', '.join(f'{value:.4f}' for value in found['eigenvalues'])
    print(f'mean color    {color} (red, green, blue; 0 to 255)')
    print(f'eigenvalues   {axes} (of the covariance of RGB in [0, 1])')
  print(f'folder        {data_set.directory}')
  report = data_set.directory / left_out_list.FILE_NAME
  if report.exists():
    left_out = len(report.read_text('utf-8', 'replace').split('\n')) - 2
    unreadable = prepare.read_metadata(data_set.directory)['unreadable_files']
    print(
      f'left out      {number_of(left_out, "file")} ({unreadable:,} unreadable), listed in {report}'
    )


def conversion(network: pretrained.PretrainedNetwork, written: Sequence[str]) -> None:
  """Prints what was read, and where it went.

  Args:
    network: what `convert.convert` returned.
    written: the files that it wrote.
  """
  parameters = sum(leaf.size for leaf in jax.tree.leaves(network.params))
  names = imagenet_classes.display_names(network.class_names)
  color = ', '.join(f'{value:.2f}' for value in network.statistics.mean_image.mean(axis=(0, 1)))
  print(f'read          {network.path}: {parameters:,} parameters')
  print(f'              {len(names):,} classes, {names[0]!r} to {names[-1]!r}; mean color {color}')
  print(f'written       {", ".join(written)}')


def choices() -> None:
  """Prints the configs and sweeps that come with the program, with what each takes."""
  from alexnet_jax.reports import fields

  for choice in fields.choices():
    print(choice.name)
    for text in filter(None, (choice.title, choice.cost)):
      print(fill(text, indent='    ', hanging='    '))


def network(config: ConfigDict, target: Path | None = None) -> None:
  """Prints the network's layers as a table, and XLA's options for this machine.

  Args:
    config: the config.
    target: a file into which to draw the network, as PNG, PDF and SVG; None for no picture.
  """
  net = experiment.make_network(config)
  rows = summary.rows(net)
  columns, size = config.model.num_columns, config.model.input_size
  print_table(
    f'{number_of(columns, "column")}, {size}x{size}x3 input',
    summary.HEADINGS,
    [summary.cells(row) for row in rows],
    summary.total(rows),
  )
  platform = mesh_lib.devices()[0].platform
  options = f'XLA options: {xla.describe(platform, config.train.library_fusions)}'
  print(fill(options.replace(',', ', '), hanging='  '))
  if rate := experiment.describe_learning_rate(config):
    print(rate)
  if target is None:
    print('--target=network.svg draws the network')
    return
  from alexnet_jax.models import drawing  # matplotlib, which nothing else here needs
  from alexnet_jax.reports import canvas

  written = canvas.save(drawing.draw(net), target)
  print(f'pictures      {", ".join(map(str, written))}')


def _headings(num_classes: int) -> tuple[str, ...]:
  """Of `_errors`."""
  top5 = ('top-5 error',) if metrics.has_top5(num_classes) else ()
  return 'top-1 error', *top5, 'loss'


def _errors(values: Mapping[str, float], num_classes: int) -> tuple[str, ...]:
  top5 = (f'{values["top5_error"]:.2%}',) if metrics.has_top5(num_classes) else ()
  return f'{values["top1_error"]:.2%}', *top5, f'{values["loss"]:.4f}'
