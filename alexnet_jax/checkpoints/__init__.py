"""Checkpoints, a run's folder, and networks that were trained before."""
