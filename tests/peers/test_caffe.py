"""Caffe's networks as OpenCV runs them, and converted ones, on the same pixels."""

import numpy as np
import pytest

from alexnet_jax.convert import convert
from alexnet_jax.evaluation.classifier import Classifier
from benchmarks import caffe_files, peers
from configs import imagenet_caffe, imagenet_caffenet
from tests.other_formats import NARROW, caffe_blobs

cv2 = pytest.importorskip('cv2', reason='OpenCV is not installed: pip install -e ".[peers]"')
if not hasattr(cv2.dnn, 'readNetFromCaffe'):
  pytest.skip('this OpenCV does not read Caffe files', allow_module_level=True)

SIZE = 95
ALPHA = 0.5  # of the norms, which are to matter


@pytest.mark.parametrize('old', [True, False])
@pytest.mark.parametrize(
  ('module', 'order', 'last'),
  [
    (imagenet_caffe, ('ReLU', 'LRN', 'Pooling'), 'fc8'),
    (imagenet_caffe, ('ReLU', 'LRN', 'Pooling'), 'fc8_flickr'),
    (imagenet_caffenet, ('ReLU', 'Pooling', 'LRN'), 'fc8'),
  ],
  ids=['bvlc_alexnet', 'fine-tuned', 'caffenet'],
)
def test_logits_are_those_of_opencv_s_caffe(tmp_path, module, order, last, old):
  blobs = caffe_blobs()
  blobs[last] = [5 * array for array in blobs.pop('fc8')]
  layers = list(caffe_files.layers_in_order(blobs, order))
  (tmp_path / 'net.caffemodel').write_bytes(caffe_files.typed_caffemodel(layers, old))
  (tmp_path / 'deploy.prototxt').write_text(peers.prototxt(layers, SIZE, ALPHA))
  config = module.get_config()
  config.update_from_flattened_dict(
    {
      **NARROW,
      'model.num_classes': None,
      'model.input_size': SIZE,
      'model.response_norm.alpha': ALPHA,
      'data.image_size': SIZE,
    }
  )
  images = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
  classifier = Classifier(**vars(convert.read(tmp_path / 'net.caffemodel', config)))
  expected = peers.caffe_logits(tmp_path / 'deploy.prototxt', tmp_path / 'net.caffemodel', images)
  assert np.std(expected) > 0.3
  np.testing.assert_allclose(classifier.logits(images), expected, rtol=0, atol=1e-4)
