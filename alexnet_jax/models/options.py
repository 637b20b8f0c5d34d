"""The parts of `AlexNet`'s description: a layer's own numbers, norms, pools, dropout, initial values."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

CONVOLUTIONS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'conv6')
DENSE = ('fc6', 'fc7', 'bottleneck', 'fc8')
LAYERS = (*CONVOLUTIONS, *DENSE)

ACTIVATIONS = {'relu': nn.relu, 'tanh': jnp.tanh, 'logistic': nn.sigmoid}


@dataclasses.dataclass(frozen=True)
class Convolution:
  """A convolutional layer.

  Attributes:
    features: kernels over both columns, an even number; 0 leaves the layer out.
    kernel_size, stride, padding: in pixels.
    rounding: how the output's side is rounded where the stride does not divide evenly: 'up' (the
      2012 code: 224 pixels give 55, with three zero pixels added) or 'down' (Caffe, PyTorch).
    order: what follows the convolution, in order. The paper's is 'activation-norm-pool'; the
      2012 code has 'norm-pool-activation' in conv1, CaffeNet 'activation-pool-norm'. A step that
      the layer does not have is skipped.
    weight_std: standard deviation of the initial weights; None: as `model.initialization` says.
    bias: initial value of the biases; None: as `model.initialization` says.
  """

  features: int
  kernel_size: int = 3
  stride: int = 1
  padding: int = 1
  rounding: str = 'up'
  order: str = 'activation-norm-pool'
  weight_std: float | None = None
  bias: float | None = None

  @property
  def steps(self) -> Sequence[str]:
    """What follows the convolution, in order."""
    return self.order.split('-')


@dataclasses.dataclass(frozen=True)
class Dense:
  """A fully connected layer.

  Attributes:
    features: units over both columns, an even number; 0 leaves the layer out.
    weight_std: standard deviation of the initial weights; None: as `model.initialization` says.
    bias: initial value of the biases; None: as `model.initialization` says.
  """

  features: int
  weight_std: float | None = None
  bias: float | None = None

  steps: ClassVar[tuple[str, ...]] = ('activation',)


@dataclasses.dataclass(frozen=True)
class Bottleneck(Dense):
  """A linear layer between fc7 and fc8: 2048 units in the 2012 code's net for 21,843 classes."""

  steps: ClassVar[tuple[str, ...]] = ()


@dataclasses.dataclass(frozen=True)
class Output:
  """The last layer, with a unit for each class.

  Attributes:
    weight_std: standard deviation of the initial weights; None: as `model.initialization` says.
    bias: initial value of the biases; None: as `model.initialization` says.
  """

  weight_std: float | None = None
  bias: float | None = None


@dataclasses.dataclass(frozen=True)
class ResponseNorm:
  """Local response normalization across neighboring maps (section 3.3).

  `layers.response_norm` has the formula.

  Attributes:
    layers: names of the layers that this norm follows.
    size: how many neighboring maps are summed, the map itself included; n in section 3.3's formula.
    k, alpha, beta: constants of these names in section 3.3's formula.
    divide_alpha: whether alpha is first divided by the number of neighbors. The paper does not;
      the 2012 code, Caffe and PyTorch do.
    over: the maps of a 'column', or 'all_channels' (Caffe).
  """

  layers: tuple[str, ...] = ('conv1', 'conv2')
  size: int = 5
  k: float = 2.0
  alpha: float = 1e-4
  beta: float = 0.75
  divide_alpha: bool = False
  over: str = 'column'


@dataclasses.dataclass(frozen=True)
class WithinNorm:
  """The 2012 code's second norm, across neighboring pixels of each map; the paper has none.

  Attributes:
    layers: names of the layers that this norm follows.
    size: side in pixels of the neighborhood that is summed within each map.
    k, alpha, beta: constants of these names in section 3.3's formula, with the 2012 code's values.
    divide_alpha: whether alpha is first divided by the neighborhood's pixels, as the 2012 code does.
  """

  layers: tuple[str, ...] = ()
  size: int = 5
  k: float = 1.0
  alpha: float = 1e-3
  beta: float = 0.75
  divide_alpha: bool = True


@dataclasses.dataclass(frozen=True)
class Pool:
  """Overlapping pooling (section 3.4).

  Attributes:
    layers: names of the layers that a pool follows.
    average: of these, the layers whose pools take the mean instead of the maximum.
    window, stride: in pixels; pools overlap where the stride is less than the window.
    trim: layers whose padding is one pixel less where pools do not overlap (window == stride),
      as in the 2012 code's net 147, so that fc6 keeps its input.
  """

  layers: tuple[str, ...] = ('conv1', 'conv2', 'conv5')
  average: tuple[str, ...] = ()
  window: int = 3
  stride: int = 2
  trim: tuple[str, ...] = ('conv2', 'conv5')


@dataclasses.dataclass(frozen=True)
class Dropout:
  """Dropout (section 4.2).

  Attributes:
    rate: probability that a unit is set to zero in training; 0 for no dropout.
    layers: names of the layers whose outputs it works on.
    inverted: False: outputs are multiplied by 1 - rate at test time (the paper); True: divided
      by it in training (Caffe, PyTorch).
  """

  rate: float = 0.5
  layers: tuple[str, ...] = ('fc6', 'fc7')
  inverted: bool = False


def _initialization(
  weight_std: float | None, positive_bias: float, **other_std: float
) -> dict[str, tuple[float | None, float]]:
  # These layers' biases start positive (section 5), so that their ReLUs do.
  positive = ('conv2', 'conv4', 'conv5', 'conv6', 'fc6', 'fc7')
  return {
    name: (other_std.get(name, weight_std), positive_bias if name in positive else 0.0)
    for name in LAYERS
  }


# By name, each layer's standard deviation of the Gaussian weights and its bias. Paper, section 5;
# the 2012 code's `layers/layers-145.cfg`; Caffe's `bvlc_alexnet/train_val.prototxt`; the 2012 code's
# CIFAR-10 nets (`example-layers`). None: He et al.'s, from the number of inputs, for small nets.
INITIALIZATIONS = {
  'paper': _initialization(0.01, 1.0),
  'source': _initialization(0.01, 1.0, conv3=0.03, conv4=0.03, conv5=0.03, conv6=0.03),
  'caffe': _initialization(0.01, 0.1, fc6=0.005, fc7=0.005),
  'source_cifar10': _initialization(0.01, 0.0, conv1=1e-4),
  'he': _initialization(None, 0.0),
}


def initializers(
  initialization: str, name: str, layer: Convolution | Dense | Output, places: tuple[int, ...] = ()
) -> dict[str, Any]:
  """How a layer's parameters are drawn.

  Args:
    initialization: a key of INITIALIZATIONS.
    name: the layer's.
    layer: its numbers.
    places: axes of the kernel along which kernels differ from place to place.

  Returns:
    'kernel_init' and 'bias_init'.
  """
  std, bias = INITIALIZATIONS[initialization][name]
  std = std if layer.weight_std is None else layer.weight_std
  bias = bias if layer.bias is None else layer.bias
  he = nn.initializers.variance_scaling(
    2.0 if name != 'fc8' else 1.0, 'fan_in', 'truncated_normal', batch_axis=places
  )
  return {
    'kernel_init': he if std is None else nn.initializers.normal(std),
    'bias_init': nn.initializers.constant(bias),
  }
