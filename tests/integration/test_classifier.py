"""The classifier computes for images of any kind what training's evaluation computes."""

import asyncio
import copy
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import ExifTags, Image

import alexnet_jax
from alexnet_jax import experiment
from alexnet_jax.checkpoints import pretrained, safetensors_file
from alexnet_jax.convert.export import export
from alexnet_jax.data import augment, images, included, pipeline
from alexnet_jax.evaluation.classifier import Classifier, Prediction
from alexnet_jax.parallel import mesh as mesh_lib
from alexnet_jax.utils.errors import UserError
from tests.launching import launch
from tests.small import random_params, small_config
from tests.trained import write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Of a run on two devices, with two checkpoints."""
  path = tmp_path_factory.mktemp('run')
  write_run(path, small_config({'mesh.column_devices': 2}), steps=(7, 10))
  return path


@pytest.fixture(scope='module')
def classifier(workdir):
  return alexnet_jax.load(workdir)


@pytest.fixture(scope='module')
def digits():
  """[359, 8, 8, 3] uint8."""
  return included.digits('validation').images


def photograph(height=30, width=41):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def in_a_process(code, *args, cwd=ROOT):
  """Runs code in a process that has none of the test run's settings, warnings being errors."""
  environment = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', code, *map(str, args)],
    cwd=cwd,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == ''
  return done.stdout


def on_two_devices(workdir, crops):
  """Logits of center crops as evaluation computes them, with one column on each of two devices."""
  mesh = mesh_lib.make_mesh(2, 2, 1)
  network = pretrained.read(workdir)
  specs = mesh_lib.parameter_specs(network.params)
  params = mesh_lib.place(network.params, mesh_lib.shardings(mesh, specs))
  net = experiment.make_network(network.config).local(mesh_lib.COLUMN, 2)
  options = experiment.augment_options(network.config)
  border = (network.config.data.image_size - network.config.model.input_size) // 2
  offsets = np.full((len(crops), 2), border, np.int32)

  def on_device(params, statistics, crops, offsets):
    pixels = augment.evaluation_pixels(crops, offsets, statistics, options)
    return net.apply({'params': params}, pixels)[0]

  in_specs = (specs, mesh_lib.REPLICATED, mesh_lib.BATCH, mesh_lib.BATCH)
  sharded = jax.shard_map(on_device, mesh=mesh, in_specs=in_specs, out_specs=mesh_lib.BATCH)
  statistics = mesh_lib.replicate(mesh, network.statistics)
  return jax.jit(sharded)(params, statistics, crops, offsets)


ELSEWHERE = """
import sys
import alexnet_jax
assert 'jax' not in sys.modules
import numpy as np
classifier = alexnet_jax.load(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], classifier.logits(images))
classifier.predict(images)[0]._repr_html_()
import jax
from absl import flags
assert not flags.FLAGS.is_parsed()
import logging
assert not logging.getLogger().handlers  # else basicConfig would do nothing
heavy = {'tensorflow', 'tensorflow_datasets', 'sklearn', 'matplotlib', 'tensorboardX'}
print(jax.device_count(), (heavy | {'configs'}) & sys.modules.keys())
"""


def test_one_device_without_tensorflow_gives_what_evaluation_on_two_gives(
  workdir, classifier, digits, tmp_path
):
  np.save(tmp_path / 'digits.npy', digits[:20])
  out = in_a_process(ELSEWHERE, workdir, tmp_path / 'digits.npy', tmp_path / 'logits.npy')
  assert out == '1 set()\n'
  logits = np.load(tmp_path / 'logits.npy')
  wanted = on_two_devices(workdir, digits[:20, :7, :7])
  assert logits.dtype == np.float32
  assert np.ptp(logits) > 2
  np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5)
  np.testing.assert_allclose(classifier.logits(digits[:20]), wanted, rtol=0, atol=1e-5)


