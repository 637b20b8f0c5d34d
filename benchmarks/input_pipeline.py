"""Images/s and memory of the input pipeline, beside tf.data alone and PyTorch's DataLoader.

  python benchmarks/input_pipeline.py --data_dir=TFDS_FOLDER
  python benchmarks/input_pipeline.py --data_dir=TFDS_FOLDER --sections=jpeg,torch --rounds=9
  python benchmarks/input_pipeline.py --data_dir=TFDS_FOLDER --sections=training

Each contestant has a process of its own, and they take turns: a round is one stretch of each, timed
once its pipeline is filled, so a ratio of a round is of neighbors in time. The memory is the peak
of the process above what it had with its libraries loaded; the system's cache of files does not
count. All files are in that cache: what a disk gives is not measured.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import itertools
import json
import multiprocessing
import os
import resource
import runpy
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from PIL import Image

from alexnet_jax import experiment
from alexnet_jax.data import datasets, pipeline, prepare, record_split, splits, tfds_reader
from alexnet_jax.data import statistics as statistics_lib
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.training import loop
from alexnet_jax.training import step as step_lib
from alexnet_jax.utils import provenance
from alexnet_jax.utils.display import Display, print_table
from alexnet_jax.utils.errors import UserError
from alexnet_jax.utils.signals import Signals

ROOT = Path(__file__).parents[1]
SECTIONS = ('originals', 'jpeg', 'raw', 'cifar10', 'resume', 'torch', 'training')
SAMPLE = 300  # originals; the larger sets repeat them
BATCH, SIZE, CROP = 128, 256, 224
CIFAR_SIZE, CIFAR_CROP = 32, 24  # as configs/cifar10_13pct.py
BLOCK_BYTES = 512 * 10**6  # data.memory_megabytes of configs/imagenet.py
FILLING = 6  # batches before the timed ones

# From a round's number to batches without end.
Contestant = Callable[[int], Generator[splits.Batch]]


@functools.cache
def _split(directory: Path, split: str, size: int, in_memory: bool) -> splits.Split:
  builder = tfds_reader.open_directory(directory)
  if in_memory:
    return datasets.open_split(builder, split, size, memory_megabytes=10**6)
  return record_split.RecordSplit(builder, split, size, BLOCK_BYTES)


def ours(
  directory: Path,
  split: str,
  size: int,
  crop: int,
  in_memory: bool,
  number: int,
  first_step: int = 0,
) -> Generator[splits.Batch]:
  """This project's batches, crops at all offsets."""
  return pipeline.train_batches(
    _split(directory, split, size, in_memory),
    seed=number,
    batch_size=BATCH,
    first_step=first_step,
    crop_size=crop,
    crop_offsets=size - crop + 1,
    images_per_draw=1,
  )


def bare(
  files: Sequence[str], decoding: str, size: int, crop: int, number: int
) -> Generator[splits.Batch]:
  """The same crops from tf.data alone, in the files' order.

  Args:
    files: TFRecords.
    decoding: of what the records hold: 'raw' pixels, 'originals' (JPEGs of any size, scaled by
      tf.image.resize), or else JPEGs, by this dct_method.
    size: side of the squares.
    crop: side of the crops.
    number: a seed.
  """
  tf, _ = tfds_reader.import_tensorflow()
  features = {
    'image': tf.io.FixedLenFeature([], tf.string),
    'label': tf.io.FixedLenFeature([], tf.int64),
  }

  def example(record: Any) -> dict[str, Any]:
    row = tf.io.parse_single_example(record, features)
    top, left = tf.unstack(tf.random.uniform([2], 0, size - crop + 1, tf.int32, seed=number))
    if decoding == 'raw':
      whole = tf.reshape(tf.io.decode_raw(row['image'], tf.uint8), (size, size, 3))
    elif decoding == 'originals':
      image = tf.io.decode_jpeg(row['image'], channels=3)
      shape = tf.cast(tf.shape(image)[:2], tf.float32)
      shape = tf.cast(tf.math.ceil(shape * (size / tf.reduce_min(shape))), tf.int32)
      scaled = tf.image.resize(image, shape, antialias=True)
      whole = tf.cast(tf.image.resize_with_crop_or_pad(scaled, size, size), tf.uint8)
    elif size < SIZE:  # CIFAR-10's are PNGs, or here JPEGs; decode_jpeg reads both
      whole = tf.io.decode_jpeg(row['image'], channels=3, dct_method=decoding)
    else:
      window = [top, left, crop, crop]
      cut = tf.image.decode_and_crop_jpeg(row['image'], window, channels=3, dct_method=decoding)
      return {'image': cut, 'label': row['label']}
    return {'image': tf.slice(whole, (top, left, 0), (crop, crop, 3)), 'label': row['label']}

  examples = tf.data.TFRecordDataset(files).repeat().map(example, tf.data.AUTOTUNE)
  yield from examples.batch(BATCH).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


