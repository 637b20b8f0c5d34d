"""The paper's one-GPU net: one column, with half the kernels in conv1 to conv4.

Section 3.2 and its footnote: conv5 and the fully connected layers are not halved, so that the two
nets are of about the same size (59,798,312 parameters). In the paper two columns lower the top-1
and top-5 errors by 1.7 and 1.2 points.

Command:  python launch.py --config=configs/imagenet_one_column.py --config.data.data_dir=FOLDER
Cost:     90 epochs of 1.28 million images, 54% of configs/imagenet.py's multiply-adds.
Expected: no figure is known for ILSVRC-2012, which this trains on. On ILSVRC-2010 the 2012 code's net
          145-half has 39.2% top-1 and 18.2% top-5 error by ten views, 1.7 and 1.2 points more than
          its two columns: --config.data.name=folder, as configs/imagenet2010.py. Not run here.
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  config.model.num_columns = 1
  return config
