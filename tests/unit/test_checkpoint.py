"""Checkpoints are read as they were written, on any devices, or refused as damaged."""

import gc
import json
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from alexnet_jax.checkpoints import checkpoint
from alexnet_jax.parallel import mesh

DESCRIPTION = {
  'step': 3,
  'best': None,
  'error': 0.1 + 0.2,
  'tiny': 1e-300,
  'cuts': (25, (51, 79.5)),
  'names': {'a': ['\u00e9', 'b'], 'nothing': {}},
  'done': False,
}


def make_trees(seed=0):
  rng = np.random.default_rng(seed)
  params = {
    'conv1': {
      'kernel': rng.standard_normal((5, 5, 3, 8)).astype(np.float32),
      'bias': rng.standard_normal(8).astype(np.float32),
    },
    'fc8': {
      'kernel': rng.standard_normal((8, 3)).astype(np.float32),
      'bias': rng.standard_normal(3).astype(np.float32),
    },
  }
  counts = {'step': np.int32(3), 'half': np.asarray(rng.standard_normal(7), jnp.bfloat16)}
  return {'params': params, 'counts': counts}


def layouts(trees, column_devices):
  """The sharding of every leaf: parameters split over columns, the rest replicated."""
  devices = mesh.make_mesh(2, column_devices, 1)
  specs = {
    'params': mesh.parameter_specs(trees['params']),
    'counts': jax.tree.map(lambda _: mesh.REPLICATED, trees['counts']),
  }
  return mesh.shardings(devices, specs)


def abstract(trees, column_devices=1):
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    trees,
    layouts(trees, column_devices),
  )


def write(directory, saves, keep=100):
  """Writes checkpoints; saves are (step, trees, description, best step)."""
  writer = checkpoint.Writer(directory, keep)
  for save in saves:
    writer.save(*save)
  writer.close()


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert (x.shape, x.dtype) == (y.shape, y.dtype)
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_trees_and_description_come_back(tmp_path):
  trees = make_trees()
  write(tmp_path, [(3, trees, DESCRIPTION, None)])
  restored, description = checkpoint.read(tmp_path, 3, abstract(trees))
  assert_same(restored, trees)
  assert description == json.loads(json.dumps(DESCRIPTION))
  assert description['error'] == 0.1 + 0.2
  assert description['best'] is None
  assert description['cuts'] == [25, [51, 79.5]]


def test_one_tree_can_be_read_alone(tmp_path):
  trees = make_trees()
  write(tmp_path, [(3, trees, {}, None)])
  restored, _ = checkpoint.read(tmp_path, 3, {'params': abstract(trees)['params']})
  assert_same(restored, {'params': trees['params']})


@pytest.mark.parametrize(('written_on', 'read_on'), [(2, 1), (1, 2), (2, 2)])
def test_columns_written_on_one_layout_are_read_on_another(tmp_path, written_on, read_on):
  trees = make_trees()
  write(tmp_path, [(0, jax.device_put(trees, layouts(trees, written_on)), {}, None)])
  restored, _ = checkpoint.read(tmp_path, 0, abstract(trees, read_on))
  assert_same(restored, trees)
  for leaf, sharding in zip(
    jax.tree.leaves(restored), jax.tree.leaves(layouts(trees, read_on)), strict=True
  ):
    assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
  assert len(restored['params']['conv1']['kernel'].sharding.device_set) == read_on


def test_arrays_may_go_once_save_returns(tmp_path):
  # The next step donates the state's buffers while the checkpoint is still being written.
  trees = make_trees()
  placed = jax.device_put(trees, layouts(trees, 2))
  writer = checkpoint.Writer(tmp_path, keep=1)
  writer.save(1, placed, {}, None)
  for leaf in jax.tree.leaves(placed):
    leaf.delete()
  writer.close()
  assert_same(checkpoint.read(tmp_path, 1, abstract(trees))[0], trees)


def test_a_checkpoint_of_the_same_step_takes_the_others_place(tmp_path):
  trees, others = make_trees(), jax.tree.map(lambda leaf: leaf + leaf, make_trees())
  write(tmp_path, [(1, trees, {}, None), (1, others, {}, None), (2, trees, {}, None)], keep=2)
  assert_same(checkpoint.read(tmp_path, 1, abstract(trees))[0], others)
  assert {path.name for path in tmp_path.iterdir()} == {'1', '2'}


