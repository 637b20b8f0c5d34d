"""Figure 1 of the paper: how much sooner ReLU than tanh reaches 25% training error.

Section 3.1: a four-layer convolutional network on CIFAR-10, without regularization, each activation
at the learning rate with which it is fastest; the paper says six times. Each rate is tried for two
epochs, four of tanh's for six, because their order still changes; the best rate of each activation
is continued. Rates are multiples of the config's own, and were found with configs/cifar10.py: another
network needs others.

Command:  python launch.py --mode=sweep --sweep=configs/sweeps/relu_vs_tanh.py --jobs=2
              --config=configs/cifar10.py --config.data.data_dir=TFDS_FOLDER
Cost:     92 epochs in all, 51 s each on one core.
Expected: ReLU after 7 epochs, tanh after 44 to 48 (three seeds of the best rates; docs/results.md).
"""

from ml_collections import ConfigDict

from alexnet_jax.sweeps.spec import Sweep, Variant

# Epochs by multiple of the rate.
RELU = {1: 2, 2: 2, 4: 10, 8: 2, 16: 2}
TANH = {1: 2, 2: 2, 4: 6, 8: 50, 16: 6, 32: 6, 64: 2}


def get_sweep(config: ConfigDict) -> Sweep:
  """Returns the sweep over a base."""
  rate = config.optimizer.learning_rate
  runs = {
    f'{activation}_rate_x{multiple}': {
      'model.activation': activation,
      'optimizer.learning_rate': rate * multiple,
      'train.num_epochs': epochs,
    }
    for activation, of_activation in (('relu', RELU), ('tanh', TANH))
    for multiple, epochs in of_activation.items()
  }
  no_regularization = {
    'model.response_norm.layers': (),
    'model.within_norm.layers': (),
    'model.dropout.rate': 0.0,
    'augment.crop_offsets': 1,
    'augment.flip': False,
    'augment.lighting.std': (),
    'optimizer.weight_decay': 0.0,
    'optimizer.lr_decay_epochs': (),
    'optimizer.max_lr_decays': 0,
  }
  base = {**no_regularization, **runs.pop('relu_rate_x4')}
  variants = [
    Variant(
      name,
      overrides,
      f'{overrides["model.activation"]} at a rate of {overrides["optimizer.learning_rate"]:g},'
      f' {overrides["train.num_epochs"]} epochs',
    )
    for name, overrides in runs.items()
  ]
  return Sweep('Figure 1: ReLU and tanh', variants, base=base)
