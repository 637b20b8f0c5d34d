"""--mode=figures: what it chooses, what it leaves in the workdir, what it says of mistakes."""

import dataclasses
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained, workdir
from alexnet_jax.data import augment, included, splits
from alexnet_jax.evaluation import given_images
from alexnet_jax.reports import canvas, plot_run
from alexnet_jax.training import step
from alexnet_jax.utils.errors import UserError
from tests.launching import launch
from tests.small import tiny_config
from tests.trained import write_run

NAMES = {
  'learning_curves', 'figure2_network', 'figure3_kernels', 'figure4_predictions',
  'figure4_retrieval', 'evidence', 'best_patches', 'kernels_start_and_now',
}  # fmt: skip
ONLY_OF_TRAINING = {'figure4_retrieval', 'best_patches'}
HIDDEN = ('conv1', 'conv3', 'fc6')


def leave_run(path, config):
  """A workdir with a checkpoint, and lines of metrics.jsonl."""
  write_run(path, config, steps=(7,))
  log = workdir.MetricsLog(path, 0)
  for split, error in (('train', 0.9), ('validation', 0.875)):
    errors = {'top1_error': error, 'top5_error': error, 'loss': 2.3}
    speed = {'images_per_second': 320.0, 'learning_rate': 0.01}
    log.write({'step': 7, 'epoch': 0.3, 'split': split, **errors, **speed})
  log.close()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'small'
  leave_run(path, tiny_config())
  return path


def test_of_a_locally_connected_layer_the_centers_kernels_are_taken():
  kernels = np.arange(3 * 4 * 1 * 1 * 3 * 2).reshape(3, 4, 1, 1, 3, 2)
  for given in (kernels, kernels[1, 2]):
    np.testing.assert_array_equal(
      plot_run.first_kernels({'conv1': {'kernel': given}}), kernels[1, 2]
    )


def test_images_are_gray_where_the_colors_of_their_mean_are_equal():
  mean = np.arange(8, dtype=np.float32).reshape(2, 4, 1) * np.ones(3, np.float32)
  statistics = augment.Statistics(mean, np.ones(3), np.eye(3))
  assert plot_run.is_gray(statistics)
  mean[0, 1, 2] += 1
  assert not plot_run.is_gray(statistics)


@pytest.fixture
def shown(monkeypatch):
  """Figures by the names under which they would be saved."""
  shown = {}

  def keep(picture, path):
    shown[path.name] = picture
    return [path.with_suffix('.png')]

  monkeypatch.setattr(canvas, 'save', keep)
  return shown


def test_the_command_leaves_all_figures_whole(run):
  code, out, err = launch(f'--workdir={run}', '--mode=figures')
  assert (code, err) == (0, '')
  assert 'color selectivity' not in out  # digits are gray
  names = {f'activations_{name}' for name in HIDDEN} | NAMES
  there = {path.name for path in (run / 'figures').iterdir()}
  assert there == {f'{name}.{kind}' for name in names for kind in ('png', 'pdf', 'svg')}
  for name in names:
    png = (run / 'figures' / f'{name}.png').read_bytes()
    assert png.startswith(b'\x89PNG')
    assert png.endswith(b'IEND\xaeB`\x82')
    ElementTree.parse(run / 'figures' / f'{name}.svg')
    assert str(run / 'figures' / f'{name}.png') in out


def test_figures_show_the_data(run, shown):
  plot_run.draw(run, tiny_config())
  title = shown['figure4_retrieval'].get_suptitle()
  assert title.startswith('digits, 2 columns, step 7, top-1 error 87.5%\n')
  assert title.endswith('nearest by fc6')
  validation, training = included.digits('validation'), included.digits('train')
  axes = shown['figure4_predictions'].axes
  headings = [one.get_title() for one in axes[::2]]
  assert headings == ['surest right'] * 2 + ['least sure'] * 3 + ['surest wrong'] * 3
  for one in axes[::2]:  # whole squares, not the network's crops
    image = np.asarray(one.get_images()[0].get_array())
    found = np.flatnonzero((validation.images == image).all(axis=(1, 2, 3)))
    assert one.get_xlabel() in {str(validation.labels[i]) for i in found}
  for image, bars in zip(axes[::2], axes[1::2], strict=True):
    right = bars.texts[0].get_text() == image.get_xlabel()
    assert image.get_title() == 'least sure' or right == (image.get_title() == 'surest right')
  assert [len(one.patches) for one in axes[1::2]] == [5] * 8
  axes = shown['figure4_retrieval'].axes
  assert len(axes) == 5 * 7
  image = np.asarray(axes[1].get_images()[0].get_array())
  found = np.flatnonzero((training.images == image).all(axis=(1, 2, 3)))
  assert axes[1].get_xlabel().split()[0] in {str(training.labels[i]) for i in found}
  assert len(shown['activations_conv3'].axes) == 3
  assert len(shown['evidence'].axes) == 3 * 8
  axes = shown['best_patches'].axes
  assert len(axes) == 8
  assert axes[0].get_ylabel() == 'conv3\n7x7 pixels'


