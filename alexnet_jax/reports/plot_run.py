"""A run's figures: the paper's 2, 3 and 4, learning curves, activations, evidence, best patches."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained, workdir
from alexnet_jax.data import augment, datasets, image_folder, imagenet_classes, splits
from alexnet_jax.evaluation import evidence, given_images, layer_outputs, predictions, retrieval
from alexnet_jax.models import drawing, receptive
from alexnet_jax.models.alexnet import AlexNet, initial_parameters
from alexnet_jax.models.options import CONVOLUTIONS, LAYERS
from alexnet_jax.parallel import compat
from alexnet_jax.reports import canvas, curves, figures, fonts
from alexnet_jax.utils import config_fields, files
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError, number_of
from alexnet_jax.utils.picture import Figure

_IMAGES, _QUERIES, _NEIGHBORS = 8, 5, 6  # as in the paper's figure 4
_CANDIDATES = 64  # validation images of which a run's end shows some
_UNITS, _PATCHES = 8, 9  # maps of a layer, and patches of a map


@compat.default_settings()
def draw(
  path: str | os.PathLike[str],
  config: ConfigDict,
  layer: str | None = None,
  compare: Sequence[str] = (),
) -> tuple[list[Path], list[np.ndarray]]:
  """Draws what a workdir's best checkpoint has learned, as PNG, PDF and SVG, into its folder `figures`.

  learning_curves, figure2_network, figure3_kernels and kernels_start_and_now; figure4_predictions,
  evidence and activations_conv1 to that of the last hidden layer, of the validation images that
  `predictions.instructive` chooses; then figure4_retrieval and best_patches, for which the network
  looks once at every training image. All is computed on one device.

  Where `config` has another folder of images than was trained on, predictions, evidence and
  activations are of its images, and figure4_retrieval and best_patches are left out. The start of a
  run that began with another network's parameters is not drawn.

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
    shown = _open(path, config, layer, runs[str(path)], display)
    is_own = shown.given.trained_on is not None
    if missing := fonts.missing([*shown.network.class_names, *runs, shown.what, shown.which]):
      display.line(missing)
    move = display.task('figures', 6 + 2 * is_own + len(shown.hidden))

    def save(name: str, picture: Figure) -> None:
      written.extend(canvas.save(picture, folder / name))
      move(1)

    if runs[str(path)]:
      title = str(path) if len(runs) == 1 else datasets.title(shown.config.data)
      save('learning_curves', curves.learning_curves(runs, title))
    else:
      display.line(f'{path} has no metrics.jsonl; its learning curves are left out')
    save('figure2_network', drawing.draw(shown.net))
    selectivity = _draw_kernels(shown, save, display)
    seen = _choose(shown, display)
    _draw_seen(shown, seen, save)
    if is_own:
      _draw_training_images(shown, seen, save, display)
  return written, selectivity


class _Shown(NamedTuple):
  """A run, as its figures show it.

  Attributes:
    config: the run's, with a number of classes.
    network: of its best checkpoint.
    net: the network of the config.
    given: the images of which predictions, evidence and activations are.
    what: stands above figures: data, network, step and error.
    which: says which images are given.
    hidden: the hidden layers.
    near_by: the output by which images are near.
    logits: computes the output of fc8.
  """

  config: ConfigDict
  network: pretrained.PretrainedNetwork
  net: AlexNet
  given: given_images.GivenImages
  what: str
  which: str
  hidden: Sequence[str]
  near_by: str
  logits: layer_outputs.OutputsStep

  def outputs(
    self, step: layer_outputs.OutputsStep, split: splits.Split, progress: Callable[[int], None]
  ) -> Iterator[tuple[np.ndarray, Mapping[str, jax.Array]]]:
    """`layer_outputs.split_outputs` of a split."""
    return layer_outputs.split_outputs(
      step,
      self.network.params,
      self.network.statistics,
      split,
      batch_size=self.config.train.batch_size,
      crop_size=self.net.input_size,
      progress=progress,
    )


class _Seen(NamedTuple):
  """The given images that are shown.

  Attributes:
    images: [N, S, S, 3] uint8, whole.
    labels: [N] int32.
    headings: why each was chosen.
    crops: [N, s, s, 3] uint8, as the network sees them.
    outputs: of the hidden layers, of `near_by` and of fc8, [N, ...] float32.
  """

  images: np.ndarray
  labels: np.ndarray
  headings: Sequence[str]
  crops: np.ndarray
  outputs: Mapping[str, jax.Array]


