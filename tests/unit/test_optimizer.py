"""The paper's update rule and its learning rates, against the rule written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax import experiment, optimizer
from alexnet_jax.utils.errors import UserError
from configs import imagenet

MOMENTUM, DECAY = 0.9, 0.0005
SHAPES = {
  'conv1': {'kernel': (3, 2), 'bias': (2,)},
  'fc8': {'kernel': (2, 4), 'bias': (4,)},
}
# float64 and a cut at step 5, large rates so that any difference shows.
RATES = [0.1] * 5 + [0.01] * 5


def random_tree(seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(rng.standard_normal, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def gradients_of(steps):
  return [random_tree(100 + step) for step in range(steps)]


def hand_written(weights, gradients, rates, decay):
  """The paper's two lines for one array; its value after each step."""
  velocity, after = np.zeros_like(weights), []
  for gradient, rate in zip(gradients, rates, strict=True):
    velocity = MOMENTUM * velocity - decay * rate * weights - rate * gradient
    weights = weights + velocity
    after.append(weights)
  return after


def expected(params, gradients, rates):
  """`hand_written` for a tree; rates is one list, or one for each layer."""
  steps = {}
  for layer, parameters in params.items():
    own = rates[layer] if isinstance(rates, dict) else rates
    steps[layer] = {
      kind: hand_written(
        value, [g[layer][kind] for g in gradients], own, DECAY if kind == 'kernel' else 0.0
      )
      for kind, value in parameters.items()
    }
  return [
    {layer: {kind: steps[layer][kind][i] for kind in steps[layer]} for layer in steps}
    for i in range(len(gradients))
  ]


def paper_sgd(params):
  ones = dict.fromkeys(params, 1.0)
  return optimizer.paper_sgd(MOMENTUM, optimizer.weight_decays(params, DECAY, ones))


def trees_of_rates(rates):
  """A tree of rates for each step; `rates` as `expected` takes them."""
  per_layer = rates if isinstance(rates, dict) else dict.fromkeys(SHAPES, rates)
  steps = len(next(iter(per_layer.values())))
  return [
    {
      layer: {kind: jnp.asarray(per_layer[layer][i]) for kind in SHAPES[layer]}
      for layer in per_layer
    }
    for i in range(steps)
  ]


def take_steps(params, gradients, rates):
  """Steps of paper_sgd: parameters and states after each."""
  transform = paper_sgd(params)
  params = jax.tree.map(jnp.asarray, params)
  state = transform.init(params)

  @jax.jit
  def step(params, state, gradient):
    updates, state = transform.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  all_params, states = [], []
  for gradient, rate in zip(gradients, trees_of_rates(rates), strict=True):
    params, state = step(params, state._replace(learning_rates=rate), gradient)
    all_params.append(params)
    states.append(state)
  return all_params, states


def assert_trees_close(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures('x64')
def test_ten_steps_are_the_papers_two_lines():
  params, gradients = random_tree(0), gradients_of(10)
  taken, _ = take_steps(params, gradients, RATES)
  for ours, hand in zip(taken, expected(params, gradients, RATES), strict=True):
    assert_trees_close(ours, hand)
  assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(taken[-1]))


@pytest.mark.usefixtures('x64')
def test_optax_sgd_agrees_until_the_rate_is_cut():
  params, gradients = random_tree(0), gradients_of(10)
  taken, _ = take_steps(params, gradients, RATES)

  def sgd(rate):
    kernels = {layer: {kind: kind == 'kernel' for kind in SHAPES[layer]} for layer in SHAPES}
    return optax.chain(
      optax.add_decayed_weights(DECAY, kernels), optax.sgd(rate, momentum=MOMENTUM)
    )

  theirs = jax.tree.map(jnp.asarray, params)
  state = sgd(RATES[0]).init(theirs)
  for step, rate in enumerate(RATES):
    gradient = jax.tree.map(jnp.asarray, gradients[step])
    updates, state = sgd(rate).update(gradient, state, theirs)
    theirs = optax.apply_updates(theirs, updates)
    if step < 5:
      assert_trees_close(taken[step], theirs)
    else:
      for x, y in zip(jax.tree.leaves(taken[step]), jax.tree.leaves(theirs), strict=True):
        assert np.max(np.abs(x - y)) > 0.01


