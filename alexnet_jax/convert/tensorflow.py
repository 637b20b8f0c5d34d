"""Reads the .npy files of caffe-tensorflow, which hold a pickled dictionary of arrays."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from etils import epath

from alexnet_jax.convert import untrusted
from alexnet_jax.utils.errors import first_line


def read_npy(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads a .npy that holds a dictionary such as {'conv1': [weights, biases], ...}.

  Returns:
    {'conv1[0]': weights, 'conv1[1]': biases, ...}, float16, float32 or float64.

  Raises:
    UserError: it is not such a file, is incomplete, or asks for anything but arrays.
  """
  with (
    untrusted.described(path, 'a .npy of a dictionary of lists of arrays'),
    path.open('rb') as file,
  ):
    with warnings.catch_warnings(
      action='ignore'
    ):  # the header is a Python expression, which may warn
      version = np.lib.format.read_magic(file)
      read_header = getattr(np.lib.format, f'read_array_header_{version[0]}_{version[1]}')
      shape, _, dtype = read_header(file)
    if shape != () or not dtype.hasobject:
      raise ValueError(f'it is an array, {dtype}{list(shape)}')
    content = file.read()
    [layers] = _Unpickler(path, content).load().objects
    pickled = {
      f'{first_line(layer)}[{i}]': array
      for layer, pair in layers.items()
      for i, array in enumerate(pair)
    }
    for name, array in pickled.items():
      if not isinstance(array, _PickledArray):
        raise ValueError(f'{name!r} is not an array')
    # Many names may share the same bytes.
    if sum(len(array.content) for array in pickled.values()) > len(content):
      raise ValueError('its arrays are larger than it is')
    return {name: array.numpy() for name, array in pickled.items()}


class _PickledDtype:
  """A numpy dtype as its pickle describes it."""

  def __init__(self, code: Any, *_: object):
    self.code, self.order = code, '='

  def __setstate__(self, state: Sequence[Any]) -> None:
    self.order = state[1]


class _PickledArray:
  """A numpy array as its pickle describes it; `numpy` makes it."""

  def __setstate__(self, state: Sequence[Any]) -> None:
    _, self.shape, self.dtype, self.is_fortran, self.content = state

  @property
  def objects(self) -> Sequence[Any]:
    """The elements of an array of objects."""
    if not isinstance(self.content, list):
      raise ValueError('it is an array of numbers')
    return self.content

  def numpy(self) -> np.ndarray:
    """The array; raises ValueError where it is not of floats."""
    code, order = self.dtype.code, self.dtype.order
    if code not in ('f2', 'f4', 'f8') or order not in ('<', '>', '='):
      raise ValueError('not all of its arrays are of floats')
    # Python 2's bytes, and those of Python 3's protocol 2, are loaded as strings.
    content = self.content.encode('latin1') if isinstance(self.content, str) else self.content
    flat = np.frombuffer(content, f'{order}{code}')
    return flat.reshape(self.shape, order='F' if self.is_fortran else 'C')


def _encode(text: str, _: str) -> str:
  """Stands for `codecs.encode`, with which protocol 2 makes bytes; `numpy` encodes them."""
  if not isinstance(text, str):
    raise ValueError('bytes are not made of a string')
  return text


class _Unpickler(untrusted.Unpickler):
  """Loads the pickle of a numpy array of objects, as _PickledArray."""

  allowed: ClassVar = {
    ('numpy', 'ndarray'): None,
    ('numpy', 'dtype'): _PickledDtype,
    ('_codecs', 'encode'): _encode,
    ('numpy.core.multiarray', '_reconstruct'): lambda *_: _PickledArray(),
    ('numpy._core.multiarray', '_reconstruct'): lambda *_: _PickledArray(),
  }
