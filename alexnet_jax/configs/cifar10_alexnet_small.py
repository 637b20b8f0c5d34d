"""configs/cifar10_alexnet.py with half the kernels and units, on a schedule for ablations on 2 cores.

Command:  python launch.py --config=configs/cifar10_alexnet_small.py --config.data.data_dir=TFDS_FOLDER
Cost:     6 epochs of 50,000 images, 8 minutes on one core.
Expected: 34.4 to 36.3 % error (seeds 0 to 2).
"""

from ml_collections import config_dict

from alexnet_jax.configs import cifar10_alexnet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = cifar10_alexnet.get_config()
  for layer in ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7'):
    config.model[layer].features //= 2
  config.optimizer.lr_decay_epochs = (5,)
  config.train.num_epochs = 6
  return config
