"""AlexNet, the 2012 paper, in JAX and Flax: two columns on two devices.

  classifier = alexnet_jax.load('runs/digits')
  classifier.predict('photograph.jpg')

`alexnet_jax.inference` says more; training is `launch.py`'s, or `alexnet_jax.train`'s.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from alexnet_jax.inference import load

__all__ = ['load']


def __getattr__(name: str) -> Any:
  """Imports `load` when it is first asked for: launch.py must see its flags before jax comes."""
  if name != 'load':
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from alexnet_jax.inference import load

  return load


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
