"""Checkpoints, the folder of a run, and pretrained networks."""
