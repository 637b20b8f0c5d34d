"""From an image file's bytes to RGB pixels as a viewer shows them, and to the network's square."""

import contextlib
import ctypes
import io
import logging
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import ExifTags, Image, _imaging, features

from alexnet_jax.utils import files


def _has(feature: str) -> bool:
  return feature in {**features.modules, **features.codecs} and bool(features.check(feature))


# Some of the other formats that Pillow knows run programs (EPS). Pillow 11.3 is the first with AVIF.
FORMATS = (
  *('JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM'),
  *(('AVIF',) if _has('avif') else ()),
  *(('JPEG2000',) if _has('jpg_2000') else ()),
)
"""The formats that `decode` reads, those of photographs, by Pillow's names."""

HEAD_BYTES = 256
"""How many bytes `kind_of` needs."""

_FIRST_BYTES = (
  ('JPEG', rb'\xff\xd8\xff'),
  ('PNG', rb'\x89PNG\r\n\x1a\n'),
  ('GIF', rb'GIF8[79]a'),
  ('BMP', rb'BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00'),
  ('WEBP', rb'RIFF....WEBP'),
  ('TIFF', rb'II[*+]\x00|MM\x00[*+]'),
  ('PPM', rb'P[1-6]\s+(#[^\n]*\n\s*)*\d+\s+\d+\s'),
  ('JPEG2000', rb'\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  \r\n\x87\n'),
  ('JPEG XL', rb'\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n'),
  ('Photoshop', rb'8BPS\x00'),
)
_HEIC_BRANDS = {b'heic', b'heix', b'hevc', b'hevx', b'heim', b'heis', b'mif1', b'msf1'}

# PNG's level 1 makes files a seventh larger than level 6 does, in a fifth of the time.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
  'jpeg': {'quality': 95, 'subsampling': '4:2:0'},
  'png': {'compress_level': 1},
}

# A file of a few bytes can declare as many pixels as fill gigabytes. One byte of a PNG, the densest
# of the formats but for WebP, holds 8,256 at most.
_ALWAYS_READ, _MOST_PER_BYTE = 2**24, 10_000

ENCODINGS = tuple(_SAVE_OPTIONS)
"""How `encode` can store an image."""

RESIZE_RULES = {
  'paper': 'shorter side to image_size pixels, central square; Pillow bicubic with antialiasing',
  'torchvision': (
    'shorter side to image_size pixels, the other rounded down, Pillow bilinear with antialiasing;'
    ' then the central square, at whole pixels; not rotated as EXIF says'
  ),
}
"""How squares are made of image files, by the value of data.resize, in words."""


class UnreadableError(Exception):
  """A file is not an image, or not a complete one; the message is the reason, in one line."""


def kind_of(head: bytes) -> str:
  """Tells an image file's kind from its first bytes.

  Args:
    head: the file's first HEAD_BYTES bytes, or all of them.

  Returns:
    One of FORMATS; or 'HEIC', 'JPEG XL', 'Photoshop' or a format that this Pillow lacks, which
    `decode` does not read; '' where it is none of these.
  """
  if head[4:8] == b'ftyp':
    end = min(int.from_bytes(head[:4]), len(head))
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, end, 4))}
    if brands & {b'avif', b'avis'}:
      return 'AVIF'
    return 'HEIC' if brands & _HEIC_BRANDS else ''
  for kind, pattern in _FIRST_BYTES:
    if re.match(pattern, head, re.DOTALL):
      return kind
  return ''


def not_read(kind: str) -> str:
  """Why files of a kind that is none of FORMATS are left out, and what to do."""
  return f'{kind}: Pillow does not read it; convert to JPEG'


