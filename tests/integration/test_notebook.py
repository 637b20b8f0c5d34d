"""The notebook's cells run in a kernel of their own, in order, and show what they should."""

import base64
import io
import json
import os
import re
import tomllib
from pathlib import Path

import jax
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from alexnet_jax import experiment
from alexnet_jax.checkpoints import workdir
from alexnet_jax.configs import road_signs
from alexnet_jax.models import summary

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / 'notebooks' / 'alexnet.ipynb'
PICTURES = (
  *('network', 'pictures', 'train', 'predictions', 'kernels', 'maps', 'retrieval', 'evidence'),
  *('patches', 'ablation'),
)

# What a cell that a test adds makes of it: less to draw, to train and to look at.
SHORTER = """
import functools

from alexnet_jax.data import included, road_signs as drawn

included.INCLUDED.update(
  road_signs=functools.partial(included.open_road_signs, drawn.SIGNS, 8, 4),
  rare_road_signs=functools.partial(included.open_road_signs, drawn.RARE_SIGNS, 4, 4),
)
"""


def stored():
  return nbformat.read(NOTEBOOK, as_version=4)


def shorter(notebook):
  """The notebook on few pictures, with fewer layers to compile, for an epoch, without internet."""
  place = next(i for i, cell in enumerate(notebook.cells) if cell.id == 'setup')
  notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(SHORTER))
  start = 'config = road_signs.get_config()\n'
  left_out = ''.join(f'config.model.{name}.features = 0\n' for name in ('conv3', 'conv4', 'fc6'))
  replace(notebook, 'pictures', start, start + left_out)
  replace(notebook, 'train', 'EPOCHS = 16', 'EPOCHS = 1')
  replace(notebook, 'imagenet', 'https://download.pytorch.org/', 'http://localhost:9/')
  return notebook


def replace(notebook, name, old, new):
  [cell] = [cell for cell in notebook.cells if cell.id == name]
  assert cell.source.count(old) == 1
  cell.source = cell.source.replace(old, new)


def run(notebook, folder):
  """The outputs of each cell, by its id, of a kernel that works in a folder."""
  environment = {
    **os.environ,
    'PYTHONPATH': str(ROOT),
    # As the tests' own process has it (conftest.py).
    'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.02',
  }
  client = NotebookClient(
    notebook, kernel_name='python3', timeout=600, resources={'metadata': {'path': str(folder)}}
  )
  client.execute(env=environment)
  return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == 'code'}


def text(outputs):
  """What the outputs of a cell say, without pictures."""
  parts = [output.get('text', output.get('data', {}).get('text/plain', '')) for output in outputs]
  return '\n'.join(parts)


def pictures(outputs):
  """The pictures that a cell shows, [height, width, colors]."""
  shown = [output.get('data', {}).get('image/png') for output in outputs]
  return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in shown if png]


def blocks(outputs):
  """How many outputs a cell has of a picture or of anything else that is not text alone."""
  return sum('data' in output for output in outputs)


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_it_should(tmp_path):
  notebook = shorter(stored())
  mistake = nbformat.v4.new_code_cell("alexnet_jax.load('runs/nowhere')", id='mistake')
  mistake.metadata.tags = ['raises-exception']
  notebook.cells.append(mistake)
  outputs = run(notebook, tmp_path)

  assert not [name for name, shown in outputs.items() if 'Warning' in text(shown)]
  for name in PICTURES:
    assert pictures(outputs[name])
    assert all(np.ptp(picture[..., :3]) > 100 for picture in pictures(outputs[name]))
  assert len(pictures(outputs['kernels'])) == 2
  assert '64 pictures for training, 32 for validation' in text(outputs['pictures'])
  # Lines and bars, curves and the network: however often the first two changed.
  assert blocks(outputs['train']) == 3
  assert 'epoch 1/1' in text(outputs['train'])
  assert '8 classes (ahead only, no entry, parking, ..., yield)' in text(outputs['train'])
  assert 'of the 32 validation pictures are wrong; guessing' in text(outputs['predictions'])
  assert 'Prediction(' in text(outputs['classify'])
  assert blocks(outputs['ablation']) == 3
  judged = re.findall(r'^(\S.*?) +\d+\.\d% of the val', text(outputs['fine-tune']), re.MULTILINE)
  assert judged == ['new fc8, not trained yet', 'fine-tuned', 'from scratch']
  [line] = text(outputs['imagenet']).splitlines()
  assert line.startswith('Cannot download the weights, http://localhost:9/')
  assert (tmp_path / 'signs.jaxexport').stat().st_size > 100_000

  assert workdir.read_config(tmp_path / 'runs/signs tanh')['model']['activation'] == 'tanh'
  [error] = outputs['mistake']
  assert len(error['traceback']) <= 2
  assert 'runs/nowhere' in error['traceback'][0]


@pytest.mark.slow
def test_under_run_in_another_notebook_every_cell_runs(tmp_path):
  nbformat.write(shorter(stored()), tmp_path / 'shorter.ipynb')
  outer = nbformat.v4.new_notebook(
    cells=[nbformat.v4.new_code_cell('%run shorter.ipynb', id='all')]
  )
  outputs = run(outer, tmp_path)['all']
  assert 'Cannot download the weights, http://localhost:9/' in text(outputs)
  assert len(pictures(outputs)) > 2
  assert (tmp_path / 'signs.jaxexport').exists()


@pytest.mark.slow
def test_the_network_learns_the_signs_and_fine_tuning_beats_training_from_scratch(tmp_path):
  notebook = stored()
  kept = ('setup', 'pictures', 'train', 'predictions', 'fine-tune')
  notebook.cells = [cell for cell in notebook.cells if cell.id in kept]
  outputs = run(notebook, tmp_path)
  error = re.search(r'^(\d+\.\d)% of the 400', text(outputs['predictions']), re.MULTILINE)
  assert float(error[1]) < 25  # guessing: 87.5
  found = re.findall(r'(\d+\.\d)% of the val', text(outputs['fine-tune']))
  before, fine_tuned, scratch = map(float, found)
  assert fine_tuned < min(before, scratch) - 10


def test_the_notebook_is_stored_without_outputs_and_small():
  notebook = json.loads(NOTEBOOK.read_text('utf-8'))
  nbformat.validate(notebook)
  for cell in notebook['cells']:
    if cell['cell_type'] == 'code':
      assert cell['outputs'] == []
      assert cell['execution_count'] is None
  assert NOTEBOOK.stat().st_size < 300_000


def test_every_exercise_is_a_change_that_the_config_takes():
  [exercises] = [cell.source for cell in stored().cells if cell.id == 'exercises']
  lines = re.findall(r'`((?:variant|rare)\.[^`]+)`', exercises)
  assert len(lines) == 6
  for line in lines:
    config = road_signs.get_config()
    config.model.num_classes = 8
    before = config.to_dict()
    exec(line, {'variant': config, 'rare': config})
    assert config.to_dict() != before
    experiment.check(config)
    assert summary.rows(experiment.make_network(config))


def test_its_addresses_are_the_repository_s():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))['project']
  repository = project['urls']['Repository']
  cells = {cell.id: cell.source for cell in stored().cells}
  assert f"REPOSITORY = '{repository}'" in cells['setup']
  _, _, name = repository.partition('github.com/')
  colab = 'https://colab.research.google.com/github'
  assert f'({colab}/{name}/blob/main/notebooks/alexnet.ipynb)' in cells['title']
