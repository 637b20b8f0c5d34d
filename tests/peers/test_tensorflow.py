"""caffe-tensorflow's network, its layers as TensorFlow runs them, and the converted one."""

import numpy as np
import pytest

from alexnet_jax.convert import convert
from alexnet_jax.evaluation.classifier import Classifier
from tests.other_formats import as_npy, caffe_config, pickled, tensorflow_layers


def network(tf, layers, pixels):
  """alexnet.py of caffe-tensorflow: NHWC, blue first, groups of two, pools that clip ('VALID')."""

  def convolution(x, name, stride=1, padding='SAME', groups=1):
    weights, biases = layers[name]
    parts = zip(tf.split(x, groups, 3), tf.split(weights, groups, 3), strict=True)
    y = tf.concat([tf.nn.conv2d(part, kernel, stride, padding) for part, kernel in parts], 3)
    return tf.nn.relu(tf.nn.bias_add(y, biases))

  def norm(x):
    return tf.nn.local_response_normalization(x, depth_radius=2, alpha=0.5 / 5, beta=0.75, bias=1.0)

  def pool(x):
    odd = (x.shape[1] - 3) % 2  # Caffe's windows overhang, which TensorFlow's do not
    x = tf.pad(x, [[0, 0], [0, odd], [0, odd], [0, 0]], constant_values=-np.inf)
    return tf.nn.max_pool2d(x, 3, 2, 'VALID')

  x = pool(norm(convolution(pixels, 'conv1', 4, 'VALID')))
  x = pool(norm(convolution(x, 'conv2', groups=2)))
  x = convolution(convolution(x, 'conv3'), 'conv4', groups=2)
  x = tf.reshape(pool(convolution(x, 'conv5', groups=2)), [len(pixels), -1])
  for name in ('fc6', 'fc7'):
    x = tf.nn.relu(tf.matmul(x, layers[name][0]) + layers[name][1])
  return tf.matmul(x, layers['fc8'][0]) + layers['fc8'][1]


def test_logits_are_those_of_caffe_tensorflow_s_layers(tmp_path):
  # Here, for TensorFlow that is imported before PyTorch ends the process.
  tf = pytest.importorskip('tensorflow', reason='TensorFlow is not installed')
  layers = tensorflow_layers()
  layers['fc8'] = [5 * array for array in layers['fc8']]
  named = {name: {'weights': pair[0], 'biases': pair[1]} for name, pair in layers.items()}
  (tmp_path / 'bvlc_alexnet.npy').write_bytes(as_npy(pickled(named)))
  config = caffe_config()
  config.data.image_size = 95
  classifier = Classifier(**vars(convert.read(tmp_path / 'bvlc_alexnet.npy', config)))
  images = np.random.default_rng(0).integers(0, 256, (6, 95, 95, 3), np.uint8)
  color = np.float32([104.00698793, 116.66876762, 122.67891434])
  expected = network(tf, layers, images[..., ::-1] - color).numpy()
  assert expected.std() > 0.3
  np.testing.assert_allclose(classifier.logits(images), expected, rtol=0, atol=1e-4)
