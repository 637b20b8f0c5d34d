"""The layout of devices, the errors where it does not work out, and who has which part of what."""

import importlib.metadata
import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from alexnet_jax.data import pipeline
from alexnet_jax.parallel import mesh
from alexnet_jax.utils.errors import UserError
from tests import two_processes

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def some_devices(monkeypatch):
  """Leaves jax so many of its four devices."""
  four = jax.devices()

  def leave(count):
    monkeypatch.setattr(jax, 'devices', lambda: four[:count])

  return leave


def test_columns_stay_within_a_process(some_devices, monkeypatch):
  some_devices(4)
  assert mesh.make_mesh(2).devices.shape == (2, 2)
  monkeypatch.setattr(jax, 'local_device_count', lambda: 1)  # of four processes
  assert mesh.make_mesh(2).devices.shape == (4, 1)


def test_a_process_without_a_device_is_named(some_devices, monkeypatch):
  some_devices(4)
  monkeypatch.setattr(jax, 'process_count', lambda: 2)  # the devices are those of the first
  with pytest.raises(UserError, match='leaves process 1 without a device; start fewer processes'):
    mesh.make_mesh(2, 2, 1)


@pytest.fixture
def machine(monkeypatch, tmp_path):
  """A machine with such device files and packages, whose jax sees CPUs; None is not installed."""
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  monkeypatch.setattr(mesh, '_DEVICE_FILES', tmp_path)
  monkeypatch.setattr(jax, '__version__', '0.10.2')
  platforms = jax.config.jax_platforms
  jax.config.update('jax_platforms', None)

  def make(files, cuda12=None, cuda13=None):
    for name in files:
      (tmp_path / name).touch()
    versions = {
      'jaxlib': '0.10.2', 'jax-cuda12-plugin': cuda12, 'jax-cuda13-plugin': cuda13
    }  # fmt: skip

    def version(name):
      if versions[name] is None:
        raise importlib.metadata.PackageNotFoundError(name)
      return versions[name]

    monkeypatch.setattr(importlib.metadata, 'version', version)

  yield make
  jax.config.update('jax_platforms', platforms)


@pytest.mark.parametrize(
  ('plugins', 'words'),
  [
    ({}, ('is not installed', 'pip install "jax[cuda13]==0.10.2"')),
    ({'cuda12': '0.10.2'}, ('could not use the NVIDIA GPU', 'nvidia-smi')),
    (
      {'cuda12': '0.7.2'},
      ('jax-cuda12-plugin 0.7.2 does not match jaxlib 0.10.2', 'pip install "jax[cuda12]==0.10.2"'),
    ),
  ],
)
def test_a_gpu_that_jax_does_not_see_is_told_with_what_to_install(machine, plugins, words):
  machine(['nvidia0', 'nvidiactl'], **plugins)
  message = mesh.missing_gpu()
  assert message.startswith('JAX computes on the CPU: ')
  assert len(message.splitlines()) == 2
  for word in words:
    assert word in message


def test_a_plugin_that_does_not_fit_is_told_wherever_it_is(machine):
  machine([], cuda13='0.11.2')
  assert 'jax-cuda13-plugin 0.11.2 does not match jaxlib 0.10.2' in mesh.missing_gpu()


def test_nothing_is_told_where_there_is_no_gpu_or_the_user_chose_the_cpu(machine, monkeypatch):
  machine(['nvidiactl'])
  assert mesh.missing_gpu() is None
  machine(['nvidia0'])
  assert mesh.missing_gpu()
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
  assert mesh.missing_gpu()
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
  assert mesh.missing_gpu() is None
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
  jax.config.update('jax_platforms', 'cpu')
  assert mesh.missing_gpu() is None


def test_a_missing_gpu_is_told_once(monkeypatch, capsys):
  monkeypatch.setattr(mesh, 'missing_gpu', lambda: 'JAX computes on the CPU: because')
  mesh.warn_missing_gpu.cache_clear()
  mesh.make_mesh(2)
  mesh.make_mesh(1)
  assert capsys.readouterr().err == 'JAX computes on the CPU: because\n'


