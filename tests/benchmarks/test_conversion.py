"""The benchmark of conversion compares what it says, and names what is not installed."""

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.evaluation.classifier import Classifier
from benchmarks import conversion
from benchmarks.conversion import Answer, Figures
from configs import digits

CROPS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


@pytest.fixture(scope='module')
def network():
  return conversion.random_network(digits.get_config())


def test_networks_that_come_back_with_the_same_bits_are_not_altered(network, tmp_path, monkeypatch):
  monkeypatch.setattr(conversion, 'READ_AGAIN', ('.safetensors', '.torch.safetensors'))
  assert conversion.altered(network, tmp_path, network.params) == []


def test_what_comes_back_with_other_bits_is_named(network, tmp_path, monkeypatch):
  def read_again(*_):
    yield '.same', network
    yield (
      '.params',
      network.__class__(
        **{
          **vars(network),
          'params': jax.tree.map(lambda leaf: np.nextafter(leaf, 1), network.params),
        }
      ),
    )
    mean = network.statistics._replace(mean_image=network.statistics.mean_image[::-1])
    yield '.mean', network.__class__(**{**vars(network), 'statistics': mean})

  monkeypatch.setattr(conversion, 'read_again', read_again)
  other = jax.tree.map(np.negative, network.params)
  assert conversion.altered(network, tmp_path, other) == ['read', '.params', '.mean']


def test_an_exported_program_answers_as_the_network_does(network, tmp_path):
  [(source, program, logits)] = conversion.answers(network, tmp_path, CROPS, ['.jaxexport'])
  assert (source, program) == ('.jaxexport', 'jax.export')
  expected = Classifier(**vars(network)).logits(CROPS)
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_rows_have_differences_and_name_what_is_not_installed():
  ours = np.float32([[1, -30], [2, 3]])
  found = [(Answer('.a', 'jax.export', ours + 0.5), 'crops'), (Answer('.b', 'X', None), 'crops')]
  first, second = conversion.rows(Figures('net', ours, found, []))
  assert first == (
    *('net', '.a', f'jax.export {jax.__version__}'),
    *('2 crops', '5.0e-01', '30.0', 'same bits'),
  )
  assert second[2:5] == ('X', 'crops', 'not installed')
  [altered] = conversion.rows(Figures('net', ours, found[:1], ['.c', '.d']))
  assert altered[-1] == 'not .c, .d'


def test_photographs_are_equally_many_of_each_class(tmp_path):
  for label, name in enumerate(('ant', 'bee', 'cat')):
    for split, count in (('train', 4), ('val', 1)):
      folder = tmp_path / split / name
      folder.mkdir(parents=True)
      for number in range(count):
        Image.new('RGB', (9, 9), (100 * label, number, 0)).save(folder / f'{number}.png')
  names = {file.read_bytes(): file.parent.name for file in tmp_path.glob('*/*/*.png')}
  files = conversion.photographs(tmp_path, 6)
  assert sorted(names[file] for file in files) == ['ant', 'ant', 'bee', 'bee', 'cat', 'cat']
