"""The step, the loop around it, and the update rule."""
