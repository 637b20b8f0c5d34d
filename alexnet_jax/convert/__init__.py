"""Conversion from and to the files of Caffe, PyTorch and TensorFlow, and exported programs."""
