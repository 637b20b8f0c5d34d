"""Caffe's networks as OpenCV runs them, and converted ones, on the same pixels."""

import numpy as np
import pytest

from alexnet_jax.convert import convert
from alexnet_jax.evaluation.classifier import Classifier
from configs import imagenet_caffe, imagenet_caffenet
from tests import caffe_files
from tests.other_formats import NARROW, caffe_blobs

cv2 = pytest.importorskip('cv2', reason='OpenCV is not installed: pip install -e ".[peers]"')
if not hasattr(cv2.dnn, 'readNetFromCaffe'):
  pytest.skip('this OpenCV does not read Caffe files', allow_module_level=True)

SIZE = 95
COLOR = np.float32([104.00698793, 116.66876762, 122.67891434])  # blue, green, red

HEAD = f"""
name: "AlexNet"
input: "data"
input_shape {{ dim: 1 dim: 3 dim: {SIZE} dim: {SIZE} }}
"""
LRN = 'lrn_param { local_size: 5 alpha: 0.5 beta: 0.75 }'
POOL = 'pooling_param { pool: MAX kernel_size: 3 stride: 2 }'
CONVOLUTIONS = {
  'conv1': 'kernel_size: 11 stride: 4',
  'conv2': 'pad: 2 kernel_size: 5 group: 2',
  'conv3': 'pad: 1 kernel_size: 3',
  'conv4': 'pad: 1 kernel_size: 3 group: 2',
  'conv5': 'pad: 1 kernel_size: 3 group: 2',
}


def prototxt(layers):
  """The deploy.prototxt of layers as `caffe_files.layers_in_order` gives them."""
  text, below = HEAD, 'data'
  for name, kind, arrays in layers:
    parameters = {'LRN': LRN, 'Pooling': POOL}.get(kind, '')
    if kind == 'Convolution':
      outputs = f'num_output: {len(arrays[0])}'
      parameters = f'convolution_param {{ {outputs} {CONVOLUTIONS[name]} }}'
    if kind == 'InnerProduct':
      parameters = f'inner_product_param {{ num_output: {len(arrays[0])} }}'
    text += (
      f'layer {{ name: "{name}" type: "{kind}" bottom: "{below}" top: "{name}" {parameters} }}\n'
    )
    below = name
  return text


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
  (tmp_path / 'deploy.prototxt').write_text(prototxt(layers))
  config = module.get_config()
  config.update_from_flattened_dict(
    {
      **NARROW,
      'model.num_classes': None,
      'model.input_size': SIZE,
      'model.response_norm.alpha': 0.5,
      'data.image_size': SIZE,
    }
  )
  images = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
  classifier = Classifier(**vars(convert.read(tmp_path / 'net.caffemodel', config)))
  peer = cv2.dnn.readNetFromCaffe(
    str(tmp_path / 'deploy.prototxt'), str(tmp_path / 'net.caffemodel')
  )
  expected = []
  for image in images:
    peer.setInput((image[..., ::-1] - COLOR).transpose(2, 0, 1)[None].astype(np.float32))
    expected.append(peer.forward()[0].reshape(-1))
  assert np.std(expected) > 0.3
  np.testing.assert_allclose(classifier.logits(images), expected, rtol=0, atol=1e-4)
