"""One file for each experiment; a base, `imagenet.py`, and the lines that differ."""
