r"""Trains on a folder of photographs that are held in an accelerator's memory, without TensorFlow.

  python benchmarks/train_in_memory.py --config=configs/imagenette.py --data_dir=PHOTOS --out=OUT \
    --run="base" --run="raw:augment.pixel_scale=1.0;model.conv1.weight_std=0.01" --seeds=0,1
  python benchmarks/train_in_memory.py --config=configs/imagenette.py --data_dir=PHOTOS --out=OUT \
    --run="base:train.precision='bfloat16'" --sweep=configs/sweeps/ablations.py --only=tanh,no_dropout

PHOTOS/train/CLASS/* and PHOTOS/val/CLASS/* are decoded once, scaled to data.image_size and put on the
device, which cuts the crops there, and no host feeds them. The step, the permutations and the crops are
those of `launch.py` (for seed 0 dropout and lighting too), but images are numbered by their paths, so that
batches hold others. A run ends with train.num_epochs, or at its plateau: when the rule has no cuts left and
again sees no improvement for optimizer.patience epochs.

OUT/metrics.jsonl.gz has every epoch's figures and the color selectivity of conv1's columns;
OUT/kernels.npz conv1's kernels, of runs with seed 0; OUT/predictions.npz the probabilities of the
validation images, by center crop and by ten views, at the epoch with the lowest validation error.
`--sweep` adds variants of the first run, `--table` prints their differences from it, paired by seed.
`--again` repeats the best run with other fields, and adds the training images nearest to each
validation image by fc7. Results are written after each run; a run that `--seconds` cuts off is not kept.
"""

import argparse
import ast
import concurrent.futures
import dataclasses
import functools
import gzip
import itertools
import json
import os
import runpy
import sys
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import unread  # noqa: E402
from jax import lax  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from alexnet_jax import experiment, optimizer  # noqa: E402
from alexnet_jax.data import augment, images, pipeline, splits, statistics  # noqa: E402
from alexnet_jax.evaluation import inference, metrics  # noqa: E402
from alexnet_jax.parallel import mesh as mesh_lib  # noqa: E402
from alexnet_jax.reports import figures  # noqa: E402
from alexnet_jax.training import step as step_lib  # noqa: E402
from alexnet_jax.utils import config_fields  # noqa: E402

EVALUATION_BATCH = 512
KEPT_EPOCHS = (0, 1, 2, 3, 5, 8, 12, 16, 20, 30, 40, 50, 60, 70, 80, 90)  # of conv1's kernels
START = time.perf_counter()


def log(*words: object) -> None:
  """Prints at once, with the seconds since the start."""
  print(f'[{time.perf_counter() - START:6.1f}]', *words, flush=True)


class Statistics(NamedTuple):
  """`augment.Statistics`, and what multiplies pixels: an argument, so that programs serve all."""

  mean_image: jax.Array
  eigenvalues: jax.Array
  eigenvectors: jax.Array
  scale: jax.Array


def _scaled(function: Any, place: int) -> Any:
  @functools.wraps(function)
  def scaled(*args: Any) -> jax.Array:
    pixels: jax.Array = function(*args)
    return args[place].scale * pixels

  return scaled


# Their `options` have a pixel_scale of 1 here.
augment.training_pixels = _scaled(augment.training_pixels, 4)
augment.evaluation_pixels = _scaled(augment.evaluation_pixels, 2)
augment.view_pixels = _scaled(augment.view_pixels, 3)


class Numbers:
  """A split of which batches have the images' numbers in place of their pixels."""

  block_size = property(lambda self: self.num_examples)

  def __init__(self, num_examples: int, image_size: int):
    self.num_examples, self.image_size = num_examples, image_size

  def order(self, rng: np.random.Generator | None = None) -> list[np.ndarray]:
    """As `splits.ArraySplit` has it."""
    return [np.arange(self.num_examples) if rng is None else rng.permutation(self.num_examples)]

  def read(
    self, groups: Iterable[tuple[np.ndarray, np.ndarray]], batch_size: int, size: int
  ) -> Generator[dict[str, np.ndarray]]:
    """Yields 'number' and 'offset' of a batch after the other."""
    numbers, offsets = np.zeros(0, np.int32), np.zeros((0, 2), np.int32)
    for more, at in groups:
      numbers = np.concatenate([numbers, more.astype(np.int32)])
      offsets = np.concatenate([offsets, at])
      while len(numbers) >= batch_size:
        yield {'number': numbers[:batch_size], 'offset': offsets[:batch_size]}
        numbers, offsets = numbers[batch_size:], offsets[batch_size:]


