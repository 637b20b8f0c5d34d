"""What matplotlib's own font lacks is drawn with another one, or named."""

import functools

import numpy as np
from matplotlib import font_manager

from alexnet_jax.reports import canvas, figures, fonts
from alexnet_jax.sweeps import charts
from alexnet_jax.utils.picture import Figure

CIRCLED = 'ⒶⒷ'  # matplotlib's own font lacks them, STIXGeneral, which comes with it, does not


def only_fonts(monkeypatch, *families):
  every = font_manager.fontManager.ttflist
  listed = [font for font in every if font.name in families and font.weight == 400]
  monkeypatch.setattr(font_manager.fontManager, 'ttflist', listed)
  fonts._search.cache_clear()
  monkeypatch.setattr(fonts, '_search', functools.cache(fonts._search.__wrapped__))


def test_what_the_usual_font_lacks_is_drawn_with_another(tmp_path, monkeypatch, caplog):
  only_fonts(monkeypatch, 'DejaVu Sans', 'STIXGeneral')
  assert fonts.missing([CIRCLED, 'a']) is None
  picture = figures.predictions(
    np.zeros((1, 8, 8, 3), np.uint8), np.array([[0.25, 0.75]]), [0], (CIRCLED, 'dog'), CIRCLED
  )
  [file, *_] = canvas.save(picture, tmp_path / 'a')  # matplotlib's warnings of boxes are errors
  assert file.exists()
  assert not caplog.records  # that it has no bold letters
  families = {
    text.get_text(): text.get_fontfamily() for text in [picture._suptitle, *picture.axes[1].texts]
  }
  assert 'STIXGeneral' in families[CIRCLED]
  assert 'STIXGeneral' not in families['dog']


def test_what_only_slanted_letters_lack_is_drawn_upright(tmp_path, monkeypatch):
  only = [font for font in font_manager.fontManager.ttflist if font.name == 'DejaVu Sans']
  monkeypatch.setattr(font_manager.fontManager, 'ttflist', only)
  picture = Figure()
  texts = [picture.text(0, 0, name, style='italic') for name in ('قط', 'cat\n0.5')]
  [file, *_] = canvas.save(picture, tmp_path / 'a')
  assert file.exists()
  assert [text.get_style() for text in texts] == ['normal', 'italic']


def test_names_of_ticks_are_drawn_with_another_font_too(tmp_path, monkeypatch):
  only_fonts(monkeypatch, 'DejaVu Sans', 'STIXGeneral')
  picture = charts.differences([charts.Bar(CIRCLED, 1, [1, 1], 0, 2, 1, 1, True)], '')
  canvas.save(picture, tmp_path / 'a')
  [label] = picture.axes[0].get_yticklabels()
  assert 'STIXGeneral' in label.get_fontfamily()


def test_characters_that_no_font_has_are_said_and_drawn_as_boxes(tmp_path, monkeypatch):
  only_fonts(monkeypatch, 'DejaVu Sans', 'Last Resort High-Efficiency')
  said = fonts.missing(['猫', 'cat', '狗'])
  assert 'no installed font has 2 characters (狗 猫)' in said
  assert 'Noto Sans CJK' in said
  assert fonts.missing(['\U0001f984']).endswith(
    'which pictures show as boxes; install one that does'
  )
  picture = Figure()
  picture.suptitle('猫')
  assert all(file.exists() for file in canvas.save(picture, tmp_path / 'a'))
