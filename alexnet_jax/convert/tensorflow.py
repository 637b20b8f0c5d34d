"""The arrays in a .npy as TensorFlow's users have it: a pickled dictionary."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from etils import epath

from alexnet_jax.convert import untrusted
from alexnet_jax.utils.errors import first_line


def read_npy(path: epath.Path) -> dict[str, np.ndarray]:
  """The arrays of a .npy that holds a dictionary such as {'conv1': [weights, biases], ...}.

  Returns:
    {'conv1[0]': weights, 'conv1[1]': biases, ...}.

  Raises:
    UserError: it is no such file, not a whole one, or asks for anything but arrays.
  """
  with (
    untrusted.described(path, '.npy of a dictionary of lists of arrays'),
    path.open('rb') as file,
  ):
    with warnings.catch_warnings(action='ignore'):  # a header is Python, of which Python may warn
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
        raise ValueError(f'{name!r} is no array')
    # The same bytes may be there under many names.
    if sum(len(array.content) for array in pickled.values()) > len(content):
      raise ValueError('its arrays are larger than it is')
    return {name: array.numpy() for name, array in pickled.items()}


class _PickledDtype:
  """What a pickle says of a numpy dtype."""

  def __init__(self, code: Any, *_: object):
    self.code, self.order = code, '='

  def __setstate__(self, state: Sequence[Any]) -> None:
    self.order = state[1]


class _PickledArray:
  """What a pickle says of a numpy array; nothing is made of it yet."""

  def __setstate__(self, state: Sequence[Any]) -> None:
    _, self.shape, self.dtype, self.is_fortran, self.content = state

  @property
  def objects(self) -> Sequence[Any]:
    """What an array of objects holds."""
    if not isinstance(self.content, list):
      raise ValueError('it is an array of numbers')
    return self.content

  def numpy(self) -> np.ndarray:
    """The array."""
    code, order = self.dtype.code, self.dtype.order
    if code not in ('f2', 'f4', 'f8') or order not in ('<', '>', '='):
      raise ValueError('its arrays are not all of floats')
    # Strings are Python 2's bytes, and those of Python 3's protocol 2.
    content = self.content.encode('latin1') if isinstance(self.content, str) else self.content
    flat = np.frombuffer(content, f'{order}{code}')
    return flat.reshape(self.shape, order='F' if self.is_fortran else 'C')


def _encode(text: str, _: str) -> str:
  """Bytes as protocol 2 has them; numpy's are decoded later."""
  if not isinstance(text, str):
    raise ValueError('it has bytes that are none')
  return text


class _Unpickler(untrusted.Unpickler):
  allowed: ClassVar = {
    ('numpy', 'ndarray'): None,
    ('numpy', 'dtype'): _PickledDtype,
    ('_codecs', 'encode'): _encode,
    ('numpy.core.multiarray', '_reconstruct'): lambda *_: _PickledArray(),
    ('numpy._core.multiarray', '_reconstruct'): lambda *_: _PickledArray(),
  }
