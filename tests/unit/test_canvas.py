"""Figures are saved whole, the same every time, and show themselves in a notebook."""

import re
from xml.etree import ElementTree

import pytest

from alexnet_jax.reports import canvas
from alexnet_jax.utils.picture import Figure


def drawn():
  figure = Figure()
  figure.suptitle(canvas.plain(r'$\nothing'))  # no formula
  return figure


def test_figures_are_saved_as_png_pdf_and_svg_the_same_every_time(tmp_path):
  written = canvas.save(drawn(), tmp_path / 'new' / 'epoch.1')
  png, pdf, svg = written
  assert {path.name for path in png.parent.iterdir()} == {
    'epoch.1.png', 'epoch.1.pdf', 'epoch.1.svg'
  }  # fmt: skip
  assert png.read_bytes().startswith(b'\x89PNG')
  assert b'/FontFile2' in pdf.read_bytes()  # a TrueType font within
  assert not re.search(b'/Type3|/CreationDate', pdf.read_bytes())
  assert ElementTree.parse(svg).getroot().tag.endswith('svg')
  before = [path.read_bytes() for path in written]
  canvas.save(drawn(), tmp_path / 'new' / 'epoch.1')
  assert [path.read_bytes() for path in written] == before


def test_a_figure_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
  figure = drawn()
  written = canvas.save(figure, tmp_path / 'curves')
  before = [path.read_bytes() for path in written]

  def fail(path, **_):
    path.write_bytes(b'half')
    raise OSError('disk full')

  monkeypatch.setattr(figure, 'savefig', fail)
  with pytest.raises(OSError, match='disk full'):
    canvas.save(figure, tmp_path / 'curves')
  assert [path.read_bytes() for path in written] == before


def test_an_ending_that_a_figure_gets_is_not_added_twice(tmp_path):
  written = canvas.save(drawn(), tmp_path / 'kernels.png')
  assert {path.name for path in written} == {'kernels.png', 'kernels.pdf', 'kernels.svg'}


def test_a_figure_shows_itself_in_a_notebook():
  assert drawn()._repr_png_().startswith(b'\x89PNG')


def test_a_title_wider_than_its_figure_has_several_lines():
  picture = Figure(figsize=(3, 2), layout='constrained')
  picture.add_subplot()
  canvas.set_title(picture, 'Response normalization on CIFAR-10, cifar10_13pct')
  picture.draw_without_rendering()
  [title] = picture.texts
  extent = title.get_window_extent()
  assert extent.x0 >= 0
  assert extent.x1 <= picture.bbox.width
