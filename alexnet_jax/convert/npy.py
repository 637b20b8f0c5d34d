"""Reads numpy's files, .npy and .npz, no larger in memory than they are, and runs no code in them."""

import io
import math
import warnings
import zipfile
from collections.abc import Mapping

import numpy as np
from etils import epath

from alexnet_jax.convert import untrusted

_MOST_COMPRESSED = 4  # weights do not become much smaller; zeros that are to fill the memory do


def split(content: bytes) -> tuple[np.ndarray | None, bytes]:
  """Reads a .npy.

  Args:
    content: of the file.

  Returns:
    The array; or, where it is one of objects, None and the pickle of it.

  Raises:
    Exception: of many kinds, where it is no such file or not whole.
  """
  file = io.BytesIO(content)
  with warnings.catch_warnings(action='ignore'):  # the header is Python, of which it may warn
    major, minor = np.lib.format.read_magic(file)
    read_header = getattr(np.lib.format, f'read_array_header_{major}_{minor}')
    shape, is_fortran, dtype = read_header(file)
  rest = content[file.tell() :]
  if dtype.hasobject:
    return None, rest
  if math.prod(shape) * dtype.itemsize != len(rest) or not dtype.itemsize:
    raise ValueError(f'an array of the shape {shape} has {len(rest):,} bytes')
  return np.frombuffer(rest, dtype).reshape(shape, order='F' if is_fortran else 'C'), b''


def read_array(path: epath.Path) -> np.ndarray:
  """Reads the array of numbers in a .npy; raises UserError where it is none or not whole."""
  with untrusted.described(path, 'a .npy of numbers'):
    array, _ = split(path.read_bytes())
    if array is None:
      raise ValueError('it holds objects')
    return array


def members(path: epath.Path) -> Mapping[str, bytes]:
  """The files in a .npz by name, without their ending.

  Raises:
    Exception: of many kinds, where it is no such file or not whole.
  """
  with path.open('rb') as file, zipfile.ZipFile(file) as archive:
    for info in archive.infolist():
      if info.file_size > _MOST_COMPRESSED * max(1, info.compress_size):
        raise ValueError('it is compressed too much to be weights')
    return {name.removesuffix('.npy'): archive.read(name) for name in archive.namelist()}
