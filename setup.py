"""Gives the README of a package index full addresses: pictures and links show there, too.

All else is in pyproject.toml.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
REPOSITORY = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['urls']['Repository']


def in_full(link: re.Match[str]) -> str:
  """A Markdown link or picture, its path in the repository become an address."""
  picture, text, path = link.groups()
  return f'{picture}[{text}]({REPOSITORY}/{"raw" if picture else "blob"}/HEAD/{path})'


setup(
  long_description=re.sub(
    r'(!?)\[([^]]*)\]\((?!https?://|#)([^)]+)\)', in_full, (ROOT / 'README.md').read_text('utf-8')
  ),
  long_description_content_type='text/markdown',
)
