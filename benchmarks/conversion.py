"""How far our logits are from those of the programs whose files we read and write, at full size.

  python benchmarks/conversion.py
  python benchmarks/conversion.py --images=TFDS_FOLDER/imagenet2012/5.1.0 --images=PHOTOS

Networks of the published shapes have random weights, of a fixed seed, with which signals keep their
size from layer to layer: in the files of torchvision, Caffe and caffe-tensorflow, and the paper's
network in what we write for PyTorch, onnxruntime and jax.export. Each program is given the same
crops, torchvision the image files as well, of which its own transforms make pixels. "again" says
whether a network that was read, written for every target that can be read, and read again has the
same bits. Then the network of configs/digits.py is trained, and tells the held-out digits from each
target.

--images is a folder of photographs, or a tfds data set's; without it, images are random. A program
that is not installed (pip install -e ".[peers]") is named.
"""

import argparse
import concurrent.futures
import contextlib
import importlib
import importlib.util
import io
import itertools
import math
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.export  # noqa: E402
import numpy as np  # noqa: E402
import safetensors.numpy  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402
from PIL import Image  # noqa: E402

from alexnet_jax import experiment  # noqa: E402
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork  # noqa: E402
from alexnet_jax.configs import digits, imagenet, imagenet_caffe, imagenet_caffenet  # noqa: E402
from alexnet_jax.convert import convert  # noqa: E402
from alexnet_jax.convert.layouts import CAFFE, TENSORFLOW, Layout, encode  # noqa: E402
from alexnet_jax.data import augment, image_folder, images, included, tfds_reader  # noqa: E402
from alexnet_jax.evaluation.classifier import Classifier  # noqa: E402
from alexnet_jax.models.alexnet import parameter_shapes  # noqa: E402
from alexnet_jax.training import loop  # noqa: E402
from alexnet_jax.utils import provenance  # noqa: E402
from alexnet_jax.utils.display import print_table  # noqa: E402
from alexnet_jax.utils.errors import UserError  # noqa: E402
from benchmarks import caffe_files, peers  # noqa: E402

READ_AGAIN = ('.safetensors', '.jaxexport', '.torch.safetensors', '.pth')
"""Targets that `convert.read` reads."""

_PACKAGES = {  # to import, by program
  'PyTorch': ('torch',),
  'torchvision': ('torch', 'torchvision'),
  'OpenCV': ('cv2',),
  'TensorFlow': ('tensorflow',),
  'onnxruntime': ('torch', 'onnx', 'onnxscript', 'onnxruntime'),
  'jax.export': (),
}
CAFFE_NETWORKS = {
  'bvlc_alexnet': (imagenet_caffe.get_config, ('ReLU', 'LRN', 'Pooling')),
  'CaffeNet': (imagenet_caffenet.get_config, ('ReLU', 'Pooling', 'LRN')),
}
"""The configs of Caffe's networks, and the types of the layers after conv1 and conv2."""

_RANDOM_IMAGES = 16
_CROPS = 32  # photographs on which networks other than torchvision's are compared


class Answer(NamedTuple):
  """What a program makes of a file and images.

  Attributes:
    source: the file, by its ending.
    program: its name.
    logits: [N, classes] float32; None where the program is not installed.
  """

  source: str
  program: str
  logits: np.ndarray | None


class Figures(NamedTuple):
  """What came of one network.

  Attributes:
    network: its name.
    ours: our logits, [N, classes] float32; None where nothing was compared.
    answers: those of others, each with what it was given ('crops', 'JPEG files').
    altered: how it comes back otherwise than it was, as `altered` tells.
  """

  network: str
  ours: np.ndarray | None
  answers: Sequence[tuple[Answer, str]]
  altered: Sequence[str]


def is_installed(program: str) -> bool:
  """Whether all that a program needs can be imported."""
  return all(importlib.util.find_spec(name) for name in _PACKAGES[program])


def version(program: str) -> str:
  """A program's name with its version, without that of its build."""
  packages = _PACKAGES[program]
  module = importlib.import_module(packages[-1]) if packages else jax
  return f'{program} {module.__version__.partition("+")[0]}'


def answer(source: str, program: str, compute: Callable[[], np.ndarray]) -> Answer:
  """Has a program compute, where it is installed."""
  return Answer(source, program, compute() if is_installed(program) else None)


