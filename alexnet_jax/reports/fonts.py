"""Fonts for texts that matplotlib's own cannot draw, such as Chinese class names."""

import contextlib
import functools
import logging
import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence

from matplotlib import figure, font_manager
from matplotlib.text import Text

from alexnet_jax.utils.errors import number_of

# Taken before any other that has the characters.
_PREFERRED = (
  'Noto Sans CJK SC',
  'Noto Sans CJK JP',
  'Noto Sans SC',
  'Source Han Sans SC',
  'WenQuanYi Micro Hei',
  'WenQuanYi Zen Hei',
  'Droid Sans Fallback',
  'PingFang SC',
  'Hiragino Sans',
  'Microsoft YaHei',
  'SimHei',
  'Arial Unicode MS',
)
_BOXES = 'Last Resort'  # comes with matplotlib, and has a box for every character


def missing(texts: Iterable[str]) -> str | None:
  """What to tell the user of characters that no installed font has; None where there are none."""
  characters, _ = _search(''.join(sorted(set(''.join(texts)))))
  if not characters:
    return None
  some = ' '.join(characters[:10]) + (' ...' if len(characters) > 10 else '')
  letters = any(c.isalpha() and unicodedata.east_asian_width(c) in 'WF' for c in characters)
  such = ', such as Noto Sans CJK (Debian: fonts-noto-cjk)' if letters else ''
  return (
    f'no installed font has {number_of(len(characters), "character")} ({some}), which pictures show'
    f' as boxes; install one that does{such}'
  )


def use(picture: figure.Figure) -> None:
  """Adds fallback fonts to texts that have characters which matplotlib's font lacks.

  What only its slanted or bold letters lack is drawn upright and of normal weight.
  """
  texts = [text for text in picture.findobj(Text) if isinstance(text, Text)]
  for axes in picture.axes:  # labels of ticks are made when they are asked for
    texts += [*axes.get_xticklabels(), *axes.get_yticklabels()]
  for text in texts:
    _, families = _search(''.join(sorted(set(text.get_text()))))
    if families:
      text.set_fontfamily([*text.get_fontfamily(), *families])
    else:
      own = _characters(font_manager.findfont(text.get_fontproperties()))
      if any(c.isprintable() and ord(c) not in own for c in text.get_text()):
        text.set(style='normal', weight='normal')


@contextlib.contextmanager
def substitutes_allowed() -> Iterator[None]:
  """Silences matplotlib where it draws a box, of which `missing` tells, or has no bold letters."""
  log = logging.getLogger('matplotlib.font_manager')
  log.addFilter(_is_not_of_weight)
  try:
    with warnings.catch_warnings():
      warnings.filterwarnings('ignore', r'Glyph \d+ .* missing from', UserWarning)
      yield
  finally:
    log.removeFilter(_is_not_of_weight)


def _is_not_of_weight(record: logging.LogRecord) -> bool:
  """Whether a message is kept: not matplotlib's that a font, as many Chinese ones, has no bold letters."""
  return 'Failed to find font weight' not in str(record.msg)


@functools.cache
def _search(characters: str) -> tuple[str, Sequence[str]]:
  """The characters that no installed font has, and families that have those the default lacks."""
  default = _characters(font_manager.findfont(font_manager.FontProperties()))
  lacking = {c for c in characters if ord(c) not in default and c.isprintable()}
  families: list[str] = []
  if lacking:
    for name, path in _installed():
      if found := {c for c in lacking if ord(c) in _characters(path)}:
        families.append(name)
        lacking -= found
      if not lacking:
        break
  return ''.join(sorted(lacking)), families


def _installed() -> list[tuple[str, str]]:
  """The families of fonts that matplotlib has found, the preferred ones first, and a file of each."""
  files = {
    font.name: font.fname
    for font in font_manager.fontManager.ttflist
    if not font.name.startswith(_BOXES) and os.path.exists(font.fname)
  }
  first = [name for name in _PREFERRED if name in files]
  return [(name, files[name]) for name in [*first, *sorted(files.keys() - set(first))]]


@functools.cache
def _characters(path: str) -> frozenset[int]:
  """The code points that a font's file has; none where it cannot be read."""
  try:
    return frozenset(font_manager.get_font(path).get_charmap())
  except (OSError, RuntimeError):
    return frozenset()
