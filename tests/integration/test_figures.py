"""Figures show what they are given: heights, colors, places and names."""

import functools
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.colors import to_rgb

from alexnet_jax.reports import figures, fonts

RECORDS = [
  {'step': 5, 'epoch': 0.5, 'split': 'train', 'loss': 2.0, 'top1_error': 0.75},
  {'step': 10, 'epoch': 1.0, 'split': 'train', 'loss': 1.5, 'top1_error': 0.5},
  {'step': 10, 'epoch': 1.0, 'split': 'validation', 'loss': 1.6, 'top1_error': 0.55},
  {'step': 20, 'epoch': 2.0, 'split': 'train', 'loss': 1.0, 'top1_error': 0.25},
  {'step': 20, 'epoch': 2.0, 'split': 'validation', 'loss': 1.2, 'top1_error': 0.3},
]


@pytest.mark.parametrize(
  ('panel', 'name', 'train', 'validation'),
  [
    (0, 'cross-entropy loss', [2.0, 1.5, 1.0], [1.6, 1.2]),
    (1, 'top-1 error, %', [75, 50, 25], [55, 30]),
  ],
)
def test_both_splits_are_drawn_over_epochs(panel, name, train, validation):
  axes = figures.learning_curves({'run': RECORDS}, 'a run').axes[panel]
  assert axes.get_xlabel() == 'epochs'
  assert axes.get_ylabel() == name
  assert axes.get_yscale() == 'log'
  lines = {line.get_label(): line for line in axes.get_lines()}
  assert lines.keys() == {'training', 'validation'}
  assert list(lines['training'].get_xdata()) == [0.5, 1.0, 2.0]
  assert list(lines['training'].get_ydata()) == pytest.approx(train)
  assert list(lines['validation'].get_xdata()) == [1.0, 2.0]
  assert list(lines['validation'].get_ydata()) == pytest.approx(validation)


@pytest.mark.parametrize(
  ('errors', 'ticks'),
  [
    ([0.5, 0.01], [1, 2, 5, 10, 20, 50]),
    ([0.9, 0.0001, 0.0], [0.01, 0.1, 1, 10, 100]),
    ([0.41, 0.32], [30, 35, 40, 45]),
  ],
)
def test_errors_of_1_and_50_percent_can_both_be_read(errors, ticks):
  records = [{**RECORDS[2], 'epoch': i, 'top1_error': error} for i, error in enumerate(errors)]
  axes = figures.learning_curves({'run': records}, '').axes[1]
  assert axes.get_yticks() == pytest.approx(ticks)
  beside = figures.curves_beside_base([records], {'a': [records], 'b': [records]}, '')
  assert beside.axes[1].get_yticks() == pytest.approx(ticks)


def test_errors_that_are_all_0_are_drawn_on_a_linear_scale():
  records = [{**RECORDS[2], 'loss': 0.0, 'top1_error': 0.0}]
  assert figures.learning_curves({'run': records}, '').axes[1].get_yscale() == 'linear'


def test_the_splits_are_told_apart_without_color():
  figure = figures.learning_curves({'run': RECORDS}, 'a run')
  for axes in figure.axes:
    train, validation = axes.get_lines()
    assert train.get_linestyle() != validation.get_linestyle()
  legend = figure.axes[0].get_legend()
  assert [text.get_text() for text in legend.get_texts()] == ['training', 'validation']
  assert figure.get_suptitle() == 'a run'


def test_several_runs_are_told_apart_by_markers_and_named():
  runs = {'runs/relu': RECORDS, 'runs/tanh': RECORDS[:3]}
  figure = figures.learning_curves(runs, 'two')
  for axes in figure.axes:
    lines = axes.get_lines()
    assert [len(line.get_xdata()) for line in lines] == [3, 2, 2, 1]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert lines[1].get_marker() != lines[3].get_marker()
    brightness = [np.mean(to_rgb(lines[i].get_color())) for i in (1, 3)]
    assert brightness[1] - brightness[0] > 0.1
  (legend,) = figure.legends
  names = [text.get_text() for text in legend.get_texts()]
  assert names == ['runs/relu', 'runs/tanh', 'training', 'validation']


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
      f'column {i + 1}: 48 kernels, color selectivity {mean:.2f}'
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