def _open(
  path: Path,
  config: ConfigDict,
  layer: str | None,
  records: Sequence[Mapping[str, Any]],
  display: Display,
) -> _Shown:
  """Reads a workdir's network and opens the images; arguments as `draw`'s, and metrics.jsonl's lines."""
  network = pretrained.read(path, log=display.line)
  if config.model.num_classes is None:
    config = config.copy_and_resolve_references()
    config.model.num_classes = len(network.class_names)
  may_differ = (*config_fields.CIRCUMSTANCES, 'data.class_depth')
  workdir.check(path, experiment.resolved(config), may_differ)
  own = experiment.resolved(network.config)  # config.json may have been edited
  workdir.check_same(network.path, experiment.resolved(config), own, may_differ)
  names = layer_outputs.output_names(config)
  hidden = [name for name in LAYERS if f'{name}_activation' in names]
  near_by = layer or retrieval.last_hidden(names)
  layer_outputs.make_outputs_step(config, [near_by])  # raises for another layer
  given = given_images.open_images(
    network, config, None, display, functools.cache(image_folder.open_folder)
  )
  which = 'validation images'
  if given.trained_on is None:
    records = []  # the error in them is not of these images
    if layer is not None:
      raise UserError(
        f'--layer={layer} is for training images, but {given.data} is not what {path} was trained'
        ' on; leave out --layer, or --config.data.data_dir'
      )
    which = f'images of {Path(given.data).name} ({given.split_name})'
    display.line(
      f'{given.data} is not what {path} was trained on: predictions, evidence and activations are'
      f' of its images ({given.split_name}), and retrieval and best patches, which look for training'
      ' images, are left out'
    )
  return _Shown(
    config,
    network,
    experiment.make_network(config),
    given,
    _description(config, network, records),
    which,
    hidden,
    near_by,
    layer_outputs.make_outputs_step(config, ['fc8']),
  )


def _draw_kernels(
  shown: _Shown, save: Callable[[str, Figure], None], display: Display
) -> list[np.ndarray]:
  """Draws conv1's kernels, now and at the start; returns what `draw` does of them."""
  kernels, columns = first_kernels(shown.network.params), shown.net.num_columns
  gray = is_gray(shown.network.statistics)
  title = f'{shown.what}\nkernels of conv1'
  save('figure3_kernels', figures.kernels(kernels, columns, title, gray))
  train = shown.config.train
  if train.init_from:
    display.line(f'conv1 began with the kernels of {train.init_from}, which are not drawn')
  else:
    title += ' at the start and now'
    start = initial_kernels(shown.net, train.seed)
    picture = figures.kernels_before_and_after(start, kernels, columns, title, gray)
    save('kernels_start_and_now', picture)
  parts = [] if gray else np.split(kernels, columns, axis=-1)
  return [figures.color_selectivity(part) for part in parts]


def _choose(shown: _Shown, display: Display) -> _Seen:
  """Looks at all given images once, and chooses those that are shown."""
  split, network = shown.given.split, shown.network
  progress = display.task('predictions', split.num_examples)
  places, headings = _instructive(shown.outputs(shown.logits, split, progress))
  images, labels = read_images(split, np.concatenate(split.order())[places])
  crops = _center_crops(images, shown.net.input_size)
  step = layer_outputs.make_outputs_step(shown.config, [*shown.hidden, shown.near_by, 'fc8'])
  outputs = step(network.params, network.statistics, crops)
  return _Seen(images, labels, headings, crops, outputs)


def _draw_seen(shown: _Shown, seen: _Seen, save: Callable[[str, Figure], None]) -> None:
  """Draws predictions, activations and evidence."""
  picture = figures.predictions(
    seen.images,
    np.asarray(jax.nn.softmax(seen.outputs['fc8'])),
    seen.labels,
    imagenet_classes.display_names(shown.network.class_names),
    f'{shown.what}\n{shown.which} and the classes held most probable',
    seen.headings,
  )
  save('figure4_predictions', picture)
  for name in shown.hidden:
    maps, title = np.asarray(seen.outputs[name][0]), f'{shown.what}\nactivations of {name}'
    picture = figures.activations(maps, shown.net.num_columns, title, seen.images[0])
    save(f'activations_{name}', picture)
  save('evidence', _evidence(shown, seen))


