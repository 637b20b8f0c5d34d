"""Figures show what they are given: heights, colors, places and names."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from alexnet_jax.reports import canvas, figures
from alexnet_jax.utils.errors import UserError


def test_color_selectivity_is_the_share_that_is_not_gray():
  rng = np.random.default_rng(0)
  gray = np.repeat(rng.normal(size=(5, 5, 1)), 3, axis=2)
  opponent = gray * np.array([1, -1, 0])
  red = gray * np.array([1, 0, 0])
  kernels = np.stack([gray, opponent, red, 0 * gray, gray + opponent], axis=-1)
  expected = [0, 1, 2 / 3, 0, 2 / 5]  # the last: energy 3 of gray, 2 of color
  np.testing.assert_allclose(figures.color_selectivity(kernels), expected, atol=1e-12)
  random = rng.normal(size=(11, 11, 3, 1000)).astype(np.float32)
  assert figures.color_selectivity(random).mean() == pytest.approx(2 / 3, abs=0.005)


def test_kernels_stand_sixteen_in_a_row_a_column_above_the_other():
  rng = np.random.default_rng(1)
  kernels = rng.normal(size=(11, 11, 3, 96))
  kernels[..., 48:] *= 0.1  # each column has a scale of its own
  figure = figures.kernels(kernels, 2, 'title')
  assert figure.get_suptitle() == 'title'
  assert len(figure.axes) == 2
  for i, axes in enumerate(figure.axes):
    ours = kernels[..., 48 * i : 48 * (i + 1)]
    mean = figures.color_selectivity(ours).mean()
    assert axes.get_title(loc='left') == (
      f'column {i + 1}: 48 kernels, mean color selectivity {mean:.2f} (0 gray, 2/3 random, 1 color only)'
    )
    picture = np.asarray(axes.get_images()[0].get_array())
    assert picture.shape == (3 * 12 - 1, 16 * 12 - 1, 3)
    scaled = (ours - ours.min()) / (ours.max() - ours.min())
    np.testing.assert_allclose(picture[12:23, 24:35], scaled[..., 18])  # second row, third
    assert not picture[11].any()
    assert not picture[:, 11].any()


@pytest.mark.parametrize(
  ('count', 'size', 'columns', 'shape'),
  [
    (96, 11, 1, (71, 191, 3)),
    (10, 3, 1, (3, 39, 3)),
    (34, 5, 2, (11, 95, 3)),
    (2, 1, 2, (1, 1, 3)),
  ],
)
def test_kernels_of_any_number_and_size_are_drawn(count, size, columns, shape):
  figure = figures.kernels(np.ones((size, size, 3, count), np.float32), columns, '')
  assert [axes.get_images()[0].get_array().shape for axes in figure.axes] == [shape] * columns


def test_kernels_of_a_network_for_gray_images_are_drawn_as_their_sums():
  kernels = np.random.default_rng(1).normal(size=(3, 3, 3, 4))
  (axes,) = figures.kernels(kernels, 1, '', gray=True).axes
  sums = kernels.sum(axis=2)
  scaled = (sums - sums.min()) / (sums.max() - sums.min())
  picture = np.squeeze(axes.get_images()[0].get_array())
  assert picture.shape == (3, 15)
  np.testing.assert_allclose(picture[:, 4:7], scaled[..., 1])
  assert 'sums of red, green and blue' in axes.get_title(loc='left')


def test_kernels_at_the_start_stand_beside_those_of_now():
  before, after = np.random.default_rng(1).normal(size=(2, 3, 3, 3, 20))
  axes = figures.kernels_before_and_after(before, after, 2, 'title').axes
  assert len(axes) == 4
  for kernels, one in zip((before, after), axes[2:], strict=True):
    ours = kernels[..., 10:]
    picture = np.asarray(one.get_images()[0].get_array())
    assert picture.shape == (7, 31, 3)  # two rows of eight
    np.testing.assert_allclose(
      picture[4:7, :3], (ours[..., 8] - ours.min()) / (ours.max() - ours.min())
    )
  assert axes[2].get_title().startswith('column 2 at the start: weights from')
  assert axes[3].get_title().startswith('column 2 now: weights from')


@pytest.mark.parametrize('count', [1, 8])
def test_what_evidence_means_is_on_the_page_below_few_images_too(count):
  maps = np.ones((count, 4, 4))
  images = np.zeros((count, 4, 4, 3), np.uint8)
  picture = figures.evidence(images, maps, maps, np.ones(count), [0] * count, 'a', 'title')
  picture.draw_without_rendering()
  [explained] = [text for text in picture.texts if text.get_text().startswith('covered')]
  place = explained.get_window_extent()
  assert 0 <= place.x0 < place.x1 <= picture.bbox.width


def test_evidence_has_mid_gray_where_nothing_changes():
  images = np.arange(2 * 12, dtype=np.uint8).reshape(2, 2, 2, 3)
  drops = np.array([[[0.5, -0.1], [0, 0]], [[0, 0], [0, 0.001]]])
  gradients = np.array([[[0, 1], [2, 3]], [[0, 0], [0, 0]]], np.float32)
  picture = figures.evidence(images, drops, gradients, [0.75, 1.0], [1, 1], ('a', 'b'), 'title')
  shown, covered, gradient = np.reshape(picture.axes, (3, 2))
  assert (shown[0].get_images()[0].get_array() == images[0]).all()
  assert [axes.get_xlabel() for axes in shown] == ['b: 75.0%', 'b: 100.0%']
  assert covered[0].get_xlabel() == 'loses up to 0.5,\ngains up to 0.1'
  assert [axes.get_images()[0].get_clim() for axes in covered] == [(-0.5, 0.5), (-0.1, 0.1)]
  assert [axes.get_images()[0].get_clim() for axes in gradient] == [(0, 3), (0, 1)]


def test_best_patches_stand_nine_in_a_square_a_layer_in_a_row():
  patches = {
    'conv2': [np.full((9, 2, 2, 3), 51 * i, np.uint8) for i in range(3)],
    'conv3': [np.full((4, 5, 5, 3), 255, np.uint8)],
  }
  axes = figures.best_patches(patches, {'conv2': [0, 7, 9], 'conv3': [5]}, '').axes
  assert [one.get_title() for one in axes] == ['map 0', 'map 7', 'map 9', 'map 5', '', '']
  assert [axes[i].get_ylabel() for i in (0, 3)] == ['conv2\n2x2 pixels', 'conv3\n5x5 pixels']
  picture = np.asarray(axes[1].get_images()[0].get_array())
  assert picture.shape == (8, 8, 3)
  np.testing.assert_allclose(picture[0, 0], 0.2)
  assert not axes[5].get_images()


def test_each_map_has_a_scale_of_its_own_and_stands_beside_the_image():
  maps = np.zeros((4, 6, 32))
  maps[1, 2, 0], maps[1, 3, 0], maps[3, 5, 17] = 2.0, 0.5, 8.0
  image = np.full((7, 7, 3), 9, np.uint8)
  beside, first, second = figures.activations(maps, 2, 'title', image).axes
  assert (beside.get_images()[0].get_array() == image).all()
  assert first.get_title(loc='left') == (
    "column 1: 16 maps of 4x6, white: each map's maximum, 0 to 2, 15 all 0"
  )
  assert np.squeeze(first.get_images()[0].get_array())[1, 2:4].tolist() == [1, 0.25]
  assert second.get_images()[0].get_array()[3, 7 + 5] == 1


@pytest.mark.parametrize(
  ('maps', 'columns', 'title', 'shape'),
  [
    (np.arange(4096.0), 2, 'column 1: 2048 units, black 0, white 4.1e+03', (16, 128)),
    (np.zeros(6), 1, 'column 1: 6 units, black 0, white 0', (1, 6)),
    (
      -np.ones((2, 2, 5)),
      1,
      "column 1: 5 maps of 2x2, white: each map's maximum, -1 to -1",
      (5, 11),
    ),
  ],
)
def test_activations_of_any_layer_are_drawn(maps, columns, title, shape):
  axes = figures.activations(maps, columns, '').axes
  assert len(axes) == columns
  assert axes[0].get_title(loc='left') == title
  picture = axes[0].get_images()[0].get_array()
  assert picture.shape == shape
  assert np.isfinite(picture).all()


def test_the_maps_of_several_images_are_not_taken_for_one_s():
  with pytest.raises(UserError, match=r"maps are of shape \[1, 2, 2, 5\]; pass one image's"):
    figures.activations(np.ones((1, 2, 2, 5)), 1, '')


NAMES = ('tench, Tinca tinca', 'a $ b $', 'c' * 60, 'd', 'e', 'f')


def test_predictions_have_five_bars_of_which_the_true_one_is_red_and_outlined():
  images = np.arange(3 * 12, dtype=np.uint8).reshape(3, 2, 2, 3)
  probabilities = np.array(
    [[0.5, 0.2, 0.1, 0.1, 0.06, 0.04], [0, 0, 0, 0, 0.1, 0.9], [0.3, 0.3, 0.2, 0.1, 0.1, 0]]
  )
  headings = ('unsure', 'sure', '')
  figure = figures.predictions(images, probabilities, [1, 4, 5], NAMES, '', headings)
  assert len(figure.axes) == 6
  shown, charts = figure.axes[::2], figure.axes[1::2]
  for axes, image in zip(shown, images, strict=True):
    assert (axes.get_images()[0].get_array() == image).all()
  assert [axes.get_xlabel() for axes in shown] == [r'a \$ b \$', 'e', 'f']
  assert [[bar.get_width() for bar in axes.patches] for axes in charts] == [
    [0.5, 0.2, 0.1, 0.1, 0.06],
    [0.9, 0.1, 0, 0, 0],
    [0.3, 0.3, 0.2, 0.1, 0.1],
  ]
  red = [[to_rgb(bar.get_facecolor())[2] < 0.6 for bar in axes.patches] for axes in charts]
  assert red == [
    [False, True, False, False, False],
    [False, True, False, False, False],
    [False] * 5,
  ]
  outlined = [[bar.get_edgecolor()[3] > 0 for bar in axes.patches] for axes in charts]
  assert outlined == red
  assert charts[0].get_xlim() == (0, 1)
  assert charts[0].get_ylim()[0] > charts[0].get_ylim()[1]  # the most probable on top
  assert [axes.get_title() for axes in shown] == list(headings)
  texts = [text.get_text() for text in charts[0].texts]
  assert texts[::2] == ['tench', r'a \$ b \$', 'c' * 23 + '…', 'd', 'e']
  assert texts[1::2] == ['50.0%', '20.0%', '10.0%', '10.0%', '6.0%']


def test_retrieval_tells_classes_apart_whose_names_begin_alike():
  images = np.zeros((1, 4, 4, 3), np.uint8)
  names = ('tench', 'crane, bird', 'crane, machine', 'crane', 'crane')
  for label, other in ((1, 2), (3, 4)):
    neighbors = [images[[0, 0]]]
    figure = figures.retrieval(
      images, [label], neighbors, [[label, other]], np.ones((1, 2)), names, ''
    )
    labels = [axes.get_xlabel() for axes in figure.axes]
    first, second = (names[i] if i < 3 else f'crane [{i}]' for i in (label, other))
    assert labels == [first, f'{first}\n1', f'{second}\n1']
    assert figure.axes[2].xaxis.label.get_style() == 'italic'


def test_predictions_of_two_classes_have_two_bars():
  figure = figures.predictions(
    np.zeros((1, 8, 8, 3), np.uint8), np.array([[0.25, 0.75]]), [0], ('cat', 'dog'), ''
  )
  assert [bar.get_width() for bar in figure.axes[1].patches] == [0.75, 0.25]


def test_retrieval_has_the_test_image_first_and_names_what_differs():
  images = np.stack([np.full((4, 4, 3), i, np.uint8) for i in range(2)])
  neighbors = [
    np.stack([np.full((4, 4, 3), 10 * (i + 1) + j, np.uint8) for j in range(3)]) for i in range(2)
  ]
  classes, near = ('cat', 'dog'), [[0, 1, 0], [1, 1, 1]]
  figure = figures.retrieval(images, [0, 1], neighbors, near, np.ones((2, 3)) / 3, classes, '')
  values = [int(axes.get_images()[0].get_array()[0, 0, 0]) for axes in figure.axes]
  assert values == [0, 10, 11, 12, 1, 20, 21, 22]
  labels = [axes.xaxis.label for axes in figure.axes]
  assert [label.get_text() for label in labels[:3]] == ['cat', 'cat\n0.333', 'dog\n0.333']
  assert "its features' distance" in figure.get_supxlabel()
  slanted = [label.get_style() == 'italic' for label in labels]
  assert slanted == [False, False, True, False, False, False, False, False]


def test_photographs_do_not_make_heavy_files(tmp_path):
  rng = np.random.default_rng(2)
  photographs = rng.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
  neighbors = [np.repeat(photographs, 3, axis=0)] * 2
  near = [[0, 0, 0, 1, 1, 1]] * 2
  figure = figures.retrieval(photographs, [0, 1], neighbors, near, np.ones((2, 6)), 'ab', '')
  assert all(path.stat().st_size < 3_000_000 for path in canvas.save(figure, tmp_path / 'heavy'))
