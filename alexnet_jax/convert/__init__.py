"""Caffe's, PyTorch's and TensorFlow's files, and exported programs."""