@pytest.mark.parametrize('killed_before', ['writing', 'deleting'])
def test_a_checkpoint_that_was_to_be_replaced_is_there_until_the_new_one_is(
  tmp_path, monkeypatch, killed_before
):
  trees, others = make_trees(), jax.tree.map(lambda leaf: leaf + leaf, make_trees())
  write(tmp_path, [(1, trees, {}, None)])
  with monkeypatch.context() as patch:
    target = (
      (ocp.CheckpointManager, 'save')
      if killed_before == 'writing'
      else (checkpoint, 'restore_replaced')
    )
    patch.setattr(*target, mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
      write(tmp_path, [(1, others, {}, None)])
  checkpoint.restore_replaced(tmp_path)
  expected = trees if killed_before == 'writing' else others
  assert_same(checkpoint.read(tmp_path, 1, abstract(trees))[0], expected)
  assert [path.name for path in tmp_path.iterdir()] == ['1']


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A folder with checkpoint 1, written on two devices."""
  directory = tmp_path_factory.mktemp('saved')
  trees = make_trees()
  write(directory, [(1, jax.device_put(trees, layouts(trees, 2)), DESCRIPTION, 1)])
  return directory


def flip_bit(content, where):
  position = int(len(content) * where)
  return (
    content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :]
  )


# Orbax leaves broken coroutines behind where reading fails.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize(
  'damage',
  [
    pytest.param(lambda content: flip_bit(content, 0.5), id='bit-in-the-middle'),
    pytest.param(
      lambda content: flip_bit(content, 0.85), id='bit-in-the-last-quarter', marks=pytest.mark.slow
    ),
    pytest.param(
      lambda content: content[: len(content) // 2], id='cut-in-half', marks=pytest.mark.slow
    ),
    pytest.param(lambda content: content[:-1], id='last-byte-missing', marks=pytest.mark.slow),
    pytest.param(lambda content: b'', id='emptied', marks=pytest.mark.slow),
  ],
)
def test_damage_to_any_file_is_noticed_or_harmless(tmp_path, saved, damage):
  directory = tmp_path / 'checkpoints'
  shutil.copytree(saved, directory)
  trees = make_trees()
  files = [path for path in sorted(directory.rglob('*')) if path.is_file()]
  noticed = []
  for path in files:
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    try:
      restored, description = checkpoint.read(directory, 1, abstract(trees))
    except checkpoint.DamagedError as error:
      noticed.append(str(error))
    else:
      assert_same(restored, trees)
      assert description == json.loads(json.dumps(DESCRIPTION))
    path.write_bytes(content)
  assert all(message and len(message.splitlines()) == 1 for message in noticed)
  assert 0 < len(noticed) < len(files)
  assert_same(checkpoint.read(directory, 1, abstract(trees))[0], trees)
  gc.collect()  # here rather than in a later test, where those coroutines would be an error


def test_a_changed_description_is_noticed(tmp_path, saved):
  # Still JSON, so that only the digest can tell.
  directory = tmp_path / 'checkpoints'
  shutil.copytree(saved, directory)
  path = directory / '1' / 'description' / 'metadata'
  text = path.read_text()
  assert text.count('79.5') == 1
  path.write_text(text.replace('79.5', '79.0'))
  with pytest.raises(checkpoint.DamagedError, match='description differs'):
    checkpoint.read(directory, 1, abstract(make_trees()))


def test_trees_that_are_another_checkpoints_are_noticed(tmp_path):
  saves = [(step, make_trees(seed=step), {}, None) for step in (1, 2)]
  write(tmp_path, saves)
  shutil.rmtree(tmp_path / '1' / 'params')
  shutil.copytree(tmp_path / '2' / 'params', tmp_path / '1' / 'params')
  with pytest.raises(checkpoint.DamagedError, match='params differ'):
    checkpoint.read(tmp_path, 1, abstract(make_trees()))


def test_an_empty_or_missing_checkpoint_is_damaged(tmp_path):
  (tmp_path / '4').mkdir()
  for step in (4, 5):
    with pytest.raises(checkpoint.DamagedError):
      checkpoint.read(tmp_path, step, abstract(make_trees()))


@pytest.mark.parametrize(
  ('keep', 'best_steps', 'kept'),
  [
    (1, [None] * 5, [5]),
    (2, [1, 2, 2, 2, 2], [2, 4, 5]),
    (1, [1, 1, 3, 3, 3], [3, 5]),
    (2, [1, 2, 3, 4, 5], [4, 5]),
    (9, [1, 1, 1, 1, 1], [1, 2, 3, 4, 5]),
  ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, keep, best_steps, kept):
  tree = {'params': {'w': np.zeros(2, np.float32)}}
  write(tmp_path, [(i + 1, tree, {}, best) for i, best in enumerate(best_steps)], keep)
  assert checkpoint.steps(tmp_path) == kept


def test_a_run_that_goes_on_keeps_the_best_of_before(tmp_path):
  tree = {'params': {'w': np.zeros(2, np.float32)}}
  write(tmp_path, [(1, tree, {}, 1), (2, tree, {}, 1)], keep=1)
  write(tmp_path, [(3, tree, {}, 1), (4, tree, {}, 1)], keep=1)
  assert checkpoint.steps(tmp_path) == [1, 4]


def test_a_step_set_aside_can_be_written_again(tmp_path):
  trees = make_trees()
  for name in ('damaged-1', 'damaged-1-again', 'damaged-1-again-again'):
    write(tmp_path, [(1, trees, {'was': name}, None)])
    assert checkpoint.set_aside(tmp_path, 1) == tmp_path / name
    assert (tmp_path / name).is_dir()
    assert checkpoint.steps(tmp_path) == []
  write(tmp_path, [(1, trees, {'was': 'whole'}, None)])
  assert checkpoint.steps(tmp_path) == [1]
  assert checkpoint.read(tmp_path, 1, abstract(trees))[1] == {'was': 'whole'}


def test_steps_are_the_whole_checkpoints_in_order(tmp_path):
  tree = {'params': {'w': np.zeros(2, np.float32)}}
  assert checkpoint.steps(tmp_path / 'nowhere') == []
  write(tmp_path, [(step, tree, {}, None) for step in (2, 10, 100)])
  for name in ('damaged-3', '7.orbax-checkpoint-tmp-123', 'damaged-10-again', 'other', 'dropout_0'):
    (tmp_path / name).mkdir()
  (tmp_path / 'notes.txt').write_text('5')
  assert checkpoint.steps(tmp_path) == [2, 10, 100]


def test_arrays_that_the_files_cannot_hold_are_not_made_room_for(tmp_path):
  write(tmp_path, [(3, make_trees(), DESCRIPTION, None)])
  huge = {'params': {'x': jax.ShapeDtypeStruct((10**6, 10**6), jnp.float32)}}
  with pytest.raises(
    checkpoint.DamagedError, match='4,000,000,000,000 bytes of arrays cannot be in'
  ):
    checkpoint.read(tmp_path, 3, huge)