@pytest.mark.parametrize(
  ('num_devices', 'num_columns', 'column_devices', 'data_devices', 'shape'),
  [
    (4, 2, 'auto', 'auto', (2, 2)),
    (4, 2, 2, 'auto', (2, 2)),
    (4, 2, 1, 'auto', (4, 1)),
    (4, 1, 'auto', 'auto', (4, 1)),
    (4, 1, 1, 'auto', (4, 1)),
    (4, 2, 'auto', 1, (1, 2)),
    (4, 2, 'auto', 2, (2, 2)),
    # Three pairs are not there, three single devices are.
    (4, 2, 'auto', 3, (3, 1)),
    (4, 2, 2, 1, (1, 2)),
    (4, 2, 1, 2, (2, 1)),
    (3, 2, 'auto', 'auto', (3, 1)),
    (2, 2, 'auto', 'auto', (1, 2)),
    (1, 2, 'auto', 'auto', (1, 1)),
    (3, 2, 2, 1, (1, 2)),
  ],
)
def test_devices_are_laid_out_as_data_by_column(
  some_devices, num_devices, num_columns, column_devices, data_devices, shape
):
  some_devices(num_devices)
  made = mesh.make_mesh(num_columns, column_devices, data_devices)
  assert made.axis_names == ('data', 'column')
  assert made.devices.shape == shape
  assert len(set(made.devices.flat)) == shape[0] * shape[1]


@pytest.mark.parametrize(
  ('num_devices', 'num_columns', 'column_devices', 'data_devices', 'there_wanted_and_to_set'),
  [
    (4, 2, 2, 3, ['are 4 cpu devices', 'needs 6', 'set mesh.column_devices=1', '_count=6']),
    (4, 2, 1, 5, ['are 4 cpu devices', 'needs 5', 'fewer mesh.data_devices', '_count=5']),
    (1, 2, 2, 'auto', ['is 1 cpu device,', 'needs 2', 'set mesh.column_devices=1', '_count=2']),
    (4, 2, 3, 'auto', ['2 columns', '3 devices', 'set mesh.column_devices to 1 or auto']),
    (4, 1, 2, 'auto', ['1 column ', '2 devices', 'set mesh.column_devices to 1 or auto']),
    (3, 2, 2, 'auto', ['3 cpu devices', 'pairs', 'mesh.column_devices=1', 'data_devices=1']),
    (4, 2, 'both', 'auto', ["mesh.column_devices is 'both'", "'auto' or a number"]),
    (4, 2, 'auto', '2', ["mesh.data_devices is '2'", "'auto' or a number"]),
    (4, 2, 0, 'auto', ['mesh.column_devices is 0', "'auto' or a number from 1"]),
    (4, 2, 'auto', -1, ['mesh.data_devices is -1', "'auto' or a number from 1"]),
  ],
)
def test_errors_name_what_is_there_wanted_and_to_set(
  some_devices, num_devices, num_columns, column_devices, data_devices, there_wanted_and_to_set
):
  some_devices(num_devices)
  with pytest.raises(UserError) as refused:
    mesh.make_mesh(num_columns, column_devices, data_devices)
  for words in there_wanted_and_to_set:
    assert words in str(refused.value)


def test_parameters_are_split_on_their_outputs_and_fc8_on_its_inputs():
  params = {
    'conv1': {'kernel': np.zeros((3, 3, 3, 8)), 'bias': np.zeros(8)},
    'fc6': {'kernel': np.zeros((16, 8)), 'bias': np.zeros(8)},
    'fc8': {'kernel': np.zeros((8, 3)), 'bias': np.zeros(3)},
  }
  assert mesh.parameter_specs(params) == {
    'conv1': {
      'kernel': PartitionSpec(None, None, None, 'column'),
      'bias': PartitionSpec('column'),
    },
    'fc6': {'kernel': PartitionSpec(None, 'column'), 'bias': PartitionSpec('column')},
    'fc8': {'kernel': PartitionSpec('column', None), 'bias': PartitionSpec()},
  }


