"""AlexNet as other programs compute it, from files and on pixels that ours are given too.

Each function imports its program, and raises ImportError where it is not installed.
"""

import io
import runpy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CAFFE_COLOR = np.float32([104.00698793, 116.66876762, 122.67891434])
"""What Caffe's users subtract: blue, green and red."""

_CAFFE_POOL = 'pooling_param { pool: MAX kernel_size: 3 stride: 2 }'
_CAFFE_CONVOLUTIONS = {
  'conv1': 'kernel_size: 11 stride: 4',
  'conv2': 'pad: 2 kernel_size: 5 group: 2',
  'conv3': 'pad: 1 kernel_size: 3',
  'conv4': 'pad: 1 kernel_size: 3 group: 2',
  'conv5': 'pad: 1 kernel_size: 3 group: 2',
}
_TOGETHER = 32  # images


def channels_first(crops: np.ndarray) -> np.ndarray:
  """[N, s, s, 3] -> [N, 3, s, s], contiguous."""
  return np.ascontiguousarray(crops.transpose(0, 3, 1, 2))


def torch_module(path: Path) -> Any:
  """The module and weights of a .pth or .torch.safetensors that we wrote, as its user has them."""
  import torch

  stem = path.name.removesuffix('.pth').removesuffix('.torch.safetensors')
  model = runpy.run_path(str(path.with_name(f'{stem}.py')))['AlexNet']()
  if path.suffix == '.pth':
    arrays = torch.load(path, weights_only=True)
  else:
    import safetensors.torch

    arrays = safetensors.torch.load_file(path)
  model.load_state_dict(arrays)
  return model.eval()


def torch_logits(model: Any, images: np.ndarray) -> np.ndarray:
  """What a PyTorch module makes of [N, s, s, 3]: uint8 for one of ours, floats for torchvision's."""
  import torch

  parts = torch.tensor(channels_first(images)).split(_TOGETHER)
  with torch.no_grad():
    return np.concatenate([model(part).numpy() for part in parts])


def onnx_logits(path: Path, crops: np.ndarray) -> np.ndarray:
  """What onnxruntime computes from an .onnx that we wrote, of crops [N, s, s, 3] uint8."""
  import onnxruntime

  session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
  logits: np.ndarray = session.run(['logits'], {'crops': channels_first(crops)})[0]
  return logits


def torchvision_alexnet(classes: int = 1000) -> Any:
  """AlexNet of torchvision, its weights drawn so that logits are as large as a trained one's."""
  import torch
  import torchvision

  torch.manual_seed(0)
  network = torchvision.models.alexnet(weights=None, num_classes=classes).eval()
  for module in network.modules():
    if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
      torch.nn.init.kaiming_normal_(module.weight)
  return network


def torchvision_pixels(images: Iterable[bytes]) -> np.ndarray:
  """What the published weights' own transforms make of image files, [N, 224, 224, 3] float32."""
  import torchvision

  transforms = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.transforms()
  decoded = (Image.open(io.BytesIO(file)).convert('RGB') for file in images)
  return np.stack([transforms(image).numpy().transpose(1, 2, 0) for image in decoded])