def _draw_training_images(
  shown: _Shown, seen: _Seen, save: Callable[[str, Figure], None], display: Display
) -> None:
  """Draws the training images nearest to the shown ones, and those that maps respond to most."""
  assert shown.given.trained_on is not None
  split = shown.given.trained_on.load_split(shown.config.data.train_split)
  deep = [name for name in CONVOLUTIONS[1:] if name in shown.hidden]
  units = {name: _lively_units(np.asarray(seen.outputs[name])) for name in deep}
  best: dict[str, evidence.BestPatches] = {}
  step = layer_outputs.make_outputs_step(shown.config, [shown.near_by, *deep])
  outputs = shown.outputs(step, split, display.task('training images', split.num_examples))
  features = _remember_best(outputs, shown.near_by, units, best)
  save('figure4_retrieval', _retrieval(shown, seen, features, split))
  if best:
    title = f'{shown.what}\nthe parts of training images to which maps respond most'
    patches = _patches(best, split, shown.net)
    save('best_patches', figures.best_patches(patches, units, title))


def predictions_picture(
  config: ConfigDict,
  params: Any,
  statistics: augment.Statistics,
  split: splits.Split,
  title: str,
) -> np.ndarray:
  """Draws a network's predictions for some images of a split, computed on one device.

  They are those that `predictions.instructive` chooses of 64 of the split, evenly spaced.

  Args:
    config: the network's complete config.
    params: its parameters, as arrays on the host.
    statistics: of its training images, likewise.
    split: of which images are shown.
    title: the picture's title; how many images were looked at is added.

  Returns:
    [H, W, 3] uint8.
  """
  examples = np.concatenate(split.order())
  spread = np.linspace(0, len(examples) - 1, min(_CANDIDATES, len(examples))).round().astype(int)
  images, labels = read_images(split, examples[spread])
  step = layer_outputs.make_outputs_step(config, ['fc8'])
  outputs = step(params, statistics, _center_crops(images, config.model.input_size))
  shown, headings = _instructive([(labels, outputs)])
  picture = figures.predictions(
    images[shown],
    np.asarray(jax.nn.softmax(outputs['fc8']))[shown],
    labels[shown],
    imagenet_classes.display_names(split.class_names),
    f'{title}: of {len(spread)} validation images',
    headings,
  )
  return canvas.pixels(picture)


def _instructive(
  outputs: Iterable[tuple[np.ndarray, Mapping[str, jax.Array]]],
) -> tuple[np.ndarray, list[str]]:
  """`predictions.instructive` of the images whose labels and outputs 'fc8' come in batches.

  Returns:
    The places of those it chooses, and of each its heading.
  """
  best, predicted, labels = [], [], []
  for of_batch, logits in outputs:
    probabilities = np.asarray(jax.nn.softmax(logits['fc8']))
    best.append(probabilities.max(axis=1))
    predicted.append(probabilities.argmax(axis=1))
    labels.append(of_batch)
  chosen = predictions.instructive(
    np.concatenate(best), np.concatenate(predicted), np.concatenate(labels), _IMAGES
  )
  places = np.concatenate([indices for _, indices in chosen])
  return places, [heading for heading, indices in chosen for _ in indices]


def _lively_units(maps: np.ndarray) -> np.ndarray:
  """Numbers [U] of at most `_UNITS` maps of [N, H, W, C], spread over those not all 0, if any."""
  lively = np.flatnonzero(maps.any(axis=(0, 1, 2)))
  lively = lively if len(lively) else np.arange(maps.shape[-1])
  return lively[np.linspace(0, len(lively) - 1, min(_UNITS, len(lively))).round().astype(int)]


