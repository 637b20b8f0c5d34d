"""AlexNet on Imagenette, ten classes of ImageNet that anyone can download.

tfds's `imagenette/full-size-v2`: 9,469 training and 3,925 validation images, as large as they are
in ImageNet. --config.data.name=imagenette/320px-v2 has the same at a shorter side of 320 pixels.
Starts as configs/image_folder.py, because ten thousand images are few.

Command:  python launch.py --config=configs/imagenette.py
          tfds downloads the images (1.6 GB) where --config.data.data_dir does not have them.
Cost:     20 epochs of 9,469 images, as configs/image_folder.py.
Expected: not yet measured.
"""

from ml_collections import config_dict

from alexnet_jax.configs import image_folder


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = image_folder.get_config()
  config.model.num_classes = 10
  config.data.name = 'imagenette/full-size-v2'
  return config
