"""The arrays of a PyTorch state dict, as `torch.save` writes it."""

import functools
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

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
      [pickled] = (name for name in archive.namelist() if name.endswith('/data.pkl'))
      folder = pickled.removesuffix('data.pkl')
      if f'{folder}byteorder' in archive.namelist():
        order = archive.read(f'{folder}byteorder')
        if order != b'little':
          raise ValueError(f'its byte order is {order!r}')

      @functools.cache  # tensors may share one
      def content(key: str) -> bytes:
        return archive.read(f'{folder}data/{key}')

      def storage(identity: Sequence[Any]) -> np.ndarray:
        _, dtype, key, *_ = identity  # 'storage', its class, its file's name, where it was, size
        if not isinstance(key, str):
          raise ValueError('a storage has no name')
        return np.frombuffer(content(key), dtype())

      arrays = {
        first_line(name): array
        for name, array in untrusted.unpickle(
          path, archive.read(pickled), _PYTORCH, storage
        ).items()
      }
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


_PYTORCH: Mapping[tuple[str, str], Any] = {
  ('collections', 'OrderedDict'): lambda: untrusted.Names(),
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
  ('torch', 'HalfStorage'): lambda: np.dtype('<f2'),
  ('torch', 'BFloat16Storage'): lambda: np.dtype(jnp.bfloat16),
  ('torch', 'FloatStorage'): lambda: np.dtype('<f4'),
  ('torch', 'DoubleStorage'): lambda: np.dtype('<f8'),
}


def serialize(arrays: Mapping[str, np.ndarray]) -> bytes:
  """A state dict of these arrays as `torch.save` writes it; needs PyTorch."""
  import torch  # which only this needs

  file = io.BytesIO()
  torch.save({name: torch.tensor(array) for name, array in arrays.items()}, file)
  return file.getvalue()