def torchvision_scaled(crops: np.ndarray) -> np.ndarray:
  """What torchvision's users make of crops, [N, s, s, 3] uint8 -> float32."""
  import torch
  from torchvision.transforms import functional

  pixels = torch.tensor(channels_first(crops)) / 255
  scaled = functional.normalize(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
  transposed: np.ndarray = scaled.numpy().transpose(0, 2, 3, 1)
  return transposed


def prototxt(
  layers: Iterable[tuple[str, str, Sequence[np.ndarray]]], size: int, alpha: float
) -> str:
  """The deploy.prototxt of layers as `caffe_files.layers_in_order` gives them.

  Args:
    layers: the layers.
    size: side of the input in pixels.
    alpha: of the response norms.
  """
  text = f"""
name: "AlexNet"
input: "data"
input_shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }}
"""
  below = 'data'
  for name, kind, arrays in layers:
    parameters = ''
    if kind == 'LRN':
      parameters = f'lrn_param {{ local_size: 5 alpha: {alpha} beta: 0.75 }}'
    elif kind == 'Pooling':
      parameters = _CAFFE_POOL
    elif kind == 'Convolution':
      outputs = f'num_output: {len(arrays[0])}'
      parameters = f'convolution_param {{ {outputs} {_CAFFE_CONVOLUTIONS[name]} }}'
    elif kind == 'InnerProduct':
      parameters = f'inner_product_param {{ num_output: {len(arrays[0])} }}'
    text += (
      f'layer {{ name: "{name}" type: "{kind}" bottom: "{below}" top: "{name}" {parameters} }}\n'
    )
    below = name
  return text


def caffe_logits(deploy: Path, caffemodel: Path, crops: np.ndarray) -> np.ndarray:
  """What OpenCV's reader of Caffe's networks computes, of crops [N, s, s, 3] uint8, red first."""
  import cv2

  network = cv2.dnn.readNetFromCaffe(str(deploy), str(caffemodel))
  logits = []
  for crop in crops:
    network.setInput((crop[..., ::-1] - CAFFE_COLOR).transpose(2, 0, 1)[None])
    logits.append(network.forward()[0].reshape(-1))
  return np.stack(logits)


def caffe_tensorflow_logits(
  layers: Mapping[str, Sequence[np.ndarray]], crops: np.ndarray, alpha: float
) -> np.ndarray:
  """What TensorFlow computes from the layers of caffe-tensorflow's bvlc_alexnet.npy.

  As in its alexnet.py: NHWC, blue first, groups of two, pools that clip ('VALID').

  Args:
    layers: weights [H, W, I, O] or [inputs, outputs] and biases, by layer.
    crops: [N, s, s, 3] uint8, red first.
    alpha: of the response norms.
  """
  import tensorflow as tf

  def convolution(
    x: Any, name: str, stride: int = 1, padding: str = 'SAME', groups: int = 1
  ) -> Any:
    weights, biases = layers[name]
    parts = zip(tf.split(x, groups, 3), tf.split(weights, groups, 3), strict=True)
    y = tf.concat([tf.nn.conv2d(part, kernel, stride, padding) for part, kernel in parts], 3)
    return tf.nn.relu(tf.nn.bias_add(y, biases))

  def norm(x: Any) -> Any:
    return tf.nn.local_response_normalization(
      x, depth_radius=2, alpha=alpha / 5, beta=0.75, bias=1.0
    )

  def pool(x: Any) -> Any:
    odd = (x.shape[1] - 3) % 2  # Caffe's windows overhang, which TensorFlow's do not
    x = tf.pad(x, [[0, 0], [0, odd], [0, odd], [0, 0]], constant_values=-np.inf)
    return tf.nn.max_pool2d(x, 3, 2, 'VALID')

  def logits(pixels: np.ndarray) -> np.ndarray:
    x = pool(norm(convolution(pixels, 'conv1', 4, 'VALID')))
    x = pool(norm(convolution(x, 'conv2', groups=2)))
    x = convolution(convolution(x, 'conv3'), 'conv4', groups=2)
    x = tf.reshape(pool(convolution(x, 'conv5', groups=2)), [len(pixels), -1])
    for name in ('fc6', 'fc7'):
      x = tf.nn.relu(tf.matmul(x, layers[name][0]) + layers[name][1])
    found: np.ndarray = (tf.matmul(x, layers['fc8'][0]) + layers['fc8'][1]).numpy()
    return found

  parts = range(0, len(crops), _TOGETHER)
  return np.concatenate([logits(crops[i : i + _TOGETHER, ..., ::-1] - CAFFE_COLOR) for i in parts])
