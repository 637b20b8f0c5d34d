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
  """Writes a safetensors file atomically; raises UserError where it cannot be written."""
  contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
  files.write(path, safetensors.numpy.save(contiguous, dict(metadata)))


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads the arrays of a safetensors file, by name.

  Raises:
    UserError: it is not a safetensors file, or is incomplete.
  """
  with _opened(path) as file:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (file is not a mapping)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
  """Reads the metadata of a safetensors file without its arrays; raises as `read_arrays` does."""
  with _opened(path) as file:
    return file.metadata() or {}


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
  path = files.local(path, 'the file')
  files.check_kind(path)
  try:
    with safetensors.safe_open(os.fspath(path), 'numpy') as file:
      yield file
  except AttributeError as error:
    raise UserError(
      f'{path} has numbers of a type that NumPy does not have ({first_line(error)}); save them as float32'
    ) from error
  except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} is not a safetensors file, or is incomplete: {first_line(error)}'
    ) from error
