"""Figure 1 of the paper: how much sooner ReLU than tanh reaches 25 % training error.

Section 3.1: a four-layer convolutional network on CIFAR-10, without regularisation, each activation
with the learning rate at which it is fastest. The paper says six times. Rates were chosen on the grid
below, two epochs each, by their training error; the two chosen ones go on. They are multiples of the
config's own rate, so that another net needs other constants here.

Command:  python launch.py --mode=sweep --sweep=configs/sweeps/relu_vs_tanh.py --jobs=2
              --config=configs/cifar10.py --config.data.data_dir=TFDS_FOLDER
"""

from ml_collections import ConfigDict

from alexnet_jax.sweep import Sweep, Variant

GRID = {'relu': (1, 2, 4, 8, 16), 'tanh': (1, 2, 4, 8, 16, 32, 64)}
CHOSEN = {'relu': 4, 'tanh': 32}
EPOCHS = {'relu': 10, 'tanh': 40}
GRID_EPOCHS = 2


def get_sweep(config: ConfigDict) -> Sweep:
  """Returns the sweep over a base."""
  rate = config.optimizer.learning_rate

  def overrides(activation: str, multiple: int, epochs: int) -> dict[str, object]:
    return {
      'model.activation': activation,
      'optimizer.learning_rate': rate * multiple,
      'train.num_epochs': epochs,
    }

  variants = [
    Variant(
      'tanh',
      overrides('tanh', CHOSEN['tanh'], EPOCHS['tanh']),
      f'tanh at its fastest rate, {EPOCHS["tanh"]} epochs',
    )
  ]
  for activation, multiples in GRID.items():
    for multiple in multiples:
      if multiple != CHOSEN[activation]:
        variants.append(
          Variant(
            f'{activation}_rate_x{multiple}',
            overrides(activation, multiple, GRID_EPOCHS),
            f'{activation}, {multiple} times the rate, {GRID_EPOCHS} epochs',
          )
        )
  no_regularization = {
    'model.response_norm.layers': (),
    'model.within_norm.layers': (),
    'model.dropout.rate': 0.0,
    'augment.crop_offsets': 1,
    'augment.flip': False,
    'augment.lighting.std': (),
    'optimizer.weight_decay': 0.0,
    'optimizer.cut_epochs': (),
    'optimizer.max_cuts': 0,
  }
  base = overrides('relu', CHOSEN['relu'], EPOCHS['relu'])
  return Sweep('Figure 1: ReLU and tanh', variants, base={**no_regularization, **base})
