"""Reads the files of Caffe, PyTorch, TensorFlow and ONNX; writes PyTorch's, ONNX and exported programs."""
