"""The paper's network on MIT Places: 365 kinds of scenes.

tfds's `places365_small`: 1,803,460 training and 36,500 validation images, which are 256x256 pixels
as they come, so that nothing is shrunk. The labels of its test split are not public.

Command:  python launch.py --config=configs/places365_small.py --config.data.data_dir=TFDS_FOLDER
          tfds downloads the images (31 GB) where that folder does not have them.
Cost:     90 epochs of 1.80 million images, 4.1 GFLOP an image: 6.7e17 FLOP.
Expected: not yet measured.
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  config.model.num_classes = 365
  config.data.name = 'places365_small'
  return config
