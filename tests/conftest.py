"""Four emulated devices, strict shapes and dtypes, and small data for all tests."""

import gc
import importlib.metadata
import importlib.util
import os

# Compiling is most of the tests' work. Without LLVM's optimizations and XLA's fusion emitters, which
# jaxlib 0.11 and later have alone, it takes a quarter of the time, and so small programs run as fast.
# 0.8 crashes with less optimization. In one part each, they take an eighth less than in several.
os.environ['XLA_FLAGS'] = (
  f'{os.environ.get("XLA_FLAGS", "")} --xla_cpu_parallel_codegen_split_count=1'
)
if importlib.metadata.version('jaxlib').startswith(('0.7.', '0.9.', '0.10.')):
  os.environ['XLA_FLAGS'] += (
    ' --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'
  )
elif not importlib.metadata.version('jaxlib').startswith('0.8.'):
  os.environ['XLA_FLAGS'] += ' --xla_backend_optimization_level=1'

import jax
import pytest

from alexnet_jax.utils.errors import UserError

# What an environment may say of terminals; tests of terminals say it themselves.
for name in ('FORCE_COLOR', 'NO_COLOR', 'COLUMNS', 'LINES', 'TTY_COMPATIBLE', 'TTY_INTERACTIVE'):
  os.environ.pop(name, None)
os.environ['TERM'] = 'xterm'

WITHOUT_TENSORFLOW = importlib.util.find_spec('tensorflow') is None

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_numpy_dtype_promotion', 'strict')


def _skipping():
  """Sets a test up, or runs it; without TensorFlow, as on Python 3.14, what needs it is skipped."""
  try:
    return (yield)
  except UserError as error:
    if WITHOUT_TENSORFLOW and 'needs TensorFlow' in str(error):
      pytest.skip(str(error))
    raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
  return (yield from _skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
  return (yield from _skipping())


@pytest.fixture(scope='module', autouse=True)
def collect_less():
  """Garbage is not looked for among what modules before have left, at which each collection takes long."""
  gc.freeze()


@pytest.fixture(scope='session', autouse=True)
def compile_once(tmp_path_factory):
  """Tests compile many equal programs; the second time they come from a cache."""
  jax.config.update('jax_compilation_cache_dir', str(tmp_path_factory.mktemp('jax')))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.02)
  return


@pytest.fixture(scope='module')
def chromium():
  """A browser without a window."""
  from benchmarks import browser  # which few tests need

  program = browser.program()
  if program is None:
    pytest.skip('no browser was found: install chromium (apt-get install chromium)')
  with browser.started(program) as started:
    yield started


@pytest.fixture
def no_other_folder(monkeypatch, tmp_path):
  """What forgets to say where to write does not write into the home folder."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))


@pytest.fixture
def x64():
  """float64 within a test."""
  jax.config.update('jax_enable_x64', True)  # not the context, which JAX 0.7 has elsewhere
  yield
  jax.config.update('jax_enable_x64', False)
