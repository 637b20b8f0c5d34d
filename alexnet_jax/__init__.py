"""AlexNet, the 2012 paper, in JAX and Flax: two columns on two devices.

  classifier = alexnet_jax.load('runs/digits')
  classifier.predict('photograph.jpg')

`load` reads what `launch.py` has trained, and weights of PyTorch's and Caffe's AlexNets;
`train_and_evaluate(config, workdir)` is what `launch.py` calls.
"""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from alexnet_jax.convert.load import load
  from alexnet_jax.models.alexnet import AlexNet
  from alexnet_jax.training.loop import train_and_evaluate

__all__ = ['AlexNet', 'load', 'train_and_evaluate']


def __getattr__(name: str) -> Any:
  """Imports a name when it is first asked for: launch.py must see its flags before jax comes."""
  if name == '__version__':
    try:
      return importlib.metadata.version('alexnet_jax')
    except importlib.metadata.PackageNotFoundError as error:
      raise AttributeError('alexnet_jax is not installed, so its version is not known') from error
  from alexnet_jax.utils import silence

  with silence.root_logger_kept():
    if name == 'AlexNet':
      from alexnet_jax.models.alexnet import AlexNet

      return AlexNet
    if name == 'load':
      from alexnet_jax.convert.load import load

      return load
    if name == 'train_and_evaluate':
      from alexnet_jax.training.loop import train_and_evaluate

      return train_and_evaluate
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
