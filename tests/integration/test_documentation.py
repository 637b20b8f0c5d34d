"""The commands of the documentation and of the configs' docstrings are ones that the program takes."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.launching import ROOT, parse

PAGES = [
  ROOT / 'README.md',
  *sorted((ROOT / 'docs').glob('*.md')),
  *sorted((ROOT / 'alexnet_jax').rglob('*.py')),
]
COMMAND = re.compile(r'(?:python launch\.py|\balexnet) (--(?:[^`\n>|;&]|(?<=\\)\n)+)')
BENCHMARK = re.compile(r'python (benchmarks/\w+\.py)((?:"[^"\n]*"|[^`"\n>|;&])*)')


def commands(page):
  """The arguments of each command on a page; a line that ends in a backslash goes on."""
  for match in COMMAND.finditer(re.sub(r'\\\n\s*', '', page.read_text())):
    yield [word for word in shlex.split(match[1], comments=True) if word != '...']


BENCHMARKS = sorted((ROOT / 'benchmarks').glob('*.py'))


WITH_BENCHMARKS = [page for page in (*PAGES, *BENCHMARKS) if BENCHMARK.search(page.read_text())]


@pytest.mark.parametrize('page', WITH_BENCHMARKS, ids=lambda page: page.stem)
def test_every_benchmark_s_command_has_flags_that_it_takes(page):
  for file, arguments in BENCHMARK.findall(re.sub(r'\\\n\s*', '', page.read_text())):
    program = (ROOT / file).read_text()
    if 'import contest' in program:
      program += (ROOT / 'benchmarks' / 'contest.py').read_text()
    if 'parse_known_args' in program:  # it hands the others on to launch.py
      arguments = re.sub(r'--config\.\S+', '', arguments)
    for flag in re.findall(r' (--\w+)', re.sub(r'"[^"]*"', '', arguments)):
      assert f"'{flag}'" in program, (file, flag)


PAGES = [page for page in PAGES if any(commands(page))]


@pytest.mark.parametrize('page', PAGES, ids=[page.stem for page in PAGES])
def test_every_command_is_one_that_the_program_takes(page):
  for arguments in commands(page):
    changes_a_run = any(word.startswith('--config.') for word in arguments)
    if changes_a_run and not any(word.startswith('--config=') for word in arguments):
      arguments = ['--config=configs/imagenet.py', *arguments]  # in place of the run's own
    returncode, _, err = parse(*arguments)
    assert returncode == 0, (arguments, err)


@pytest.mark.slow
def test_the_page_on_python_runs_as_it_stands(tmp_path):
  page = (ROOT / 'docs' / 'python.md').read_text()
  program = '\n'.join(re.findall(r'```python\n(.*?)```', page, re.DOTALL))
  ran = subprocess.run(
    [sys.executable, '-c', program],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    text=True,
    capture_output=True,
  )
  assert ran.returncode == 0, ran.stderr
  error, predicted, _, loss, shape, of_saved = ran.stdout.splitlines()
  assert float(error) < 0.15
  assert float(loss) < 0.5
  assert shape == '(5, 3)'
  assert predicted.startswith("('0'")
  assert of_saved.startswith("('0'")
