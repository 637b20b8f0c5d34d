"""Reads PyTorch state dicts without PyTorch, and writes them with it."""

import functools
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from etils import epath

from alexnet_jax.convert import untrusted
from alexnet_jax.utils.errors import UserError, first_line


def read_state_dict(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads a PyTorch state dict (.pth, .pt), a zip file that `torch.save` has written.

  Returns:
    Arrays by name, float16, bfloat16, float32 or float64.

  Raises:
    UserError: it is not such a file, is incomplete, or asks for anything but tensors.
  """
  with (
    untrusted.described(path, 'a state dict from torch.save(model.state_dict(), ...)'),
    path.open('rb') as file,
  ):
    if not zipfile.is_zipfile(file):
      raise UserError(
        f'{path} is not a zip file, as PyTorch saves since 1.6; save it again where PyTorch is:\n'
        f"python -c \"import torch; torch.save(torch.load('{path.name}'), 'new.pth')\""
      )
    with zipfile.ZipFile(file) as archive:
      if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError('it is compressed')  # a small file could fill the memory
      [folder] = (
        name.removesuffix('data.pkl') for name in archive.namelist() if name.endswith('/data.pkl')
      )
      if f'{folder}byteorder' in archive.namelist():
        order = archive.read(f'{folder}byteorder')
        if order != b'little':
          raise ValueError(f'its byte order is {order!r}')
      loaded = _Unpickler(path, archive, folder).load()
      arrays = {first_line(name): array for name, array in loaded.items()}
    for name, array in arrays.items():
      if not isinstance(array, np.ndarray):
        raise ValueError(f'{name!r} is not a tensor')
  return arrays


def _rebuild_tensor(
  storage: np.ndarray, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
) -> np.ndarray:
  if not all(isinstance(number, int) for number in (offset, *size, *stride)):
    raise ValueError('the shape of a tensor is not of integers')
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if min(offset, *size, *stride) < 0 or max(last + 1, math.prod(size)) > len(storage):
    raise ValueError('a tensor reaches beyond its storage')
  strides = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), strides)


def _rebuild_parameter(tensor: np.ndarray, *_: object) -> np.ndarray:
  if not isinstance(tensor, np.ndarray):
    raise ValueError('a parameter is not a tensor')
  return tensor


class _StateDict(dict[str, Any]):
  """Stands for an OrderedDict, which is pickled empty; its items follow, then its attributes."""

  def __init__(self) -> None:  # with arguments, names could be other than strings
    super().__init__()

  def __setstate__(self, state: object) -> None:
    """Leaves out the attributes: PyTorch's `_metadata` has the versions of modules."""


_STORAGES: Mapping[str, np.dtype] = {
  'HalfStorage': np.dtype('<f2'),
  'BFloat16Storage': np.dtype(jnp.bfloat16),
  'FloatStorage': np.dtype('<f4'),
  'DoubleStorage': np.dtype('<f8'),
}


class _Unpickler(untrusted.Unpickler):
  """Loads an archive's data.pkl; the numbers of its tensors are in files beside it."""

  allowed: ClassVar = {
    ('collections', 'OrderedDict'): _StateDict,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    **{('torch', name): name for name in _STORAGES},
  }

  def __init__(self, path: epath.Path, archive: zipfile.ZipFile, folder: str):
    super().__init__(path, archive.read(f'{folder}data.pkl'))
    # Cached, for tensors may share a storage.
    self._content = functools.cache(lambda key: archive.read(f'{folder}data/{key}'))

  def persistent_load(self, pid: Any) -> np.ndarray:
    """The numbers of the storage that is ('storage', class, name of its file, device, size)."""
    _, storage_class, key, *_ = pid
    if not isinstance(storage_class, str) or not isinstance(key, str):
      raise ValueError('a storage has no class or no name')
    return np.frombuffer(self._content(key), _STORAGES[storage_class])


def serialize(arrays: Mapping[str, np.ndarray]) -> bytes:
  """The bytes of a state dict as `torch.save` writes it; needs PyTorch."""
  import torch  # here, for nothing else needs it

  file = io.BytesIO()
  torch.save({name: torch.tensor(array) for name, array in arrays.items()}, file)
  return file.getvalue()
