"""What is shipped beside the code."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def test_the_citation_is_of_this_version():
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  assert citation['cff-version'] == '1.2.0'
  assert citation['version'] == PROJECT['version']
  assert citation['license'] == PROJECT['license']
  assert [reference['year'] for reference in citation['references']] == [2012, 2017]
