"""The net with a sixth convolutional layer over the last pool.

Paper, section 6 ("1 CNN*" of table 2) and the 2012 code's nets 146: conv6 has 256 kernels of 3x3 that read
both columns, and no pool (61,555,304 parameters). This is the net alone, from scratch. The paper
has two steps, which are configs/imagenet_conv6_pretrain.py, on a larger ImageNet, and
configs/imagenet_conv6_finetune.py.

Command:  python launch.py --config=configs/imagenet_conv6.py --config.data.data_dir=TFDS_FOLDER
Cost:     as configs/imagenet.py, 3% more multiply-adds.
Expected: not known; in 2012 a like net that was trained on 1,000 classes alone was stopped, because
          it overfitted. With both steps: configs/imagenet_conv6_finetune.py.
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  config.model.conv6.features = 256
  # The 2012 code's values (`layers-146*.cfg`); the paper does not give any.
  config.model.conv6.weight_std = 0.03
  config.model.conv6.bias = 1.0
  return config
