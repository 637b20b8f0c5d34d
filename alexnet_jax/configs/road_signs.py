"""A small two-column AlexNet on drawn road signs: a first run in color, on which nothing is downloaded.

1,600 training and 400 validation pictures of 64x64 pixels, of eight kinds of signs on pieces of two
photographs (alexnet_jax/data/road_signs.py). The paper's layers for a quarter of its side; conv1's
kernels are 7x7 at stride 2, large enough to look at.
--config.data.name=rare_road_signs has four other kinds, ten pictures each, for fine-tuning.

Command:  python launch.py --config=configs/road_signs.py
Cost:     16 epochs of 1,600 images, 38 s on 2 cores.
Expected: 14.0% of the validation pictures wrong at best, 14.2% in the end (seed 0); guessing: 87.5%.
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  model = config.model
  model.num_classes = config_dict.placeholder(int)  # as many as the signs are
  model.input_size = 56
  model.initialization = 'he'
  model.conv1.update(features=32, kernel_size=7, stride=2, padding=3)  # 28x28, pooled to 14x14
  model.conv1.weight_std = 0.01  # the paper's: He et al.'s noise would outlast so few steps
  model.conv2.features = 64  # 14x14, pooled to 7x7
  model.conv3.features = 96
  model.conv4.features = 96
  model.conv5.features = 64  # 7x7, pooled to 3x3
  model.fc6.features = 256
  model.fc7.features = 256
  model.pool.trim = ()

  config.data.name = 'road_signs'
  config.data.image_size = 64
  config.augment.crop_offsets = 9  # 64 - 56 + 1
  config.augment.flip = False  # no sign is seen in a mirror
  config.augment.pixel_scale = 1 / 64

  config.optimizer.learning_rate = 0.02
  config.optimizer.lr_decay_epochs = (13,)
  config.train.batch_size = 32
  config.train.num_epochs = 16
  config.train.log_every_steps = 10
  return config
