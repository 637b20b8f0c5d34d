"""The net with conv6 fine-tuned on ILSVRC-2012 from the Fall 2009 release.

The 2012 code's `layer-params-146-2012-2009.cfg`: as configs/imagenet_conv6_finetune.py, but fc8 has the
rate of all layers, and conv1 is frozen earlier. The paper's table 2 has no figure of it.

Command:  python launch.py --config=configs/imagenet_conv6_finetune_2009.py
          --config.data.data_dir=TFDS_FOLDER --config.train.init_from=runs/imagenet_fall2009
Cost:     52 epochs of 1.28 million images, 4.26 GFLOP an image: 2.84e17 FLOP.
Expected: 39.10% top-1, 16.88% top-5 error, ten views (the 2012 code's log; not run here).
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet_conv6_finetune


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet_conv6_finetune.get_config()
  config.optimizer.lr_multipliers.conv1 = ((0, 0.1), (3, 0.01), (4, 0.0))
  config.optimizer.lr_multipliers.fc8 = ()
  config.train.num_epochs = 52
  return config