def test_crops_are_those_of_evaluation(classifier):
  split = included.digits('validation')
  batch = next(pipeline.evaluation_batches(split, 64, crop_size=7))
  np.testing.assert_array_equal(classifier.crops(split.images[:64]), batch['image'])


def test_a_running_event_loop_as_notebooks_have_does_not_matter(workdir, classifier, digits):
  async def cell():
    return alexnet_jax.load(workdir).logits(digits[0])

  np.testing.assert_array_equal(asyncio.run(cell()), classifier.logits(digits[0]))


def test_whatever_holds_a_network_is_loaded(workdir, classifier, digits, tmp_path):
  pretrained.write(tmp_path / 'net.safetensors', classifier)
  for path in (workdir / 'checkpoints' / str(classifier.step), tmp_path / 'net.safetensors'):
    loaded = alexnet_jax.load(path)
    assert (loaded.step, loaded.path) == (classifier.step, str(path))
    assert list(loaded.class_names) == list('0123456789')
    np.testing.assert_array_equal(loaded.logits(digits[:3]), classifier.logits(digits[:3]))


def test_predictions_are_the_softmax_s_largest_in_order(classifier, digits):
  predicted = classifier.predict(digits[:6], top_k=3)
  logits = classifier.logits(digits[:6]).astype(np.float64)
  for row, prediction in zip(logits, predicted, strict=True):
    shares = np.exp(row) / np.exp(row).sum()
    best = sorted(range(10), key=lambda i: -shares[i])[:3]
    assert prediction.class_names == tuple(str(i) for i in best)
    np.testing.assert_allclose(prediction.probabilities, shares[best], rtol=1e-5)
  alone = classifier.predict(digits[0], top_k=3)
  assert alone.class_names == predicted[0].class_names
  assert alone.probabilities == pytest.approx(predicted[0].probabilities, rel=1e-4)
  assert len(classifier.predict(digits[0]).class_names) == 5
  everything = classifier.predict(digits[0], top_k=10).probabilities
  assert sum(everything) == pytest.approx(1)


def test_huge_logits_are_no_overflow(workdir, digits):
  network = pretrained.read(workdir)
  params = {**network.params, 'fc8': jax.tree.map(lambda x: 1e4 * x, network.params['fc8'])}
  sure = Classifier(**{**vars(network), 'params': params})
  assert sure.predict(digits[0]).probabilities[0] == 1


def test_an_image_is_the_same_however_it_is_given(classifier, tmp_path):
  array = photograph()
  image, path = Image.fromarray(array), tmp_path / 'photograph.png'
  image.save(path)
  wanted = classifier.logits(array)
  assert wanted.shape == (1, 10)
  as_jax = jax.numpy.asarray(array)
  for same in (path, str(path), image, image.convert('RGBA'), as_jax, array[None], [array]):
    np.testing.assert_allclose(classifier.logits(same), wanted, rtol=0, atol=1e-5)
  mixed = classifier.logits([path, image, array])
  np.testing.assert_allclose(mixed, np.repeat(wanted, 3, axis=0), rtol=0, atol=1e-5)
  by_glob = classifier.predict(tmp_path.glob('*.png'))
  assert by_glob[0].class_names == classifier.predict(array).class_names

  content = path.read_bytes()
  written = io.BytesIO()
  written.write(content)  # and not rewound
  with path.open('rb') as file, path.open('rb', buffering=0) as raw:
    for same in (content, bytearray(content), memoryview(content), written, file, file, raw):
      assert np.array_equal(classifier.logits(same), classifier.logits(path))
    predictions = classifier.predict([file, content])
  assert '<img' in predictions[0]._repr_html_()
  assert predictions[0].class_names == predictions[1].class_names

  gray = array[..., 0]
  np.testing.assert_allclose(
    classifier.logits(gray), classifier.logits(np.repeat(gray[..., None], 3, -1)), atol=1e-5
  )