def random_network(config: ConfigDict) -> PretrainedNetwork:
  """A network of random parameters with which signals keep their size, and a random mean image."""
  net = experiment.make_network(config)
  rng = np.random.default_rng(0)

  def draw(path: Sequence[Any], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    std = math.sqrt(2 / math.prod(leaf.shape[-4:-1])) if path[-1].key == 'kernel' else 0.2
    return np.float32(std) * rng.standard_normal(leaf.shape, np.float32)

  params = jax.tree_util.tree_map_with_path(draw, parameter_shapes(net))
  size = config.data.image_size
  statistics = augment.Statistics(
    mean_image=255 * rng.random((size, size, 3), np.float32),
    eigenvalues=rng.random(3, np.float32),
    eigenvectors=rng.standard_normal((3, 3), np.float32),
  )
  names = [f'class {label}' for label in range(net.num_classes)]
  return PretrainedNetwork(params, config, statistics, names, 12, 'nowhere')


def read_again(network: PretrainedNetwork, folder: Path) -> Iterator[tuple[str, PretrainedNetwork]]:
  """Writes a network for each target that can be read, and reads it.

  Yields:
    the target's ending, and the network. A .pth is left out without PyTorch.
  """
  for target in READ_AGAIN:
    if target == '.pth' and not is_installed('PyTorch'):
      continue
    convert.write(folder / f'again{target}', network)
    config = network.config if target == '.pth' else None  # it has none of its own
    yield target, convert.read(folder / f'again{target}', config)


def altered(
  network: PretrainedNetwork, folder: Path, params: Mapping[str, Any] | None = None
) -> list[str]:
  """The targets from which a network's parameters or mean image come back with other bits.

  Args:
    network: it.
    folder: for files.
    params: what it was read from a file of; 'read' is among the targets where it has others.
  """

  def are_same(a: Any, b: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))

  found = [] if params is None or are_same(params, network.params) else ['read']
  for target, back in read_again(network, folder):
    mean, own = back.statistics.mean_image, network.statistics.mean_image
    if not are_same(back.params, network.params) or not np.array_equal(mean, own):
      found.append(target)
  return found


def answers(
  network: PretrainedNetwork, folder: Path, crops: np.ndarray, targets: Iterable[str]
) -> Iterator[Answer]:
  """What other programs compute from the files that we write for them.

  Args:
    network: what is written.
    folder: for files.
    crops: [N, s, s, 3] uint8.
    targets: endings of the files.
  """

  def exported(path: Path) -> np.ndarray:
    arrays = safetensors.numpy.load_file(path)
    program = jax.export.deserialize(bytearray(arrays.pop('program')))
    return np.asarray(jax.jit(program.call)(arrays, crops))

  def in_pytorch(path: Path) -> np.ndarray:
    return peers.torch_logits(peers.torch_module(path), crops)

  def in_onnxruntime(path: Path) -> np.ndarray:
    return peers.onnx_logits(path, crops)

  programs: dict[str, tuple[str, Callable[[Path], np.ndarray]]] = {
    '.jaxexport': ('jax.export', exported),
    '.torch.safetensors': ('PyTorch', in_pytorch),
    '.pth': ('PyTorch', in_pytorch),
    '.onnx': ('onnxruntime', in_onnxruntime),
  }

  def written(target: str) -> np.ndarray:
    convert.write(folder / f'written{target}', network)
    return programs[target][1](folder / f'written{target}')

  for target in targets:
    yield answer(target, programs[target][0], lambda target=target: written(target))


def torchvision(folder: Path, photographs: Sequence[bytes]) -> Figures:
  """AlexNet of torchvision, on the same crops and from the same files."""
  if not is_installed('torchvision'):
    return Figures("torchvision's", None, [(Answer('.pth', 'torchvision', None), 'crops')], [])
  import torch

  model, path = peers.torchvision_alexnet(), folder / 'alexnet.pth'
  torch.save(model.state_dict(), path)
  classifier = Classifier(**vars(convert.read(path)))
  ours, crops = classifier.logits(photographs), classifier.crops(photographs)
  found = [
    (Answer('.pth', 'torchvision', peers.torch_logits(model, pixels)), given)
    for given, pixels in (
      ('crops', peers.torchvision_scaled(crops)),
      ('JPEG files', peers.torchvision_pixels(photographs)),
    )
  ]
  different = altered(classifier, folder)
  back = torch.load(folder / 'again.pth', weights_only=True)
  own = model.state_dict()
  if back.keys() != own.keys() or not all(torch.equal(back[name], own[name]) for name in own):
    different.append('.pth')
  return Figures("torchvision's", ours, found, different)