def test_one_column_without_fully_connected_layers_is_drawn(tmp_path, shown):
  config = tiny_config({'model.num_columns': 1, 'model.fc6.features': 0})
  leave_run(tmp_path, config)
  _, color = plot_run.draw(tmp_path, config)
  assert color == []
  assert 'digits, 1 column, step 7' in shown['figure3_kernels'].get_suptitle()
  assert shown['figure4_retrieval'].get_suptitle().endswith('nearest by conv5_pool')
  assert set(shown) == {f'activations_{name}' for name in HIDDEN[:2]} | NAMES


def keep_training_images(monkeypatch, count):
  """Leaves only so many images of the training split."""
  whole = included.digits

  def cut(split):
    there = whole(split)
    few = splits.ArraySplit(there.images[:count], there.labels[:count], there.class_names)
    return few if split == 'train' else there

  monkeypatch.setattr(included, 'digits', cut)


def test_another_layer_and_other_runs_may_be_chosen_and_few_training_images_are_shown(
  run, shown, monkeypatch, tmp_path
):
  keep_training_images(monkeypatch, 2)
  monkeypatch.setattr(plot_run, '_draw_seen', lambda *_: None)  # others look at these
  other = tmp_path / 'other'
  other.mkdir()
  shutil.copy(run / 'metrics.jsonl', other)
  plot_run.draw(run, tiny_config(), 'conv1_norm', [str(other)])
  assert len(shown['figure4_retrieval'].axes) == 5 * 3
  assert shown['figure4_retrieval'].get_suptitle().endswith('nearest by conv1_norm')
  (legend,) = shown['learning_curves'].legends
  names = [text.get_text() for text in legend.get_texts()]
  assert names == [str(run), str(other), 'training', 'validation']


def test_kernels_at_the_start_are_those_with_which_training_starts():
  config = tiny_config()
  net, mesh = experiment.make_network(config), experiment.make_mesh(config)
  state = step.init_state(net, experiment.make_optimizer(config, net), mesh, 3)
  np.testing.assert_array_equal(
    plot_run.initial_kernels(net, 3), plot_run.first_kernels(state.params)
  )


def test_mistakes_are_named_before_anything_is_drawn(run, shown, tmp_path):
  with pytest.raises(UserError, match=r"no layer 'fc9'; there are conv1, .*fc8"):
    plot_run.draw(run, tiny_config(), 'fc9')
  with pytest.raises(UserError, match=r'nowhere has no metrics.jsonl'):
    plot_run.draw(run, tiny_config(), compare=[str(tmp_path / 'nowhere')])
  with pytest.raises(UserError, match='no complete checkpoint; train first'):
    plot_run.draw(tmp_path, tiny_config())
  with pytest.raises(UserError, match='another experiment'):
    plot_run.draw(run, tiny_config({'model.num_columns': 1}))
  assert not shown


def test_of_other_images_predictions_and_activations_are_drawn_alone(
  run, shown, monkeypatch, capsys
):
  given = given_images.GivenImages('folder /x/other', 'all', included.digits('train'), None)
  monkeypatch.setattr(given_images, 'open_images', lambda *_: given)
  with pytest.raises(UserError, match='--layer=fc6 is for training images, but folder /x/other is'):
    plot_run.draw(run, tiny_config(), 'fc6')
  assert not shown
  plot_run.draw(run, tiny_config())
  said = capsys.readouterr().err
  assert (
    f'folder /x/other is not what {run} was trained on: predictions, evidence and activations'
    in said
  )
  assert 'retrieval and best patches, which look for training images, are left out' in said
  assert set(shown) == {f'activations_{name}' for name in HIDDEN} | NAMES - ONLY_OF_TRAINING
  title = shown['figure4_predictions'].get_suptitle()
  assert title.startswith('digits, 2 columns, step 7\nimages of other (all) and the classes')


def test_without_metrics_there_are_no_curves_and_of_another_networks_kernels_no_start(
  run, shown, tmp_path, capsys, monkeypatch
):
  copy = tmp_path / 'copy'
  shutil.copytree(run, copy)
  (copy / 'metrics.jsonl').unlink()
  (copy / 'config.json').unlink()
  config = tiny_config({'train.init_from': 'runs/other'})
  workdir.write_config(copy, experiment.resolved(config))
  network = dataclasses.replace(pretrained.read(copy), config=config)
  monkeypatch.setattr(pretrained, 'read', lambda *_, **__: network)
  plot_run.draw(copy, config)
  said = capsys.readouterr().err
  assert 'has no metrics.jsonl; its learning curves are left out' in said
  assert 'conv1 began with the kernels of runs/other' in said
  left_out = {'learning_curves', 'kernels_start_and_now'}
  assert set(shown) == {f'activations_{name}' for name in HIDDEN} | NAMES - left_out
  assert 'error' not in shown['figure3_kernels'].get_suptitle()
