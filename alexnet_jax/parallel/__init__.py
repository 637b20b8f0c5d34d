"""Devices and processes: meshes, several hosts, how XLA compiles."""