def test_an_image_that_is_given_several_times_is_read_once(classifier, tmp_path, monkeypatch):
  arrays = [photograph(), photograph(41, 30)]
  for number, array in enumerate(arrays):
    Image.fromarray(array).save(tmp_path / f'{number}.png')
  seen, as_shown = [], images.as_shown
  monkeypatch.setattr(images, 'as_shown', lambda image, *a: seen.append(image) or as_shown(image))
  with Image.open(tmp_path / '0.png') as first, Image.open(tmp_path / '1.png') as second:
    crops = classifier.crops([first, second, first, first])
  assert {id(image) for image in seen} == {id(first), id(second)}
  assert len(seen) == 2
  np.testing.assert_array_equal(crops, classifier.crops([arrays[i] for i in (0, 1, 0, 0)]))


def test_images_that_can_be_read_are_predicted_beside_those_that_cannot(classifier):
  first, second = photograph(), photograph(41, 30)
  predictions, unreadable = classifier.predict_readable([first, 'no.png', second])
  assert predictions == classifier.predict([first, second])
  assert unreadable == [('no.png', 'cannot read no.png: No such file or directory')]
  assert classifier.predict_readable('no.png') == ([], unreadable)


def test_a_closed_file_is_named(classifier, tmp_path):
  path = tmp_path / 'photograph.png'
  Image.fromarray(photograph()).save(path)
  with path.open('rb') as file:
    pass
  with pytest.raises(UserError, match=r'cannot read .*photograph\.png: .*closed file'):
    classifier.predict(file)


def test_a_classifier_is_pickled_before_and_after_its_first_prediction(workdir, digits):
  classifier = alexnet_jax.load(workdir)
  unused = pickle.loads(pickle.dumps(classifier))
  wanted = classifier.logits(digits[:3])
  for same in (unused, pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)):
    assert np.array_equal(same.logits(digits[:3]), wanted)
    assert repr(same) == repr(classifier)


def test_a_classifier_is_equal_to_itself_alone(workdir, classifier):
  other = alexnet_jax.load(workdir)
  assert classifier == classifier
  assert classifier != other
  assert len({classifier, classifier, other}) == 2


def test_what_jax_was_set_to_as_a_whole_does_not_matter(workdir, digits, classifier, request):
  wanted = classifier.logits(digits[:3])
  request.getfixturevalue('x64')
  kind = jax.sharding.AxisType.Explicit
  mesh = jax.make_mesh((2,), ('x',), axis_types=(kind,), devices=jax.devices()[:2])
  with jax.set_mesh(mesh):
    of_now = alexnet_jax.load(workdir)
    np.testing.assert_allclose(of_now.logits(digits[:3]), wanted, atol=1e-5)
    assert of_now.layers
    assert of_now._repr_html_()
    assert jax.sharding.get_abstract_mesh() == mesh.abstract_mesh
  assert jax.config.jax_enable_x64


def test_one_image_is_one_prediction_and_a_list_is_a_list(classifier, digits):
  image = Image.fromarray(digits[0])
  for one in (image, digits[0], digits[0, :, :, 0]):
    assert isinstance(classifier.predict(one), Prediction)
  for many in ([image], (image, image), digits[:1], iter([image])):
    assert isinstance(classifier.predict(many), list)


def test_a_turned_photograph_is_turned_however_it_is_given(classifier, tmp_path):
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 6
  path = tmp_path / 'turned.png'
  Image.fromarray(photograph()).save(path, exif=exif)
  wanted = classifier.crops(np.rot90(photograph(), -1))
  with Image.open(path) as image:
    np.testing.assert_array_equal(classifier.crops(image), wanted)
    assert image.size == (41, 30)
  np.testing.assert_array_equal(classifier.crops(path), wanted)


def test_images_count_for_themselves_whatever_their_number_in_few_programs(workdir, digits):
  classifier = alexnet_jax.load(workdir)
  each = np.concatenate([classifier.logits(image) for image in digits[:7]])
  for count in range(1, 8):
    np.testing.assert_allclose(classifier.logits(digits[:count]), each[:count], atol=1e-5)
  assert classifier._steps['fc8']._cache_size() == 4  # 1, 2, 4 and 8 images
  many = classifier.logits(digits[:300])
  assert many.shape == (300, 10)
  np.testing.assert_allclose(many[:7], each, atol=1e-5)
  np.testing.assert_allclose(many[128:], classifier.logits(digits[128:300]), atol=1e-5)


