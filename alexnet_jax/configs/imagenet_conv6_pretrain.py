"""First step of the paper's "1 CNN*": the net with conv6 on the Fall 2011 ImageNet, all its classes.

Paper, section 6, and the 2012 code's net 146 for 2011 (`layer-params-146-2011.cfg`): 21,843 classes,
and 1024 + 1024 linear units between fc7 and the classes, without which those alone would have 90
million weights (110,605,267 parameters in all).

Command:  python launch.py --config=configs/imagenet_conv6_pretrain.py --config.data.data_dir=FOLDER
          where FOLDER has a folder of images for each synset; a copy that lacks some takes
          --config.model.num_classes as many as it has
Cost:     8 epochs of 15 million images, 4.56 GFLOP an image: 5.5e17 FLOP.
Expected: no figure of this net's is known; not run here.
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet_conv6


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet_conv6.get_config()
  config.model.num_classes = 21_843
  config.model.bottleneck.features = 2048
  config.data.name = 'folder'
  # The paper trained on all of them; a hundredth of each class shows here how it goes.
  config.data.validation_fraction = 0.01
  # 0.01, and 0.001 from epoch 6. The 2012 code took conv1 to conv6 from the same net trained on the
  # 2009 release (configs/imagenet_fall2009.py, train.init_from) and trained them at a tenth of the
  # rate, 0.001, until the other layers came down to it at epoch 6.
  config.optimizer.lr_decay_epochs = (6,)
  config.train.num_epochs = 8
  return config