@pytest.mark.usefixtures('x64')
def test_rate_zero_keeps_weight_and_momentum_until_it_returns():
  params, gradients = random_tree(0), gradients_of(9)
  frozen = [3, 4, 5]
  rates = {'conv1': [0.0 if i in frozen else 0.1 for i in range(9)], 'fc8': [0.1] * 9}
  taken, states = take_steps(params, gradients, rates)

  for step in frozen:
    jax.tree.map(np.testing.assert_array_equal, taken[step]['conv1'], taken[2]['conv1'])
    velocities = [states[i].velocity['conv1'] for i in (step, 2)]
    jax.tree.map(np.testing.assert_array_equal, *velocities)
  # conv1 goes on as if the frozen steps had never been; fc8 took all nine.
  moving = [i for i in range(9) if i not in frozen]
  without = expected(params, [gradients[i] for i in moving], [0.1] * 6)
  assert_trees_close(taken[8]['conv1'], without[-1]['conv1'])
  assert_trees_close(taken[8]['fc8'], expected(params, gradients, [0.1] * 9)[-1]['fc8'])


def test_nothing_moves_until_the_rates_are_set():
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_tree(0))
  transform = paper_sgd(params)
  state = transform.init(params)
  for rate in jax.tree.leaves(state.learning_rates):
    assert (rate.shape, rate.dtype, float(rate)) == ((), jnp.float32, 0.0)
  updates, after = jax.jit(transform.update)(params, state, params)
  for leaf in jax.tree.leaves((updates, after.velocity)):
    assert leaf.dtype == jnp.float32
    assert not np.any(leaf)


def test_weight_decays_leave_biases_alone():
  decays = optimizer.weight_decays(SHAPES, 0.0005, {'conv1': 0.0, 'fc8': 3.0})
  assert decays == {
    'conv1': {'kernel': 0.0, 'bias': 0.0},
    'fc8': {'kernel': pytest.approx(0.0015), 'bias': 0.0},
  }


@pytest.mark.parametrize(
  ('schedule', 'epoch', 'value'),
  [
    ((), 50, 1.0),
    (((67, 0.1), (72, 0.0)), 0, 1.0),
    (((67, 0.1), (72, 0.0)), 66.99, 1.0),
    (((67, 0.1), (72, 0.0)), 67, 0.1),
    (((67, 0.1), (72, 0.0)), 71.99, 0.1),
    (((67, 0.1), (72, 0.0)), 72, 0.0),
    (((72, 0.0), (67, 0.1)), 70, 0.1),
    (((72, 0.0), (67, 0.1)), 90, 0.0),
    (((0, 0.5),), 0, 0.5),
  ],
)
def test_the_last_value_whose_epoch_has_come_is_in_force(schedule, epoch, value):
  assert optimizer.piecewise_constant(schedule, epoch, 1.0) == value


def schedule(**changed):
  return optimizer.Schedule(
    **{
      'learning_rate': 0.01,
      'lr_decay_factor': 10,
      'lr_decay_epochs': (),
      'patience': 5,
      'max_lr_decays': 3,
      'multipliers': {'conv1': (), 'fc8': ()},
      'bias_lr_multiplier': 1.0,
      'lr_decay_biases': True,
      **changed,
    }
  )


@pytest.mark.parametrize(
  ('epoch', 'weights', 'conv1_weights'),
  [
    (0, 1e-2, 1e-2),
    (25, 1e-3, 1e-3),
    (51, 1e-4, 1e-4),
    (67, 1e-4, 1e-5),
    (71, 1e-4, 1e-5),
    (72, 1e-4, 0.0),
    (79, 1e-5, 0.0),
  ],
)
def test_learning_rates_are_those_of_the_2012_codes_net_145(epoch, weights, conv1_weights):
  of_net = schedule(
    lr_decay_epochs=(25, 51, 79),
    multipliers={'conv1': ((67, 0.1), (72, 0.0)), 'fc8': ()},
    bias_lr_multiplier=2.0,
    lr_decay_biases=False,
  )
  rates = of_net.parameter_rates(SHAPES, epoch, optimizer.Plateau())
  assert of_net.rate(epoch, optimizer.Plateau()) == pytest.approx(weights)
  assert float(rates['fc8']['kernel']) == pytest.approx(weights)
  assert float(rates['fc8']['bias']) == pytest.approx(0.02)
  assert float(rates['conv1']['kernel']) == pytest.approx(conv1_weights)
  if epoch < 67:
    assert float(rates['conv1']['bias']) == pytest.approx(0.02)
  if epoch >= 72:
    assert float(rates['conv1']['bias']) == 0
  for rate in jax.tree.leaves(rates):
    assert (rate.shape, rate.dtype) == ((), jnp.float32)


