"""caffe-tensorflow's network, its layers as TensorFlow runs them, and the converted one."""

import numpy as np
import pytest

from alexnet_jax.convert import convert
from alexnet_jax.evaluation.classifier import Classifier
from benchmarks import peers
from tests.other_formats import as_npy, caffe_config, pickled, tensorflow_layers


def test_logits_are_those_of_caffe_tensorflow_s_layers(tmp_path):
  # Here, for TensorFlow that is imported before PyTorch ends the process.
  pytest.importorskip('tensorflow', reason='TensorFlow is not installed')
  layers = tensorflow_layers()
  layers['fc8'] = [5 * array for array in layers['fc8']]
  named = {name: {'weights': pair[0], 'biases': pair[1]} for name, pair in layers.items()}
  (tmp_path / 'bvlc_alexnet.npy').write_bytes(as_npy(pickled(named)))
  config = caffe_config()
  config.data.image_size = 95
  classifier = Classifier(**vars(convert.read(tmp_path / 'bvlc_alexnet.npy', config)))
  images = np.random.default_rng(0).integers(0, 256, (6, 95, 95, 3), np.uint8)
  expected = peers.caffe_tensorflow_logits(layers, images, alpha=0.5)
  assert expected.std() > 0.3
  np.testing.assert_allclose(classifier.logits(images), expected, rtol=0, atol=1e-4)
