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


def kernels(part: np.ndarray, per_row: int = 16, gray: bool = False) -> np.ndarray:
  """A column's kernels of the first layer as one picture, as the 2012 code drew them.

  A black pixel between them, scaled from the column's least weight to its greatest.

  Args:
    part: [height, width, 3, F].
    per_row: how many stand in a row.
    gray: whether images are gray, so that the sum of a kernel's three weights is all that counts.

  Returns:
    [H, W, 3] from 0 to 1; [H, W, 1] where `gray`.
  """
  weights = np.asarray(part, np.float64)
  if gray:
    weights = weights.sum(axis=2, keepdims=True)
  low, high = weights.min(), weights.max()
  return tiled(np.moveaxis((weights - low) / (high - low or 1), -1, 0), per_row, 0.0)
