"""What the 2012 code, released in 2025, really ran: its net 145.

It differs from the paper's text in the lines below: ReLU after the first pool, a second norm
within each map in layer 2, alpha divided by the number of neighbors, wider initial weights in
conv3 to conv5, biases at twice the weights' rate and never cut, conv1 slowed and then frozen,
lighting by standard deviations (and off near the end), one crop and mirror draw for 32 images, and
the center of the mean image subtracted from every crop.

Command:  python launch.py --config=configs/imagenet_source.py --config.data.data_dir=TFDS_FOLDER
Cost:     91 epochs of 1.28 million images.
Expected: 40.66% top-1, 18.21% top-5 error on the ILSVRC-2012 validation images, ten views (the
          log of net 145, and the paper's table 2; not yet reproduced here).
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  model = config.model
  model.conv1.order = 'norm-pool-activation'  # layers/layers-145.cfg
  model.response_norm.divide_alpha = True  # layer.py
  model.within_norm.layers = ('conv2',)  # "cnorm2a", of type rnorm
  model.initialization = 'source'  # layers/layers-145.cfg: 0.03 in conv3 to conv5

  config.augment.crop_offsets = 33  # offsets 0 to 32, convdata_jpeg.py
  config.augment.images_per_draw = 32
  config.augment.mean = 'center'
  config.augment.lighting.scale = 'standard_deviations'
  config.augment.lighting.rescale = True
  config.augment.lighting.std = ((0, 0.1), (67, 0.0))

  # layers/layer-params-145.cfg, its comments and final values.
  optimizer = config.optimizer
  optimizer.lr_decay_epochs = (25, 51, 79)
  optimizer.bias_lr_multiplier = 2.0
  optimizer.lr_decay_biases = False
  optimizer.lr_multipliers.conv1 = ((67, 0.1), (72, 0.0))
  config.train.num_epochs = 91
  return config
