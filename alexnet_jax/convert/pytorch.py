"""The arrays of a PyTorch state dict, as `torch.save` writes it."""

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
  """The arrays of a PyTorch state dict, as `torch.save` writes it into a zip file; without PyTorch.

  Raises:
    UserError: it is no such file, not a whole one, or asks for anything but tensors.
  """
  with (
    untrusted.described(path, 'state dict as torch.save(model.state_dict()) makes it'),
    path.open('rb') as file,
  ):
    if not zipfile.is_zipfile(file):
      raise UserError(
        f'{path} is no zip file, which PyTorch saves since 1.6; where PyTorch is, save it anew:\n'
        f"python -c \"import torch; torch.save(torch.load('{path.name}'), 'new.pth')\""
      )
    with zipfile.ZipFile(file) as archive:
      if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError('it is compressed')  # a small file could fill any memory
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
        raise ValueError(f'{name!r} is no array')
  return arrays


def _rebuild_tensor(
  storage: np.ndarray, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
) -> np.ndarray:
  if not all(isinstance(number, int) for number in (offset, *size, *stride)):
    raise ValueError('a tensor has a shape that is not of numbers')
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if min(offset, *size, *stride) < 0 or max(last + 1, math.prod(size)) > len(storage):
    raise ValueError('a tensor reaches beyond its storage')
  strides = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), strides)


def _rebuild_parameter(tensor: np.ndarray, *_: object) -> np.ndarray:
  if not isinstance(tensor, np.ndarray):
    raise ValueError('a parameter is no tensor')
  return tensor


class _StateDict(dict[str, Any]):
  """An OrderedDict, which PyTorch pickles empty, with its attributes, which are left out."""

  def __init__(self) -> None:
    super().__init__()

  def __setstate__(self, state: object) -> None:
    del state


_STORAGES = {
  'HalfStorage': np.dtype('<f2'),
  'BFloat16Storage': np.dtype(jnp.bfloat16),
  'FloatStorage': np.dtype('<f4'),
  'DoubleStorage': np.dtype('<f8'),
}


class _Unpickler(untrusted.Unpickler):
  """Loads a state dict's data.pkl, whose tensors' contents are files beside it in the archive."""

  allowed: ClassVar = {
    ('collections', 'OrderedDict'): _StateDict,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    **{('torch', name): name for name in _STORAGES},
  }

  def __init__(self, path: epath.Path, archive: zipfile.ZipFile, folder: str):
    super().__init__(path, archive.read(f'{folder}data.pkl'))
    # Tensors may share one.
    self._content = functools.cache(lambda key: archive.read(f'{folder}data/{key}'))

  def persistent_load(self, pid: Any) -> np.ndarray:
    """A storage, of ('storage', its class, its file's name, where it was, size)."""
    _, storage, key, *_ = pid
    if not isinstance(storage, str) or not isinstance(key, str):
      raise ValueError('a storage has no name')
    return np.frombuffer(self._content(key), _STORAGES[storage])


def serialize(arrays: Mapping[str, np.ndarray]) -> bytes:
  """A state dict of these arrays as `torch.save` writes it; needs PyTorch."""
  import torch  # which only this needs

  file = io.BytesIO()
  torch.save({name: torch.tensor(array) for name, array in arrays.items()}, file)
  return file.getvalue()
