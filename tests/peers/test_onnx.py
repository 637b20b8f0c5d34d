"""ONNX files as PyTorch writes them and as the ONNX model zoo has Caffe's network."""

from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax.convert import convert
from alexnet_jax.evaluation.classifier import Classifier
from benchmarks import peers
from configs import imagenet_caffe

REASON = 'PyTorch, torchvision or onnxscript is not installed: pip install -e ".[peers]"'
# When tests are collected, for PyTorch that is imported after TensorFlow ends the process.
torch = pytest.importorskip('torch', reason=REASON)
torchvision = pytest.importorskip('torchvision', reason=REASON)
onnx = pytest.importorskip('onnx', reason=REASON)
onnxruntime = pytest.importorskip('onnxruntime', reason=REASON)


@pytest.mark.parametrize('form', ['weights_beside', 'one_file', 'old_exporter'])
def test_what_pytorch_exports_is_its_network(tmp_path, form):
  pytest.importorskip('onnxscript', reason=REASON)
  model = peers.torchvision_alexnet()
  options = {'dynamo': False} if form == 'old_exporter' else {'dynamo': True, 'verbose': False}
  if form == 'one_file':
    options['external_data'] = False
  with pytest.warns() if form == 'old_exporter' else pytest.MonkeyPatch.context():  # of its age
    torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), tmp_path / 'alexnet.onnx', **options)
  assert (tmp_path / 'alexnet.onnx.data').exists() == (form == 'weights_beside')
  torch.save(model.state_dict(), tmp_path / 'alexnet.pth')
  expected = convert.read(tmp_path / 'alexnet.pth')
  network = convert.read(tmp_path / 'alexnet.onnx')
  jax.tree.map(np.testing.assert_array_equal, network.params, expected.params)
  assert (network.config, network.class_names) == (expected.config, expected.class_names)


def zoo_s_alexnet():
  """The model zoo's bvlcalexnet with random weights, for crops of Caffe's 227 pixels; ends in logits."""
  data = Path(onnx.__file__).parent / 'backend' / 'test' / 'data' / 'light'
  model = onnx.load(data / 'light_bvlc_alexnet.onnx')  # its weights are all one number
  graph, rng = model.graph, np.random.default_rng(0)
  tensors = {tensor.name: tensor for tensor in graph.initializer}
  for node in [node for node in graph.node if node.op_type == 'ConstantOfShape']:
    shape = onnx.numpy_helper.to_array(tensors[node.input[0]])
    scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
    array = scale * rng.standard_normal(shape) / (64 if node.output[0] == 'conv1_w_0' else 1)
    graph.initializer.remove(tensors[node.input[0]])
    graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), node.output[0]))
    graph.node.remove(node)
  del graph.input[1:]  # of the shapes
  for side in graph.input[0].type.tensor_type.shape.dim[2:]:
    side.dim_value = imagenet_caffe.get_config().model.input_size
  graph.output[0].name = graph.node.pop().input[0]  # without softmax
  return model


def test_the_model_zoo_s_alexnet_is_caffe_s(tmp_path):
  onnx.save(zoo_s_alexnet(), tmp_path / 'bvlcalexnet-12.onnx')
  network = convert.read(tmp_path / 'bvlcalexnet-12.onnx')
  assert network.config == imagenet_caffe.get_config()
  assert network.class_names[0] == 'n01440764'
  session = onnxruntime.InferenceSession(tmp_path / 'bvlcalexnet-12.onnx')
  crops = np.random.default_rng(1).integers(0, 256, (2, 227, 227, 3), np.uint8)
  blue_first = (crops - np.asarray(network.statistics.mean_image[0, 0]))[..., ::-1].transpose(
    0, 3, 1, 2
  )
  expected = [
    session.run(None, {'data_0': np.asarray(crop, np.float32)[None]})[0][0] for crop in blue_first
  ]
  config = imagenet_caffe.get_config()
  config.data.image_size, config.augment.crop_offsets = config.model.input_size, 1  # as given
  classifier = Classifier(**vars(convert.read(tmp_path / 'bvlcalexnet-12.onnx', config)))
  logits = classifier.logits(crops)
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
