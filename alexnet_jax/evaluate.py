"""Error over every image of a split, centre crops, on any mesh."""

import contextlib
import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import augment, compilation, dataset, experiment, metrics, trained, workdir
from alexnet_jax import mesh as mesh_lib
from alexnet_jax.display import Display
from alexnet_jax.errors import UserError
from alexnet_jax.model import AlexNet

Array = jax.Array
EvaluationStep = Callable[
  [Any, Mapping[str, Any], augment.Statistics, Mapping[str, Array]], dict[str, Array]
]


def put_batches(batches: Generator[dataset.Batch], mesh: Mesh) -> Generator[dict[str, Array]]:
  """Spreads batches over the mesh's 'data' axis, each process giving its `mesh.local_rows`."""
  sharding = mesh_lib.shardings(mesh, mesh_lib.BATCH)
  parts = mesh.shape[mesh_lib.DATA]
  ours = mesh_lib.local_rows(mesh, parts)

  def put(rows: np.ndarray) -> Array:
    # Where columns of a pair lie on two processes, both have its rows, which is more than jax can
    # make a whole of by itself.
    each = len(rows) // (ours.stop - ours.start)
    shape = (each * parts, *rows.shape[1:])

    def part(index: Any) -> np.ndarray:
      first, last, _ = index[0].indices(shape[0])
      return rows[first - each * ours.start : last - each * ours.start]

    return jax.make_array_from_callback(shape, sharding, part)

  with contextlib.closing(batches):
    for batch in batches:
      yield {name: put(array) for name, array in batch.items()}


def make_evaluation_step(
  net: AlexNet,
  mesh: Mesh,
  options: augment.Options,
  *,
  precision: str = 'float32',
  library_fusions: bool = True,
) -> EvaluationStep:
  """A compiled function from (params, batch, statistics, sums) to the sums with the batch's.

  A step waits for the one before, through its sums. Were there two at a time, then on two emulated
  devices of a small CPU each could hold a thread that the other's exchange of columns needs.

  Args:
    net: the global network.
    mesh: on which it runs.
    options: how pixels are prepared.
    precision: as `train.make_train_step` has it.
    library_fusions: see `compilation.options`.
  """
  local = net.local(mesh_lib.COLUMN, mesh.shape[mesh_lib.COLUMN])

  def on_device(params: Any, batch: Mapping[str, Array], statistics: Any) -> dict[str, Array]:
    pixels = augment.evaluation_pixels(batch['image'], batch['offset'], statistics, options)
    logits, _ = local.apply({'params': params}, pixels.astype(precision))
    sums = metrics.batch_sums(logits, batch['label'], batch['mask'])
    return jax.lax.psum(sums, mesh_lib.DATA)

  def step(
    params: Any, batch: Mapping[str, Array], statistics: Any, sums: Mapping[str, Array]
  ) -> dict[str, Array]:
    specs = (mesh_lib.parameter_specs(params), mesh_lib.BATCH, mesh_lib.REPLICATED)
    sharded = jax.shard_map(
      on_device, mesh=mesh, in_specs=specs, out_specs=mesh_lib.REPLICATED, check_vma=True
    )
    return metrics.merge(sums, sharded(params, batch, statistics))

  platform = mesh.devices.flat[0].platform
  return jax.jit(step, compiler_options=compilation.options(platform, library_fusions))


def evaluate(
  step: EvaluationStep,
  params: Any,
  statistics: augment.Statistics,
  split: dataset.Split,
  *,
  batch_size: int,
  crop_size: int,
  mesh: Mesh,
  progress: Callable[[int], None] = lambda images: None,
) -> dict[str, float]:
  """Loss and errors over every image of a split, each counted once.

  Args:
    step: from `make_evaluation_step`.
    params: the network's, laid out on the mesh.
    statistics: of the training images.
    split: the images.
    batch_size: images a batch; it must divide over the mesh.
    crop_size: the network's input size.
    mesh: of the step.
    progress: called with the number of images of each batch; what it raises stops the evaluation.

  Returns:
    'loss', 'top1_error' and 'top5_error'.
  """
  sums = jax.device_put(metrics.empty(), mesh_lib.shardings(mesh, mesh_lib.REPLICATED))
  left = split.num_examples
  rows = mesh_lib.local_rows(mesh, batch_size)
  read = dataset.evaluation_batches(split, batch_size, crop_size, rows)
  with contextlib.closing(dataset.prefetch(put_batches(read, mesh))) as batches:
    for batch in batches:
      before, sums = sums, step(params, batch, statistics, sums)
      # Two batches on their way are enough. From 32 on XLA's CPU backend makes launches wait, on
      # one emulated device for what the other has not been given yet.
      jax.block_until_ready(before)
      progress(min(batch_size, left))
      left -= batch_size
  return metrics.compute(sums)


def evaluate_workdir(
  path: str | os.PathLike[str], config: ConfigDict
) -> tuple[int, dict[str, float]]:
  """Centre-crop loss and errors of a workdir's best checkpoint over the validation split.

  Args:
    path: the run's folder.
    config: the run's, but for where it runs (`workdir.CIRCUMSTANCES`).

  Returns:
    The checkpoint's step, and 'loss', 'top1_error' and 'top5_error'.

  Raises:
    UserError: there is no whole checkpoint, or it is of another experiment.
  """
  path = Path(path)
  experiment.check(config)
  mesh = experiment.make_mesh(config)
  with Display() as display:
    config, builder = experiment.open_data(config, display)
    workdir.check(path, experiment.resolved(config))
    net = experiment.make_network(config)
    network = trained.read(path, mesh, display.line)
    split = experiment.load_split(config, builder, config.data.validation_split)
    if list(split.class_names) != list(network.class_names):
      raise UserError(
        f'{path} was trained on other classes than those of {config.data.name}, or in another order'
      )
    move = display.task('evaluation', split.num_examples)
    values = evaluate(
      make_evaluation_step(
        net,
        mesh,
        experiment.augment_options(config),
        precision=config.train.precision,
        library_fusions=config.train.library_fusions,
      ),
      network.params,
      network.statistics,
      split,
      batch_size=config.train.batch_size,
      crop_size=net.input_size,
      mesh=mesh,
      progress=move,
    )
  assert network.step is not None
  return network.step, values
