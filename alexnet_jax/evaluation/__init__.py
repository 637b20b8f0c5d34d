"""Errors, predictions, retrieval, and classifying images with a trained network."""