def test_a_layer_s_plain_name_is_its_activation(classifier, digits):
  def features(layer):
    return classifier.features(digits[:3], layer)

  assert features('fc7').shape == (3, 64)
  assert features('fc7').dtype == np.float32
  assert features('fc7_linear').min() < 0
  np.testing.assert_array_equal(features('fc7'), classifier.features(digits[:3]))
  np.testing.assert_array_equal(features('fc7'), np.maximum(features('fc7_linear'), 0))
  np.testing.assert_array_equal(features('fc7'), features('fc7_activation'))
  np.testing.assert_allclose(features('fc7_dropout'), 0.8 * features('fc7'), rtol=1e-6)
  np.testing.assert_allclose(features('fc8'), classifier.logits(digits[:3]), atol=1e-6)
  assert {name: features(name).shape[1:] for name in ('conv1', 'conv1_pool', 'fc6')} == {
    name: classifier.layers[name] for name in ('conv1', 'conv1_pool', 'fc6')
  }
  assert classifier.layers['conv1'] == (7, 7, 16)


def test_features_are_computed_in_the_run_s_precision_and_given_in_float32(workdir, digits):
  network = pretrained.read(workdir)
  config = network.config.copy_and_resolve_references()
  config.train.precision = 'bfloat16'
  half = Classifier(**{**vars(network), 'config': config}).features(digits[:2], 'conv5')
  assert half.dtype == np.float32
  np.testing.assert_array_equal(half, half.astype(jax.numpy.bfloat16).astype(np.float32))


@pytest.mark.parametrize(
  ('images', 'words'),
  [
    ([], 'there are no images'),
    (np.zeros((0, 8, 8, 3), np.uint8), 'there are no images'),
    (np.zeros((8, 8, 3)), 'of float64; pass pixels from 0 to 255 as uint8'),
    ([photograph(), np.zeros((8, 8, 3), np.float32)], r'image 1 \(counted from 0\) is of float32'),
    (np.zeros((8, 8, 4), np.uint8), r'shape \(8, 8, 4\); pass \[H, W, 3\]'),
    (np.zeros((2, 8, 8, 1), np.uint8), r'image 0 .* shape \(8, 8, 1\)'),
    (np.zeros((1, 2, 8, 8, 3), np.uint8), r'shape \(1, 2, 8, 8, 3\)'),
    (np.zeros((0, 8, 3), np.uint8), r'shape \(0, 8, 3\)'),
    (3, 'image 0 .* is of type int; pass a path'),
    ([photograph(), {}], 'image 1 .* is of type dict; pass a path'),
    (b'', 'image 0 .* is not an image, or is incomplete'),
    (io.BytesIO(b'no image'), 'image 0 .* is not an image, or is incomplete'),
    ([io.StringIO('text')], r"StringIO is open as text; open it as open\(path, 'rb'\)"),
    ('nowhere.jpg', 'cannot read nowhere.jpg: No such file'),
    ([Path('tests')], 'cannot read tests: Is a directory'),
    (['pyproject.toml'], 'pyproject.toml is not an image, or is incomplete: cannot identify'),
    (Image.new('F', (3, 3)), 'image 0 .* is not an image, .* no fixed range'),
  ],
)
def test_what_is_no_image_is_named(classifier, images, words, monkeypatch):
  monkeypatch.chdir(ROOT)
  for method in (classifier.predict, classifier.logits, classifier.features, classifier.crops):
    with pytest.raises(UserError, match=words):
      method(images)


def test_a_bad_image_far_into_a_list_is_named_by_its_place(classifier, digits):
  with pytest.raises(UserError, match=r'cannot read no\.png'):
    classifier.logits([*digits[:200], 'no.png'])
  with pytest.raises(UserError, match=r'image 200 .* of float64'):
    classifier.logits([*digits[:200], np.zeros((8, 8))])


