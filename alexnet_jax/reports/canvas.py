"""A figure's files and pixels."""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import figure
from PIL import Image

from alexnet_jax.reports import fonts
from alexnet_jax.utils import files

# The kinds of files, with what keeps the date out of each.
_KINDS: Mapping[str, dict[str, None]] = {
  'png': {},
  'pdf': {'CreationDate': None},
  'svg': {'Date': None},
}


def save(picture: figure.Figure, path: str | os.PathLike[str]) -> list[Path]:
  """Writes a figure as PNG, PDF and SVG, each in one move; the folder is made if need be.

  The same figure gives the same bytes: no file has a date. A PDF has the outlines of its letters as
  TrueType fonts (Type 42), which journals ask for, and which programs that draw can edit.

  Characters that matplotlib's font lacks are drawn with another one that is installed;
  `fonts.missing` says which ones none has.

  Args:
    picture: the figure.
    path: its ending, if it is one of these, is replaced by each.

  Returns:
    The files' paths, the SVG's last.

  Raises:
    OSError: nothing can be written there.
  """
  path = Path(path)
  if path.suffix.removeprefix('.') in _KINDS:
    path = path.with_suffix('')
  written = []
  fonts.use(picture)
  # Else matplotlib names an SVG's parts at random, and draws a PDF's letters as Type 3.
  settings = matplotlib.rc_context({'svg.hashsalt': path.name, 'pdf.fonttype': 42})
  with settings, fonts.substitutes_allowed(), _laid_out(picture):
    for kind, metadata in _KINDS.items():
      target = path.with_name(f'{path.name}.{kind}')
      with files.atomic_write(target) as temporary:
        picture.savefig(temporary, format=kind, dpi=150, metadata=metadata)
      written.append(target)
  return written


def pixels(picture: figure.Figure) -> np.ndarray:
  """A figure as [H, W, 3] uint8, with 100 pixels an inch."""
  file = io.BytesIO()
  fonts.use(picture)
  with fonts.substitutes_allowed():
    picture.savefig(file, format='png', dpi=100)
  with Image.open(file) as image:
    return np.asarray(image.convert('RGB'))


@contextlib.contextmanager
def _laid_out(picture: figure.Figure) -> Iterator[None]:
  """Lays a figure out once, where matplotlib would again for every file: most of its time."""
  engine = picture.get_layout_engine()
  picture.draw_without_rendering()
  picture.set_layout_engine('none')
  try:
    yield
  finally:
    picture.set_layout_engine(engine)


def set_title(picture: figure.Figure, title: str) -> None:
  """Writes a title above a figure, in several lines where it is wider than the figure."""
  picture.suptitle(plain(title), wrap=True)


def plain(text: str) -> str:
  """A text as matplotlib draws it letter by letter: it would set what stands between '$' as a formula."""
  return text.replace('$', r'\$')
