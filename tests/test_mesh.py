"""The layout of four emulated devices, the errors where it does not work out, and the splits."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from alexnet_jax import mesh
from alexnet_jax.errors import UserError


@pytest.fixture
def some_devices(monkeypatch):
  """Leaves jax so many of its four devices."""
  four = jax.devices()

  def leave(count):
    monkeypatch.setattr(jax, 'devices', lambda: four[:count])

  return leave


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
    (4, 2, 2, 3, ['are 4 cpu devices', 'wants 6', 'set mesh.column_devices=1', '_count=6']),
    (4, 2, 1, 5, ['are 4 cpu devices', 'wants 5', 'fewer mesh.data_devices', '_count=5']),
    (1, 2, 2, 'auto', ['is 1 cpu device,', 'wants 2', 'set mesh.column_devices=1', '_count=2']),
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
    ('', "2, 'auto', 'auto'", 2),
    ('', '2, 1, 3', 3),
    ('--xla_force_host_platform_device_count=4', "2, 'auto', 'auto'", 4),
  ],
)
def test_cpu_devices_are_emulated_unless_the_user_counted_them(flags, arguments, count):
  code = (
    'import jax; from alexnet_jax import mesh;'
    f'mesh.emulate_cpu_devices({arguments}); print(len(jax.devices("cpu")))'
  )
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_NUM_CPU_DEVICES'}
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=Path(__file__).parents[1],
    env=environment | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert int(done.stdout) == count
