"""A small two-column AlexNet on scikit-learn's 1,797 handwritten digits: the first thing to run.

The digits (8x8 pixels) come with scikit-learn, so nothing is downloaded. Five convolutions and
three fully connected layers, response norms, overlapping pools and dropout as in the paper, sized
for 8x8 pixels; He et al.'s initialization, because the paper's starts too slowly for a small net.

Command:  python launch.py --config=configs/digits.py
Cost:     23 s on 2 cores.
Expected: at least 97% of the 359 held-out digits right.
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  model = config.model
  model.num_classes = 10
  model.input_size = 8
  model.initialization = 'he'
  model.conv1.update(features=32, kernel_size=3, stride=1, padding=1)  # 8x8, pooled to 4x4
  model.conv2.update(features=64, kernel_size=3, stride=1, padding=1)  # 4x4, pooled to 2x2
  model.conv3.features = 96
  model.conv4.features = 96
  model.conv5.features = 64  # 2x2, pooled to 1x1
  model.fc6.features = 256
  model.fc7.features = 256
  model.pool.trim = ()

  config.data.name = 'digits'
  config.data.image_size = 8
  config.augment.crop_offsets = 1
  config.augment.flip = False  # a mirrored digit is another one
  config.augment.pixel_scale = 1 / 64
  config.augment.lighting.std = ()

  config.optimizer.learning_rate = 0.02
  config.optimizer.lr_decay_epochs = (30,)
  config.train.batch_size = 64
  config.train.num_epochs = 40
  return config