def test_arrays_of_paths_are_lists_of_paths(classifier, tmp_path):
  paths = []
  for name in ('a.png', 'b.png'):
    Image.fromarray(photograph()).save(tmp_path / name)
    paths.append(str(tmp_path / name))
  for array in (np.array(paths), np.array(paths, object)):
    np.testing.assert_array_equal(classifier.logits(array), classifier.logits(paths))


@pytest.mark.parametrize('top_k', ['3', 2.0])
def test_top_k_that_is_no_whole_number_is_named(classifier, digits, top_k):
  with pytest.raises(UserError, match=f'top_k is {top_k!r}; it must be a whole number'):
    classifier.predict(digits[0], top_k)


def test_top_k_may_be_an_array_of_one_number(classifier, digits):
  assert len(classifier.predict(digits[0], np.array(3)).class_names) == 3


def test_several_layers_are_not_taken_for_one(classifier, digits):
  with pytest.raises(UserError, match=r"layer is \['fc6', 'fc7'\]; give the name of one"):
    classifier.features(digits[0], ['fc6', 'fc7'])


@pytest.mark.parametrize('top_k', [0, -1, 11])
def test_top_k_out_of_range_says_what_it_may_be(classifier, digits, top_k):
  with pytest.raises(
    UserError, match=f'top_k is {top_k}, but must be from 1 to 10, the number of classes'
  ):
    classifier.predict(digits[0], top_k)


def test_an_unknown_layer_is_answered_with_those_there_are(classifier, digits):
  with pytest.raises(UserError, match=r"no layer 'pool5'; there are conv1, .*conv5_pool, .*fc8"):
    classifier.features(digits[0], 'pool5')


def test_what_cannot_be_loaded_is_said(workdir, classifier, tmp_path):
  with pytest.raises(UserError, match=r'there is no .*nowhere'):
    alexnet_jax.load(tmp_path / 'nowhere')
  copy = tmp_path / 'run'
  shutil.copytree(workdir, copy)
  best = copy / 'checkpoints' / str(classifier.step)
  for data in best.joinpath('params').rglob('d/*'):
    data.write_bytes(data.read_bytes()[:100])
  with pytest.raises(UserError, match=r'is damaged .* use another checkpoint'):
    alexnet_jax.load(best)
  with pytest.warns(UserWarning, match=f'checkpoint {classifier.step} is damaged') as warned:
    assert alexnet_jax.load(copy).step != classifier.step
  # Orbax leaves warnings of its own behind a read that failed.
  ours = [each for each in warned if 'is damaged' in str(each.message)]
  assert ours[0].filename == __file__


def test_a_classifier_and_its_predictions_print_in_words(classifier, digits):
  lines = repr(classifier).splitlines()
  assert lines[0] == f'AlexNet from {classifier.path}'
  assert lines[1].startswith('2 columns, 7x7x3 input, ')
  assert lines[2] == f'10 classes (0, 1, 2, ..., 9), trained for {classifier.step} steps'
  one = classifier.predict(digits[0], top_k=2)
  assert repr(one) == 'Prediction({}: {:.1%}, {}: {:.1%})'.format(
    *[part for pair in zip(one.class_names, one.probabilities, strict=True) for part in pair]
  )
  many = classifier.predict(digits[:22], top_k=2)
  assert repr(many).splitlines()[0] == repr(one)
  assert many._repr_html_().count('<img') == 20
  assert 'and 2 more' in many._repr_html_()
  assert f'{sum(leaf.size for leaf in jax.tree.leaves(classifier.params)):,}' in repr(classifier)