def test_column_0_owns_the_first_half_of_the_outputs():
  params = {'fc6': {'kernel': np.arange(12.0, dtype=np.float32).reshape(2, 6)}}
  made = mesh.make_mesh(2, 2, 1)
  placed = jax.device_put(params, mesh.shardings(made, mesh.parameter_specs(params)))
  kernel = params['fc6']['kernel']
  parts = {part.device: part.data for part in placed['fc6']['kernel'].addressable_shards}
  np.testing.assert_array_equal(parts[made.devices[0, 0]], kernel[:, :3])
  np.testing.assert_array_equal(parts[made.devices[0, 1]], kernel[:, 3:])


@pytest.mark.parametrize(
  ('flags', 'arguments', 'count'),
  [
    ('', '2, 1, 3', 3),
    ('--xla_force_host_platform_device_count=4', '2, "auto", "auto"', 4),
  ],
)
def test_cpu_devices_are_emulated_unless_the_user_counted_them(flags, arguments, count):
  code = (
    'import jax; from alexnet_jax.parallel import mesh;'
    f'mesh.emulate_cpu_devices({arguments}); print(len(jax.devices("cpu")))'
  )
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_NUM_CPU_DEVICES'}
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=REPOSITORY,
    env=environment | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert int(done.stdout) == count


@pytest.fixture(scope='module', params=sorted(two_processes.MESHES))
def two(request, tmp_path_factory):
  """The layouts of two processes' devices, and what each process has of the batches."""
  folder = tmp_path_factory.mktemp('two')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
  files = [folder / f'{process}.npz' for process in (0, 1)]
  started = [
    subprocess.Popen(
      [sys.executable, '-m', 'tests.two_processes']
      + [str(argument) for argument in (port, process, request.param, file)],
      cwd=REPOSITORY,
      env=environment,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for process, file in enumerate(files)
  ]
  try:
    for process in started:
      _, err = process.communicate(timeout=100)
      assert process.returncode == 0, err
  finally:
    for process in started:
      process.kill()
      process.wait()
  return two_processes.MESHES[request.param], [dict(np.load(file)) for file in files]


@pytest.mark.parametrize('how', ['train', 'evaluation'])
def test_two_processes_have_the_batch_that_one_has(two, how):
  layouts, processes = two
  whole = list(two_processes.read(how))
  for layout in layouts:
    for (step, batch), name in itertools.product(enumerate(whole), whole[0]):
      start = f'{layout}/{how}/{step}/{name}/shard '
      devices, rows = set(), []
      for process, key in ((p, k) for p in processes for k in p if k.startswith(start)):
        first, last, device = map(int, key.removeprefix(start).split())
        assert process[key].dtype == batch[name].dtype
        np.testing.assert_array_equal(process[key], batch[name][first:last])
        devices.add(device)
        rows += range(first, last)
      _, column_devices, data_devices = layout
      assert len(devices) == column_devices * data_devices
      assert sorted(rows) == sorted(list(range(two_processes.BATCH_SIZE)) * column_devices)


@pytest.mark.parametrize('how', ['train', 'evaluation'])
def test_two_processes_compute_with_the_whole_batch(two, how):
  layouts, processes = two
  for layout, process in itertools.product(layouts, processes):
    for step, batch in enumerate(two_processes.read(how)):
      for name, array in batch.items():
        assert process[f'{layout}/{how}/{step}/{name}/total'] == array.sum()


def test_processes_read_what_their_devices_need_and_no_more(two):
  rows = {
    (2, 2, 1): [(0, 12), (0, 12)],  # the columns lie on two processes: both need all
    (1, 1, 2): [(0, 6), (6, 12)],
    (2, 2, 3): [(0, 8), (4, 12)],  # the second pair of columns lies on both
  }
  layouts, processes = two
  for layout in layouts:
    assert [tuple(process[f'{layout}/rows']) for process in processes] == rows[layout]


@pytest.mark.parametrize(('column_devices', 'data_devices'), [(1, 1), (2, 1), (2, 2), (1, 4)])
def test_one_process_reads_all_rows(column_devices, data_devices):
  made = mesh.make_mesh(2, column_devices, data_devices)
  assert mesh.local_rows(made, 12) == slice(0, 12)
  [placed] = pipeline.put_batches((batch for batch in [{'label': np.arange(12)}]), made)
  np.testing.assert_array_equal(placed['label'], np.arange(12))
  assert placed['label'].sharding.spec == mesh.BATCH
  assert len(placed['label'].addressable_shards) == column_devices * data_devices
