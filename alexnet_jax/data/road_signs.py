"""Small colored pictures for a first run: road signs, drawn onto pieces of two photographs.

Neither color nor shape alone tells the classes apart: red are an octagon, a circle and triangles, blue
are a circle and a square. The photographs are scikit-learn's `china.jpg`, by danielbuechele, and
`flower.jpg`, by vultilion, both under CC BY 2.0; nothing is downloaded.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from alexnet_jax.data import splits
from alexnet_jax.utils.errors import UserError

Point = tuple[float, float]
"""x to the right and y downward, within the unit circle."""

Layer = tuple[str, Sequence[Point]]
"""A color, and the corners of the polygon that it fills."""

_RED, _YELLOW, _BLUE, _GREEN = '#c1121f', '#f2b705', '#1d4e9e', '#1b7f3b'
_ORANGE, _BLACK, _WHITE = '#e8751a', '#1a1a1a', '#f4f4f0'
_DETAIL = 4  # signs are drawn so many times as large, and scaled down, for smooth edges


def _regular(corners: int, radius: float = 1.0, turn: float = 0.0) -> list[Point]:
  """A regular polygon with a corner at the top, turned by a share of its angle."""
  angles = [2 * math.pi * (i + turn) / corners - math.pi / 2 for i in range(corners)]
  return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _disk(radius: float = 1.0) -> list[Point]:
  return _regular(40, radius)


def _square(radius: float = 1.0) -> list[Point]:
  return _regular(4, radius, 0.5)


def _box(width: float, height: float, x: float = 0.0, y: float = 0.0) -> list[Point]:
  """A rectangle about a point."""
  left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
  return [(left, top), (right, top), (right, bottom), (left, bottom)]


_SHAFT, _HEAD = _box(0.26, 0.7, y=0.2), [(0.0, -0.6), (0.42, -0.1), (-0.42, -0.1)]  # of an arrow
_STROKES = (  # of a cross
  [(0.6, 0.4), (0.4, 0.6), (-0.6, -0.4), (-0.4, -0.6)],
  [(-0.6, 0.4), (-0.4, 0.6), (0.6, -0.4), (0.4, -0.6)],
)

SIGNS: Mapping[str, Sequence[Layer]] = {
  'ahead only': [(_WHITE, _disk()), (_BLUE, _disk(0.9)), (_WHITE, _SHAFT), (_WHITE, _HEAD)],
  'no entry': [(_WHITE, _disk()), (_RED, _disk(0.9)), (_WHITE, _box(1.2, 0.34))],
  'parking': [
    (_WHITE, _square()), (_BLUE, _square(0.9)), (_WHITE, _box(0.2, 0.9, -0.2)),
    (_WHITE, _box(0.5, 0.55, 0.05, -0.18)), (_BLUE, _box(0.2, 0.2, 0.05, -0.18)),
  ],
  'priority road': [(_WHITE, _regular(4)), (_YELLOW, _regular(4, 0.7))],
  'speed limit': [
    (_RED, _disk()), (_WHITE, _disk(0.72)), (_BLACK, _box(0.3, 0.6, -0.24)), (_BLACK, _box(0.3, 0.6, 0.24)),
    (_WHITE, _box(0.1, 0.36, 0.24)),
  ],
  'stop': [(_WHITE, _regular(8, turn=0.5)), (_RED, _regular(8, 0.9, 0.5)), (_WHITE, _box(1.1, 0.3))],
  'warning': [(_BLACK, _regular(3)), (_YELLOW, _regular(3, 0.75)), (_BLACK, _box(0.16, 0.5))],
  'yield': [(_RED, _regular(3, turn=0.5)), (_WHITE, _regular(3, 0.55, 0.5))],
}  # fmt: skip
"""For each class, the layers of its sign, from the bottom up."""

RARE_SIGNS: Mapping[str, Sequence[Layer]] = {
  'crossing': [(_WHITE, _square()), (_BLUE, _square(0.9)), (_WHITE, _regular(3, 0.6))],
  'exit': [(_WHITE, _square()), (_GREEN, _square(0.9)), (_WHITE, _SHAFT), (_WHITE, _HEAD)],
  'no stopping': [(_RED, _disk()), (_BLUE, _disk(0.76)), *((_RED, stroke) for stroke in _STROKES)],
  'road works': [(_BLACK, _regular(4)), (_ORANGE, _regular(4, 0.85)), (_BLACK, _box(0.7, 0.2))],
}  # fmt: skip
"""Other classes, of which there are few pictures to learn from: for fine-tuning."""


def split(
  signs: Mapping[str, Sequence[Layer]], name: str, size: int, per_class: Mapping[str, int]
) -> splits.ArraySplit:
  """Draws the pictures of a split, always the same ones.

  The signs differ in size, place, turn, angle of view, light and sharpness. Training pictures have
  the photographs' left half behind them, validation pictures the right one.

  Args:
    signs: the classes, as `SIGNS`.
    name: the split.
    size: side of the pictures in pixels.
    per_class: how many pictures of each class a split has, by the split's name.

  Raises:
    UserError: there is no such split.
  """
  if name not in per_class:
    raise UserError(f'road signs have the splits {", ".join(map(repr, per_class))}, not {name!r}')
  rng = np.random.default_rng([2012, list(per_class).index(name), len(signs)])
  photographs = _halves(list(per_class).index(name))
  labels = np.tile(np.arange(len(signs), dtype=np.int32), per_class[name])
  layers = list(signs.values())
  images = np.stack([_picture(layers[label], photographs, size, rng) for label in labels])
  return splits.ArraySplit(images, labels, tuple(signs))


def _halves(half: int) -> list[Image.Image]:
  """The left (0) or right (1) halves of the photographs."""
  from sklearn.datasets import load_sample_image  # takes a second to import

  photographs = [load_sample_image(name) for name in ('china.jpg', 'flower.jpg')]
  return [
    Image.fromarray(np.ascontiguousarray(np.split(pixels, 2, axis=1)[half]))
    for pixels in photographs
  ]


def _picture(
  layers: Sequence[Layer],
  photographs: Sequence[Image.Image],
  size: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """A sign on a piece of a photograph, [size, size, 3] uint8."""
  photograph = photographs[int(rng.integers(len(photographs)))]
  side = int(rng.integers(64, 256))
  left = int(rng.integers(photograph.width - side))
  top = int(rng.integers(photograph.height - side))
  behind = photograph.resize((size, size), box=(left, top, left + side, top + side))

  radius = rng.uniform(0.2, 0.42) * size
  center = rng.uniform(radius, size - radius, 2)
  turn, narrow = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(0.7, 1.0)
  matrix = np.array([[narrow * np.cos(turn), -np.sin(turn)], [narrow * np.sin(turn), np.cos(turn)]])
  sign = Image.new('RGBA', (_DETAIL * size, _DETAIL * size))
  draw = ImageDraw.Draw(sign)
  for color, corners in layers:
    places = _DETAIL * (center + radius * np.array(corners) @ matrix.T)
    draw.polygon([tuple(place) for place in places.tolist()], fill=color)
  sign = sign.reduce(_DETAIL)

  light = rng.uniform(0.5, 1.1) * rng.uniform(0.9, 1.1, 3)  # on the sign: how bright, of what color
  pixels = np.asarray(sign.convert('RGB'), np.float64) * light
  shaded = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
  behind.paste(shaded, mask=sign.getchannel('A'))
  return np.asarray(behind.filter(ImageFilter.GaussianBlur(rng.uniform(0, size / 50))))
