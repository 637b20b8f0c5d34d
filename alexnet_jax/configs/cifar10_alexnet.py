"""AlexNet sized for CIFAR-10: two columns, five convolutions, three fully connected layers.

The paper's net with 5x5 and 3x3 kernels at stride 1 and fewer of them; response norms, overlapping
pools, dropout, crops and mirror images as in the paper, He et al.'s initialization.

Command:  python launch.py --config=configs/cifar10_alexnet.py --config.data.data_dir=TFDS_FOLDER
Cost:     60 epochs of 50,000 images, 0.3 GFLOP an image.
Expected: 16.9% error after 34 epochs, of JPEG-compressed images (seed 0), with
          --config.model.dropout.rate=0.25 --config.optimizer.lr_decay_epochs="(22,30)"
          --config.train.num_epochs=34; as it stands, not yet measured.
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  model = config.model
  model.num_classes = 10
  model.input_size = 28
  model.initialization = 'he'
  model.conv1.update(features=64, kernel_size=5, stride=1, padding=2)  # 28x28, pooled to 14x14
  model.conv2.features = 128  # 14x14, pooled to 7x7
  model.conv3.features = 192
  model.conv4.features = 192
  model.conv5.features = 128  # 7x7, pooled to 3x3
  model.fc6.features = 512
  model.fc7.features = 512
  model.pool.trim = ()

  config.data.name = 'cifar10'
  config.data.validation_split = 'test'
  config.data.image_size = 32
  config.augment.crop_offsets = 5  # 32 - 28 + 1
  config.augment.pixel_scale = 1 / 64

  config.optimizer.learning_rate = 0.01
  config.train.num_epochs = 60
  config.train.log_every_steps = 100
  return config
