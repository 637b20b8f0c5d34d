"""A check that the full network learns: it memorizes 256 ImageNet images, to no training error.

configs/imagenet.py with dropout and augmentation off, on the first 256 training images. The
initialization is He et al.'s, on pixels divided by 64: the paper's, with biases of 1, stays at
chance for long on so few images (docs/results.md).

Command:  python launch.py --config=configs/imagenet_overfit.py --config.data.data_dir=FOLDER
Cost:     20 epochs of 256 images, 27 images/s on 2 cores.
Expected: no training error.
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  config.data.train_split = 'train[:256]'
  config.data.validation_split = 'train[:256]'
  config.model.initialization = 'he'
  config.model.dropout.rate = 0.0
  config.augment.crop_offsets = 1
  config.augment.flip = False
  config.augment.lighting.std = ()
  config.augment.pixel_scale = 1 / 64
  config.optimizer.lr_decay_epochs = (14,)
  config.train.batch_size = 32
  config.train.num_epochs = 20
  config.train.log_every_steps = 8
  return config