@pytest.mark.parametrize(('bias_lr_multiplier', 'bias'), [(1.0, 0.002), (2.0, 0.004), (0.0, 0.0)])
def test_cuts_and_layer_multiples_apply_to_biases_too(bias_lr_multiplier, bias):
  multipliers = {'conv1': ((0, 2.0),), 'fc8': ()}
  rates = schedule(multipliers=multipliers, bias_lr_multiplier=bias_lr_multiplier).parameter_rates(
    SHAPES, 3, optimizer.Plateau(cuts=1)
  )
  assert float(rates['conv1']['kernel']) == pytest.approx(0.002)
  assert float(rates['conv1']['bias']) == pytest.approx(bias)
  assert float(rates['fc8']['kernel']) == pytest.approx(0.001)
  assert float(rates['fc8']['bias']) == pytest.approx(bias / 2)


@pytest.mark.parametrize(
  ('patience', 'max_lr_decays', 'errors', 'cuts'),
  [
    # Counts again after a cut, and an equal error is no improvement.
    (2, 3, [0.9, 0.8, 0.85, 0.81, 0.8, 0.82, 0.9], [0, 0, 0, 1, 1, 2, 2]),
    # Every improvement starts the count again.
    (2, 3, [0.9, 0.95, 0.8, 0.85, 0.7, 0.75], [0, 0, 0, 0, 0, 0]),
    (1, 2, [0.5, 0.5, 0.5, 0.5, 0.5], [0, 1, 2, 2, 2]),
    (1, 0, [0.5, 0.6, 0.7], [0, 0, 0]),
    (3, 1, [0.5, 0.6, 0.7, 0.8], [0, 0, 0, 1]),
  ],
)
def test_the_rate_is_cut_after_patience_validations_without_a_lower_error(
  patience, max_lr_decays, errors, cuts
):
  plateau, seen = optimizer.Plateau(), []
  for error in errors:
    plateau = plateau.update(error, patience, max_lr_decays)
    seen.append(plateau.cuts)
  assert seen == cuts
  assert plateau.best_error == min(errors)


@pytest.mark.parametrize(
  ('rule', 'batch_size', 'rate'),
  [
    ('none', 128, 0.01),
    ('none', 1024, 0.01),
    ('linear', 128, 0.01),
    ('linear', 256, 0.02),
    ('linear', 1024, 0.08),
    ('linear', 64, 0.005),
    ('sqrt', 128, 0.01),
    ('sqrt', 512, 0.02),
    ('sqrt', 32, 0.005),
  ],
)
def test_the_papers_rate_for_other_batches(rule, batch_size, rate):
  config = imagenet.get_config()
  assert experiment.learning_rate(config) == 0.01
  config.optimizer.batch_size_rule, config.train.batch_size = rule, batch_size
  experiment.check(config)
  assert experiment.learning_rate(config) == pytest.approx(rate, rel=1e-15)
  said = experiment.describe_learning_rate(config)
  assert (said == '') == (rate == 0.01)
  assert rate == 0.01 or f'learning rate {rate:g} ' in said


@pytest.mark.parametrize('value', ['cubic', ''])
def test_a_mistaken_rule_for_batches_is_named(value):
  config = imagenet.get_config()
  config.optimizer.batch_size_rule = value
  with pytest.raises(
    UserError, match=r"batch_size_rule is '.*'; it must be one of 'none', 'linear', 'sqrt'"
  ):
    experiment.check(config)
