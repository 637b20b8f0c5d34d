"""Images of any kind for a classifier: paths, bytes, open files, Pillow's, arrays, one or many."""

import contextlib
import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.data import images
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError


def listed(given: Any) -> tuple[Sequence[Any], bool]:
  """Images as a sequence of single ones, and whether it was a single one, not in a sequence."""
  if isinstance(given, str | os.PathLike | Image.Image | bytes | bytearray | memoryview):
    return [given], True
  if hasattr(given, 'read'):
    return [_content(given)], True
  if hasattr(given, '__array__'):
    array = np.asarray(given)
    many = array.ndim == 4 or (array.ndim == 1 and array.dtype.kind in 'OU')  # or paths
    found: Sequence[Any] = list(array) if many else [array]
    is_single = not many
  elif isinstance(given, Iterable):
    found, is_single = list(given), False
  else:
    found, is_single = [given], True
  if not found:
    raise UserError('there are no images; pass one or more')
  return [_content(image) if hasattr(image, 'read') else image for image in found], is_single


def _content(file: Any) -> bytes:
  """The bytes of an open file, from its start where it can be rewound, as Pillow reads it."""
  name = getattr(file, 'name', type(file).__name__)
  if isinstance(file, io.TextIOBase):
    raise UserError(f"{name} is open as text; open it as open(path, 'rb')")
  try:
    with contextlib.suppress(AttributeError, io.UnsupportedOperation):
      file.seek(0)
    content = file.read()
  except (OSError, ValueError) as error:  # ValueError: it is closed
    raise UserError(f'cannot read {name}: {error}') from error
  if not isinstance(content, bytes):
    raise UserError(f"{name} gives a {type(content).__name__}; open it as open(path, 'rb')")
  return content


def rgb(image: Any, position: int, resize: str = 'paper') -> Image.Image:
  """Reads or converts an image to mode 'RGB', for a way of making squares (`images.RESIZE_RULES`).

  Its index in the list is for messages.
  """
  try:
    if isinstance(image, str | os.PathLike):
      where = os.fspath(image)
      path = files.readable(where)
      files.check_kind(path)
      return images.decode(path.read_bytes(), resize)
    where = f'image {position} (counted from 0)'
    if isinstance(image, bytes | bytearray | memoryview):
      return images.decode(bytes(image), resize)
    if isinstance(image, Image.Image):
      return images.as_shown(image, resize)
    return images.as_shown(_from_array(image, where))
  except images.UnreadableError as error:
    raise UserError(f'{where} is not an image, or is incomplete: {error}') from error
  except OSError as error:
    raise UserError(f'cannot read {where}: {error.strerror or error}') from error


def _from_array(array_like: Any, where: str) -> Image.Image:
  if not hasattr(array_like, '__array__'):
    raise UserError(
      f'{where} is of type {type(array_like).__name__}; pass a path, bytes, a Pillow image, or'
      ' an array of uint8'
    )
  array = np.asarray(array_like)
  if array.dtype != np.uint8:
    raise UserError(
      f'{where} is of {array.dtype}; pass pixels from 0 to 255 as uint8; if they go from'
      ' 0 to 1, pass (255 * image).round().astype(np.uint8)'
    )
  if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
    raise UserError(
      f'{where} has the shape {array.shape}; pass [H, W, 3] (channels last, no opacity) or [H, W],'
      ' or many as [N, H, W, 3]; many of [H, W] as list(images)'
    )
  return Image.fromarray(array)
