"""The training images' mean image, and the principal axes of their colors (paper, 2 and 4.1)."""

import dataclasses
from pathlib import Path

import numpy as np

from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

FILE_NAME = 'statistics.npz'


@dataclasses.dataclass
class Sums:
  """Sums over images; integers, so the result does not depend on their order or on how they are split up.

  Attributes:
    count: images.
    pixels: [S, S, 3] int64, sum of the images.
    products: [3, 3] int64, sum over all pixels of the products of their colors.
  """

  count: int
  pixels: np.ndarray
  products: np.ndarray

  @classmethod
  def zero(cls, size: int) -> 'Sums':
    """Creates the sums of no images, of size x size pixels."""
    return cls(0, np.zeros((size, size, 3), np.int64), np.zeros((3, 3), np.int64))

  def add(self, image: np.ndarray, products: np.ndarray | None = None) -> None:
    """Adds an image [S, S, 3] uint8, and its `color_products`, if those are known."""
    self.count += 1
    self.pixels += image
    self.products += color_products(image) if products is None else products

  def compute(self) -> dict[str, np.ndarray]:
    """Computes the statistics.

    Returns:
      'mean_image' [S, S, 3] float64 on 0 to 255, and the ascending 'eigenvalues' [3] and
      'eigenvectors' [3, 3] (columns) float64 of the covariance of RGB values in [0, 1] over all
      pixels.
    """
    pixels = self.count * self.pixels[..., 0].size
    mean = self.pixels.sum(axis=(0, 1)) / pixels
    covariance = (self.products / pixels - np.outer(mean, mean)) / 255**2
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    # The sign of an axis is free; its largest component is made positive.
    largest = np.abs(eigenvectors).argmax(axis=0)
    signs = np.sign(eigenvectors[largest, np.arange(3)])
    return {
      'mean_image': self.pixels / self.count,
      'eigenvalues': np.maximum(eigenvalues, 0),
      'eigenvectors': eigenvectors * signs,
    }


def color_products(image: np.ndarray) -> np.ndarray:
  """Sums the products of the colors of all pixels of [S, S, 3] uint8: [3, 3] int64."""
  colors = image.reshape(-1, 3).astype(np.float64)  # exact: the sums stay far below 2**53
  return (colors.T @ colors).astype(np.int64)


def save(path: Path, statistics: dict[str, np.ndarray]) -> None:
  """Writes statistics as an .npz file, which appears only when it is complete."""
  with files.atomic_write(path) as temporary:
    np.savez(temporary, **statistics)  # type: ignore[arg-type]  # one of them might be allow_pickle


def load(path: Path, size: int) -> dict[str, np.ndarray]:
  """Reads what `save` wrote.

  Args:
    path: the file.
    size: side of the images in pixels.

  Raises:
    UserError: it cannot be read, or is of images of another size.
  """
  try:
    statistics = files.read_npz(path, ('mean_image', 'eigenvalues', 'eigenvectors'))
  except Exception as error:  # a damaged file fails in many ways
    raise UserError(f'{path} cannot be read: {first_line(error)}') from error
  shape = statistics['mean_image'].shape
  if len(shape) == 3 and shape != (size, size, 3):
    raise UserError(
      f'{path} is of images of {" x ".join(map(str, shape[:2]))} pixels, but data.image_size is'
      f' {size}; set it to these, or remove the file'
    )
  wanted = {'mean_image': (size, size, 3), 'eigenvalues': (3,), 'eigenvectors': (3, 3)}
  for name, array in statistics.items():
    if array.shape != wanted[name] or array.dtype != np.float64 or not np.isfinite(array).all():
      raise UserError(
        f'{path} cannot be read: its {name} has another shape or type, or is not finite'
      )
  return statistics
