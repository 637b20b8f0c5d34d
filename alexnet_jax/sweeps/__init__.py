"""Sweeps: variants of a config, their runs, and the table of what came of them."""