def decode(encoded: bytes, resize: str = 'paper') -> Image.Image:
  """Decodes an image file of any usual kind; threads may do so at once.

  It is rotated as its EXIF says, transparent parts are white, 16 bits become the upper 8, and of an
  animation the first frame is taken. Color profiles are not applied.

  Args:
    encoded: the file's content: JPEG, PNG, GIF, BMP, WebP, TIFF, PPM, AVIF or JPEG 2000.
    resize: one of RESIZE_RULES; of 'torchvision' it is not rotated.

  Returns:
    The image, in mode 'RGB', its pixels loaded.

  Raises:
    UnreadableError: it is of another format, damaged or cut short, too large (Pillow's limit of 179
      million pixels; above 17 million, 10,000 a byte), or its pixels have no fixed range.
  """
  if not encoded:
    raise UnreadableError('empty file')
  head = encoded[:HEAD_BYTES]
  kind = kind_of(head)
  if kind and kind not in FORMATS:
    raise UnreadableError(not_read(kind))
  if not kind and (stand_in := files.stand_in(head)):
    raise UnreadableError(stand_in)
  try:
    return _decode(encoded, resize)
  except UnreadableError:
    bare = _without_text(encoded) if kind == 'PNG' else encoded
    if bare == encoded:
      raise
    return _decode(bare, resize)


def _decode(encoded: bytes, resize: str) -> Image.Image:
  with _reasons():
    image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    pixels = image.width * image.height
    if pixels > _ALWAYS_READ and pixels > _MOST_PER_BYTE * len(encoded):
      raise ValueError(f'{image.width} x {image.height} pixels in {len(encoded):,} bytes')
  return as_shown(image, resize)


def _without_text(png: bytes) -> bytes:
  """Removes a PNG's texts and color profile, which Pillow refuses beyond a megabyte, uncompressed.

  What may say how it is rotated is kept.
  """
  parts, at = [png[:8]], 8
  while at < len(png):
    size, name = int.from_bytes(png[at : at + 4]), png[at + 4 : at + 8]
    chunk = png[at : at + size + 12]
    kept = chunk[8:].startswith((b'XML:com.adobe.xmp\0', b'Raw profile type exif\0'))
    if kept or name not in (b'tEXt', b'zTXt', b'iTXt', b'iCCP'):
      parts.append(chunk)
    at += size + 12
  return b''.join(parts)


# How an image of each orientation of EXIF is turned, and what of Pillow's may hold EXIF.
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_WITH_EXIF = ('exif', 'Raw profile type exif', 'xmp', 'XML:com.adobe.xmp')


def as_shown(image: Image.Image, resize: str = 'paper') -> Image.Image:
  """Converts a Pillow image to what a viewer shows, as `decode` does with its file.

  Args:
    image: of any mode, opened or created; it is not changed.
    resize: see `decode`.

  Returns:
    The image, in mode 'RGB', its pixels loaded; `image` itself where nothing has to be changed.

  Raises:
    UnreadableError: as `decode`.
  """
  with _reasons():
    image.load()
    if not all(image.size):
      raise ValueError('it has no pixels')
    orientation = None
    with contextlib.suppress(Exception):  # where EXIF is damaged the pixels are still good
      orientation = image.getexif().get(ExifTags.Base.Orientation)
    if resize != 'torchvision' and orientation in _UPRIGHT:
      # Not ImageOps.exif_transpose, which fails where it cannot write the rest of EXIF again.
      image = image.transpose(_UPRIGHT[orientation])
      image.info = {key: value for key, value in image.info.items() if key not in _WITH_EXIF}
    return _to_rgb(image)


def _tiff_error_handler() -> Callable[[int | None], int | None] | None:
  """The function that sets the error handler of Pillow's libtiff, and returns the one before."""
  try:
    set_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
  except (AttributeError, OSError):  # a system's Pillow hides it
    return None
  set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
  return set_handler