def test_evidence_has_mid_gray_where_nothing_changes():
  images = np.arange(2 * 12, dtype=np.uint8).reshape(2, 2, 2, 3)
  drops = np.array([[[0.5, -0.1], [0, 0]], [[0, 0], [0, 0.001]]])
  gradients = np.array([[[0, 1], [2, 3]], [[0, 0], [0, 0]]], np.float32)
  picture = figures.evidence(images, drops, gradients, [0.75, 1.0], [1, 1], ('a', 'b'), 'title')
  shown, covered, gradient = np.reshape(picture.axes, (3, 2))
  assert (shown[0].get_images()[0].get_array() == images[0]).all()
  assert [axes.get_xlabel() for axes in shown] == ['b: 75.0 %', 'b: 100.0 %']
  assert covered[0].get_xlabel() == 'loses up to 50.0,\ngains up to 10.0 points'
  assert [axes.get_images()[0].get_clim() for axes in covered] == [(-0.5, 0.5), (-0.01, 0.01)]
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


NAMES = ('tench, Tinca tinca', 'a $ b $', 'c' * 60, 'd', 'e', 'f')


def test_predictions_have_five_bars_of_which_the_true_one_is_red_and_outlined():
  images = np.arange(3 * 12, dtype=np.uint8).reshape(3, 2, 2, 3)
  probabilities = np.array(
    [[0.5, 0.2, 0.1, 0.1, 0.06, 0.04], [0, 0, 0, 0, 0.1, 0.9], [0.3, 0.3, 0.2, 0.1, 0.1, 0]]
  )
  headings = ('unsure', 'sure', '')
  figure = figures.predictions(images, probabilities, [1, 4, 5], NAMES, '', headings, per_row=2)
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
  assert texts[1::2] == ['50.0 %', '20.0 %', '10.0 %', '10.0 %', '6.0 %']


def test_classes_whose_names_begin_alike_are_told_apart():
  names = ('crane, bird', 'crane, machine', 'tench, Tinca tinca', 'crane', '  , odd')
  assert figures.short_names(names, 24) == [
    'crane, bird', 'crane, machine', 'tench', 'crane', '  , odd'
  ]  # fmt: skip
  long = ['a' * 40 + end for end in (', red', ', blue')]
  assert figures.short_names(long, 16) == ['a' * 7 + '…aaa, red', 'a' * 7 + '…aa, blue']
  middle = ['a' * 30 + letter + 'z' * 30 for letter in 'bc']
  assert figures.short_names(middle, 16) == [f'aaaa…{letter}zzzzzzzzz…' for letter in 'bc']
  chinese = [f'北方常见的野生花卉第{number}种红色春季开花秋季结果' for number in '一二三']
  assert figures.short_names(chinese, 16) == [f'北方…{number}种红色春…' for number in '一二三']
  assert figures.short_names(('one', 'one'), 16) == ['one [0]', 'one [1]']
  assert figures.short_names(('one', 'one'), 16, (7, 9)) == ['one [7]', 'one [9]']


@pytest.mark.parametrize('length', [16, 24, 32])
def test_short_names_are_all_different_and_no_longer_than_asked(length):
  rng = np.random.default_rng(0)
  names = sorted({''.join(rng.choice(list('ab,猫 '), rng.integers(1, 60))) for _ in range(300)})
  short = figures.short_names(names, length)
  assert len(set(short)) == len(names)
  assert all(sum(1 + (letter == '猫') for letter in name) <= length for name in short)


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
  [file, *_] = figures.save(picture, tmp_path / 'a')  # matplotlib's warnings of boxes are errors
  assert file.exists()
  assert not caplog.records  # that it has no bold letters
  families = {
    text.get_text(): text.get_fontfamily() for text in [picture._suptitle, *picture.axes[1].texts]
  }
  assert 'STIXGeneral' in families[CIRCLED]
  assert 'STIXGeneral' not in families['dog']


def test_names_of_ticks_are_drawn_with_another_font_too(tmp_path, monkeypatch):
  only_fonts(monkeypatch, 'DejaVu Sans', 'STIXGeneral')
  picture = figures.differences([figures.Bar(CIRCLED, 1, [1, 1], 0, 2, 1, 1, True)], '')
  figures.save(picture, tmp_path / 'a')
  [label] = picture.axes[0].get_yticklabels()
  assert 'STIXGeneral' in label.get_fontfamily()


