"""What is shipped beside the code: the citation, and a wheel that needs no checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def test_the_citation_is_of_this_version():
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  assert citation['cff-version'] == '1.2.0'
  assert citation['version'] == PROJECT['version']
  assert citation['license'] == PROJECT['license']
  assert [reference['year'] for reference in citation['references']] == [2012, 2017]


def run(*command, **options):
  """Runs a command to its end; its output in the message where it fails."""
  done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


@pytest.mark.slow
def test_the_wheel_trains_and_loads_where_there_is_no_checkout(tmp_path):
  sources, site, empty = tmp_path / 'sources', tmp_path / 'site', tmp_path / 'empty'
  names = run('git', 'ls-files', 'alexnet_jax', 'configs', '*.py', '*.toml', cwd=ROOT).splitlines()
  for name in [*names, 'LICENSE', 'README.md']:
    if not name.startswith(('tests/', 'benchmarks/')):
      (sources / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(ROOT / name, sources / name)
  pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check')
  run(*pip, 'wheel', '--no-deps', '-w', tmp_path, sources)  # with the setuptools it asks for
  [wheel] = tmp_path.glob('*.whl')
  run(*pip, 'install', '--no-deps', '--no-index', '--target', site, wheel)
  packed = set(zipfile.ZipFile(wheel).namelist())
  assert {name for name in names if name.startswith(('alexnet_jax/', 'configs/'))} <= packed

  empty.mkdir()
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
  here = {'cwd': empty, 'env': {**environment, 'PYTHONPATH': str(site)}}
  where = run(sys.executable, '-c', 'import alexnet_jax; print(alexnet_jax.__file__)', **here)
  assert where.strip() == str(site / 'alexnet_jax' / '__init__.py')
  arguments = ('--config=configs/digits.py', '--config.train.num_steps=2', '--workdir=run')
  out = run(sys.executable, site / 'bin' / 'alexnet', *arguments, **here)
  assert 'checkpoints   run/checkpoints' in out
  program = """
import alexnet_jax, numpy
classifier = alexnet_jax.load('run')
classifier._repr_html_()
print(len(classifier.predict(numpy.zeros((8, 8, 3), numpy.uint8)).class_names))
"""
  assert run(sys.executable, '-c', program, **here) == '5\n'
  assert [path.name for path in empty.iterdir()] == ['run']
