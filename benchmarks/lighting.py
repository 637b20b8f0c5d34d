"""PCA lighting in gray levels: what the formula says, and what is measured of its draws.

  python benchmarks/lighting.py
  python benchmarks/lighting.py --statistics runs/digits/statistics.npz

The paper does not say what its eigenvalues are of. Of pixels in [0, 1], lighting is weak noise; of
pixels up to 255, as the formula has it to the letter, no image would be left.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data import augment
from alexnet_jax.utils.display import print_table

STD = 0.1  # of the draws
DRAWS = 100_000
# ImageNet's standard deviations on 0 to 255 and axes (rows): cuda-convnet2, make-data/input_meta.
STANDARD_DEVIATIONS = np.array([19.7208, 37.0939, 121.7801])
AXES = np.array(
  [
    [0.41796, -0.81698, 0.39731],
    [-0.71258, -0.02354, 0.70120],
    [-0.56351, -0.57618, -0.59200],
  ]
)
# What a draw multiplies, by name: `scale` and `rescale` of `augment.lighting`.
READINGS = {
  'eigenvalues (paper)': ('eigenvalues', False),
  'standard deviations': ('standard_deviations', False),
  'these / 1.1 (source)': ('standard_deviations', True),
}


def formula(stds: np.ndarray, scale: str, rescale: bool) -> np.ndarray:
  """Standard deviations of the shift along the axes, from those of pixels on 0 to 255."""
  values = (stds / 255) ** 2 if scale == 'eigenvalues' else stds / 255
  return 255 * STD * values / (1 + STD if rescale else 1)


def measured(stds: np.ndarray, axes: np.ndarray, scale: str, rescale: bool) -> np.ndarray:
  """[3, 3], the covariance of RGB shifts over many draws on the default device."""
  statistics = augment.Statistics(
    mean_image=jnp.zeros((1, 1, 3)),
    eigenvalues=jnp.asarray((stds / 255) ** 2, jnp.float32),
    eigenvectors=jnp.asarray(axes.T, jnp.float32),
  )
  light = jax.jit(functools.partial(augment.lighting, scale=scale, rescale=rescale))
  pixels = jnp.zeros((DRAWS, 1, 1, 3))
  shifts = light(jax.random.key(0), pixels, jnp.arange(DRAWS), statistics, jnp.float32(STD))
  return np.cov(np.asarray(shifts, np.float64)[:, 0, 0].T)


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description='Prints what PCA lighting shifts, in gray levels.')
  parser.add_argument(
    '--statistics',
    metavar='FILE.npz',
    help="a workdir's statistics.npz, in place of ImageNet's numbers from cuda-convnet2",
  )
  path = parser.parse_args().statistics
  stds, axes = STANDARD_DEVIATIONS, AXES
  if path:
    try:
      with np.load(path) as arrays:
        stds = 255 * np.sqrt(arrays['eigenvalues'].astype(np.float64))
        axes = arrays['eigenvectors'].astype(np.float64).T
    except (OSError, ValueError, KeyError) as error:
      parser.error(f'--statistics: {path} holds no statistics ({error})')

  columns, errors = [], []
  for scale, rescale in READINGS.values():
    expected = formula(stds, scale, rescale)
    covariance = axes.T @ np.diag(expected**2) @ axes
    sampled = measured(stds, axes, scale, rescale)
    along = np.sqrt(np.diag(axes @ sampled @ axes.T))
    columns.append([f'{f:.3f}  {m:.3f}' for f, m in zip(expected, along, strict=True)])
    # Relative to the two colors' variances: a covariance itself may be near 0.
    scales = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    errors.append(f'{np.max(np.abs(sampled - covariance) / scales):.2%}')
  names = ['({:.3f}, {:.3f}, {:.3f})'.format(*axis) for axis in axes]
  print_table(
    f'Standard deviation of the shift in gray levels: by formula, and of {DRAWS:,} draws on'
    f' {jax.devices()[0].device_kind}',
    ('axis (R, G, B)', 'pixels, 0-255', *READINGS, 'to the letter, on 0-255'),
    list(
      zip(
        names,
        [f'{std:.4f}' for std in stds],
        *columns,
        [f'{STD * std**2:,.1f}' for std in stds],
        strict=True,
      )
    ),
    total=('largest error of the covariance', '', *errors, ''),
  )


if __name__ == '__main__':
  main()
