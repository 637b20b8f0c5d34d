"""What one of two processes reads of the global batches; tests/unit/test_mesh.py starts both.

python -m tests.two_processes PORT PROCESS DEVICES FILE
"""

import contextlib
import dataclasses
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data import pipeline, splits
from alexnet_jax.parallel import mesh as mesh_lib

BATCH_SIZE, STEPS, EXAMPLES, SIZE = 12, 5, 29, 6
# Columns, devices for the columns, and devices for the data: by the devices of each process.
MESHES = {1: ((2, 2, 1), (1, 1, 2)), 3: ((2, 2, 3),)}


@dataclasses.dataclass(frozen=True)
class Blocks(splits.ArraySplit):
  """Shuffled in blocks of 7 examples, as what does not fit in memory is."""

  def order(self, rng=None):
    [whole] = super().order(rng)
    return np.split(whole, range(7, len(whole), 7))


def read(how, rows=None):
  """Batches of 'train', from step 1 over the ends of two epochs, or of 'evaluation'."""
  images = np.random.default_rng(0).integers(0, 256, (EXAMPLES, SIZE, SIZE, 3), dtype=np.uint8)
  split = Blocks(images, np.arange(EXAMPLES, dtype=np.int32), [str(i) for i in range(EXAMPLES)])
  if how == 'evaluation':  # the last batch has 5 images
    return pipeline.evaluation_batches(split, BATCH_SIZE, SIZE - 2, rows)
  endless = pipeline.train_batches(
    split,
    seed=3,
    batch_size=BATCH_SIZE,
    first_step=1,
    crop_size=SIZE - 2,
    crop_offsets=3,
    images_per_draw=1,
    rows=rows,
  )
  return itertools.islice(endless, STEPS)


@jax.jit
def totals(batch):
  """Sums over the whole batch."""
  return {name: array.astype(jnp.int32).sum() for name, array in batch.items()}


def main(port, process, devices, file):
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', int(devices))
  jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(process))
  found = {}
  for layout in MESHES[int(devices)]:
    mesh = mesh_lib.make_mesh(*layout)
    rows = mesh_lib.local_rows(mesh, BATCH_SIZE)
    found[f'{layout}/rows'] = np.array([rows.start, rows.stop])
    for how in ('train', 'evaluation'):
      ours = (batch for batch in read(how, rows))
      with contextlib.closing(pipeline.put_batches(ours, mesh)) as batches:
        for step, batch in enumerate(batches):
          place = f'{layout}/{how}/{step}'
          for name, array in batch.items():
            for shard in array.addressable_shards:
              first, last, _ = shard.index[0].indices(BATCH_SIZE)
              found[f'{place}/{name}/shard {first} {last} {shard.device.id}'] = shard.data
          for name, total in totals(batch).items():
            found[f'{place}/{name}/total'] = total
  np.savez(file, **found)


if __name__ == '__main__':
  main(*sys.argv[1:])
