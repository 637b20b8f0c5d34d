"""Imports run one way: from the wings above to those below."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / 'alexnet_jax'

# A module imports from its own layer and from those below it.
LAYERS = (
  ('cli', 'config_flag', '__init__'),
  ('sweeps',),
  ('training',),
  ('reports',),
  ('convert',),
  ('evaluation',),
  ('checkpoints',),
  ('experiment', 'configs'),
  ('models', 'data', 'parallel', 'optimizer'),
  ('utils',),
)
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}


def imported(path):
  """The package's modules that a file imports, as 'data.dataset'."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      assert not any(alias.name.startswith('alexnet_jax') for alias in node.names), path
    elif isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'alexnet_jax':
      module = node.module.split('.')[1:]
      yield from ['.'.join(module)] if module else [alias.name for alias in node.names]


def test_imports_run_from_the_wings_above_to_those_below():
  upward = []
  for path in PACKAGE.rglob('*.py'):
    wing = path.relative_to(PACKAGE).with_suffix('').parts[0]
    if wing != 'configs':  # what a user writes: plain values
      upward += [
        f'{path.relative_to(PACKAGE)} imports {name}'
        for name in imported(path)
        if LAYER[name.split('.')[0]] < LAYER[wing]
      ]
  assert not upward
