"""Utilities of all packages: errors, files, progress bars, signals."""
