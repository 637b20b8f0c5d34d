"""AlexNet on the 3,670 photographs of five flowers of TensorFlow's tutorials.

tfds's `tf_flowers` has only a training split; its last tenth is held out, and the mean image is that
of the other nine tenths. For the same photographs as a folder, flower_photos/CLASS/*.jpg, use
configs/image_folder.py, which holds out a tenth of each class (a fifth with
--config.data.validation_fraction=0.2).

Command:  python launch.py --config=configs/flowers.py
          tfds downloads the photographs (229 MB) where --config.data.data_dir does not have them.
Cost:     20 epochs of 3,303 images, as configs/image_folder.py.
Expected: 22.7% of 550 photographs wrong, from a folder of 3,119 of them, 2,569 to train on (seed 0).
"""

from ml_collections import config_dict

from alexnet_jax.configs import image_folder


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = image_folder.get_config()
  config.model.num_classes = 5
  config.data.name = 'tf_flowers'
  config.data.train_split = 'train[:90%]'
  config.data.validation_split = 'train[90%:]'
  return config
