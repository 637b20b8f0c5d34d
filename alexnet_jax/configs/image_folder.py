"""AlexNet on your own photographs: a folder with a folder for each class.

PHOTOS/train/CLASS/*.jpg and PHOTOS/val/CLASS/*.jpg, or PHOTOS/CLASS/*.jpg, of which a tenth is held
out. The first run shrinks the images once, to 256x256 pixels, and says where it writes them
(--config.data.prepared_dir). The network has as many outputs as there are classes.
flower_photos, of the Keras and TensorFlow tutorials, is such a folder as it is unpacked.

Weights are drawn as He et al. do, on pixels divided by 64, which learns fastest at first: of Imagenette's
validation images 67% are wrong after 74 batches of 128, with the paper's start 81%
(docs/results.md), and a folder of a few hundred images does not allow many more.

Command:  python launch.py --config=configs/image_folder.py --config.data.data_dir=PHOTOS --workdir=runs/photos
          Give each folder a --workdir of its own.
Cost:     20 epochs; 30 to 45 images/s on 2 cores, 17 on one.
Expected: 22.7% of 550 validation images wrong, of five flowers, after training on 2,569 photographs
          (seed 0; docs/results.md, also of fine-tuning); 19.3% of 300, of six kinds of scenery, after
          training on 1,200 photographs of 64x64 pixels (seed 0).
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  config.data.name = 'folder'
  config.model.num_classes = config_dict.placeholder(int)  # as many as the folder has
  config.model.initialization = 'he'
  config.augment.pixel_scale = 1 / 64
  config.train.batch_size = 32
  config.train.num_epochs = 20
  config.optimizer.lr_decay_epochs = (14, 18)
  config.train.log_every_steps = 10
  return config
