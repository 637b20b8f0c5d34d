"""Damaged and hostile files, links and pipes are refused in a line or two.

`python -m tests.robustness.fuzz` looks for longer.
"""

import dataclasses
import os
import shutil
import tracemalloc
from pathlib import Path

import hypothesis
import pytest

import alexnet_jax
from alexnet_jax.checkpoints import checkpoint, pretrained, workdir
from alexnet_jax.convert import convert
from alexnet_jax.data import image_folder, prepare, statistics, tfds_reader
from alexnet_jax.evaluation import evaluate
from alexnet_jax.reports import plot_run
from alexnet_jax.sweeps import report, results, runner
from alexnet_jax.training import loop
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError
from tests import sweeps
from tests.other_formats import caffe_config, random_network, torchvision_config
from tests.robustness import fuzz
from tests.small import small_config

FEW = {
  'caffemodel': 10,
  'checkpoint': 2,
  'config': 10,
  'metrics': 15,
  'safetensors': 10,
  'sweep': 4,
}
# These draw pictures, which takes a second each.
FORMATS = [name for name in fuzz.FORMATS if name not in ('curves', 'sweep_page')]


@pytest.mark.parametrize('name', FORMATS)
def test_a_mutated_file_is_read_or_refused_in_few_words(name, tmp_path):
  read, tried = fuzz.FORMATS[name], []

  @hypothesis.settings(
    max_examples=FEW.get(name, 30),
    derandomize=True,
    deadline=None,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(read.inputs(tmp_path))
  def try_one(files):
    tried.append(files)
    fuzz.check(read, files)

  try_one()
  assert len(tried) >= FEW.get(name, 30) / 2


def evaluate_into(folder):
  network = folder / 'net.safetensors'
  pretrained.write(network, random_network(small_config()))
  evaluate.evaluate_ensemble([network], None, folder)


def prepare_into(folder):
  for name in ('a/1.png', 'a/2.png', 'b/1.png', 'b/2.png'):
    (folder / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / 'images' / name).touch()
  prepare.prepare(
    dataclasses.replace(image_folder.open_folder(folder / 'images', 0.5), name='x'),
    folder,
    image_size=8,
    encoding='png',
    statistics_of='train',
    unreadable_limit=1.0,
    display=Display(quiet=True),
  )


def run_sweep(folder):
  runner.run_all(
    [run for run in sweeps.plan(folder).runs if run.name == 'tanh/seed1'], 1, 'no_program.py'
  )


# Paths in folders, and functions that read them, or write there.
FOLDERS = [
  ('checkpoints', pretrained.read),
  ('checkpoints', lambda folder: loop.train_and_evaluate(small_config(), folder)),
  ('checkpoints/3', pretrained.read),
  ('checkpoints/3/description', pretrained.read),
  ('evaluation', evaluate_into),
  ('figures', lambda folder: workdir.prepare(folder, {})),
  ('profile/plugins', lambda folder: workdir.prepare(folder, {})),
  ('figures', lambda folder: plot_run.draw(folder, small_config())),
  ('x_8/1.0.0.incomplete', prepare_into),
  ('base', results.gather),
  ('base/seed0', results.gather),
  ('figures', report.write),
]
FILES = [
  ('config.json', workdir.read_config),
  ('metrics.jsonl', workdir.read_metrics),
  ('metrics.jsonl', workdir.last_epoch),
  ('metrics.jsonl', lambda folder: workdir.MetricsLog(folder, 0)),
  ('.lock', lambda folder: workdir.lock(folder).__enter__()),
  ('checkpoints/3/params/manifest.ocdbt', pretrained.read),
  ('checkpoints/_ROOT_METADATA', lambda folder: checkpoint.Writer(folder / 'checkpoints', 1)),
  ('evaluation/predictions.npz', evaluate_into),
  ('x_8/1.0.0.incomplete/lock', prepare_into),
  ('sweep.json', results.gather),
  ('base/seed0/config.json', results.gather),
  ('base/seed0/metrics.jsonl', results.gather),
  ('tanh/seed1/failure.txt', results.gather),
  ('tanh/seed1/log.txt', run_sweep),
]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """A folder with a checkpoint, and one of a sweep."""
  run, swept = tmp_path_factory.mktemp('run'), tmp_path_factory.mktemp('sweep')
  fuzz.write_checkpoint(run)
  fuzz.write_sweep(swept)
  return run, swept


def moved_out(folders, name, tmp_path):
  """Makes a folder and moves a path out of it; returns the folder, the path, and its new place."""
  folder, path, outside = tmp_path / 'in', tmp_path / 'in' / name, tmp_path / 'out' / 'it'
  outside.parent.mkdir()
  for made in folders:
    shutil.copytree(made, folder, dirs_exist_ok=True)
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.exists():
    path.rename(outside)
  elif name in dict(FOLDERS):
    outside.mkdir()
    (outside / 'mine').write_text('mine')
  else:
    outside.write_text('mine')
  return folder, path, outside


def contents(path):
  return {at: at.read_bytes() for at in (path, *path.rglob('*')) if at.is_file()}


@pytest.mark.parametrize(('name', 'use'), FOLDERS + FILES)
def test_a_link_out_of_a_folder_is_not_followed(name, use, folders, tmp_path):
  folder, path, outside = moved_out(folders, name, tmp_path)
  path.symlink_to(outside)
  before = contents(outside)
  with pytest.raises(UserError, match=r'behind a link that leads out of .*, to .*out/it'):
    use(folder)
  assert contents(outside) == before


@pytest.mark.parametrize('workdir_path', ['in', '../x/in'])
def test_a_relative_path_is_read_and_its_links_are_noticed(
  folders, tmp_path, monkeypatch, workdir_path
):
  (tmp_path / 'x').mkdir()
  monkeypatch.chdir(tmp_path / 'x')
  shutil.copytree(folders[0], 'in')
  assert pretrained.read(workdir_path).step == 3
  kernels = next(Path('in/checkpoints/3/params').rglob('d/*'))
  kernels.rename(tmp_path / 'kernels')
  kernels.symlink_to(tmp_path / 'kernels')
  with pytest.raises(UserError, match='behind a link that leads out of'):
    pretrained.read(workdir_path)


@pytest.mark.parametrize(('name', 'use'), FILES)
def test_a_pipe_in_a_folder_is_not_waited_for(name, use, folders, tmp_path):
  folder, path, _ = moved_out(folders, name, tmp_path)
  os.mkfifo(path)
  with pytest.raises(UserError, match=f'{path.name} is neither a file nor a folder'):
    use(folder)


def test_a_folder_may_be_a_link_and_have_links_within_itself(folders, tmp_path):
  shutil.copytree(folders[0], tmp_path / 'run')
  checkpoints = tmp_path / 'run' / 'checkpoints'
  checkpoints.rename(tmp_path / 'run' / 'kept')
  checkpoints.symlink_to('kept')
  (tmp_path / 'link').symlink_to(tmp_path / 'run')
  assert pretrained.read(tmp_path / 'link').step == 3


@pytest.mark.parametrize(
  ('name', 'read'),
  [
    ('x.caffemodel', lambda path: convert.read(path, caffe_config())),
    ('x.npy', lambda path: convert.read(path, caffe_config())),
    ('x.pth', lambda path: convert.read(path, torchvision_config())),
    ('x.safetensors', pretrained.read),
    ('x.binaryproto', lambda path: convert.read_mean(path, 4, 3)),
    ('x.txt', lambda path: convert.read_class_names(path, 4)),
    ('statistics.npz', lambda path: statistics.load(path, 4)),
    ('metadata.json', lambda path: prepare.read_metadata(path.parent)),
    ('dataset_info.json', lambda path: tfds_reader.open_directory(path.parent)),
  ],
)
def test_a_pipe_is_no_file(name, read, tmp_path):
  os.mkfifo(tmp_path / name)
  with pytest.raises(
    UserError, match=r'is neither a file nor a folder|metadata.json cannot be read'
  ):
    read(tmp_path / name)


def test_a_pipe_is_no_image(tmp_path):
  os.mkfifo(tmp_path / 'x.png')
  pretrained.write(tmp_path / 'net.safetensors', random_network(small_config()))
  classifier = alexnet_jax.load(tmp_path / 'net.safetensors')
  with pytest.raises(UserError, match=r'x.png is neither a file nor a folder'):
    classifier.predict(tmp_path / 'x.png')


@pytest.mark.parametrize(
  ('name', 'read'),
  [
    ('config.json', workdir.read_config),
    ('sweep.json', results.gather),
    ('metrics.jsonl', workdir.read_metrics),
    ('statistics.npz', lambda folder: statistics.load(folder / 'statistics.npz', 4)),
  ],
)
def test_a_file_of_holes_does_not_fill_the_memory(name, read, tmp_path):
  with (tmp_path / name).open('wb') as file:
    file.truncate(2**42)
  tracemalloc.start()
  try:
    with pytest.raises(UserError, match=name):
      read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**28
  finally:
    tracemalloc.stop()


def test_links_among_folders_of_images_are_gone_through_once(tmp_path):
  names = [f'{i:02}' for i in range(12)]
  for name in names:
    (tmp_path / 'images' / 'a' / name).mkdir(parents=True)
    (tmp_path / 'images' / 'a' / name / 'x.png').touch()
    for other in names:
      (tmp_path / 'images' / 'a' / name / f'to{other}').symlink_to(f'../{other}')
  shutil.copytree(tmp_path / 'images' / 'a' / '00', tmp_path / 'images' / 'b', symlinks=True)
  source = image_folder.open_folder(tmp_path / 'images', 0.5)
  assert sum(source.splits.values()) == 12 + 1
