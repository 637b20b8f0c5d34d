"""torchvision's AlexNet: one column, narrower convolutions, no response norms.

The net of "One weird trick for parallelizing convolutional neural networks" (Krizhevsky, 2014) as
torchvision has it (`models/alexnet.py`; 61,100,840 parameters): 64, 192, 384, 256 and 256 kernels,
and dropout on what fc6 and fc7 read. Images are evaluated as torchvision does; with
--config.data.encoding=png, which takes 130 KB an image, to the last bit. Not as in torchvision's
training: the initialization (He et al.'s comes nearest), the crops, there of random size, the weight
decay, there of biases too, and momentum, whose velocity there does not hold the learning rate.

Command:  python launch.py --config=configs/imagenet_torchvision.py --config.data.data_dir=FOLDER
          or with torchvision's own weights, its .pth or a .safetensors of its state dict:
          python launch.py --mode=convert --config=configs/imagenet_torchvision.py
            --source=alexnet.pth --target=torchvision.safetensors
Cost:     90 epochs of 1.28 million images, nearly as many multiply-adds as configs/imagenet.py.
Expected: 43.478% top-1, 20.934% top-5 error on the ILSVRC-2012 validation images, center crop
          (torchvision's IMAGENET1K_V1: 56.522 and 79.066% right; not yet reproduced here).
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  model = config.model
  model.num_columns = 1
  model.one_column_halves = ()
  model.conv1.update(features=64, padding=2, rounding='down')  # 55x55
  model.conv2.features = 192
  model.conv4.features = 256
  model.initialization = 'he'
  model.response_norm.layers = ()
  model.dropout.layers = ('conv5', 'fc6')  # after conv5's pool
  model.dropout.inverted = True

  config.data.resize = 'torchvision'
  # Each color's mean and standard deviation over the pixels of ImageNet, divided by 255.
  config.augment.mean = 'channel'
  config.augment.pixel_scale = tuple(1 / (255 * std) for std in (0.229, 0.224, 0.225))
  config.augment.lighting.std = ()

  optimizer = config.optimizer
  optimizer.weight_decay = 1e-4
  optimizer.lr_decay_epochs = (30, 60)  # and 90, where training ends
  config.train.batch_size = 256
  return config
