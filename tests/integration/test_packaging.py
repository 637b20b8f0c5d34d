"""What is shipped beside the code: the citation, and a wheel that needs no checkout."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

import alexnet_jax
from alexnet_jax.convert.export import export
from alexnet_jax.data import included
from alexnet_jax.training import loop
from tests.small import small_config

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def test_the_citation_is_of_this_version():
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  assert citation['cff-version'] == '1.2.0'
  assert citation['version'] == PROJECT['version']
  assert citation['license'] == PROJECT['license']
  assert [reference['year'] for reference in citation['references']] == [2012, 2017]


def test_the_version_is_that_of_what_is_installed(monkeypatch):
  assert alexnet_jax.__version__ == importlib.metadata.version('alexnet_jax')
  monkeypatch.setattr(importlib.metadata, 'distribution', raise_not_found)
  assert not hasattr(alexnet_jax, '__version__')


def raise_not_found(name):
  raise importlib.metadata.PackageNotFoundError(name)


def test_the_workflow_runs_every_check_and_every_python_that_is_promised():
  workflow = yaml.safe_load((ROOT / '.github' / 'workflows' / 'checks.yml').read_text())
  jobs = workflow['jobs']['check']['strategy']['matrix']['include']
  checks = re.findall(r'^    (\w+)\)$', (ROOT / '.ci' / 'check').read_text(), re.M)
  assert {job['check'] for job in jobs} == {*checks} - {'newest'}  # which is a part of quick
  versions = [
    line.rpartition(' ')[2] for line in PROJECT['classifiers'] if ':: Python :: 3.' in line
  ]
  assert sorted({job['python'] for job in jobs}) == versions


def test_what_an_exported_network_needs_comes_with_the_project():
  [packages] = re.findall(
    r'`pip install (jax [\w ]+)`', (ROOT / 'docs' / 'conversion.md').read_text()
  )
  assert 'flatbuffers' in packages.split()  # jax.export imports it, and jax does not ask for it
  required = {re.split(r'[<>=]', dependency)[0] for dependency in PROJECT['dependencies']}
  assert required.issuperset(packages.split())


def run(*command, **options):
  """Runs a command to its end; its output in the message where it fails."""
  done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def make_environment(path):
  """A virtual environment with nothing in it; its python."""
  run(sys.executable, '-m', 'venv', path)
  return path / 'bin' / 'python'


def pip_install(python, *arguments):
  run(python, '-m', 'pip', '--disable-pip-version-check', 'install', *arguments)


@pytest.mark.slow
def test_the_wheel_trains_and_loads_where_there_is_no_checkout(tmp_path):
  sources, site, empty = tmp_path / 'sources', tmp_path / 'site', tmp_path / 'empty'
  names = run('git', 'ls-files', 'alexnet_jax', cwd=ROOT).splitlines()
  for name in [*names, 'pyproject.toml', 'setup.py', 'LICENSE', 'README.md']:
    (sources / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / name, sources / name)
  pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check')
  run(*pip, 'wheel', '--no-deps', '-w', tmp_path, sources)  # with the setuptools it asks for
  [wheel] = tmp_path.glob('*.whl')
  pip_install(sys.executable, '--no-deps', '--no-index', '--target', site, wheel)
  packed = zipfile.ZipFile(wheel).namelist()
  [metadata] = (site / name for name in packed if name.endswith('/METADATA'))
  links = re.findall(r'\]\(([^)]*)\)', metadata.read_text())
  assert len(links) > 15
  assert all(link.startswith('https://') for link in links)
  assert {name for name in packed if '.dist-info/' not in name} == set(names)

  empty.mkdir()
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
  # An editable install's folder is on the path still, but behind the wheel.
  here = {'cwd': empty, 'env': {**environment, 'PYTHONPATH': str(site)}}
  where = run(sys.executable, '-c', 'import alexnet_jax; print(alexnet_jax.__file__)', **here)
  assert where.strip() == str(site / 'alexnet_jax' / '__init__.py')

  alexnet = (sys.executable, site / 'bin' / 'alexnet')
  described = run(*alexnet, '--help', **here)
  assert 'alexnet --config=configs/digits.py' in described
  assert 'launch.py' not in described
  assert '--workdir: The run' in described
  refused = subprocess.run([*alexnet, '--config=x.py'], capture_output=True, text=True, **here)
  assert refused.stderr.startswith('alexnet: there is no file x.py')

  arguments = ('--config=configs/digits.py', '--config.train.num_steps=2', '--workdir=run')
  assert 'checkpoints   run/checkpoints' in run(*alexnet, *arguments, **here)
  program = """
import alexnet_jax, numpy
classifier = alexnet_jax.load('run')
classifier._repr_html_()
print(len(classifier.predict(numpy.zeros((8, 8, 3), numpy.uint8)).class_names))
"""
  assert run(sys.executable, '-c', program, **here) == '5\n'
  assert [path.name for path in empty.iterdir()] == ['run']

  mine = empty / 'mine.py'
  mine.write_text('from alexnet_jax.configs import digits\n\nget_config = digits.get_config\n')
  assert run(*alexnet, '--config=mine.py', '--mode=summary', **here).startswith('2 columns, 8x8x3')


@pytest.mark.slow
def test_an_exported_network_runs_with_what_its_page_installs(tmp_path):
  page = (ROOT / 'docs' / 'conversion.md').read_text()
  [packages] = re.findall(r'`pip install (jax [\w ]+)`', page)
  [example] = [code for code in re.findall(r'```python\n(.*?)```', page, re.S) if 'export' in code]
  loop.train_and_evaluate(small_config({'train.num_steps': 2}), tmp_path / 'run')
  classifier = alexnet_jax.load(tmp_path / 'run')
  images = included.digits('validation').images[:3]
  export(classifier, tmp_path / 'alexnet.jaxexport')
  np.save(tmp_path / 'crops.npy', classifier.crops(images))

  python = make_environment(tmp_path / 'environment')
  (tmp_path / 'constraints.txt').write_text(f'jax=={jax.__version__}\n')
  pip_install(python, '-c', tmp_path / 'constraints.txt', *packages.split())
  load, save = "crops = np.load('crops.npy')\n", "np.save('logits.npy', logits)\n"
  run(python, '-c', 'import numpy as np\n' + load + example + save, cwd=tmp_path)
  np.testing.assert_allclose(
    np.load(tmp_path / 'logits.npy'), classifier.logits(images), rtol=0, atol=1e-5
  )