def _remember_best(
  outputs: Iterable[tuple[np.ndarray, Mapping[str, jax.Array]]],
  near_by: str,
  units: Mapping[str, np.ndarray],
  best: dict[str, evidence.BestPatches],
) -> Iterator[np.ndarray]:
  """Passes on a layer's features of every batch, and keeps the best patches of other layers' maps.

  So one pass over the training images serves both.

  Args:
    outputs: labels and outputs of each batch, `near_by` and the layers of `units` among these.
    near_by: the layer whose features are passed on.
    units: by layer, which maps.
    best: by layer, filled while batches pass.

  Yields:
    [n, D] for each batch.
  """
  first = 0
  for labels, of_batch in outputs:
    for layer, numbers in units.items():
      maps = np.asarray(of_batch[layer][..., numbers])
      best[layer] = evidence.best_patches(maps, _PATCHES, first, best.get(layer))
    first += len(labels)
    yield np.asarray(of_batch[near_by]).reshape(len(labels), -1)


def _patches(
  best: Mapping[str, evidence.BestPatches], split: splits.Split, net: AlexNet
) -> dict[str, list[np.ndarray]]:
  """The pixels of the best patches: by layer, for each map [K, h, w, 3] uint8."""
  fields, order = receptive.fields(net), np.concatenate(split.order())
  return {
    layer: [
      evidence.cut(
        _center_crops(read_images(split, order[images])[0], net.input_size), places, fields[layer]
      )
      for images, places in zip(of_layer.images, of_layer.places, strict=True)
    ]
    for layer, of_layer in best.items()
  }


def _evidence(shown: _Shown, seen: _Seen) -> Figure:
  """`figures.evidence` of the shown images."""
  network, crops, labels = shown.network, seen.crops, seen.labels
  color = np.asarray(network.statistics.mean_image).mean(axis=(0, 1)).round().astype(np.uint8)
  size = max(1, round(crops.shape[1] / 8))
  batch_size = shown.config.train.batch_size

  def scores_of(crops: np.ndarray) -> np.ndarray:  # in batches of one size: one compiled program
    found = []
    for first in range(0, len(crops), batch_size):
      part = crops[first : first + batch_size]
      left = np.zeros((batch_size - len(part), *part.shape[1:]), part.dtype)
      filled = np.concatenate([part, left])
      outputs = shown.logits(network.params, network.statistics, filled)
      found.append(np.asarray(outputs['fc8'])[: len(part)])
    return np.concatenate(found)

  drops = [
    evidence.occlusion(scores_of, crop, label, size=size, stride=-(-size // 2), color=color)
    for crop, label in zip(crops, labels, strict=True)
  ]

  def scores(trained: Any, pixels: jax.Array) -> jax.Array:
    params, statistics = trained
    return layer_outputs.intermediates(shown.config, params, statistics, pixels)['fc8']

  return figures.evidence(
    crops,
    np.stack(drops),
    evidence.saliency(scores, (network.params, network.statistics), crops, labels),
    np.asarray(jax.nn.softmax(seen.outputs['fc8']))[np.arange(len(labels)), labels],
    labels,
    imagenet_classes.display_names(network.class_names),
    f'{shown.what}\n{shown.which}: where the evidence for their own class lies',
  )


def initial_kernels(net: AlexNet, seed: int) -> np.ndarray:
  """conv1's kernels as training from scratch with a seed begins; shapes as `first_kernels`."""
  draw = jax.jit(lambda key: {'conv1': initial_parameters(net, key)['conv1']})
  return first_kernels(draw(jax.random.key(seed)))


def _retrieval(
  shown: _Shown, seen: _Seen, features: Iterable[np.ndarray], split: splits.Split
) -> Figure:
  """`figures.retrieval` of the first shown images, by features of every image of a split."""
  queries = np.asarray(seen.outputs[shown.near_by][:_QUERIES])
  near, squares = retrieval.nearest(features, queries.reshape(len(queries), -1), _NEIGHBORS)
  found = [read_images(split, np.concatenate(split.order())[row]) for row in near]
  return figures.retrieval(
    seen.images[:_QUERIES],
    seen.labels[:_QUERIES],
    [pixels for pixels, _ in found],
    [labels for _, labels in found],
    list(np.sqrt(squares)),
    imagenet_classes.display_names(split.class_names),
    f'{shown.what}\n{shown.which} and the training images nearest by {shown.near_by}',
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
  title = datasets.title(config.data)
  parts = [title, number_of(columns, 'column'), f'step {network.step}']
  for record in records:
    if (record['split'], record['step']) == ('validation', network.step):
      parts.append(f'top-1 error {record["top1_error"]:.1%}')
      break
  return ', '.join(parts)