class _Silence:
  """Within it Pillow reports nothing; afterwards it does as before, whatever its user has chosen.

  It warns of damage that it then copes with, most of it in EXIF, and logs that for which it raises
  exceptions; libtiff within it prints more. All of that is set for the whole process, so of several
  threads the first sets it and the last puts it back.
  """

  def __init__(self) -> None:
    self._lock, self._threads = threading.Lock(), 0
    self._before = contextlib.ExitStack()
    self._set_tiff_handler = _tiff_error_handler()

  def __enter__(self) -> None:
    with self._lock:
      self._threads += 1
      if self._threads == 1:
        self._before.enter_context(warnings.catch_warnings())
        warnings.filterwarnings('ignore', module=r'PIL\.')
        logger = logging.getLogger('PIL')
        self._before.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        if self._set_tiff_handler is not None:
          self._before.callback(self._set_tiff_handler, self._set_tiff_handler(None))

  def __exit__(self, *_: object) -> None:
    with self._lock:
      self._threads -= 1
      if not self._threads:
        self._before.close()


_SILENCE = _Silence()


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
  """Turns whatever is raised within it into an UnreadableError that says why."""
  try:
    with _SILENCE:
      yield
  except Exception as error:  # a damaged file can make Pillow raise anything
    reason = ' '.join(re.sub(r'<\S+ object at \w+>', '', str(error)).split())
    raise UnreadableError(reason or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Image.Image:
  if image.mode == 'F':
    raise ValueError('floating-point pixels have no fixed range')
  if image.mode.startswith('I'):
    image = _to_8_bits(image)
  if image.has_transparency_data:
    opaque = Image.new('RGB', image.size, 'white')
    image = image.convert('RGBA')
    opaque.paste(image, mask=image)
    return opaque
  return image if image.mode == 'RGB' else image.convert('RGB')


def _to_8_bits(image: Image.Image) -> Image.Image:
  """Converts 16-bit gray to 8-bit gray; Pillow's own conversion would make all above 255 white."""
  values = np.asarray(image)
  if values.min() < 0 or values.max() > 0xFFFF:
    raise ValueError(f'pixels from {values.min()} to {values.max()} are not of 16 bits')
  # Mode 'I' has 32 bits: values that fit in 8 are such, else all would be black.
  shift = 0 if image.mode == 'I' and values.max() <= 0xFF else 8
  gray = np.where(values == image.info.get('transparency'), 255, values >> shift)
  return Image.fromarray(gray.astype(np.uint8))


def fit_square(image: Image.Image, size: int, resize: str = 'paper') -> Image.Image:
  """Scales the shorter side to `size` and cuts out the center (paper, section 2).

  The paper says no more; 'torchvision' gives the pixels of torchvision's Resize(size) and
  CenterCrop(size) of a Pillow image (torchvision/transforms/functional.py), with which its weights
  were trained and measured.

  Args:
    image: of any size.
    size: pixels.
    resize: one of RESIZE_RULES.

  Returns:
    `size` by `size` pixels; the image itself where it has that size.
  """
  if image.size == (size, size):
    return image
  width, height = image.size
  short = min(width, height)
  scaled = size * width // short, size * height // short
  if resize == 'torchvision' and math.prod(scaled) <= _ALWAYS_READ:  # a thread's memory is bounded
    column, row = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    # Whole, for with a box Pillow's rounding differs by one in some of the pixels.
    whole = image.resize(scaled, Image.Resampling.BILINEAR)
    return whole.crop((column, row, column + size, row + size))
  left, top = (width - short) / 2, (height - short) / 2
  kind = Image.Resampling.BILINEAR if resize == 'torchvision' else Image.Resampling.BICUBIC
  return image.resize((size, size), kind, box=(left, top, left + short, top + short))


def encode(image: Image.Image, encoding: str) -> bytes:
  """Encodes an image's pixels and nothing else, the same every time.

  Args:
    image: in mode 'RGB'.
    encoding: one of ENCODINGS: 'jpeg' (quality 95, color at half the resolution) or 'png', which
      loses nothing.

  Returns:
    The file's content.
  """
  bare = Image.fromarray(np.asarray(image))  # Pillow would store comments and profiles too
  file = io.BytesIO()
  bare.save(file, encoding, **_SAVE_OPTIONS[encoding])
  return file.getvalue()
