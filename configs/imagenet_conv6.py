"""The net with a sixth convolutional layer over the last pool, from scratch.

Paper, section 6.1 ("1 CNN*") and the source's nets 146: conv6 has 256 kernels of 3x3 that read
both columns, and no pool (61,555,304 parameters). The paper pre-trains it on a larger ImageNet and
fine-tunes it; here it starts afresh.

Command:  python launch.py --config=configs/imagenet_conv6.py --config.data.data_dir=TFDS_FOLDER
Cost:     as configs/imagenet.py, 3 % more multiply-adds.
Expected: 39.0 % top-1, 16.6 % top-5 error after pre-training on 21,843 classes (paper, table 2;
          not yet reproduced here).
"""

from ml_collections import config_dict

from configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  config.model.conv6.features = 256
  # The source's values (`layers-146*.cfg`); the paper does not give any.
  config.model.conv6.weight_std = 0.03
  config.model.conv6.bias = 1.0
  return config
