"""Reads the .npy and .npz files of TensorFlow's users: dictionaries of layers, or named arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from etils import epath

from alexnet_jax.convert import npy, untrusted
from alexnet_jax.utils.errors import first_line


def read_npy(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads a .npy that holds a dictionary of layers, as caffe-tensorflow and MMdnn write it.

  A layer is a list, {'conv1': [weights, biases], ...}, or a dictionary,
  {'conv1': {'weights': ..., 'biases': ...}, ...}, in which MMdnn has 'bias'.

  Returns:
    {'conv1[0]': weights, 'conv1[1]': biases, ...}, float16, float32 or float64.

  Raises:
    UserError: it is not such a file, is incomplete, or asks for anything but arrays.
  """
  with untrusted.described(path, 'a .npy of a dictionary of layers'):
    array, pickled = npy.split(path.read_bytes())
    if array is not None:
      raise ValueError(f'it is an array, {array.dtype}{list(array.shape)}')
    [layers] = _objects(path, pickled)
    return _arrays(layers, len(pickled))


def read_npz(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads a .npz of arrays, as conv1_W, or of layers as `read_npy` reads them.

  Returns:
    Arrays by name, in the order of the file; those of layers as from `read_npy`.

  Raises:
    UserError: as `read_npy`.
  """
  arrays: dict[str, np.ndarray] = {}
  with untrusted.described(path, 'a .npz of arrays'):
    for name, content in npy.members(path).items():
      array, pickled = npy.split(content)
      if array is not None:
        arrays[first_line(name)] = array
        continue
      objects = _objects(path, pickled)
      is_layer = len(objects) == 1 and isinstance(objects[0], dict)
      arrays |= _arrays({name: objects[0] if is_layer else objects}, len(pickled))
  return arrays


def _objects(path: epath.Path, pickled: bytes) -> Sequence[Any]:
  """The elements of a pickled array of objects."""
  objects: Sequence[Any] = _Unpickler(path, pickled).load().objects
  return objects


def _arrays(layers: Mapping[str, Any], most: int) -> dict[str, np.ndarray]:
  """The arrays of layers, of so many bytes at most."""
  pickled: dict[str, Any] = {}
  for layer, parts in layers.items():
    if isinstance(parts, dict):
      places = {'weights': '0', 'biases': '1', 'bias': '1'}
      named = [(places.get(kind, kind), array) for kind, array in parts.items()]
    else:
      named = [(str(i), array) for i, array in enumerate(parts)]
    pickled |= {f'{first_line(layer)}[{first_line(kind)}]': array for kind, array in named}
  for name, array in pickled.items():
    if not isinstance(array, _PickledArray):
      raise ValueError(f'{name!r} is not an array')
  # Many names may share the same bytes.
  if sum(len(array.content) for array in pickled.values()) > most:
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
