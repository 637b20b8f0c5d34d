"""The part of the input that a place of a convolution's maps depends on."""

from typing import NamedTuple

from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.options import CONVOLUTIONS


class Field(NamedTuple):
  """Receptive fields of a layer's places, along one side.

  Place i depends on the pixels from `start + i * stride` on, as many as `size`; some of them may be
  padding, outside the image.

  Attributes:
    size: pixels of a field.
    stride: pixels from one place's field to the next one's.
    start: first pixel of the first place's field; negative in padding.
  """

  size: int
  stride: int
  start: int

  def window(self, place: int, pixels: int) -> slice:
    """The pixels to cut out of an image's side for a place.

    They are as many for every place: a field that overhangs the image is moved into it, and one that
    is larger is the whole side.

    Args:
      place: its row or column.
      pixels: the image's side.
    """
    size = min(self.size, pixels)
    first = min(max(self.start + place * self.stride, 0), pixels - size)
    return slice(first, first + size)


def fields(net: AlexNet) -> dict[str, Field]:
  """The receptive fields of each convolution's activations, by layer.

  Norms over neighboring places (`within_norm`), which would widen them a little, do not count.

  Args:
    net: the network.
  """
  found: dict[str, Field] = {}
  field = Field(1, 1, 0)
  for name in CONVOLUTIONS:
    layer = getattr(net, name)
    steps = (
      layer.steps if net.features(name) else ['pool']
    )  # a layer that is left out keeps its pool
    if net.features(name):
      field = _through(field, layer.kernel_size, layer.stride, net.padding(name))
    for step in steps:
      if step == 'activation':
        found[name] = field
      elif step == 'pool' and name in net.pool.layers:
        field = _through(field, net.pool.window, net.pool.stride, 0)
  return found


def _through(field: Field, window: int, stride: int, padding: int) -> Field:
  """The fields after windows over places that have fields."""
  return Field(
    field.size + (window - 1) * field.stride,
    field.stride * stride,
    field.start - padding * field.stride,
  )