@dataclasses.dataclass(frozen=True)
class _Files:
  """A folder's JPEGs over and over, as PyTorch wants a data set."""

  folder: Path
  num_examples: int

  def __len__(self) -> int:
    return self.num_examples

  def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
    image = Image.open(self.folder / f'{i % SAMPLE}.jpg').convert('RGB')
    top, left = np.random.randint(SIZE - CROP + 1, size=2)
    return np.array(image.crop((left, top, left + CROP, top + CROP))), i


def pytorch(folder: Path, num_examples: int, number: int) -> Generator[splits.Batch]:
  """PyTorch's DataLoader with Pillow and two workers, shuffled."""
  importlib.import_module('torch').manual_seed(number)
  data = importlib.import_module('torch.utils.data')
  loader = data.DataLoader(_Files(folder, num_examples), BATCH, shuffle=True, num_workers=2)
  while True:
    for images, labels in loader:
      yield {'image': images.numpy(), 'label': labels.numpy()}


def _rate(contestant: Contestant, number: int, batches: int) -> float:
  """Images/s of a contestant in this process."""
  with contextlib.closing(contestant(number)) as made:
    for _ in itertools.islice(made, FILLING):
      pass
    start = time.perf_counter()
    for _ in itertools.islice(made, batches):
      pass
    return batches * BATCH / (time.perf_counter() - start)


def _waiting(contestant: Contestant, batches: int, step: float) -> float:
  """The share of time that a consumer with steps of so many seconds waits for data."""
  mesh = mesh_lib.make_mesh(1, 1, 1)
  put = pipeline.put_batches(contestant(0), mesh)
  waited = 0.0
  with contextlib.closing(pipeline.prefetch(put)) as made:
    for i in range(-FILLING, batches):
      start = time.perf_counter()
      next(made)
      waited += (time.perf_counter() - start) * (i >= 0)
      time.sleep(step)
  return waited / (waited + batches * step)


def _first_batch(contestant: Contestant, number: int) -> float:
  """Seconds to a contestant's first batch."""
  start = time.perf_counter()
  with contextlib.closing(contestant(number)) as made:
    next(made)
    return time.perf_counter() - start