def test_characters_that_no_font_has_are_said_and_drawn_as_boxes(tmp_path, monkeypatch):
  only_fonts(monkeypatch, 'DejaVu Sans', 'Last Resort High-Efficiency')
  said = fonts.missing(['猫', 'cat', '狗'])
  assert 'no installed font has 2 characters (狗 猫)' in said
  assert 'Noto Sans CJK' in said
  picture = figures.learning_curves({'run': RECORDS[:2]}, '猫')
  assert all(file.exists() for file in figures.save(picture, tmp_path / 'a'))


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


def curves():
  return figures.learning_curves({'run': RECORDS[:2]}, r'$\nothing')  # no formula


def test_figures_are_saved_as_png_pdf_and_svg_the_same_every_time(tmp_path):
  written = figures.save(curves(), tmp_path / 'new' / 'epoch.1')
  png, pdf, svg = written
  assert {path.name for path in png.parent.iterdir()} == {
    'epoch.1.png', 'epoch.1.pdf', 'epoch.1.svg'
  }  # fmt: skip
  assert png.read_bytes().startswith(b'\x89PNG')
  assert b'/FontFile2' in pdf.read_bytes()  # a TrueType font within
  assert not re.search(b'/Type3|/CreationDate', pdf.read_bytes())
  assert ElementTree.parse(svg).getroot().tag.endswith('svg')
  before = [path.read_bytes() for path in written]
  figures.save(curves(), tmp_path / 'new' / 'epoch.1')
  assert [path.read_bytes() for path in written] == before


def test_a_figure_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
  figure = curves()
  written = figures.save(figure, tmp_path / 'curves')
  before = [path.read_bytes() for path in written]

  def fail(path, **_):
    path.write_bytes(b'half')
    raise OSError('disk full')

  monkeypatch.setattr(figure, 'savefig', fail)
  with pytest.raises(OSError, match='disk full'):
    figures.save(figure, tmp_path / 'curves')
  assert [path.read_bytes() for path in written] == before


def test_a_figure_shows_itself_in_a_notebook():
  assert curves()._repr_png_().startswith(b'\x89PNG')


def test_photographs_do_not_make_heavy_files(tmp_path):
  rng = np.random.default_rng(2)
  photographs = rng.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
  neighbors = [np.repeat(photographs, 3, axis=0)] * 2
  near = [[0, 0, 0, 1, 1, 1]] * 2
  figure = figures.retrieval(photographs, [0, 1], neighbors, near, np.ones((2, 6)), 'ab', '')
  assert all(path.stat().st_size < 3_000_000 for path in figures.save(figure, tmp_path / 'heavy'))


def trained(errors, every=0.5):
  """Training lines of metrics.jsonl, so many epochs apart, an epoch being 20 steps."""
  return [
    {
      'step': round(20 * every * (i + 1)),
      'split': 'train',
      'epoch': every * (i + 1),
      'top1_error': error,
      'loss': error,
    }
    for i, error in enumerate(errors)
  ]


def test_epochs_are_counted_to_the_first_line_at_most_so_wrong():
  records = trained([0.9, 0.5, 0.25, 0.3, 0.1])
  validation = {'split': 'validation', 'epoch': 0.1, 'top1_error': 0.0, 'loss': 0}
  assert figures.epochs_to([validation, *records], 0.25, 10) == 1.5
  assert figures.epochs_to(records, 0.05, 10) is None
  assert figures.epochs_to([], 0.25, 10) is None


def test_every_window_of_a_training_error_has_as_many_steps():
  records = [
    {'split': split, 'step': step, 'epoch': step / 100, 'top1_error': error}
    for split, step, error in (
      ('train', 40, 0.9),
      ('train', 65, 0.8),  # an epoch's end
      ('validation', 65, 0.0),
      ('train', 80, 0.4),
      ('train', 120, 0.3),
      ('train', 130, 0.0),  # nothing follows
    )
  ]
  epochs, errors = figures.training_errors(records, 40)
  assert epochs == [0.4, 0.8, 1.2]
  assert errors == pytest.approx([0.9, (25 * 0.8 + 15 * 0.4) / 40, 0.3])
  assert figures.epochs_to(records, 0.3001, 40) == 1.2
  # Windows of 20 steps: of those that no line ends nothing is known.
  assert figures.training_errors(records, 20) == ([], [])
  assert figures.training_errors([], 40) == ([], [])