def read_folder(path: Path, size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """All photographs of the folders of classes, [N, size, size, 3] uint8, and their labels."""
  classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
  files = [(file, label) for label, name in enumerate(classes) for file in (path / name).iterdir()]
  files.sort()

  def pixels(file: Path) -> np.ndarray:
    return np.asarray(images.fit_square(images.decode(file.read_bytes()), size))

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    decoded = np.stack(list(pool.map(pixels, (file for file, _ in files))))
  return decoded, np.array([label for _, label in files], np.int32), classes


def compute_statistics(pixels: np.ndarray) -> Statistics:
  """The mean image and the colors' principal axes of training images."""
  sums = statistics.Sums.zero(pixels.shape[1])
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    products = list(pool.map(statistics.color_products, pixels))
  chunks = np.array_split(np.arange(len(pixels)), 64)
  sums.count = len(pixels)
  sums.products = np.sum(products, axis=0)
  for chunk in chunks:
    sums.pixels += pixels[chunk].sum(axis=0, dtype=np.int64)
  found = {name: jnp.asarray(value, jnp.float32) for name, value in sums.compute().items()}
  return Statistics(**found, scale=jnp.ones(()))


@functools.partial(jax.jit, static_argnames='size')
def crops(pixels: jax.Array, numbers: jax.Array, offsets: jax.Array, size: int) -> jax.Array:
  """Cuts crops out of images that are on the device."""

  def cut(number: jax.Array, offset: jax.Array) -> jax.Array:
    at = (number, offset[0], offset[1], 0)
    return lax.dynamic_slice(pixels, at, (1, size, size, 3))[0]

  return jax.vmap(cut)(numbers, offsets)


class Programs:
  """The compiled steps of a config; those that differ in nothing compiled share them."""

  def __init__(self, config: ConfigDict):
    self.mesh, self.net = experiment.make_mesh(config), experiment.make_network(config)
    self.tx = experiment.make_optimizer(config, self.net)
    options = dataclasses.replace(experiment.augment_options(config), pixel_scale=1.0)
    computing = {'precision': config.train.precision}
    self.train_step = step_lib.make_train_step(
      self.net, self.tx, self.mesh, options, 0, **computing
    )
    self.evaluation_step = inference.make_evaluation_step(self.net, self.mesh, options, **computing)
    self.view_step = inference.make_view_step(self.net, self.mesh, options, **computing)

    @jax.jit
    def features(params: Any, pixels: jax.Array, known: Statistics) -> jax.Array:
      border = (pixels.shape[1] - self.net.input_size) // 2
      center = slice(border, border + self.net.input_size)
      seen = augment.evaluation_pixels(
        pixels[:, center, center], jnp.full((1, 2), border), known, options
      )
      _, outputs = self.net.apply({'params': params}, seen.astype(config.train.precision))
      return outputs['fc7_activation'].astype(jnp.float32)

    self.features = features


class Data:
  """Both splits, on the device."""

  def __init__(self, folder: Path, size: int):
    train_pixels, self.train_labels, self.classes = read_folder(folder / 'train', size)
    test_pixels, self.test_labels, classes = read_folder(folder / 'val', size)
    if classes != self.classes:
      sys.exit(f'{folder}: train and val have different classes, so labels would not agree')
    log(f'decoded {len(train_pixels)} and {len(test_pixels)} photographs')
    self.statistics = compute_statistics(train_pixels)
    log('statistics: eigenvalues', np.asarray(self.statistics.eigenvalues))
    self.held = splits.ArraySplit(train_pixels, self.train_labels, self.classes)
    self.train, self.test = jax.device_put(train_pixels), jax.device_put(test_pixels)
    self.size = size
    self.batch = min(EVALUATION_BATCH, len(test_pixels))


def validate(programs: Programs, data: Data, params: Any) -> dict[str, float]:
  """Loss and errors by center crop."""
  sums = mesh_lib.replicate(programs.mesh, metrics.empty())
  side = programs.net.input_size
  border = (data.size - side) // 2
  count = len(data.test_labels)
  for first in range(0, count, data.batch):
    numbers = np.arange(first, first + data.batch) % count
    offsets = np.full((data.batch, 2), border, np.int32)
    batch = {
      'image': crops(data.test, numbers, offsets, side),
      'offset': jnp.asarray(offsets),
      'label': jnp.asarray(data.test_labels[numbers]),
      'mask': jnp.asarray(np.arange(first, first + data.batch) < count),
    }
    sums = programs.evaluation_step(params, batch, data.statistics, sums)
  return metrics.compute(sums)


def predict(programs: Programs, data: Data, params: Any) -> tuple[np.ndarray, np.ndarray]:
  """Probabilities [N, classes] by center crop and by the mean of ten views."""
  views = augment.ten_views(data.size, programs.net.input_size)
  center, ten = [], []
  count = len(data.test_labels)
  for first in range(0, count, data.batch):
    pixels = data.test[np.arange(first, first + data.batch) % count]
    total = jnp.zeros((data.batch, len(data.classes)), jnp.float32)
    for i, view in enumerate(views):
      total = programs.view_step(params, pixels, data.statistics, view, total)
      if i == 0:
        center.append(np.asarray(total))
    ten.append(np.asarray(total) / len(views))
  return np.concatenate(center)[:count], np.concatenate(ten)[:count]


def neighbors(programs: Programs, data: Data, params: Any, k: int = 6) -> np.ndarray:
  """The k training images nearest to each validation image by fc7, [N, k] int."""

  def all_features(pixels: jax.Array) -> jax.Array:
    parts = [
      programs.features(params, pixels[first : first + data.batch], data.statistics)
      for first in range(0, len(pixels), data.batch)
    ]
    return jnp.concatenate(parts)

  known, queries = all_features(data.train), all_features(data.test)
  products = jnp.matmul(queries, known.T, precision='highest')
  distances = jnp.sum(known**2, axis=1)[None] - 2 * products
  return np.asarray(lax.top_k(-distances, k)[1])


def run(
  name: str,
  config: ConfigDict,
  programs: Programs,
  data: Data,
  out: Path,
  until: float,
) -> dict[str, Any] | None:
  """Trains once; returns what came of it, or None where time did not suffice."""
  seed, batch_size, side = config.train.seed, config.train.batch_size, programs.net.input_size
  net = experiment.make_network(config)  # its initial weights may differ from the programs'
  state = step_lib.init_state(net, programs.tx, programs.mesh, seed)
  scale = jnp.asarray(config.augment.pixel_scale, jnp.float32)
  data.statistics = data.statistics._replace(scale=scale)
  # The step's seed is compiled into it. That of the first serves all, at steps far from each other.
  state = state._replace(step=mesh_lib.replicate(programs.mesh, jnp.int32(seed * 10**6)))
  numbers = Numbers(len(data.train_labels), data.size)
  batches = pipeline.train_batches(
    numbers,  # type: ignore[arg-type]
    seed=seed,
    batch_size=batch_size,
    first_step=0,
    crop_size=side,
    crop_offsets=config.augment.crop_offsets,
    images_per_draw=config.augment.images_per_draw,
  )
  schedule = experiment.make_schedule(config)
  plateau, best, best_params = optimizer.Plateau(), (2.0, 0), None
  kernels = {0: np.asarray(state.params['conv1']['kernel'], np.float16)}
  steps = int(-(-config.train.num_epochs * numbers.num_examples // batch_size))
  epoch, start, lines = -1, time.perf_counter(), []
  selective = lambda: [  # noqa: E731
    round(float(figures.color_selectivity(part).mean()), 4)
    for part in np.split(np.asarray(state.params['conv1']['kernel']), programs.net.num_columns, -1)
  ]
  for step in range(steps):
    if (now := step * batch_size // numbers.num_examples) != epoch:
      epoch = now
      rates = schedule.parameter_rates(state.params, epoch, plateau)
      state = state._replace(
        opt_state=state.opt_state._replace(learning_rates=mesh_lib.replicate(programs.mesh, rates))
      )
      std = jnp.asarray(
        optimizer.piecewise_constant(config.augment.lighting.std, epoch, 0.0), jnp.float32
      )
    drawn = next(batches)
    batch = {
      'image': crops(data.train, drawn['number'], drawn['offset'], side),
      'offset': jnp.asarray(drawn['offset']),
      'label': jnp.asarray(data.train_labels[drawn['number']]),
    }
    state, _ = programs.train_step(state, batch, data.statistics, std)
    if (done := (step + 1) * batch_size // numbers.num_examples) > epoch or step + 1 == steps:
      found = metrics.compute(state.sums)
      state = state._replace(sums=mesh_lib.replicate(programs.mesh, metrics.empty()))
      seen = validate(programs, data, state.params)
      line = {
        'run': name,
        'seed': seed,
        'step': step + 1,
        'epoch': done,
        'train': found,
        'validation': seen,
        'learning_rate': schedule.rate(epoch, plateau),
        'selectivity': selective(),
        'seconds': round(time.perf_counter() - start, 3),
      }
      lines.append(line)
      if done in KEPT_EPOCHS:
        kernels[done] = np.asarray(state.params['conv1']['kernel'], np.float16)
      if not np.isfinite(seen['loss']):
        log(f'{name}, seed {seed}: the loss is no number after {done} epochs')
        break
      plateau = schedule.after_validation(plateau, seen['top1_error'])
      if seen['top1_error'] < best[0]:
        best = seen['top1_error'], done
        best_params = jax.tree.map(jnp.copy, state.params)
      flat = (
        plateau.cuts == schedule.max_lr_decays and plateau.epochs_since_best >= schedule.patience
      )
      if flat and not schedule.lr_decay_epochs:
        break
      if time.perf_counter() > until:
        log(f'{name}, seed {seed}: out of time after {done} epochs')
        return None
  seconds = time.perf_counter() - start
  kernels[lines[-1]['epoch']] = np.asarray(state.params['conv1']['kernel'], np.float16)
  with gzip.open(out / 'metrics.jsonl.gz', 'at') as file:
    file.writelines(json.dumps(line) + '\n' for line in lines)
  result: dict[str, Any] = {
    'run': name,
    'seed': seed,
    'epochs': lines[-1]['epoch'],
    'seconds': seconds,
  }
  if best_params is not None:
    center, ten = predict(programs, data, best_params)
    errors = {
      kind: float(metrics.errors(jnp.asarray(values), jnp.asarray(data.test_labels), 1).mean())
      for kind, values in (('center_crop_error', center), ('ten_views_error', ten))
    }
    result |= errors | {'best_epoch': best[1], 'selectivity': lines[-1]['selectivity']}
    result['predictions'] = center.astype(np.float16), ten.astype(np.float16)
    result['params'] = best_params
  result['kernels'] = kernels
  log(
    f'{name:24} seed {seed}: {result["epochs"]} epochs in {seconds:.1f} s, best'
    f' {best[0]:.2%} at {best[1]}, ten views {result.get("ten_views_error", 1):.2%},'
    f' selectivity {lines[-1]["selectivity"]}, train {lines[-1]["train"]["top1_error"]:.2%}'
  )
  return result


class Described(NamedTuple):
  """A run that is asked for: its name, and values by field."""

  name: str
  overrides: dict[str, Any]


def parse(description: str) -> Described:
  """NAME:field=value;field=value."""
  name, _, overrides = description.partition(':')
  values = dict(part.split('=', 1) for part in overrides.split(';') if part)
  return Described(name, {field: ast.literal_eval(text) for field, text in values.items()})


def configure(path: str, described: Described, seed: int) -> ConfigDict:
  """A run's config."""
  config = runpy.run_path(path)['get_config']()
  config.mesh.column_devices = config.mesh.data_devices = 1
  config.train.seed = seed
  for field, value in described.overrides.items():
    section, _, last = field.rpartition('.')
    holder = config
    for part in section.split('.'):
      holder = holder[part]
    with holder.ignore_type():
      holder[last] = value
  experiment.check(config)
  names = ('num_steps', 'gradient_accumulation_steps', 'init_from')
  unread.refuse(config, [f'train.{name}' for name in names])
  return config


def variants(path: str, base: Described, sweep: str, only: str) -> list[Described]:
  """A sweep file's variants that are asked for, of the base."""
  found = runpy.run_path(sweep)['get_sweep'](configure(path, base, 0)).variants
  names = only.split(',') if only else [variant.name for variant in found]
  by_name = {variant.name: variant for variant in found}
  return [Described(name, base.overrides | by_name[name].overrides) for name in names]


def table(out: Path) -> None:
  """Prints the runs' errors after the last epoch, and their differences from the first, by seed."""
  from scipy import stats

  with gzip.open(out / 'metrics.jsonl.gz', 'rt') as file:
    last = {(line['run'], line['seed']): line for line in map(json.loads, file)}
  names = list(dict.fromkeys(name for name, _ in last))

  def of(name: str, split: str = 'validation') -> dict[int, float]:
    of_run = {seed: line for (run, seed), line in last.items() if run == name}
    return {seed: 100 * line[split]['top1_error'] for seed, line in of_run.items()}

  base = of(names[0])
  print('| run | seeds | validation error, % | training error, % | difference | 95% interval | p |')
  print('|---|---:|---:|---:|---:|---|---:|')
  for name in names:
    errors, train_errors = of(name), of(name, 'train')
    common = sorted(errors.keys() & base.keys())
    differences = np.array([errors[seed] - base[seed] for seed in common])
    cells = [name, f'{len(errors)}', f'{statistics_of(errors)}', f'{statistics_of(train_errors)}']
    if name != names[0] and len(common) > 1:
      mean, error = differences.mean(), differences.std(ddof=1) / len(common) ** 0.5
      half = stats.t.ppf(0.975, len(common) - 1) * error
      chance = stats.ttest_1samp(differences, 0).pvalue
      cells += [f'{mean:+.2f}', f'{mean - half:+.2f} to {mean + half:+.2f}', f'{chance:.3f}']
    print('| ' + ' | '.join(cells + [''] * (7 - len(cells))) + ' |')


def statistics_of(errors: dict[int, float]) -> str:
  """The mean, and the standard deviation over seeds."""
  values = np.array(list(errors.values()))
  return f'{values.mean():.2f}' + (f' ± {values.std(ddof=1):.2f}' if len(values) > 1 else '')


def feed(programs: Programs, data: Data, batch_size: int) -> float:
  """Images a second of training that is fed as `launch.py` feeds it: cropped by the host."""
  state = step_lib.init_state(programs.net, programs.tx, programs.mesh, 0)
  read = pipeline.train_batches(
    data.held,
    seed=0,
    batch_size=batch_size,
    first_step=0,
    crop_size=programs.net.input_size,
    crop_offsets=32,
    images_per_draw=1,
  )
  batches = pipeline.prefetch(pipeline.put_batches(read, programs.mesh))
  std = jnp.asarray(0.1, jnp.float32)
  steps = max(2, len(data.train_labels) // batch_size)
  for step, batch in enumerate(itertools.islice(batches, steps + 5)):
    state, loss = programs.train_step(state, batch, data.statistics, std)
    if step == 4:
      jax.block_until_ready(loss)
      start = time.perf_counter()
  jax.block_until_ready(loss)
  seconds = time.perf_counter() - start
  batches.close()
  start = time.perf_counter()
  for _ in range(100):
    state, loss = programs.train_step(state, batch, data.statistics, std)
  jax.block_until_ready(loss)
  bare = 100 * batch_size / (time.perf_counter() - start)
  log(f'the same batch again and again: {bare:,.0f} images/s')
  return steps * batch_size / seconds


def _compiled_fields(config: ConfigDict) -> str:
  """What of a config the compiled programs depend on: runs that agree in it share them."""
  fields = config_fields.flatten(config.to_dict())
  others = ('weight_std', 'bias', 'initialization', 'pixel_scale', 'crop_offsets', 'std', 'seed')
  kept = {
    name: value
    for name, value in fields
    if name.startswith(('model.', 'augment.', 'train.precision', 'train.batch_size'))
    and name.rpartition('.')[2] not in others
  }
  rule = ('momentum', 'weight_decay', 'weight_decay_multipliers')
  kept |= {name: config.optimizer[name] for name in rule}
  return json.dumps(kept, sort_keys=True, default=str)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
  """The arrays of earlier runs, beside which those of others are kept."""
  if not path.exists():
    return {}
  with np.load(path) as kept:
    return dict(kept)


def draw(out: Path) -> None:
  """Draws the curves of the runs with seed 0, and conv1's kernels at the end of each."""
  from matplotlib.figure import Figure

  with gzip.open(out / 'metrics.jsonl.gz', 'rt') as file:
    lines = [line for line in map(json.loads, file) if line['seed'] == 0]
  curves = Figure(figsize=(9, 4), layout='constrained')
  errors, selectivity = curves.subplots(1, 2)
  for i, (name, group) in enumerate(itertools.groupby(lines, lambda line: line['run'])):
    of_run = list(group)
    epochs = [line['epoch'] for line in of_run]
    shown = {'color': f'C{i}', 'label': name}
    errors.plot(epochs, [100 * line['validation']['top1_error'] for line in of_run], **shown)
    columns = len(of_run[0]['selectivity'])
    for column, style in enumerate(('-', '--')[:columns]):
      values = [line['selectivity'][column] for line in of_run]
      selectivity.plot(epochs, values, style, **(shown if not column else shown | {'label': None}))
    with np.load(out / 'kernels.npz') as kept:
      kernels = kept[f'{name}_0_{epochs[-1]}'].astype(np.float32)
    figures.kernels(kernels, columns, f'conv1 after {epochs[-1]} epochs: {name}').savefig(
      out / f'kernels_{name}.png', dpi=100
    )
  errors.set(title='validation error, center crop (%)', xlabel='epoch', ylim=(10, 90))
  selectivity.set(title="color selectivity of conv1's columns (2: dashed)", xlabel='epoch')
  selectivity.axhline(2 / 3, color='0.7', linewidth=0.8)  # of random kernels
  handles, labels = errors.get_legend_handles_labels()
  curves.legend(handles, labels, loc='outside lower center', ncols=5, frameon=False)
  curves.savefig(out / 'curves.png', dpi=100)


def main() -> None:
  """Runs what was asked for, in that order."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/imagenette.py')
  parser.add_argument('--data_dir', type=Path, help='if left out, only draws what OUT has')
  parser.add_argument('--out', type=Path, required=True)
  parser.add_argument('--run', action='append', default=[], help='NAME:field=value;field=value')
  parser.add_argument('--sweep', help='a file of variants, of the first run')
  parser.add_argument('--only', default='', help="some of the sweep's variants, as a,b")
  parser.add_argument('--table', action='store_true', help='only print what OUT has, as a table')
  parser.add_argument('--seeds', default='0', help='as 0,1,2: all runs with the first, then ...')
  parser.add_argument('--again', default='', help='NAME:field=value;...: the best of the runs, so')
  parser.add_argument('--again_seeds', default='0,1,2')
  parser.add_argument('--seconds', type=float, default=1e9, help='after which it ends')
  parser.add_argument('--feed', action='store_true', help='measure the loop as launch.py feeds it')
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  if args.data_dir is None:
    (table if args.table else draw)(args.out)
    return
  if args.table:
    parser.error('--table only prints what OUT has; leave out --data_dir')
  if not args.run:
    parser.error('give --run=NAME or --run="NAME:field=value;field=value", once or more')
  until = START + args.seconds
  runs = [parse(description) for description in args.run]
  if args.sweep:
    runs += variants(args.config, runs[0], args.sweep, args.only)
  planned = [
    (described, configure(args.config, described, seed))
    for seed in map(int, args.seeds.split(','))
    for described in runs
  ]
  data = Data(args.data_dir, planned[0][1].data.image_size)
  made: dict[str, Programs] = {}
  kernels = read_arrays(args.out / 'kernels.npz')
  predictions = read_arrays(args.out / 'predictions.npz') | {'labels': data.test_labels}
  fed = False
  lowest = 2.0, runs[0]

  def do(name: str, config: ConfigDict, with_neighbors: bool) -> float:
    """One run and what is kept of it; returns its error, 2 where there is none."""
    config.model.num_classes = len(data.classes)
    key = _compiled_fields(config)
    programs = made.get(key) or made.setdefault(key, Programs(config))
    nonlocal fed
    if args.feed and not fed:
      fed = True
      rate = feed(programs, data, config.train.batch_size)
      log(f'fed by the host, batch {config.train.batch_size}: {rate:,.0f} images/s')
    found = run(name, config, programs, data, args.out, until)
    if found is None:
      sys.exit(0)
    label = f'{name}_{config.train.seed}'
    history = found.pop('kernels')
    if config.train.seed == 0:
      kernels.update({f'{label}_{epoch}': value for epoch, value in history.items()})
      np.savez_compressed(args.out / 'kernels.npz', **kernels)
    if 'predictions' in found:
      predictions[f'{label}_center'], predictions[f'{label}_ten'] = found.pop('predictions')
      params = found.pop('params')
      if with_neighbors:
        predictions['neighbors'] = neighbors(programs, data, params)
      np.savez_compressed(args.out / 'predictions.npz', **predictions)
    with (args.out / 'results.jsonl').open('a') as file:
      file.write(json.dumps(found) + '\n')
    return float(found.get('center_crop_error', 2.0))

  for described, config in planned:
    if (error := do(described.name, config, with_neighbors=False)) < lowest[0]:
      lowest = error, described
  if args.again:
    again, chosen = parse(args.again), lowest[1]
    again = Described(f'{chosen.name}_{again.name}', chosen.overrides | again.overrides)
    for seed in map(int, args.again_seeds.split(',')):
      do(again.name, configure(args.config, again, seed), with_neighbors=seed == 0)


if __name__ == '__main__':
  main()
