"""The training step: the same on any mesh, in microbatches and in bfloat16."""

import contextlib
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import experiment
from alexnet_jax.data import augment, included, pipeline
from alexnet_jax.parallel import mesh
from alexnet_jax.training import step as step_lib
from tests import reference
from tests.launching import start
from tests.small import assert_close, lines, small_config
from tests.stored import real_data


class Trainer:
  """A training step on a mesh of its own, fed with the digits."""

  def __init__(self, config, column_devices, data_devices):
    self.config = config
    self.net = experiment.make_network(config)
    self.mesh = mesh.make_mesh(config.model.num_columns, column_devices, data_devices)
    self.tx = experiment.make_optimizer(config, self.net)
    self.split = included.digits('train')
    options = experiment.augment_options(config)
    self.step = step_lib.make_train_step(
      self.net,
      self.tx,
      self.mesh,
      options,
      config.train.seed,
      precision=config.train.precision,
      library_fusions=config.train.library_fusions,
      accumulation_steps=config.train.gradient_accumulation_steps,
    )
    replicated = mesh.shardings(self.mesh, mesh.REPLICATED)
    self.replicated = replicated
    found = pipeline.statistics(self.split)
    found = {name: jnp.asarray(array, jnp.float32) for name, array in found.items()}
    self.statistics = jax.device_put(augment.Statistics(**found), replicated)
    self.state = step_lib.init_state(self.net, self.tx, self.mesh, config.train.seed)
    rates = jax.tree.map(lambda _: jnp.asarray(0.02, jnp.float32), self.state.params)
    rates = jax.device_put(rates, replicated)
    self.state = self.state._replace(opt_state=self.state.opt_state._replace(learning_rates=rates))

  def placed(self, state):
    """A state of another mesh, laid out on this one."""
    _, specs = step_lib.state_specs(self.net, self.tx)
    return jax.device_put(jax.device_get(state), mesh.shardings(self.mesh, specs))

  def batches(self, first_step):
    """The batches from a step on."""
    return pipeline.train_batches(
      self.split,
      seed=self.config.train.seed,
      batch_size=self.config.train.batch_size,
      first_step=first_step,
      crop_size=self.net.input_size,
      crop_offsets=self.config.augment.crop_offsets,
      images_per_draw=1,
    )

  def run(self, steps, lighting_std=0.1):
    """Losses of the next steps."""
    losses, std = [], jnp.asarray(lighting_std, jnp.float32)
    read = self.batches(int(self.state.step))
    with contextlib.closing(pipeline.put_batches(read, self.mesh)) as batches:
      for batch in itertools.islice(batches, steps):
        self.state, loss = self.step(self.state, batch, self.statistics, std)
        losses.append(float(loss))
    return np.array(losses)


def step_config(**changes):
  """A layer of every kind, each exchange between columns once, and all draws; seed 1."""
  layers = {f'model.{layer}.features': 0 for layer in ('conv2', 'conv4', 'conv5')}
  return small_config({**layers, 'train.seed': 1, **changes})


@functools.cache
def trainer(column_devices, data_devices, **changes):
  """Compiled once; its state is whatever the last test left."""
  changes = {name.replace('__', '.'): value for name, value in changes.items()}
  return Trainer(step_config(**changes), column_devices, data_devices)


@pytest.fixture(scope='module')
def trained():
  """A state that has left the first plateau (a loss of 2.3), on one device.

  In about one of twenty stretches of ten steps, two of a pool's values are within rounding of
  each other, so that the gradient falls on one, the other or both, and devices part company by
  1e-4. That is so for any max pool; this seed's stretch has no such pair.
  """
  one = trainer(1, 1)
  losses = one.run(200)
  assert losses[-5:].mean() < 1.9
  return jax.device_get(one.state)


@contextlib.contextmanager
def exact_trainer(state, column_devices, data_devices, changes):
  """A trainer in float64 that goes on from a state; for tests with `x64`."""
  # The mean color, because jax 0.10 cannot cut the mean image at int32 offsets in float64.
  config = step_config(**{'augment.mean': 'channel', **changes})
  with config.ignore_type():
    config.train.precision = 'float64'
  with jax.numpy_dtype_promotion('standard'):
    trainer = Trainer(config, column_devices, data_devices)
    params, velocity = jax.tree.map(np.float64, (state.params, state.opt_state.velocity))
    optimizer = state.opt_state._replace(velocity=velocity)
    trainer.state = trainer.placed(state._replace(params=params, opt_state=optimizer))
    yield trainer


def test_a_step_is_the_paper_s_rule_on_the_plain_network_s_gradient(trained, x64):
  """Without draws, in float64; pixels and learning rates are float32."""
  changes = {
    'augment.crop_offsets': 1, 'augment.flip': False, 'model.dropout.rate': 0.0,
    'optimizer.weight_decay': 0.05, 'optimizer.weight_decay_multipliers.fc6': 3.0,
  }  # fmt: skip
  with exact_trainer(trained, 1, 1, changes) as trainer:
    before, net = jax.device_get(trainer.state), trainer.net
    trainer.run(1, lighting_std=0.0)
    [batch] = itertools.islice(trainer.batches(int(before.step)), 1)
    mean = np.mean(np.asarray(trainer.statistics.mean_image), axis=(0, 1))
    pixels = ((batch['image'] - mean) / 32).astype(np.float64)

    def loss(params):
      logits = reference.forward(params, pixels, net)
      return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(logits)), batch['label']])

    gradients = jax.jit(jax.grad(loss))(before.params)
  rate = float(np.float32(0.02))
  for layer, parameters in gradients.items():
    for kind, gradient in parameters.items():
      weights, velocity = (
        np.asarray(tree[layer][kind]) for tree in (before.params, before.opt_state.velocity)
      )
      decay = 0.0 if kind == 'bias' else 0.15 if layer == 'fc6' else 0.05
      velocity = 0.9 * velocity - decay * rate * weights - rate * gradient
      after = trainer.state.opt_state.velocity[layer][kind]
      assert_close(velocity, after, 1e-6)
      assert_close(weights + velocity, trainer.state.params[layer][kind], 1e-6)


