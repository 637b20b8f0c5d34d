"""Second step of the paper's "1 CNN*": the net with conv6, fine-tuned on ILSVRC-2012.

Paper, section 6, and the 2012 code's `layer-params-146-2012-2011.cfg`: everything but the classes comes
from the first step, on the Fall 2011 release. conv1 continues for seven epochs at a tenth of the rate
and less, and is then frozen; fc8 has ten times the rate until epoch 9 (the 2012 code raises it after 300
batches; here from the start); the lighting ends at epoch 38. From the 2009 release:
configs/imagenet_conv6_finetune_2009.py.

Command:  python launch.py --config=configs/imagenet_conv6_finetune.py
          --config.data.data_dir=TFDS_FOLDER --config.train.init_from=runs/imagenet_conv6_pretrain
Cost:     54 epochs of 1.28 million images, 4.26 GFLOP an image: 2.95e17 FLOP.
Expected: 39.0% top-1, 16.6% top-5 error, ten views (paper, table 2); the 2012 code's log has 38.99 and
          16.62%. Not run here.
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet_conv6


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet_conv6.get_config()
  optimizer = config.optimizer
  optimizer.learning_rate = 0.001
  optimizer.lr_decay_epochs = (22, 42)
  optimizer.lr_multipliers.conv1 = ((0, 0.1), (5, 0.01), (7, 0.0))
  optimizer.lr_multipliers.fc8 = ((0, 10.0), (9, 1.0))
  config.augment.lighting.std = ((0, 0.1), (38, 0.0))
  config.train.num_epochs = 54
  return config
