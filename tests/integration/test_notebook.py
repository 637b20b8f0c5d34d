"""The notebook's cells run in order, as IPython would run them, and say what they should."""

import ast
import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.evaluation import classifier
from alexnet_jax.training import loop
from alexnet_jax.utils.picture import Figure
from tests.small import small_config

NOTEBOOK = Path(__file__).parents[2] / 'notebooks' / 'alexnet.ipynb'


def cells():
  return json.loads(NOTEBOOK.read_text())['cells']


def run(cell_sources, namespace):
  """Executes cells within a running event loop, as notebooks have it; their last values, by id."""

  async def all_cells():
    values = {}
    for name, source in cell_sources.items():
      body = ast.parse(source).body
      last = body.pop() if isinstance(body[-1], ast.Expr) else None
      exec(compile(ast.Module(body, []), name, 'exec'), namespace)
      if last is not None:
        values[name] = eval(compile(ast.Expression(last.value), name, 'eval'), namespace)
    return values

  return asyncio.run(all_cells())


def code(checkpoint):
  """Sources of the cells but for the installation, by id, with a checkpoint filled in."""
  sources = {
    cell['id']: ''.join(cell['source'])
    for cell in cells()
    if cell['cell_type'] == 'code' and 'install' not in cell['metadata'].get('tags', ())
  }
  given = sources['load'].replace("CHECKPOINT = ''", f'CHECKPOINT = {str(checkpoint)!r}')
  assert (given == sources['load']) == (checkpoint == '')
  sources['load'] = given
  return sources


def check(values):
  assert all({*prediction.class_names} == {'even', 'odd'} for prediction in values['fine-tune'])
  assert isinstance(values['load'], classifier.Classifier)
  assert isinstance(values['classify'], classifier.Prediction)
  assert values['parameters']['fc8']['bias'] == (10,)
  assert values['layers']['fc8'] == (10,)
  assert values['maps'].width == 800
  assert np.ptp(np.asarray(values['maps'])) > 100
  assert isinstance(values['kernels'], Figure)
  assert len(values['predictions'].axes) == 16  # eight images, each with its bars
  assert len(values['retrieval'].axes) >= 5 * 7
  assert len(values['kernels-start'].axes) == 4
  assert len(values['evidence'].axes) == 3 * 5
  assert len(values['patches'].axes) == 2 * 8
  assert values['export'] < 1e-5


def test_every_cell_runs_on_a_checkpoint(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  loop.train_and_evaluate(small_config({'train.num_steps': 5}), tmp_path / 'run')
  check(run(code(tmp_path / 'run'), {}))


@pytest.mark.slow
def test_without_a_checkpoint_the_digits_are_learnt(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  values = run(code(''), {})
  check(values)
  assert values['classify'].probabilities[0] > 0.5


def test_the_notebook_is_as_it_should_be_stored():
  assert json.loads(NOTEBOOK.read_text())['nbformat'] == 4
  ids = [cell['id'] for cell in cells()]
  assert len(set(ids)) == len(ids)
  for cell in cells():
    if cell['cell_type'] == 'code':
      assert cell['outputs'] == []
      assert cell['execution_count'] is None
