"""CaffeNet, Caffe's models/bvlc_reference_caffenet: pools before the response norms.

The network of R-CNN and many fine-tuned ones. It differs from configs/imagenet_caffe.py in the lines
below, and takes the same images.

Command:  python launch.py --config=configs/imagenet_caffenet.py --config.data.data_dir=TFDS_FOLDER
          or with Caffe's own weights:
          python launch.py --mode=convert --config=configs/imagenet_caffenet.py
            --source=bvlc_reference_caffenet.caffemodel --target=caffenet.safetensors
Cost:     90 epochs of 1.28 million images; the published weights are of epoch 62.
Expected: 42.6% top-1, 19.6% top-5 error on the ILSVRC-2012 validation images, center crop (the
          model's readme; not yet reproduced here).
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet_caffe


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet_caffe.get_config()
  model = config.model  # bvlc_reference_caffenet/train_val.prototxt
  model.conv1.order = 'activation-pool-norm'
  model.conv2.order = 'activation-pool-norm'
  for layer in ('conv2', 'conv4', 'conv5', 'fc6', 'fc7'):
    model[layer].bias = 1.0
  return config
