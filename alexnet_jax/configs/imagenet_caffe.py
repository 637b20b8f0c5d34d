"""Caffe's AlexNet, models/bvlc_alexnet: the weights that most people mean by AlexNet's.

It differs from the paper in the lines below: crops of 227 pixels without PCA lighting, response
norms over both groups with k = 1 and alpha divided by the number of neighbors, smaller initial
biases, dropout that divides in training, biases at twice the rate, and fixed cuts of the rate.
Caffe's readme advises to warp images to 256x256 pixels; here their central squares are taken.

Command:  python launch.py --config=configs/imagenet_caffe.py --config.data.data_dir=TFDS_FOLDER
          or with Caffe's own weights, bvlc_alexnet.caffemodel or bvlc_alexnet.npy:
          python launch.py --mode=convert --config=configs/imagenet_caffe.py
            --source=bvlc_alexnet.caffemodel --target=caffe.safetensors
          CaffeNet (bvlc_reference_caffenet) has configs/imagenet_caffenet.py.
Cost:     90 epochs of 1.28 million images; the published weights are of epoch 72.
Expected: 42.9% top-1, 19.8% top-5 error on the ILSVRC-2012 validation images, center crop (the
          model's readme; not yet reproduced here).
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  model = config.model  # bvlc_alexnet/train_val.prototxt
  model.input_size = 227
  model.initialization = 'caffe'
  model.response_norm.k = 1.0
  model.response_norm.divide_alpha = True  # src/caffe/layers/lrn_layer.cpp
  model.response_norm.over = 'all_channels'
  model.dropout.inverted = True

  config.augment.crop_offsets = 30  # offsets 0 to 29
  config.augment.lighting.std = ()

  optimizer = config.optimizer  # bvlc_alexnet/solver.prototxt
  optimizer.bias_lr_multiplier = 2.0
  optimizer.lr_decay_epochs = (20, 40, 60, 80)  # every 100,000 steps
  config.train.batch_size = 256
  return config