@pytest.mark.parametrize(('column_devices', 'data_devices'), [(1, 2), (2, 2)])
def test_any_mesh_trains_as_one_device_does(trained, column_devices, data_devices):
  one, many = trainer(1, 1), trainer(column_devices, data_devices)
  # From rest the velocity is one step's gradient and decay; later, with momentum 0.9, of about ten.
  at_rest = jax.tree.map(np.zeros_like, trained.opt_state.velocity)
  resting = trained._replace(opt_state=trained.opt_state._replace(velocity=at_rest))
  for state, steps in ((resting, 1), (trained, 10)):
    one.state, many.state = one.placed(state), many.placed(state)
    np.testing.assert_allclose(many.run(steps), one.run(steps), rtol=1e-5)
    assert_close(one.state.opt_state.velocity, many.state.opt_state.velocity, 1e-5)
    assert_close(one.state.params, many.state.params, 1e-5)
    assert_close(one.state.sums, many.state.sums, 1e-5)


@pytest.mark.parametrize(
  ('column_devices', 'data_devices', 'in_parts'),
  [(2, 1, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 1, 4), (1, 2, 4)))],
)
def test_microbatches_train_as_the_whole_batch_does(
  trained, x64, column_devices, data_devices, in_parts
):
  """In float64, with the same draws: dropout, mirror images and lighting are on."""

  def run(steps):
    changes = {'train.gradient_accumulation_steps': steps}
    with exact_trainer(trained, column_devices, data_devices, changes) as trainer:
      losses = trainer.run(3)
    return losses, jax.device_get(trainer.state)

  (losses, whole), (in_parts_losses, parts) = run(1), run(in_parts)
  np.testing.assert_allclose(in_parts_losses, losses, rtol=1e-6)  # metrics are float32
  assert parts.params['conv1']['kernel'].dtype == np.float64
  assert_close(whole.params, parts.params, 1e-13)
  assert_close(whole.opt_state.velocity, parts.opt_state.velocity, 1e-12)
  assert_close(whole.sums, parts.sums, 1e-6)


@pytest.mark.slow
def test_microbatches_need_less_memory():
  def temporary_bytes(steps):
    config = small_config({'train.batch_size': 256, 'train.gradient_accumulation_steps': steps})
    trainer = Trainer(config, 1, 1)
    batch = {
      'image': jax.ShapeDtypeStruct((256, 7, 7, 3), jnp.uint8),
      'offset': jax.ShapeDtypeStruct((256, 2), jnp.int32),
      'label': jax.ShapeDtypeStruct((256,), jnp.int32),
    }
    lowered = trainer.step.lower(trainer.state, batch, trainer.statistics, jnp.float32(0.1))
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert temporary_bytes(4) < 0.5 * temporary_bytes(1)


@pytest.mark.slow
def test_library_fusions_change_nothing(trained):
  plain = trainer(2, 2, train__library_fusions=False)
  fused = trainer(2, 2)
  plain.state, fused.state = plain.placed(trained), fused.placed(trained)
  np.testing.assert_allclose(fused.run(10), plain.run(10), rtol=1e-5)
  assert_close(plain.state.params, fused.state.params, 1e-5)


def test_bfloat16_starts_as_float32_does(trained):
  exact, mixed = trainer(2, 2), trainer(2, 2, train__precision='bfloat16')
  exact.state, mixed.state = exact.placed(trained), mixed.placed(trained)
  losses = mixed.run(5)
  np.testing.assert_allclose(losses, exact.run(5), rtol=0.02)
  assert {leaf.dtype for leaf in jax.tree.leaves(mixed.state.params)} == {jnp.dtype(jnp.float32)}
  start = trained.params
  changes = [
    jax.tree.map(np.subtract, jax.device_get(one.state.params), start) for one in (exact, mixed)
  ]
  assert_close(*changes, 0.15)  # at most 0.10 of each array


@pytest.mark.slow
def test_bfloat16_ends_within_the_noise_of_float32_on_cifar10(tmp_path):
  data_dir = real_data('cifar10')

  def last_loss(precision, seed):
    """In a process whose programs are optimized: they compute for longer than they compile."""
    path = tmp_path / f'{precision}{seed}'
    command = (
      '--config=configs/cifar10.py', f'--config.data.data_dir={data_dir}',
      '--config.data.validation_split=test[:1024]', '--config.train.num_steps=120',
      f'--config.train.seed={seed}', f'--config.train.precision={precision}', f'--workdir={path}',
    )  # fmt: skip
    with start(*command, XLA_FLAGS='') as process:
      process.communicate()
    assert process.returncode == 0
    return lines(path)[-1]['loss']

  one, other, mixed = last_loss('float32', 0), last_loss('float32', 1), last_loss('bfloat16', 0)
  assert max(one, other) < 2.1  # ln 10 is 2.3: it has learned something to lose
  assert abs(one - mixed) < max(0.03, 2 * abs(one - other))


def test_another_seed_trains_otherwise(trained):
  one, other = trainer(1, 1), trainer(1, 1, train__seed=0)
  one.state, other.state = one.placed(trained), other.placed(trained)
  assert np.abs(one.run(3) - other.run(3)).max() > 1e-2
