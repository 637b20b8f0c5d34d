"""Evaluation: errors, predictions, retrieval, and classification of images."""