def caffe(folder: Path, photographs: Sequence[bytes], name: str) -> Figures:
  """One of Caffe's networks by its name in CAFFE_NETWORKS, as OpenCV runs it."""
  get_config, order = CAFFE_NETWORKS[name]
  config = get_config()
  params, blobs = _layers(config, CAFFE)
  layers = list(caffe_files.layers_in_order(blobs, order))
  path, deploy = folder / 'net.caffemodel', folder / 'deploy.prototxt'
  path.write_bytes(caffe_files.typed_caffemodel(layers))
  size, alpha = config.model.input_size, config.model.response_norm.alpha
  deploy.write_text(peers.prototxt(layers, size, alpha))
  classifier = Classifier(**vars(convert.read(path, config)))
  crops = classifier.crops(photographs)
  theirs = answer('.caffemodel', 'OpenCV', lambda: peers.caffe_logits(deploy, path, crops))
  return Figures(
    name, classifier.logits(photographs), [(theirs, 'crops')], altered(classifier, folder, params)
  )


def caffe_tensorflow(folder: Path, photographs: Sequence[bytes]) -> Figures:
  """Caffe's bvlc_alexnet in the layers of caffe-tensorflow, as TensorFlow runs them."""
  config = imagenet_caffe.get_config()
  params, layers = _layers(config, TENSORFLOW)
  path = folder / 'bvlc_alexnet.npy'
  np.save(path, np.array(layers, dtype=object))
  classifier = Classifier(**vars(convert.read(path, config)))
  crops, alpha = classifier.crops(photographs), config.model.response_norm.alpha
  theirs = answer('.npy', 'TensorFlow', lambda: peers.caffe_tensorflow_logits(layers, crops, alpha))
  return Figures(
    'bvlc_alexnet',
    classifier.logits(photographs),
    [(theirs, 'crops')],
    altered(classifier, folder, params),
  )


def _layers(config: ConfigDict, layout: Layout) -> tuple[Any, dict[str, list[np.ndarray]]]:
  """Random parameters of a config's network, and the same as {layer: [weights, biases]}."""
  params = random_network(config).params
  arrays = encode(params, experiment.make_network(config), layout)
  layers = {
    layer: [np.ascontiguousarray(arrays[name]) for name in pair]
    for layer, pair in layout.names.items()
    if layer in params
  }
  return params, layers


def own(folder: Path, photographs: Sequence[bytes]) -> Figures:
  """The paper's network, as others compute it from what we write for them."""
  network = random_network(imagenet.get_config())
  classifier = Classifier(**vars(network))
  crops = classifier.crops(photographs)
  found = answers(network, folder, crops, ('.jaxexport', '.pth', '.onnx'))
  return Figures(
    "the paper's",
    classifier.logits(photographs),
    [(each, 'crops') for each in found],
    altered(network, folder),
  )


def rows(figures: Figures) -> Iterator[tuple[str, ...]]:
  """The cells of a network's answers."""
  again = f'not {", ".join(figures.altered)}' if figures.altered else 'same bits'
  for (source, program, theirs), given in figures.answers:
    if theirs is None or figures.ours is None:
      yield figures.network, source, program, given, 'not installed', '', ''
      continue
    difference = f'{np.abs(figures.ours - theirs).max():.1e}'
    largest = f'{np.abs(figures.ours).max():.1f}'
    images = f'{len(figures.ours)} {given}'
    yield figures.network, source, version(program), images, difference, largest, again


