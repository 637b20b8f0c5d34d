"""The network's picture shows the network that it was given."""

import importlib

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.patches import Polygon

from alexnet_jax import AlexNet, experiment
from alexnet_jax.models import drawing
from alexnet_jax.models.options import Convolution, Pool, ResponseNorm


def net_of(config):
  module = importlib.import_module(f'alexnet_jax.configs.{config}')
  return experiment.make_network(module.get_config())


def texts(figure):
  return [text.get_text() for text in figure.axes[0].texts]


def windows(figure):
  """The heights, in inches on paper, of the windows that kernels read, from left to right."""
  patches = [
    p for p in figure.axes[0].patches if isinstance(p, Polygon) and p.get_linestyle() != '--'
  ]
  corners = [p.get_xy() for p in patches if not p.get_fill()]
  ordered = sorted(corners, key=lambda corner: corner[0, 0])
  return [corner[3, 1] - corner[0, 1] for corner in ordered]


def crossings(figure):
  """Where lines begin that run from one column to the other, counted once a place."""
  lines = [(*line.get_xdata(), line.get_color()) for line in figure.axes[0].lines]
  arrows = [
    (text.xyann[0], text.xy[0], text.arrow_patch.get_edgecolor())
    for text in figure.axes[0].texts
    if getattr(text, 'arrow_patch', None)
  ]
  ends = [end for _, end, color in lines + arrows if same_color(color, drawing._CROSSING)]
  return len({round(end, 6) for end in ends})


def test_the_papers_network_is_figure_2():
  figure = drawing.draw(AlexNet())
  shown = texts(figure)
  assert shown.count('55x55x48') == shown.count('13x13x192') / 2 == 2
  for text in ('pooled 6x6x128', '2048', '96 kernels 11x11x3', '256 kernels 5x5x48', 'stride 4'):
    assert text in shown
  assert shown.count('response norm') == shown.count('dropout 0.5') == 2
  assert '2 columns, 60,965,224 parameters' in shown
  assert 'left out' not in shown
  assert crossings(figure) == 3  # before conv3, fc6 and fc7


def test_a_drawing_shows_itself_in_a_notebook():
  assert drawing.draw(net_of('digits'))._repr_png_().startswith(b'\x89PNG')


def test_windows_and_maps_have_one_scale():
  net = AlexNet()
  pixel = 2.6 / 224  # the image's side on paper
  sides = np.array(windows(drawing.draw(net))) / pixel
  # A window's left edge is as high as the kernel's side: 11 of the image for each column, 5, then
  # conv3's own and the other column's of both, then 3 for conv4 and conv5.
  assert sides == pytest.approx([11] * 2 + [5] * 2 + [3] * 8, rel=1e-6)


@pytest.mark.parametrize(
  ('config', 'there', 'not_there', 'crossing'),
  [
    ('imagenet_one_column', ['1 column, 59,798,312 parameters', '27x27x128'], ['column 1'], 0),
    ('imagenet_conv6_pretrain', ['conv6', 'bottleneck', '21,843 classes'], ['left out'], 5),
    ('imagenet_source', ['response norm', 'norm within maps'], ['left out'], 3),
    ('cifar10', ['norm within maps', 'average pool 3, stride 2', 'left out'], ['conv6'], 0),
    ('cifar10_13pct', ['not shared', 'left out'], ['response norm'], 0),
    ('digits', ['8x8x3', '10 classes'], ['left out'], 3),
    ('imagenet_caffe', ['response norm over both'], ['response norm'], 3),
  ],
)
def test_other_networks_are_drawn_as_what_they_are(config, there, not_there, crossing):
  figure = drawing.draw(net_of(config))
  shown = texts(figure)
  assert not [text for text in there if text not in shown]
  assert not [text for text in not_there if text in shown]
  assert crossings(figure) == crossing


def test_a_layer_that_is_left_out_keeps_its_pool():
  net = net_of('digits').clone(
    conv2=Convolution(0), response_norm=ResponseNorm(layers=()), pool=Pool()
  )
  shown = texts(drawing.draw(net))
  assert shown[shown.index('conv2') :][1:3] == ['left out', 'max pool 3, stride 2']


@pytest.mark.parametrize('config', ['imagenet', 'digits', 'cifar10', 'imagenet_conv6_pretrain'])
def test_everything_is_on_the_page_and_no_text_covers_another(config):
  figure = drawing.draw(net_of(config), 'a title')
  figure.canvas.draw()
  page = figure.bbox
  boxes = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text()]
  assert all(
    page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes
  )
  shrunk = [(b.x0 + 1, b.y0 + 1, b.x1 - 1, b.y1 - 1) for b in boxes]
  for number, (x0, y0, x1, y1) in enumerate(shrunk):
    for other in shrunk[number + 1 :]:
      assert x1 < other[0] or other[2] < x0 or y1 < other[1] or other[3] < y0
