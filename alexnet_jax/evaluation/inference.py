"""Runs a network over every image of a split, on any mesh: errors, or each image's probabilities.

Training validates with `evaluate`, on center crops only, which is ten times as fast as `predict`, whose
probabilities are by center crop and by ten views. Of several processes all compute.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.data import augment, pipeline, splits
from alexnet_jax.evaluation import metrics
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.params import Params
from alexnet_jax.parallel import memory, multihost, xla
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils.errors import UserError

Array = jax.Array
EvaluationStep = Callable[
  [Params, Mapping[str, Array], augment.Statistics, Mapping[str, Array]], dict[str, Array]
]
ViewStep = Callable[[Params, Array, augment.Statistics, augment.View, Array], Array]


def make_evaluation_step(
  net: AlexNet,
  mesh: Mesh,
  options: augment.Options,
  *,
  precision: str = 'float32',
  library_fusions: bool = True,
) -> EvaluationStep:
  """Makes a compiled function from (params, batch, statistics, sums) to sums including the batch.

  Each step depends on the one before through the sums. If two ran at a time, then on two emulated
  devices of a small CPU each could hold a thread that the other needs for its exchange of columns.

  Args:
    net: the global network.
    mesh: the devices.
    options: how pixels are prepared.
    precision: as `step.make_train_step` takes it.
    library_fusions: as `xla.options` takes it.
  """
  local = net.local(mesh_lib.COLUMN, mesh.shape[mesh_lib.COLUMN])

  def on_device(
    params: Params,
    batch: Mapping[str, Array],
    statistics: augment.Statistics,
    sums: Mapping[str, Array],
  ) -> dict[str, Array]:
    pixels = augment.evaluation_pixels(batch['image'], batch['offset'], statistics, options)
    logits, _ = local.apply({'params': params}, pixels.astype(precision))
    of_device = metrics.batch_sums(logits, batch['label'], batch['mask'])
    return metrics.merge(sums, jax.lax.psum(of_device, mesh_lib.DATA))

  specs = (mesh_lib.BATCH, mesh_lib.REPLICATED, mesh_lib.REPLICATED)
  return _compiled(on_device, mesh, specs, mesh_lib.REPLICATED, library_fusions)


def evaluate(
  step: EvaluationStep,
  params: Params,
  statistics: augment.Statistics,
  split: splits.Split,
  *,
  batch_size: int,
  crop_size: int,
  mesh: Mesh,
  progress: Callable[[int], None] = lambda images: None,
) -> dict[str, float]:
  """Computes loss and errors over every image of a split, each counted once.

  Args:
    step: from `make_evaluation_step`.
    params: the network's, on the mesh.
    statistics: of the training images.
    split: the images.
    batch_size: images per batch, a multiple of the mesh's 'data' axis.
    crop_size: the network's input size in pixels.
    mesh: the step's.
    progress: called with the number of images of each batch; an error it raises ends the evaluation.

  Returns:
    'loss', 'top1_error' and 'top5_error' (fractions).
  """
  sums = mesh_lib.replicate(mesh, metrics.empty())
  remaining = split.num_examples
  rows = mesh_lib.local_rows(mesh, batch_size)
  read = pipeline.evaluation_batches(split, batch_size, crop_size, rows)
  with contextlib.closing(pipeline.prefetch(pipeline.put_batches(read, mesh))) as batches:
    for batch in batches:
      previous, sums = sums, step(params, batch, statistics, sums)
      # Two batches in flight are enough. From 32 on, launches block on XLA's CPU backend: one
      # emulated device would wait for a batch that the other has not been given yet.
      jax.block_until_ready(previous)
      progress(min(batch_size, remaining))
      remaining -= batch_size
  return metrics.compute(sums)


def make_view_step(
  net: AlexNet,
  mesh: Mesh,
  options: augment.Options,
  *,
  precision: str = 'float32',
  library_fusions: bool = True,
) -> ViewStep:
  """Makes a compiled function that adds the class probabilities of one view of a batch to a total.

  It takes params, images [N, S, S, 3] uint8, statistics, an `augment.View` and the total
  [N, classes] float32; one program serves all views. Each step depends on the one before through
  the total, for the reason given in `make_evaluation_step`, whose arguments it has.
  """
  local = net.local(mesh_lib.COLUMN, mesh.shape[mesh_lib.COLUMN])

  def on_device(
    params: Params, images: Array, statistics: augment.Statistics, view: augment.View, total: Array
  ) -> Array:
    pixels = augment.view_pixels(images, view, net.input_size, statistics, options)
    logits, _ = local.apply({'params': params}, pixels.astype(precision))
    return total + jax.nn.softmax(logits)

  specs = (mesh_lib.BATCH, mesh_lib.REPLICATED, mesh_lib.REPLICATED, mesh_lib.BATCH)
  return _compiled(on_device, mesh, specs, mesh_lib.BATCH, library_fusions)


def _compiled(
  on_device: Callable[..., Any], mesh: Mesh, specs: tuple[Any, ...], out: Any, library_fusions: bool
) -> Any:
  """Compiles what each device does with its part of params and of the arguments after them."""

  def step(params: Params, *others: Any) -> Any:
    in_specs = (mesh_lib.parameter_specs(params), *specs)
    sharded = jax.shard_map(on_device, mesh=mesh, in_specs=in_specs, out_specs=out, check_vma=True)
    return sharded(params, *others)

  platform = mesh.devices.flat[0].platform
  return jax.jit(step, compiler_options=xla.options(platform, library_fusions))


def predict(
  step: ViewStep,
  params: Params,
  statistics: augment.Statistics,
  split: splits.Split,
  *,
  batch_size: int,
  crop_size: int,
  mesh: Mesh,
  progress: Callable[[int], None] = lambda images: None,
) -> Predictions:
  """Computes the class probabilities of every image of a split, by center crop and by ten views.

  Args as `evaluate`, but for the step, which is from `make_view_step`.

  Raises:
    UserError: the probabilities need more memory than is free.
  """
  count, classes = split.num_examples, len(split.class_names)
  needed = 2 * 4 * count * classes
  free = memory.free_on_host()
  if free is not None and needed > free:
    raise UserError(
      f'evaluating {count:,} images of {classes:,} classes needs {needed / 1e9:,.1f} GB of memory, but'
      f' only {free / 1e9:,.1f} GB is free; evaluate a part of the images, such as'
      " --config.data.validation_split='validation[:1%]'"
    )
  center_crop = np.empty((count, classes), np.float32)
  ten_views = np.empty((count, classes), np.float32)
  labels = np.empty(count, np.int32)
  center_view, *other_views = augment.ten_views(split.image_size, crop_size)
  zeros = mesh_lib.place(
    np.zeros((batch_size, classes), np.float32), mesh_lib.shardings(mesh, mesh_lib.BATCH)
  )
  rows = mesh_lib.local_rows(mesh, batch_size)
  read = pipeline.evaluation_batches(split, batch_size, split.image_size, rows)  # whole images
  done = 0
  with contextlib.closing(pipeline.prefetch(pipeline.put_batches(read, mesh))) as batches:
    for batch in batches:
      center = total = step(params, batch['image'], statistics, center_view, zeros)
      for view in other_views:
        total = step(params, batch['image'], statistics, view, total)
      images = min(batch_size, count - done)
      batch_images = slice(done, done := done + images)
      of_center, of_views, of_labels = map(multihost.whole, (center, total, batch['label']))
      center_crop[batch_images] = of_center[:images]
      ten_views[batch_images] = of_views[:images] / 10
      labels[batch_images] = of_labels[:images]
      progress(images)
  return Predictions(center_crop, ten_views, labels)