def _resident() -> float:
  """MB that this process has with its libraries loaded."""
  with contextlib.suppress(ImportError):
    importlib.import_module('torch')
  tf, _ = tfds_reader.import_tensorflow()
  next(tf.data.Dataset.range(1).map(lambda x: x + 1, tf.data.AUTOTUNE).as_numpy_iterator())
  pages = int(Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize() / 1e6


def _peak() -> float:
  """MB that this process has had at most."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _process() -> ProcessPoolExecutor:
  return ProcessPoolExecutor(1, multiprocessing.get_context('forkserver'))


def _spread(values: Sequence[float], digits: int = 0) -> tuple[str, str]:
  """Median and range."""
  low, high = (f'{value:,.{digits}f}' for value in (min(values), max(values)))
  return f'{np.median(values):,.{digits}f}', f'{low} - {high}'


def _ratio(above: Sequence[float], below: Sequence[float]) -> str:
  return f'{np.median(np.divide(above, below)):.3f}'


def compare(
  title: str, contestants: dict[str, Contestant], batches: int, options: argparse.Namespace
) -> None:
  """Prints a table of contestants, of whom the first is ours."""
  rates: dict[str, list[float]] = {name: [] for name in contestants}
  with contextlib.ExitStack() as stack:
    processes = {name: stack.enter_context(_process()) for name in contestants}
    before = {name: process.submit(_resident).result() for name, process in processes.items()}
    for number in range(options.rounds):
      for name, contestant in contestants.items():
        rates[name].append(processes[name].submit(_rate, contestant, number, batches).result())
    peaks = {name: process.submit(_peak).result() for name, process in processes.items()}
    first = next(iter(contestants))
    waited = (
      processes[first]
      .submit(_waiting, contestants[first], min(batches, 125), options.step_ms / 1e3)
      .result()
    )
  print_table(
    title,
    ('', 'images/s', 'min - max', 'ours / this', 'MB', f'waits at {options.step_ms:g} ms steps'),
    [
      (
        name,
        *_spread(rates[name]),
        '' if name == first else _ratio(rates[first], rates[name]),
        f'{peaks[name] - before[name]:,.0f}',
        f'{waited:.1%}' if name == first else '',
      )
      for name in contestants
    ],
  )


def resume(directory: Path, options: argparse.Namespace) -> None:
  """Prints how long the first batch takes, from the start and within an epoch."""
  steps = {'from step 0': 0, 'from the middle of epoch 3': options.images * 5 // 2 // BATCH}
  seconds: dict[str, list[float]] = {name: [] for name in steps}
  with _process() as process:
    for number in range(options.rounds):
      for name, step in steps.items():
        batches = functools.partial(ours, directory, 'train', SIZE, CROP, False, first_step=step)
        seconds[name].append(process.submit(_first_batch, batches, number).result())
  print_table(
    f'The first batch of {options.images:,} {SIZE}x{SIZE} JPEGs',
    ('', 'seconds', 'min - max'),
    [(name, *_spread(seconds[name], 2)) for name in steps],
  )


def training(directory: Path, options: argparse.Namespace) -> None:
  """Prints the training loop's images/s beside the step's own, fed one batch again and again.

  The loop is `loop.Run`'s, with its data, looks at the loss and lines of metrics.jsonl; no epoch
  ends while it is timed.
  """
  sys.path.append(str(ROOT))  # configs import each other
  config = runpy.run_path(options.config)['get_config']()
  config.train.batch_size = batch_size = options.train_batch
  config.train.log_every_steps = options.train_steps
  experiment.check(config)
  mesh = experiment.make_mesh(config)
  megabytes = config.data.memory_megabytes
  builder = tfds_reader.open_directory(directory)
  data_set = datasets.TfdsDataSet(builder, config.data.image_size, megabytes, config.data.resize)
  split = data_set.load_split('train')
  net = experiment.make_network(config)
  if (steps := (options.rounds + 1) * options.train_steps + 1) * batch_size > split.num_examples:
    raise UserError(f'{steps} steps are more than an epoch; set --images={steps * batch_size}')
  tx, seed = experiment.make_optimizer(config, net), config.train.seed
  step = step_lib.make_train_step(net, tx, mesh, experiment.augment_options(config), seed)
  state = step_lib.init_state(net, tx, mesh, seed)
  stored = statistics_lib.load(directory / statistics_lib.FILE_NAME, SIZE)
  rates: dict[str, list[float]] = {'the training loop': [], 'the step alone': []}
  with contextlib.ExitStack() as stack:
    display = stack.enter_context(Display())
    signals = stack.enter_context(Signals('stopping after this step'))
    workdir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    run = loop.Run(
      config, workdir, net, mesh, split, split, stored, data_set, None, signals, display
    )
    stack.callback(run.close)
    run_steps = stack.enter_context(contextlib.closing(run.steps()))
    read = pipeline.train_batches(
      split,
      seed=seed,
      batch_size=batch_size,
      first_step=0,
      crop_size=net.input_size,
      crop_offsets=config.augment.crop_offsets,
      images_per_draw=config.augment.images_per_draw,
    )
    with contextlib.closing(pipeline.put_batches(read, mesh)) as batches:
      batch = next(batches)

    def steps_of_the_loop() -> None:
      for _ in itertools.islice(run_steps, options.train_steps):
        pass
      run.state.step.block_until_ready()

    def steps_alone() -> None:
      nonlocal state
      for _ in range(options.train_steps):
        state, _ = step(state, batch, run.statistics, jnp.float32(0.1))
      state.step.block_until_ready()

    # While the step runs alone the pipeline fills its buffers; they are full when its turn comes,
    # and full again after it, so no batch of it is a gift.
    for number in range(-1, options.rounds):  # the first one compiles
      for of_feed, turn in zip(rates.values(), (steps_of_the_loop, steps_alone), strict=True):
        start = time.perf_counter()
        turn()
        if number >= 0:
          of_feed.append(options.train_steps * batch_size / (time.perf_counter() - start))
  with_data, alone = rates.values()
  devices = f'{mesh.devices.size} {mesh.devices.flat[0].device_kind} devices'
  print_table(
    f'{Path(options.config).name}, batches of {batch_size}, {devices},'
    f' {options.rounds} rounds of {options.train_steps} steps',
    ('', 'images/s', 'min - max', 'share of the step alone'),
    [
      ('the training loop', *_spread(with_data, 1), _ratio(with_data, alone)),
      ('the step alone', *_spread(alone, 1), ''),
    ],
  )


def _repeat(prepared: Path, place: Path, times: int) -> Path:
  """Makes a tfds data set of one with a single shard, as many times over."""
  if place.is_dir():
    return place
  unfinished = place.with_suffix('.incomplete')
  shutil.rmtree(unfinished, ignore_errors=True)
  shutil.copytree(prepared, unfinished, ignore=shutil.ignore_patterns('*.tfrecord-*'))
  (shard,) = prepared.glob('*.tfrecord-*')
  for i in range(times):
    name = shard.name.replace('00000-of-00001', f'{i:05d}-of-{times:05d}')
    shutil.copyfile(shard, unfinished / name)
  described = json.loads((prepared / 'dataset_info.json').read_text())
  (split,) = described['splits']
  split['shardLengths'] *= times
  split['numBytes'] = str(int(split['numBytes']) * times)
  (unfinished / 'dataset_info.json').write_text(json.dumps(described))
  return unfinished.rename(place)


def _prepare(originals: Any, folder: Path) -> Path:
  """Prepares some originals as JPEGs, in one shard."""
  source = tfds_reader.TfdsSource(originals)
  if source.splits['train'] < SAMPLE:
    raise UserError(f'{originals.data_path} has fewer than {SAMPLE} training images')
  source.splits = {'train': SAMPLE}
  with Display() as display:
    return prepare.prepare(
      source,
      folder,
      image_size=SIZE,
      encoding='jpeg',
      statistics_of='train',
      unreadable_limit=0.0,
      display=display,
      images_per_shard=SAMPLE,
    )


def _write_raw(prepared: Path, path: Path) -> Path:
  """Writes the pixels of a data set as records."""
  tf, _ = tfds_reader.import_tensorflow()
  split = _split(prepared, 'train', SIZE, in_memory=True)
  with (
    contextlib.closing(pipeline.whole_images(split)) as batches,
    tf.io.TFRecordWriter(os.fspath(path)) as writer,
  ):
    for batch in batches:
      for image, label in zip(batch['image'], batch['label'], strict=True):
        record = tf.train.Example()
        record.features.feature['image'].bytes_list.value.append(image.tobytes())
        record.features.feature['label'].int64_list.value.append(int(label))
        writer.write(record.SerializeToString())
  return path


def _write_jpegs(prepared: Path, folder: Path) -> Path:
  """Writes a data set's images as files."""
  folder.mkdir(exist_ok=True)
  examples = tfds_reader.TfdsSource(tfds_reader.open_directory(prepared)).examples('train', 0)
  for number, example in enumerate(examples):
    (folder / f'{number}.jpg').write_bytes(example.read())
  return folder


def _builder(name: str, data_dir: str) -> Any:
  """A prepared data set; raises UserError where there is none."""
  builder = tfds_reader.open_builder(name, data_dir)
  if not builder.is_prepared():
    raise UserError(f'{data_dir} has no prepared {name}')
  return builder


def _files(directory: Path) -> list[str]:
  stored = tfds_reader.open_directory(directory).info.splits['train']
  return [os.fspath(path) for path in stored.filepaths]


def measure(options: argparse.Namespace, folder: Path) -> None:
  """Prepares the data in a folder and prints the tables that were asked for."""
  compared = functools.partial(compare, options=options)
  stretch = -(-options.images // BATCH)  # an epoch
  if set(options.sections) != {'cifar10'}:
    originals = _builder('imagenet2012', options.data_dir)
    prepared = _prepare(originals, folder)
    directory = _repeat(prepared, folder / f'{options.images}_images', options.images // SAMPLE)
  squares = f'{SIZE}x{SIZE}, crops of {CROP}, batches of {BATCH}'

  if 'originals' in options.sections:
    split = f'train[:{SAMPLE}]'
    compared(
      f'Original JPEGs shrunk to {squares}',
      {
        'ours': functools.partial(ours, originals.data_path, split, SIZE, CROP, False),
        'tf.data': functools.partial(bare, _files(originals.data_path), 'originals', SIZE, CROP),
      },
      3 * SAMPLE // BATCH,
    )
  if 'jpeg' in options.sections:
    compared(
      f'JPEGs of {squares}',
      {
        'ours': functools.partial(ours, directory, 'train', SIZE, CROP, False),
        'tf.data': functools.partial(bare, _files(directory), 'INTEGER_ACCURATE', SIZE, CROP),
        'tf.data, its fast DCT': functools.partial(bare, _files(directory), '', SIZE, CROP),
      },
      stretch,
    )
  if 'raw' in options.sections:
    split = f'train[:{options.images // 8}]'
    raw = _write_raw(prepared, folder / 'raw.tfrecord')
    compared(
      f'Pixels of {squares}',
      {
        'ours, in memory': functools.partial(ours, directory, split, SIZE, CROP, True),
        'tf.data, from records': functools.partial(bare, [str(raw)], 'raw', SIZE, CROP),
      },
      stretch,
    )
  if 'cifar10' in options.sections:
    cifar = _builder('cifar10', options.cifar_dir or options.data_dir)
    sizes = CIFAR_SIZE, CIFAR_CROP
    compared(
      f'CIFAR-10, crops of {CIFAR_CROP}, batches of {BATCH}',
      {
        'ours, in memory': functools.partial(ours, cifar.data_path, 'train', *sizes, True),
        'tf.data': functools.partial(bare, _files(cifar.data_path), 'INTEGER_ACCURATE', *sizes),
      },
      cifar.info.splits['train'].num_examples // BATCH,
    )
  if 'resume' in options.sections:
    resume(directory, options)
  if 'torch' in options.sections:
    if importlib.util.find_spec('torch'):
      images = _write_jpegs(prepared, folder / 'jpegs')
      compared(
        f'JPEGs of {squares}',
        {
          'ours': functools.partial(ours, directory, 'train', SIZE, CROP, False),
          'DataLoader (workers not in MB)': functools.partial(pytorch, images, options.images),
        },
        stretch,
      )
    else:
      print("torch is not installed: nothing to say of PyTorch's DataLoader")
  if 'training' in options.sections:
    training(directory, options)


def _machine() -> str:
  """Hardware, versions and date."""
  tf, _ = tfds_reader.import_tensorflow()
  return f'{provenance.processor()}, on {len(os.sched_getaffinity(0))} of them, jax {jax.__version__}, tensorflow {tf.__version__}, {time.strftime("%Y-%m-%d")}'


def _sections(text: str) -> list[str]:
  names = text.split(',')
  if unknown := set(names) - set(SECTIONS):
    raise argparse.ArgumentTypeError(f'no section {min(unknown)!r}, only {", ".join(SECTIONS)}')
  return names


def _count(text: str) -> int:
  if not text.isdigit() or int(text) < 1:
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 1')
  return int(text)


def _milliseconds(text: str) -> float:
  with contextlib.suppress(ValueError):
    if 0 < float(text) < 1e6:
      return float(text)
  raise argparse.ArgumentTypeError(f'{text!r} is no number of milliseconds')


def _options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description='Prints images/s and memory of the input pipeline.',
    usage=argparse.SUPPRESS,  # a mistake is told in one line
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  add('--data_dir', required=True, help='where tfds has imagenet2012')
  add('--cifar_dir', help='where tfds has cifar10; None: in data_dir')
  add('--work_dir', help='folder for data, kept and used again; None: a temporary one')
  add(
    '--sections',
    type=_sections,
    default=','.join(SECTIONS[:-1]),
    help=f'which of {", ".join(SECTIONS)}, with commas between',
  )
  add('--images', type=_count, default=15000, help=f'size of the JPEG set, in steps of {SAMPLE}')
  add('--rounds', type=_count, default=5, help='stretches of each contestant')
  add('--step_ms', type=_milliseconds, default=50.0, help='of a step that consumes batches')
  add('--config', default=str(ROOT / 'configs' / 'imagenet.py'), help='of the section training')
  add('--train_batch', type=_count, default=32, help="that section's batch size")
  add('--train_steps', type=_count, default=4, help='its steps in a round')
  options = parser.parse_args()
  options.images = -(-options.images // SAMPLE) * SAMPLE
  for flag in ('data_dir', 'cifar_dir'):
    if (folder := getattr(options, flag)) and not Path(folder).is_dir():
      parser.error(f'there is no folder {folder} (--{flag})')
  if not Path(options.config).is_file():
    parser.error(f'there is no file {options.config} (--config)')
  return options


def main() -> None:
  """Prints the tables."""
  options = _options()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.ExitStack() as stack:
      folder = options.work_dir or stack.enter_context(tempfile.TemporaryDirectory())
      measure(options, Path(folder))
    print(_machine())
  except (UserError, OSError, ImportError) as error:
    sys.exit(f'input_pipeline.py: {error}')


if __name__ == '__mp_main__':  # the process from which the contestants' are forked
  tfds_reader.import_tensorflow()
if __name__ == '__main__':
  main()
