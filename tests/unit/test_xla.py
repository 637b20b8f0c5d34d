"""The options of XLA: where they are used, and that values and gradients under them are right."""

import itertools
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import experiment
from alexnet_jax.models import layers
from alexnet_jax.parallel import xla
from configs import imagenet
from tests import reference

ROOT = Path(__file__).parents[2]
NAME = 'xla_cpu_experimental_ynn_fusion_type'
RELEASE = jax.version.__version_info__[:2]
FASTER = {NAME} if RELEASE >= (0, 10) else set()  # older ones have no library to choose


@pytest.fixture
def no_flags(monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)


@pytest.fixture
def cache(monkeypatch):
  """jax without a cache, as it starts; the tests' own comes back afterwards."""
  names = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_compilation_cache_dir', None)
  monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)  # as it was, afterwards
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_the_library_is_chosen_on_cpus_only(no_flags):
  assert xla.options('cpu').keys() == FASTER
  assert xla.options('cpu', library_fusions=False) == {}
  assert xla.options('gpu') == {}


def test_a_version_that_was_not_measured_has_the_newest_choice_where_it_takes_it(
  no_flags, monkeypatch
):
  monkeypatch.setattr(xla.jaxlib.version, '__version__', '0.99.1')
  known = RELEASE >= (0, 8)
  assert xla.options('cpu').keys() == ({NAME} if known else set())
  if known:
    described = xla.describe('cpu')
    assert f'{NAME}=LIBRARY_FUSION_TYPE' in described
    assert 'jaxlib 0.99.1 was not measured' in described
  monkeypatch.setattr(xla, 'takes', lambda **options: False)
  assert xla.options('cpu') == {}
  assert xla.describe('cpu') == 'none for cpu with jaxlib 0.99.1'


def test_an_option_or_a_value_that_xla_does_not_know_is_not_taken():
  assert not xla.takes(xla_no_such_option='1')
  assert not xla.takes(xla_disable_hlo_passes='x', xla_no_such_option='1')
  assert xla.takes(xla_disable_hlo_passes='cse_barrier_expander')


def test_the_user_s_own_choice_of_library_stands(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', f'--{NAME}=LIBRARY_FUSION_TYPE_DOT')
  assert xla.options('cpu') == {}


def test_the_network_under_the_options_is_the_plain_one(no_flags):
  """The paper's layers at their own widths, on few pixels, values and gradients."""
  config = imagenet.get_config()
  config.model.input_size = 67  # 16x16, 7x7 and 3x3 maps, pooled to 1x1
  config.model.fc6.features = config.model.fc7.features = 256
  config.model.initialization = 'he'
  net = experiment.make_network(config)
  images = jax.random.normal(jax.random.key(1), (4, 67, 67, 3))
  params = net.init(jax.random.key(0), images)['params']
  weights = jax.random.normal(jax.random.key(2), (4, 1000))

  def logits_and_gradients(params, images):
    logits, pullback = jax.vjp(lambda params: net.apply({'params': params}, images)[0], params)
    return logits, pullback(weights)[0]

  options = xla.options('cpu')
  compiled = jax.jit(logits_and_gradients, compiler_options=options).lower(params, images).compile()
  assert ('__ynn_fusion' in compiled.as_text()) == bool(FASTER)
  actual = compiled(params, images)
  expected = reference.value_and_gradients(params, images, weights, net)

  def close(a, b):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * float(jnp.abs(b).max()))

  jax.tree.map(close, actual, expected)


def test_products_of_any_shape_under_the_options_are_right(no_flags):
  options = xla.options('cpu')
  for rows, inner, columns in [(1, 1, 1), (3, 7, 5), (128, 33, 1), (1, 257, 64), (65, 64, 63)]:
    a = jax.random.normal(jax.random.key(0), (rows, inner))
    b = jax.random.normal(jax.random.key(1), (inner, columns))
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)):
      x, y = a.astype(dtype), b.astype(dtype)
      actual = jax.jit(jnp.matmul, compiler_options=options)(x, y)
      assert actual.dtype == dtype
      exact = np.asarray(x, np.float64) @ np.asarray(y, np.float64)
      scale = np.sqrt(inner) * max(1.0, np.abs(exact).max())
      np.testing.assert_allclose(np.asarray(actual, np.float64), exact, atol=tolerance * scale)


