"""Too little memory is foreseen, from what a step takes and what is free, and a batch that fits named."""

import re
import types

import jax
import numpy as np
import pytest

from alexnet_jax.checkpoints import checkpoint
from alexnet_jax.parallel import memory
from alexnet_jax.training import loop
from alexnet_jax.utils.errors import UserError
from tests.small import lines, small_config

FEW_LAYERS = {
  **{f'model.{layer}.features': 0 for layer in ('conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7')},
  'augment.lighting.std': (),
  'model.response_norm.layers': (),
  'model.num_columns': 1,
  'mesh.data_devices': 2,
  'train.batch_size': 640,
  'train.num_steps': 2,
}


def test_too_little_memory_is_foreseen_and_the_batch_that_is_named_trains(
  tmp_path, monkeypatch, caplog
):
  config = small_config(FEW_LAYERS)
  monkeypatch.setattr(memory, 'free_on_host', lambda: 3_000_000)
  with pytest.raises(UserError) as error:
    loop.train_and_evaluate(config, tmp_path)
  message = str(error.value)
  assert message.startswith('training with train.batch_size=640 needs ')
  assert ', but only 3 MB are free; ' in message
  assert '--config.train.gradient_accumulation_steps (now 1)' in message
  assert len(message.splitlines()) == 2
  assert (tmp_path / 'metrics.jsonl').read_text() == ''
  assert checkpoint.steps(tmp_path / 'checkpoints') == []

  config.train.batch_size = int(re.search(r'--config.train.batch_size=(\d+) fits', message)[1])
  assert 64 < config.train.batch_size < 640
  assert config.train.batch_size % 2 == 0  # devices
  with jax.log_compiles():
    loop.train_and_evaluate(config, tmp_path)
  assert lines(tmp_path)[-1]['step'] == 2
  # Training's and validation's: to ask for the memory costs no compilation of its own.
  assert sum(text.startswith('Compiling jit(step) ') for text in caplog.messages) == 2


def test_no_batch_is_named_where_none_fits(tmp_path, monkeypatch):
  monkeypatch.setattr(memory, 'free_on_host', lambda: 5_000)
  with pytest.raises(
    UserError, match=r'but only 0 MB are free; no batch fits\nIt takes more devices'
  ):
    loop.train_and_evaluate(small_config(FEW_LAYERS), tmp_path)
  assert not lines(tmp_path)


@pytest.mark.parametrize(
  ('bytes_of', 'free', 'fits', 'questions'),
  [
    (lambda size: 100 + 10 * size, 600, 48, 1),
    (lambda size: 100 + 10 * size, 580, 48, 1),
    (lambda size: 100 + 10 * size, 579, 44, 2),
    (lambda size: 10 * size, 600, 60, 1),
    (lambda size: 100 + 10 * size, 139, 0, 1),
    (lambda size: 700, 600, 0, 1),
    (lambda size: 100 + 10 * size, 30, 0, 0),
  ],
)
def test_the_batch_that_fits_lies_on_a_line_through_those_that_do_not(
  bytes_of, free, fits, questions
):
  asked = []

  def ask(size):
    asked.append(size)
    return bytes_of(size)

  assert memory.batch_that_fits(ask, 64, bytes_of(64), 4, free) == fits
  assert len(asked) == questions


def test_free_memory_is_that_of_the_fullest_device_of_this_process():
  def mesh(*stats):
    devices = [types.SimpleNamespace(platform='gpu', memory_stats=lambda s=s: s) for s in stats]
    local = types.SimpleNamespace(devices=np.array(devices, object))
    return types.SimpleNamespace(devices=local.devices, local_mesh=local)

  roomy, full = ({'bytes_limit': 90, 'bytes_in_use': used} for used in (10, 80))
  assert memory.free(mesh(roomy, full)) == 10
  assert memory.free(mesh(roomy, None)) is None
  assert memory.free(mesh({'bytes_in_use': 1})) is None


MEMINFO = 'MemTotal: 100 kB\nMemAvailable: 50 kB\nSwapFree: 10 kB\nHugePages_Total: 0\n'


def system(root, groups, files):
  """A made-up /proc and /sys/fs/cgroup."""
  files = {'proc/meminfo': MEMINFO, 'proc/self/cgroup': groups, **files}
  for name, content in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
  return root


def version_2(folder, limit):
  return {
    f'sys/fs/cgroup/{folder}memory.max': f'{limit}\n',
    f'sys/fs/cgroup/{folder}memory.current': '12000\n',
    f'sys/fs/cgroup/{folder}memory.stat': 'anon 7000\nactive_file 2000\ninactive_file 1000\n',
  }


@pytest.mark.parametrize(
  ('files', 'free'),
  [
    ({}, 50 * 1024),
    (version_2('', 20_000), 11_000),  # a container, of which this is the whole
    (version_2('job/step/', 20_000), 11_000),
    ({**version_2('job/step/', 'max'), **version_2('job/', 20_000)}, 11_000),
    ({**version_2('job/step/', 30_000), **version_2('job/', 20_000)}, 11_000),
    (version_2('job/step/', 9_000_000), 50 * 1024),
    (version_2('other/', 20_000), 50 * 1024),
    ({**version_2('job/', 20_000), 'sys/fs/cgroup/job/memory.stat': ''}, 50 * 1024),
  ],
)
def test_free_memory_is_that_of_the_narrowest_limit_and_swap(tmp_path, files, free):
  assert memory.free_on_host(system(tmp_path, '0::/job/step\n', files)) == free + 10 * 1024


@pytest.mark.parametrize(('limit', 'free'), [('20000', 12_000), ('9223372036854771712', 50 * 1024)])
def test_free_memory_knows_the_first_version_of_cgroups(tmp_path, limit, free):
  folder = 'sys/fs/cgroup/memory'
  files = {
    f'{folder}/memory.limit_in_bytes': limit,
    f'{folder}/memory.usage_in_bytes': '12000',
    f'{folder}/memory.stat': 'active_file 0\ntotal_active_file 1000\ntotal_inactive_file 3000\n',
  }
  groups = '9:cpu,cpuacct:/\n4:memory:/docker/1f\n0::/\n'  # a container, by its host's name
  assert memory.free_on_host(system(tmp_path, groups, files)) == free + 10 * 1024


def test_free_memory_is_not_known_without_proc(tmp_path):
  assert memory.free_on_host(tmp_path) is None
  (system(tmp_path, '', {}) / 'proc/meminfo').write_text('MemTotal: 100 kB\n')
  assert memory.free_on_host(tmp_path) is None
