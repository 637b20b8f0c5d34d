"""Reads and writes safetensors files: named arrays and metadata, which run no code."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line


def write(
  path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
  """Writes arrays into a safetensors file, in one move."""
  whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
  files.write(path, safetensors.numpy.save(whole, dict(metadata)))


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The arrays of a safetensors file.

  Raises:
    UserError: it is no such file, or not a whole one.
  """
  with _opened(path) as file:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
  """The metadata of a safetensors file, without its arrays; raises as `read_arrays`."""
  with _opened(path) as file:
    return file.metadata() or {}


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
  files.check_kind(path)
  try:
    with safetensors.safe_open(os.fspath(path), 'numpy') as file:
      yield file
  except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} is no safetensors file, or not a whole one: {first_line(error)}'
    ) from error
