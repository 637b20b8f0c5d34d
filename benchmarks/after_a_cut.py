"""The training loss in the steps after a cut of the learning rate, by the paper's rule and by PyTorch's.

  python benchmarks/after_a_cut.py --out=OUT
  python benchmarks/after_a_cut.py --config=configs/cifar10_alexnet_small.py --data_dir=TFDS_FOLDER --out=OUT

The paper's velocity holds learning rate times gradient, and a cut leaves it as it is. In PyTorch's SGD and
`optax.sgd` the rate multiplies the velocity, so a cut shrinks both; with the paper's rule that is the same
as dividing the velocity too. After `--epochs` of training the network goes on for `--steps` in three ways,
on the same batches and with the same dropout: without a cut, with the paper's, and with the velocity
divided as well. That is repeated `--repeats` times, each from where the one without a cut arrived.

OUT/losses.json has the losses, OUT/after_a_cut.png their means; both are also printed.
"""

import argparse
import itertools
import json
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import unread  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from alexnet_jax import experiment, optimizer  # noqa: E402
from alexnet_jax.data import augment, pipeline  # noqa: E402
from alexnet_jax.training import step as step_lib  # noqa: E402
from alexnet_jax.utils.display import Display  # noqa: E402

Losses = Mapping[str, list[list[float]]]  # [repeats, steps], of each way to go on
NO_CUT, PAPER, PYTORCH = 'no cut', "the paper's rule", "the velocity divided too, PyTorch's rule"


def measure(args: argparse.Namespace) -> Losses:
  """Trains, and goes on in the three ways."""
  config = runpy.run_path(args.config)['get_config']()
  of_layers = ('bias_lr_multiplier', 'lr_decay_biases', 'lr_multipliers')  # here all have one rate
  unread.refuse(config, [f'optimizer.{name}' for name in of_layers])
  config.mesh.column_devices = config.mesh.data_devices = 1
  if args.data_dir:
    config.data.data_dir = args.data_dir
  with Display() as display:
    config, data_set = experiment.open_data(config, display)
    split = data_set.load_split(config.data.train_split)
    computed = pipeline.statistics(split, display.task('mean image', split.num_examples))
    net, mesh = experiment.make_network(config), experiment.make_mesh(config)
    tx, seed = experiment.make_optimizer(config, net), config.train.seed
    train_step = step_lib.make_train_step(net, tx, mesh, experiment.augment_options(config), seed)
    statistics = augment.Statistics(**jax.tree.map(jnp.float32, computed))
    std = jnp.float32(optimizer.piecewise_constant(config.augment.lighting.std, 0, 0.0))
    batches = pipeline.train_batches(
      split,
      seed=seed,
      batch_size=config.train.batch_size,
      first_step=0,
      crop_size=net.input_size,
      crop_offsets=config.augment.crop_offsets,
      images_per_draw=config.augment.images_per_draw,
    )
    rate, factor = experiment.learning_rate(config), config.optimizer.lr_decay_factor

    def copy(state: step_lib.TrainState, rate: float, divisor: float = 1.0) -> step_lib.TrainState:
      """A copy, for a step donates its state, with a learning rate and the velocity divided."""
      state = jax.tree.map(jnp.copy, state)
      opt_state = state.opt_state
      return state._replace(
        opt_state=opt_state._replace(
          learning_rates=jax.tree.map(lambda _: jnp.float32(rate), opt_state.learning_rates),
          velocity=jax.tree.map(lambda v: v / divisor, opt_state.velocity),
        )
      )

    first = round(args.epochs * split.num_examples / config.train.batch_size)
    advance = display.task('training', first + 3 * args.repeats * args.steps)
    state = copy(step_lib.init_state(net, tx, mesh, seed), rate)
    for batch in itertools.islice(batches, first):
      state, loss = train_step(state, batch, statistics, std)
      loss.block_until_ready()
      advance(1)
    losses: Losses = {NO_CUT: [], PAPER: [], PYTORCH: []}
    for _ in range(args.repeats):
      shared = list(itertools.islice(batches, args.steps))
      ways = {
        PAPER: copy(state, rate / factor),
        PYTORCH: copy(state, rate / factor, factor),
        NO_CUT: state,  # last: the next repeat begins where it arrives
      }
      for way, state in ways.items():
        losses[way].append([])
        for batch in shared:
          state, loss = train_step(state, batch, statistics, std)
          losses[way][-1].append(float(loss))
          advance(1)
    return losses


def means(losses: Losses, width: int) -> dict[str, np.ndarray]:
  """The mean loss of every `width` steps, and its standard error over repeats: [2, steps / width]."""
  found = {}
  for way, values in losses.items():
    parts = np.reshape(values, (len(values), -1, width)).mean(axis=2)
    error = parts.std(axis=0, ddof=1) / len(parts) ** 0.5
    found[way] = np.stack([parts.mean(axis=0), error])
  return found


def table(losses: Losses) -> str:
  """The mean of every five steps, and by how much the paper's rule is above PyTorch's."""
  of_ways = means(losses, 5)
  above = np.subtract(losses[PAPER], losses[PYTORCH]).tolist()
  mean, error = means({'above': above}, 5)['above']
  lines = [
    '| steps after the cut | ' + ' | '.join(losses) + " | the paper's rule above PyTorch's |",
    '|---|' + '---:|' * (len(losses) + 1),
  ]
  for i in range(len(mean)):
    cells = [f'{5 * i + 1} to {5 * i + 5}', *(f'{of_way[0][i]:.3f}' for of_way in of_ways.values())]
    lines.append('| ' + ' | '.join([*cells, f'{mean[i]:+.3f} ± {error[i]:.3f}']) + ' |')
  return '\n'.join(lines)


def draw(losses: Losses, path: Path) -> None:
  """Draws the mean of every two steps, with its standard error as a band."""
  picture = Figure(figsize=(7, 3.6), layout='constrained')
  panel = picture.subplots()
  for (way, (mean, error)), style in zip(means(losses, 2).items(), (':', '-', '--'), strict=True):
    steps = 2 * np.arange(len(mean)) + 1.5
    color = '0.6' if way == NO_CUT else 'black'
    panel.plot(steps, mean, style, color=color, label=way)
    panel.fill_between(steps, mean - error, mean + error, color=color, alpha=0.15, linewidth=0)
  panel.set(xlabel='steps after the cut of the learning rate', ylabel='training loss')
  panel.legend(frameon=False)
  picture.savefig(path, dpi=120)


def main() -> None:
  """Measures, or only draws what is there."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/digits.py')
  parser.add_argument('--data_dir', help='as --config.data.data_dir of launch.py')
  parser.add_argument('--out', type=Path, required=True)
  parser.add_argument('--epochs', type=float, default=3.0, help='of training before the first cut')
  parser.add_argument('--repeats', type=int, default=10)
  parser.add_argument('--steps', type=int, default=60, help='after a cut; a multiple of 10')
  parser.add_argument('--draw', action='store_true', help='only print and draw what OUT has')
  args = parser.parse_args()
  if args.steps % 10 or args.steps < 10 or args.repeats < 2:
    parser.error('--steps must be a multiple of 10, --repeats 2 or more')
  args.out.mkdir(parents=True, exist_ok=True)
  kept = args.out / 'losses.json'
  if not args.draw:
    kept.write_text(json.dumps(measure(args)) + '\n', 'utf-8')
  losses = json.loads(kept.read_text('utf-8'))
  print(table(losses))
  draw(losses, args.out / 'after_a_cut.png')


if __name__ == '__main__':
  main()