def test_html_is_escaped_and_shows_what_there_is(classifier, digits, tmp_path):
  html = Classifier(
    **{**vars(pretrained.read(classifier.path)), 'class_names': ['<b>', '&', *'23456789']}
  )
  table = html._repr_html_()
  assert '&lt;b&gt;, &amp;, 2' in table
  assert '<b>' not in table
  assert '16 of 3x3x3' in table
  path = tmp_path / 'digit.png'
  Image.fromarray(digits[0]).save(path)
  prediction = html.predict(path, top_k=10)
  assert '&lt;b&gt;' in prediction._repr_html_()
  assert '<b>' not in prediction._repr_html_()
  assert 'data:image/png;base64,' in prediction._repr_html_()
  path.unlink()
  assert '<img' not in prediction._repr_html_()


def test_showing_a_prediction_leaves_the_image_as_it_was(classifier):
  image = Image.new('RGB', (600, 400))
  assert '<img' in classifier.predict(image)._repr_html_()
  assert image.size == (600, 400)


ALONE = """
import sys
import jax, jax.export, numpy as np, safetensors.numpy
arrays = safetensors.numpy.load_file(sys.argv[1])
program = jax.export.deserialize(bytearray(arrays.pop('program')))
crops = np.load(sys.argv[2])
for n in (1, 5):
  np.save(f'{n}.npy', jax.jit(program.call)(arrays, crops[:n]))
print(*program.platforms, 'alexnet_jax' in sys.modules, 'flax' in sys.modules)
"""


def test_an_exported_program_runs_with_jax_alone_at_any_batch_size(
  workdir, classifier, digits, tmp_path
):
  target = tmp_path / 'alexnet.jaxexport'
  export(pretrained.read(workdir), target)
  assert [path.name for path in tmp_path.iterdir()] == [target.name]
  np.save(tmp_path / 'crops.npy', classifier.crops(digits[:5]))
  out = in_a_process(ALONE, target, tmp_path / 'crops.npy', cwd=tmp_path)
  assert out == 'cpu cuda tpu False False\n'
  wanted = classifier.logits(digits[:5])
  for n in (1, 5):
    np.testing.assert_allclose(np.load(tmp_path / f'{n}.npy'), wanted[:n], rtol=0, atol=1e-5)

  loaded = alexnet_jax.load(target)
  np.testing.assert_allclose(loaded.logits(digits[:5]), wanted, rtol=0, atol=1e-5)
  assert (loaded.step, list(loaded.class_names)) == (classifier.step, list('0123456789'))
  jax.tree.map(np.testing.assert_array_equal, loaded.params, classifier.params)


@pytest.mark.parametrize(
  'overrides',
  [
    {'model.num_columns': 1, 'model.conv6.features': 8},
    {'model.response_norm.over': 'all_channels', 'model.within_norm.layers': ('conv2',)},
    {'model.locally_connected': ('conv3',), 'model.pool.average': ('conv2',)},
    {'train.precision': 'bfloat16', 'augment.mean': 'channel', 'model.activation': 'tanh'},
  ],
)
def test_every_kind_of_network_is_exported(classifier, digits, overrides, tmp_path):
  config = small_config(overrides)
  params = random_params(experiment.make_network(config))
  network = pretrained.PretrainedNetwork(
    params, config, classifier.statistics, list('0123456789'), None, ''
  )
  export(network, tmp_path / 'net')
  arrays = safetensors_file.read_arrays(tmp_path / 'net')
  program = jax.export.deserialize(bytearray(arrays.pop('program')))
  loaded = alexnet_jax.load(tmp_path / 'net')
  np.testing.assert_allclose(
    program.call(arrays, loaded.crops(digits[:3])), loaded.logits(digits[:3]), atol=1e-5
  )
  assert 'trained for' not in repr(loaded)


def test_the_command_line_exports(workdir, digits, classifier, tmp_path):
  target = tmp_path / 'digits.jaxexport'
  code, out, err = launch('--mode=convert', f'--source={workdir}', f'--target={target}')
  assert (code, err) == (0, '')
  assert out.splitlines()[-1] == f'written       {target}'
  np.testing.assert_allclose(
    alexnet_jax.load(target).logits(digits[:2]), classifier.logits(digits[:2]), atol=1e-5
  )