def test_bfloat16_computes_in_bfloat16_and_sums_in_float32():
  x = jnp.full((2, 3, 3, 64), 16.0, jnp.bfloat16)
  y, pullback = jax.vjp(lambda x: layers.response_norm(x, 5, 2.0, 1e-4, 0.75, (3,)), x)
  assert y.dtype == pullback(y)[0].dtype == jnp.bfloat16
  # 5 * 16^2 is 1280, which bfloat16 holds, but not 2 + 0.128.
  expected = 16.0 / (2 + 1e-4 * 1280) ** 0.75
  np.testing.assert_allclose(np.asarray(y[0, 0, 0, 5], np.float32), expected, rtol=2**-8)
  config = imagenet.get_config()
  config.model.input_size = 67
  config.model.fc6.features = config.model.fc7.features = 64
  net = experiment.make_network(config)
  image = jax.ShapeDtypeStruct((1, 67, 67, 3), jnp.bfloat16)
  (logits, outputs), variables = jax.eval_shape(net.init_with_output, jax.random.key(0), image)
  assert logits.dtype == jnp.float32
  assert {outputs[name].dtype for name in ('conv1', 'conv1_norm', 'fc7')} == {
    jnp.dtype(jnp.bfloat16)
  }
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_the_cache_is_the_user_s_own_folder(cache, monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  xla.use_cache()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'alexnet_jax')
  repairing = warnings.showwarning
  xla.use_cache()
  assert warnings.showwarning is repairing  # once
  with monkeypatch.context() as patch:  # as at the end of a command in a notebook
    patch.setattr(warnings, 'showwarning', print)
    xla.use_cache()
    assert warnings.showwarning is not print
  assert (tmp_path / 'alexnet_jax').is_dir()


def test_a_cache_that_the_user_chose_stands(cache, monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', '/somewhere')
  xla.use_cache()
  assert jax.config.jax_compilation_cache_dir == '/somewhere'
  assert list(tmp_path.iterdir()) == []


def test_without_a_folder_to_write_there_is_no_cache(cache, monkeypatch, tmp_path):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  xla.use_cache()
  assert jax.config.jax_compilation_cache_dir is None
  if os.geteuid():  # root may write anywhere
    (tmp_path / 'read-only').mkdir()
    (tmp_path / 'read-only').chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'read-only'))
    xla.use_cache()
    assert jax.config.jax_compilation_cache_dir is None


COMPILED = """
import jax, sys, warnings
from alexnet_jax.parallel import xla
xla.use_cache()
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
print(jax.jit(lambda x: x * 2)(21), jax.jit(lambda x: x * 3)(21))
warnings.warn('another')
"""


def test_a_compiled_program_that_is_not_whole_is_written_again(tmp_path):
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
  folder = tmp_path / 'alexnet_jax'
  whole = {}
  for _ in ('as they are written', 'damaged'):
    for path, part in zip(sorted(folder.glob('*-cache')), itertools.cycle((0.5, 0)), strict=False):
      content = path.read_bytes()
      path.write_bytes(content[: int(part * len(content))])
    done = subprocess.run(
      [sys.executable, '-c', COMPILED],
      cwd=ROOT,
      env=environment | {'XDG_CACHE_HOME': str(tmp_path)},
      capture_output=True,
      text=True,
    )
    assert done.stdout == '42 63\n'
    assert 'another' in done.stderr
    assert 'Error' not in done.stderr
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    whole = whole or sizes
    assert sizes.keys() == whole.keys()
    assert sum(name.endswith('-cache') for name in sizes) >= 2
    # To a few bytes: a program is kept with the seconds that compiling it took.
    assert all(size > 0.9 * whole[name] for name, size in sizes.items())
