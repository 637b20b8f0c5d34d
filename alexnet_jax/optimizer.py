"""The paper's stochastic gradient descent and its learning rates.

Paper, section 5:

  v <- 0.9 v - 0.0005 * rate * w - rate * gradient
  w <- w + v

The velocity v holds rate times gradient, so a cut of the rate leaves the old momentum alone
(in `optax.sgd` it would shrink at once). Biases have no weight decay (2012 code).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from alexnet_jax.models.params import Params

Array = jax.Array


BATCH_SIZE_RULES = ('none', 'linear', 'sqrt')


class PaperSGDState(NamedTuple):
  """The state of `paper_sgd`.

  Attributes:
    learning_rates: the rate in force for each parameter, a float32 scalar; 0 until the training
      loop sets it (`state._replace(learning_rates=...)`).
    velocity: v, in the shapes of the parameters.
  """

  learning_rates: Params
  velocity: Params


def paper_sgd(
  momentum: float, weight_decay: Mapping[str, Mapping[str, float]]
) -> optax.GradientTransformation:
  """The paper's rule; its updates are v.

  Learning rates are part of the state, for each parameter, and 0 at first, so that nothing is updated
  until they are set: `state._replace(learning_rates=jax.tree.map(lambda _: jnp.float32(0.01), params))`.
  A parameter whose rate is 0 is frozen, momentum and all, as in the 2012 code (`src/weights.cu`); that
  takes the place of `optax.masked` and `optax.multi_transform`, into which this rule does not fit.

  Args:
    momentum: 0.9 in the paper.
    weight_decay: a float for each parameter, in their tree; see `weight_decays`.

  Returns:
    A transformation whose state is a PaperSGDState, and whose `update` needs the parameters.
  """

  def init(params: Params) -> PaperSGDState:
    rates = jax.tree.map(lambda _: jnp.zeros((), jnp.float32), params)
    return PaperSGDState(rates, jax.tree.map(jnp.zeros_like, params))

  def update(
    gradients: Params, state: PaperSGDState, params: Params | None = None
  ) -> tuple[Params, PaperSGDState]:
    def next_velocity(v: Array, w: Array, g: Array, rate: Array, decay: float) -> Array:
      rate = rate.astype(v.dtype)
      moved = momentum * v - decay * rate * w - rate * g if decay else momentum * v - rate * g
      return jnp.where(rate == 0, v, moved)

    rates = state.learning_rates
    velocity = jax.tree.map(next_velocity, state.velocity, params, gradients, rates, weight_decay)
    updates = jax.tree.map(lambda v, rate: jnp.where(rate == 0, 0, v), velocity, rates)
    return updates, PaperSGDState(rates, velocity)

  return optax.GradientTransformation(init, update)


def weight_decays(
  params: Params, weight_decay: float, multipliers: Mapping[str, float]
) -> Mapping[str, Mapping[str, float]]:
  """A decay for each parameter: `weight_decay` times its layer's multiplier, 0 for biases."""
  return {
    layer: {
      kind: weight_decay * multipliers[layer] if kind == 'kernel' else 0.0 for kind in parameters
    }
    for layer, parameters in params.items()
  }


def batch_size_multiple(rule: str, batch_size: int, base_batch_size: int) -> float:
  """The factor from a learning rate for one batch size to that for another.

  Args:
    rule: one of BATCH_SIZE_RULES, as `configs/imagenet.py` describes them.
    batch_size: images a batch.
    base_batch_size: the size for which the rate was chosen.
  """
  ratio = batch_size / base_batch_size
  return {'none': 1.0, 'linear': ratio, 'sqrt': ratio**0.5}[rule]


def piecewise_constant(
  schedule: Sequence[tuple[float, float]], epoch: float, default: float
) -> float:
  """The value in force at an epoch (from 0), of a schedule of (from epoch, value)."""
  in_force = default
  for start, value in sorted(schedule):
    if start <= epoch:
      in_force = value
  return in_force


@dataclasses.dataclass(frozen=True)
class Plateau:
  """The state of the rule that cuts the learning rate.

  Attributes:
    best_error: lowest validation error so far; None before the first.
    epochs_since_best: validations since, or since the last cut.
    cuts: cuts so far.
  """

  best_error: float | None = None
  epochs_since_best: int = 0
  cuts: int = 0

  def update(self, error: float, patience: int, max_lr_decays: int) -> 'Plateau':
    """The state after a validation: one more cut after `patience` validations without a lower error.

    Paper, section 5: the rate is divided by 10 when the validation error stops improving; it
    was done by hand, three times.
    """
    if self.best_error is None or error < self.best_error:
      return Plateau(error, 0, self.cuts)
    since = self.epochs_since_best + 1
    if since >= patience and self.cuts < max_lr_decays:
      return Plateau(self.best_error, 0, self.cuts + 1)
    return Plateau(self.best_error, since, self.cuts)


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The learning rates of a training (paper, section 5).

  Attributes:
    learning_rate: the weights' rate before any cut.
    lr_decay_factor: what each cut divides it by.
    lr_decay_epochs: epochs at whose start it is cut; (): as `Plateau` has it.
    patience, max_lr_decays: of `Plateau.update`.
    multipliers: each layer's multiples of the rate, as (from epoch, multiple).
    bias_lr_multiplier: the biases' rate over the weights' (2 in the 2012 code and Caffe).
    lr_decay_biases: whether cuts and multipliers apply to biases; in the 2012 code they did not, but for
      the multiplier 0, which freezes the layer.
  """

  learning_rate: float
  lr_decay_factor: float
  lr_decay_epochs: Sequence[float]
  patience: int
  max_lr_decays: int
  multipliers: Mapping[str, Sequence[tuple[float, float]]]
  bias_lr_multiplier: float
  lr_decay_biases: bool

  def cut(self, epoch: int, plateau: Plateau) -> float:
    """What multiplies the learning rate in an epoch: 1.0, 0.1, ..."""
    by_epoch = sum(start <= epoch for start in self.lr_decay_epochs)
    return float(self.lr_decay_factor ** -(by_epoch if self.lr_decay_epochs else plateau.cuts))

  def rate(self, epoch: int, plateau: Plateau) -> float:
    """The weights' rate in an epoch, before any layer's multiplier."""
    return self.learning_rate * self.cut(epoch, plateau)

  def parameter_rates(self, params: Params, epoch: int, plateau: Plateau) -> Params:
    """The rate of each parameter in an epoch: float32 scalars in the tree of params."""
    cut = self.cut(epoch, plateau)
    rates: dict[str, dict[str, Array]] = {}
    for layer, parameters in params.items():
      own = piecewise_constant(self.multipliers[layer], epoch, 1.0)
      kernel = self.learning_rate * cut * own
      of_biases = cut * own if self.lr_decay_biases else float(own != 0)
      bias = self.learning_rate * self.bias_lr_multiplier * of_biases
      rates[layer] = {
        kind: jnp.asarray(bias if kind == 'bias' else kernel, jnp.float32) for kind in parameters
      }
    return rates

  def after_validation(self, plateau: Plateau, error: float) -> Plateau:
    """The state of the rule after a validation with this error."""
    return plateau.update(error, self.patience, self.max_lr_decays)