def test_figure_1_draws_relu_solid_and_tanh_dashed_with_the_line_of_25_percent():
  relu, tanh = trained([0.6, 0.25, 0.2]), trained([0.9, 0.8, 0.7, 0.5, 0.3, 0.2])
  picture, caption = figures.figure1(relu, tanh, 10, 'CIFAR-10')
  (axes,) = picture.axes
  lines = {line.get_label(): line for line in axes.lines if line.get_label()[0] != '_'}
  assert lines['ReLU'].get_linestyle() == '-'
  assert lines['tanh'].get_linestyle() == '--'
  assert list(lines['tanh'].get_ydata()) == pytest.approx([0.9, 0.8, 0.7, 0.5, 0.3, 0.2])
  assert any(list(line.get_ydata()) == [0.25, 0.25] for line in axes.lines)
  assert caption == (
    '25 % training error over 10 steps: ReLU after 1.0 epochs, tanh after 3.0 epochs, 3.0 times as many. In the'
    ' paper: six times.'
  )


def test_figure_1_does_not_claim_what_was_not_reached():
  relu, tanh = trained([0.6, 0.2]), trained([0.9, 0.8, 0.7, 0.6])
  assert (
    'tanh does not in 2.0 epochs, more than 2.0 times as many'
    in (figures.figure1(relu, tanh, 10, '')[1])
  )
  assert figures.figure1(tanh, tanh, 10, '')[1] == (
    '25 % training error over 10 steps: ReLU does not in 2.0 epochs, tanh does not in 2.0 epochs. In the paper:'
    ' six times.'
  )


def bars(*differences):
  return [
    figures.Bar(
      f'what variant {i} is, in a few more words',
      value,
      [value - 0.25, value + 0.25],
      value - 0.5,
      value + 0.5,
      1.4 if i else math.nan,
      math.nan,
      bool(i),
    )
    for i, value in enumerate(differences)
  ]


def test_a_bar_for_each_variant_with_its_seeds_and_what_the_paper_reports():
  picture = figures.differences(bars(-0.5, 2.0), 'ablations')
  (axes,) = picture.axes
  assert [patch.get_width() for patch in axes.patches] == [-0.5, 2.0]
  assert [label.get_text() for label in axes.get_yticklabels()] == [
    f'what variant {i} is, in a few more\nwords' for i in range(2)
  ]
  pale, dark = (patch.get_facecolor()[0] for patch in axes.patches)
  assert pale > dark  # not significant, significant
  seeds = next(line for line in axes.lines if line.get_marker() == 'o')
  assert list(seeds.get_xdata()) == [-0.75, -0.25, 1.75, 2.25]
  assert list(seeds.get_ydata()) == [0, 0, 1, 1]
  marks = next(line for line in axes.lines if line.get_marker() == 'D')
  np.testing.assert_array_equal(marks.get_xdata(), [math.nan, 1.4])
  assert not any(line.get_marker() == 'X' for line in axes.lines)  # nobody reports from the source
  assert axes.get_xscale() == 'linear'


def test_one_variant_that_fails_altogether_does_not_hide_the_others():
  assert figures.differences(bars(-0.5, 60.0), '').axes[0].get_xscale() == 'symlog'


def test_each_variant_has_a_panel_with_the_base_behind_it():
  validation = [
    {'split': 'validation', 'epoch': epoch, 'top1_error': 1 / epoch, 'loss': 1} for epoch in (1, 2)
  ]
  variants = {f'variant {i}': [validation, validation] for i in range(5)}
  picture = figures.curves_beside_base([validation], variants, 'curves')
  drawn = [panel for panel in picture.axes if panel.lines]
  assert [panel.get_title() for panel in drawn] == list(variants)
  for panel in drawn:
    assert [line.get_color() for line in panel.lines] == ['0.7', 'black', 'black']
    assert list(panel.lines[0].get_ydata()) == [100, 50]
