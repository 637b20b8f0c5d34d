"""Loads a trained network from any file or folder, as a classifier of images."""

import os
import warnings

from ml_collections import ConfigDict

from alexnet_jax.convert import convert
from alexnet_jax.evaluation.classifier import Classifier
from alexnet_jax.utils import silence


def load(path: str | os.PathLike[str], config: ConfigDict | None = None) -> Classifier:
  """Loads a trained network, whatever devices it was trained on, onto the first device.

  Args:
    path: a workdir (its best checkpoint is loaded) or one of its checkpoints, both on disk or in a
      bucket that Orbax can read (gs://...); or a file of this project; or one of Caffe's, PyTorch's or
      ONNX, where its network is certain: torchvision's AlexNet, Caffe's bvlc_alexnet or CaffeNet, with
      any number of classes, or `config` is given.
    config: the network's, where a file of Caffe's, PyTorch's or ONNX is of another network;
      model.num_classes may be None, for as many as the file has. From images a file's mean image is
      subtracted, or, where it has none, the mean color of its project's published networks.

  Raises:
    UserError: it is missing, damaged, or of a newer version; or its network is not certain, for which
      the message has the command that converts it.
  """
  lines: list[str] = []
  try:
    with silence.root_logger_kept():
      return Classifier(**vars(convert.read(path, config, lines.append)))
  finally:
    for line in lines:
      warnings.warn(line, stacklevel=2)
