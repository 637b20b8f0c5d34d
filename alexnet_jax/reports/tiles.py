"""Many small pictures as one, without matplotlib."""

import numpy as np


def tiled(tiles: np.ndarray, per_row: int, between: float) -> np.ndarray:
  """Tiles [N, H, W, C] in rows as one picture; a pixel between them, none where they are pixels."""
  count, height, width, channels = tiles.shape
  per_row = min(per_row, count)
  gap = int(height > 1 or width > 1)
  rows = -(-count // per_row)
  size = (rows * (height + gap) - gap, per_row * (width + gap) - gap, channels)
  picture = np.full(size, between)
  for i, tile in enumerate(tiles):
    top, left = i // per_row * (height + gap), i % per_row * (width + gap)
    picture[top : top + height, left : left + width] = tile
  return picture


def kernels(part: np.ndarray) -> np.ndarray:
  """A column's kernels of the first layer as one picture, as the source drew them.

  16 in a row, a black pixel between them, scaled from the column's least weight to its greatest.

  Args:
    part: [height, width, 3, F].

  Returns:
    [H, W, 3] from 0 to 1.
  """
  part = np.asarray(part, np.float64)
  low, high = part.min(), part.max()
  return tiled(np.moveaxis((part - low) / (high - low or 1), -1, 0), 16, 0.0)