def digit_rows(network: PretrainedNetwork, folder: Path) -> Iterator[tuple[str, ...]]:
  """The cells of the held-out digits as a network tells them, before it is written and after."""
  split = included.digits('validation')
  classifier = Classifier(**vars(network))
  before = classifier.logits(split.images)

  def row(source: str, name: str, logits: np.ndarray | None) -> tuple[str, ...]:
    if logits is None:
      return source, name, 'not installed', ''
    right = f'{(logits.argmax(1) == split.labels).mean():.2%}'
    return source, name, right, f'{np.abs(logits - before).max():.1e}'

  yield row('the workdir, before', 'this project', before)
  for target, back in read_again(network, folder):
    yield row(target, 'this project', Classifier(**vars(back)).logits(split.images))
  targets = ('.jaxexport', '.torch.safetensors', '.pth', '.onnx')
  for source, program, logits in answers(network, folder, classifier.crops(split.images), targets):
    yield row(source, program if logits is None else version(program), logits)


def trained_digits(folder: Path) -> list[tuple[str, ...]]:
  """Trains the network of the digits; returns `digit_rows`."""
  with contextlib.redirect_stdout(sys.stderr):
    loop.train_and_evaluate(digits.get_config(), folder / 'run')
  return list(digit_rows(convert.read(folder / 'run'), folder))


def compared(compare: Callable[..., Figures], *args: Any) -> list[tuple[str, ...]]:
  """The cells of what a comparison finds in a folder of its own."""
  with tempfile.TemporaryDirectory() as folder:
    return list(rows(compare(Path(folder), *args)))


def in_a_process(function: Callable[..., Any], *args: Any) -> Any:
  """What a function returns in a new process: TensorFlow and PyTorch's Triton end a common one."""
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    return pool.submit(function, *args).result()


def photographs(folder: Path, count: int) -> list[bytes]:
  """Image files of a folder or tfds data set, equally many of each class, at most `count`.

  Raises:
    UserError: it holds none.
  """
  if (folder / 'dataset_info.json').exists():
    source: Any = tfds_reader.TfdsSource(tfds_reader.open_directory(folder))
  else:
    source = image_folder.open_folder(folder, validation_fraction=0.1)
  of_class = math.ceil(count / len(source.class_names))
  taken: Counter[int] = Counter()
  files: list[bytes] = []
  for example in itertools.chain.from_iterable(
    source.examples(split, 0) for split in source.splits
  ):
    if len(files) == count:
      break
    if taken[example.label] < of_class:
      with contextlib.suppress(images.UnreadableError):
        files.append(example.read())
        taken[example.label] += 1
  return files


def random_images(count: int) -> list[bytes]:
  """JPEG files of several sizes, of colors that change slowly."""
  rng = np.random.default_rng(0)
  files = []
  for width, height in itertools.islice(
    itertools.cycle([(500, 375), (333, 500), (259, 256)]), count
  ):
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, 'JPEG')
    files.append(file.getvalue())
  return files


def main() -> None:
  """Prints the tables."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--images', type=Path, action='append', default=[], metavar='FOLDER', help='once or more often'
  )
  parser.add_argument(
    '--count', type=int, default=400, help='photographs of each folder, at most (%(default)s)'
  )
  args = parser.parse_args()
  files: list[bytes] = []
  try:
    for folder in args.images:
      files += in_a_process(photographs, folder, args.count)
  except UserError as error:
    parser.error(f'--images: {error}')
  files = files or random_images(_RANDOM_IMAGES)
  some = files[:: math.ceil(len(files) / _CROPS)]
  table = []
  for compare, *given in (
    (torchvision, files),
    *((caffe, some, name) for name in CAFFE_NETWORKS),
    (caffe_tensorflow, some),
    (own, some),
  ):
    for row in in_a_process(compared, compare, *given):
      table.append(row)
      print(*row, sep=', ', file=sys.stderr, flush=True)
  with tempfile.TemporaryDirectory() as scratch:
    told = in_a_process(trained_digits, Path(scratch))

  about = provenance.describe(jax.devices())
  print(f'{about["date"]}, commit {about["commit"]}')
  print(f'{about["devices"]}; Python {about["versions"]["python"]}, jax {jax.__version__}\n')
  print_table(
    'The largest difference from our logits, beside the largest logit',
    ('network', 'from', 'computed by', 'images', 'difference', 'largest', 'again'),
    table,
  )
  print()
  print_table('The held-out digits', ('from', 'computed by', 'right', 'difference'), told)


if __name__ == '__main__':
  main()
