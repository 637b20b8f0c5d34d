"""A run's figures: the paper's figures 2, 3 and 4, activations, and learning curves."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained, workdir
from alexnet_jax.data import augment, image_folder, pipeline, splits
from alexnet_jax.evaluation import given_images, layer_outputs, predictions, retrieval
from alexnet_jax.models import drawing
from alexnet_jax.models.options import LAYERS
from alexnet_jax.parallel import compat
from alexnet_jax.reports import figures, fonts
from alexnet_jax.utils import files
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError

_IMAGES, _QUERIES, _NEIGHBOURS = 8, 5, 6  # as in the paper's figure 4


@compat.default_settings()
def draw(
  path: str | os.PathLike[str],
  config: ConfigDict,
  layer: str | None = None,
  compare: Sequence[str] = (),
) -> tuple[list[Path], list[np.ndarray]]:
  """Draws what a workdir's best checkpoint has learned, as PNG, PDF and SVG, into its folder `figures`.

  learning_curves, figure2_network, figure3_kernels, figure4_predictions and activations_conv1 to
  that of the last hidden layer, of the validation images that `predictions.instructive` chooses; then
  figure4_retrieval, for which the network looks at every training image. All is computed on one
  device.

  Where `config` has another folder of images than was trained on, predictions and activations are
  of its images, and figure4_retrieval is left out.

  Args:
    path: the run's folder.
    config: the run's, but for where it runs (`config_fields.CIRCUMSTANCES`).
    layer: the output by which images are near, one of `layer_outputs.layer_names`; None: that of the
      last hidden layer, before dropout, as in the paper.
    compare: workdirs of other runs, whose learning curves are drawn with this one's.

  Returns:
    The files, and for each column the `figures.color_selectivity` of its first layer's kernels; []
    where all images are gray.

  Raises:
    UserError: there is no whole checkpoint, it is of another experiment or other classes, the
      network has no such layer, `layer` is given with another folder, or a run to compare has no
      metrics.
  """
  path = files.local(path, '--workdir')
  compare = [str(files.local(other, '--compare')) for other in compare]
  folder = files.inside(path, 'figures')
  experiment.check(config)
  runs = {name: workdir.read_metrics(name) for name in (str(path), *compare)}
  for other in compare:
    if not runs[other]:
      raise UserError(f'{other} has no metrics.jsonl; compare with the workdir of a run')
  written: list[Path] = []
  with Display() as display:
    network = pretrained.read(path, log=display.line)
    if config.model.num_classes is None:
      config = config.copy_and_resolve_references()
      config.model.num_classes = len(network.class_names)
    workdir.check(path, experiment.resolved(config))
    names = layer_outputs.output_names(config)
    hidden = [name for name in LAYERS if f'{name}_activation' in names]
    near_by = layer or retrieval.last_hidden(names)
    features_step = layer_outputs.make_outputs_step(config, [near_by])  # raises for others
    training = given_images.read_training(network)
    given = given_images.open_images(
      network, config, None, training, display, functools.cache(image_folder.open_folder)
    )
    shown, records = 'validation images', runs[str(path)]
    if given.trained_on is None:
      records = []  # the error in them is not of these images
      if layer is not None:
        raise UserError(
          f'--layer={layer} is for training images, but {given.data} is not what {path} was trained'
          ' on; leave out --layer, or --config.data.data_dir'
        )
      shown = f'images of {Path(given.data).name} ({given.split_name})'
      display.line(
        f'{given.data} is not what {path} was trained on: predictions and activations are of its'
        f' images ({given.split_name}), and retrieval, which looks for training images, is left out'
      )
    net = experiment.make_network(config)
    logits_step = layer_outputs.make_outputs_step(config, ['fc8'])
    what = _description(config, network, records)
    if missing := fonts.missing([*network.class_names, *runs, what, shown]):
      display.line(missing)
    move = display.task('figures', 4 + (given.trained_on is not None) + len(hidden))

    def save(name: str, picture: Figure) -> None:
      written.extend(figures.save(picture, folder / name))
      move(1)

    if runs[str(path)]:
      title = str(path) if len(runs) == 1 else config.data.name
      save('learning_curves', figures.learning_curves(runs, title))
    else:
      display.line(f'{path} has no metrics.jsonl; its learning curves are left out')
    save('figure2_network', drawing.draw(net))
    chosen = _instructive(
      logits_step,
      network,
      given.split,
      batch_size=config.train.batch_size,
      crop_size=net.input_size,
      progress=display.task('predictions', given.split.num_examples),
    )
    kernels = first_kernels(network.params)
    gray = is_gray(network.statistics)
    title = f'{what}\nkernels of conv1'
    save('figure3_kernels', figures.kernels(kernels, net.num_columns, title, gray))

    seen = np.concatenate([one for _, one in chosen])
    images, labels = read_images(given.split, np.concatenate(given.split.order())[seen])
    outputs = layer_outputs.make_outputs_step(config, [*hidden, near_by, 'fc8'])(
      network.params, network.statistics, _center_crops(images, net.input_size)
    )
    probabilities = np.asarray(jax.nn.softmax(outputs['fc8']))
    title = f'{what}\n{shown} and the classes held most probable'
    headings = [name for name, one in chosen for _ in one]
    save(
      'figure4_predictions',
      figures.predictions(images, probabilities, labels, network.class_names, title, headings),
    )
    for name in hidden:
      maps, title = np.asarray(outputs[name][0]), f'{what}\nactivations of {name}'
      picture = figures.activations(maps, net.num_columns, title, images[0])
      save(f'activations_{name}', picture)

    if given.trained_on is not None:
      trained_on = given.trained_on.load_split(config.data.train_split)
      features = retrieval.split_features(
        features_step,
        network.params,
        network.statistics,
        trained_on,
        batch_size=config.train.batch_size,
        crop_size=net.input_size,
        progress=display.task('retrieval', trained_on.num_examples),
      )
      title = f'{what}\n{shown} and the training images nearest by {near_by}'
      queries = np.asarray(outputs[near_by][:_QUERIES])
      save('figure4_retrieval', _retrieval(images, labels, queries, features, trained_on, title))
  columns = [] if gray else np.split(kernels, net.num_columns, axis=-1)
  return written, [figures.color_selectivity(column) for column in columns]


def _instructive(
  step: layer_outputs.OutputsStep,
  network: pretrained.PretrainedNetwork,
  split: splits.Split,
  *,
  batch_size: int,
  crop_size: int,
  progress: Callable[[int], None],
) -> list[tuple[str, np.ndarray]]:
  """`predictions.instructive` of a split's images, by their places in its order.

  Args:
    step: from crops to 'fc8'.
    network: the trained network.
    split: the images.
    batch_size: images per batch.
    crop_size: the network's input size in pixels.
    progress: called with the number of images of each batch.
  """
  best, predicted, labels = [], [], []
  read = pipeline.evaluation_batches(split, batch_size, crop_size)
  with contextlib.closing(pipeline.prefetch(read)) as batches:
    for batch in batches:
      logits = step(network.params, network.statistics, batch['image'])['fc8']
      probabilities = np.asarray(jax.nn.softmax(logits))[batch['mask']]
      best.append(probabilities.max(axis=1))
      predicted.append(probabilities.argmax(axis=1))
      labels.append(batch['label'][batch['mask']])
      progress(len(probabilities))
  return predictions.instructive(
    np.concatenate(best), np.concatenate(predicted), np.concatenate(labels), _IMAGES
  )


def _retrieval(
  images: np.ndarray,
  labels: np.ndarray,
  queries: np.ndarray,
  features: Iterable[np.ndarray],
  split: splits.Split,
  title: str,
) -> figures.Figure:
  """The images of a split that are nearest to the first of others, by features of both."""
  shown = len(queries)
  near, squares = retrieval.nearest(features, queries.reshape(shown, -1), _NEIGHBOURS)
  found = [read_images(split, np.concatenate(split.order())[row]) for row in near]
  return figures.retrieval(
    images[:shown],
    labels[:shown],
    [pixels for pixels, _ in found],
    [of_found for _, of_found in found],
    list(np.sqrt(squares)),
    split.class_names,
    title,
  )


def first_kernels(params: Any) -> np.ndarray:
  """conv1's kernels [height, width, 3, F]; of a locally connected one, those at the center."""
  kernels = np.asarray(params['conv1']['kernel'])
  if kernels.ndim == 6:
    kernels = kernels[kernels.shape[0] // 2, kernels.shape[1] // 2]
  return kernels


def is_gray(statistics: augment.Statistics) -> bool:
  """Whether training images were gray: red, green and blue are equal in their mean image."""
  return bool(np.ptp(np.asarray(statistics.mean_image), axis=-1).max() == 0)


def read_images(split: splits.Split, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Whole images [N, S, S, 3] uint8 and labels [N] int32 of examples [N], in their order."""
  group = (examples, np.zeros((len(examples), 2), np.int32))
  with contextlib.closing(split.read([group], len(examples), split.image_size)) as batches:
    batch = next(batches)
  return batch['image'], batch['label']


def _center_crops(images: np.ndarray, size: int) -> np.ndarray:
  border = (images.shape[1] - size) // 2
  return images[:, border : border + size, border : border + size]


def _description(
  config: ConfigDict, network: pretrained.PretrainedNetwork, records: Sequence[Mapping[str, Any]]
) -> str:
  """Data, network, step and, where it was measured then, the validation error."""
  columns = config.model.num_columns
  parts = [config.data.name, f'{columns} column{"s" * (columns > 1)}', f'step {network.step}']
  for record in records:
    if (record['split'], record['step']) == ('validation', network.step):
      parts.append(f'top-1 error {record["top1_error"]:.1%}')
      break
  return ', '.join(parts)
