"""Feeds damaged and hostile files to everything here that reads a file of a stranger's.

  python -m tests.robustness.fuzz --seconds=600
  python -m tests.robustness.fuzz --seconds=60 --format=npy --seed=7

Each format's valid small files are mutated: bits, bytes, lengths, slices, and the headers, JSON and
pickles within; of folders, a part becomes a pipe, or a link that leads elsewhere. What reads them
must give something or raise UserError (or what else it documents): no other exception, nothing on
stderr, no message of pages, no long time, no more memory than a few times the file's, and nothing
read or written outside. The same seed gives the same inputs. What is found is printed, and kept in
the folder `fuzz-findings`.
"""

import argparse
import collections
import contextlib
import dataclasses
import faulthandler
import functools
import hashlib
import io
import itertools
import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from alexnet_jax import experiment
from alexnet_jax.checkpoints import checkpoint, pretrained, safetensors_file, workdir
from alexnet_jax.convert import convert
from alexnet_jax.data import image_folder, images, prepare, statistics
from alexnet_jax.evaluation import predictions
from alexnet_jax.reports import canvas, curves
from alexnet_jax.sweeps import report, runner, tables
from alexnet_jax.sweeps import results as sweep_results
from alexnet_jax.utils.errors import UserError
from benchmarks import caffe_files
from tests import onnx_files, other_formats, sweeps
from tests.small import small_config

SECONDS, BYTES = 20, 2**31  # that reading a file of a few kilobytes may take at most
_LONGEST_MESSAGE, _LINES = 1200, 3

Input = dict[str, bytes | str | None]
"""Contents of files by their paths from a folder; a str is where a link leads, None is a pipe."""

_OUTSIDE, _CANARY = '../outside', 'what a file outside holds'
_ELSEWHERE = (f'{_OUTSIDE}/canary', _OUTSIDE, '..', '/', '/etc/passwd', '/dev/zero', 'nowhere')

# JSON as text, where json.dumps could not write it.
_VALUES = (
  'null', 'true', '0', '-1', '1', '2', '0.5', '1e999', '-1e999', 'NaN', '1e308', '1e-320',
  '9' * 30, '9' * 400, '9' * 5000, '""', '"x"', '"../../outside"', '"/etc"', '"a\\u0000b"',
  '"\\ud800"', '"\\u001b[2J"', '"line\\nline\\nline\\nline"', '"' + 'x' * 5000 + '"', '[]', '{}',
  '[1]', '["x"]', '{"x": 1}', '{"": 0}', '{"a.b": 0}', '[[1, 2], [3]]', '[null]',
  '[' * 100_000, '[' * 500 + ']' * 500, '[' * 100_000 + ']' * 100_000, '{"a":' * 100_000,
)  # fmt: skip
_NUMBERS = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60)
_PIECES = (
  b'', b'\0', b'\xff' * 8, b'\n', b'9' * 20, b'\x80' * 12, b'{' * 2000, b'(' * 2000, b'\xe2\x80\xa8'
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
  """Bytes that are nearly a valid file's."""
  content = bytearray(valid)
  for _ in range(draw(st.integers(1, 4))):
    at = draw(st.integers(0, max(0, len(content) - 1)))
    length = draw(st.sampled_from((1, 2, 4, 8, 32, 300)))
    match draw(st.integers(0, 7)):
      case 0 if content:
        content[at] ^= 1 << draw(st.integers(0, 7))
      case 1 if content:
        content[at] = draw(st.integers(0, 255))
      case 2:
        size, order = draw(st.sampled_from((1, 2, 4, 8))), draw(st.sampled_from(('little', 'big')))
        number = draw(st.sampled_from(_NUMBERS)) % 256**size
        content[at : at + size] = number.to_bytes(size, order)
      case 3:
        del content[at:]
      case 4:
        del content[at : at + length]
      case 5:
        content[at:at] = draw(st.sampled_from(_PIECES))
      case 6:
        content[at:at] = draw(st.binary(min_size=1, max_size=8))
      case 7:
        there = draw(st.integers(0, max(0, len(content) - 1)))
        content[there:there] = content[at : at + length]
  return bytes(content)


@st.composite
def mutated_json(draw: st.DrawFn, valid: Any) -> bytes:
  """JSON, or nearly, of which some values are others, or left out."""
  value, texts = json.loads(json.dumps(valid)), {}
  for i in range(draw(st.integers(1, 2))):
    part = value
    while True:
      keys = list(part) if isinstance(part, dict) else range(len(part))
      if not keys:
        break
      key = draw(st.sampled_from(keys))
      if isinstance(part[key], dict | list) and part[key] and draw(st.integers(0, 5)):
        part = part[key]
        continue
      if draw(st.integers(0, 4)):
        texts[f'"mark {i}"'] = draw(st.sampled_from(_VALUES))
        part[key] = f'mark {i}'
      else:
        del part[key]
      break
  text = json.dumps(value)
  for mark, hostile in texts.items():
    text = text.replace(mark, hostile)
  return text.encode()


def _json_or_bytes(valid: Any) -> st.SearchStrategy[bytes]:
  return st.one_of(mutated_json(valid), mutated(json.dumps(valid).encode()))


def _one_file(name: str, contents: Sequence[st.SearchStrategy[bytes]]) -> st.SearchStrategy[Input]:
  return st.one_of(*contents).map(lambda content: {name: content})


def _parts(content: bytes) -> dict[str, bytes]:
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    return {name: archive.read(name) for name in archive.namelist()}


@st.composite
def mutated_zip(draw: st.DrawFn, valid: bytes) -> bytes:
  """A zip file of which a member is mutated, missing, compressed or there twice."""
  parts = list(_parts(valid).items())
  at = draw(st.integers(0, len(parts) - 1))
  name, content = parts[at]
  match draw(st.integers(0, 9)):
    case 0:
      del parts[at]
    case 1:
      parts.append((name, bytes(10**7)))
    case _:
      parts[at] = name, draw(mutated(content))
  packed = io.BytesIO()
  kind = draw(st.sampled_from((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED,)))
  with warnings.catch_warnings(action='ignore'), zipfile.ZipFile(packed, 'w', kind) as archive:
    for name, content in parts:
      archive.writestr(name, content)
  return packed.getvalue()


@st.composite
def mutated_safetensors(draw: st.DrawFn, valid: bytes) -> bytes:
  """A safetensors file whose header is mutated, and the header's JSON within."""
  (length,) = struct.unpack('<Q', valid[:8])
  header = json.loads(valid[8 : 8 + length])
  described = [key for key in header['__metadata__'] if key.startswith('alexnet_jax')]
  if described and draw(st.integers(0, 2)):
    description = json.loads(header['__metadata__'][described[0]])
    text = draw(mutated_json(description)).decode()
    header['__metadata__'][described[0]] = text
    packed = json.dumps(header).encode()
  else:
    packed = draw(_json_or_bytes(header))
  stated = draw(st.sampled_from((len(packed),) * 12 + _NUMBERS))
  return struct.pack('<Q', stated) + packed + valid[8 + length :]


@st.composite
def mutated_png(draw: st.DrawFn, valid: bytes) -> bytes:
  """A PNG whose first chunk, which has the size, is mutated; its check sum is right."""
  chunk = bytearray(valid[12:29])
  for _ in range(draw(st.integers(1, 3))):
    at = draw(st.integers(4, 16))
    chunk[at] = draw(st.sampled_from((0, 1, 2, 3, 4, 6, 8, 16, 127, 128, 255)))
  return valid[:12] + bytes(chunk) + struct.pack('>I', zlib.crc32(chunk)) + valid[33:]


@st.composite
def _a_mutated_file(draw: st.DrawFn, valid: dict[str, bytes]) -> Input:
  name = draw(st.sampled_from(sorted(valid)))
  content = valid[name]
  try:
    parsed = json.loads(content)
    strategy = _json_or_bytes(parsed) if isinstance(parsed, dict) else mutated(content)
  except ValueError:
    strategy = mutated(content)
  return {**valid, name: draw(strategy)}


@st.composite
def strange(draw: st.DrawFn, inputs: st.SearchStrategy[Input]) -> Input:
  """An input of which a file, or a folder with all in it, is a pipe or a link."""
  given = draw(inputs)
  paths = {path for name in given for path in (Path(name), *Path(name).parents[:-1])}
  chosen = draw(st.sampled_from(sorted(paths)))
  replaced = {name for name in given if Path(name).is_relative_to(chosen)}
  others = {name: content for name, content in given.items() if name not in replaced}
  match draw(st.integers(0, 3)):
    case 0:
      return {**others, str(chosen): None}
    case 1:
      return {**others, str(chosen): draw(st.sampled_from(_ELSEWHERE))}
  moved = {f'{_OUTSIDE}/{name}': given[name] for name in replaced}
  return {**others, **moved, str(chosen): f'{_OUTSIDE}/{chosen}'}


def _contents(folder: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


@dataclasses.dataclass(frozen=True)
class Format:
  """A kind of file.

  Attributes:
    inputs: makes the strategy of inputs; it may write into the folder that it is given.
    read: reads an input from its folder.
    raises: what it may raise.
    follows_links: whether links may lead out of the folder.
  """

  inputs: Callable[[Path], st.SearchStrategy[Input]]
  read: Callable[[Path], Any]
  raises: tuple[type[Exception], ...] = (UserError,)
  follows_links: bool = False


FORMATS: dict[str, Format] = {}


def _format(
  name: str,
  inputs: Callable[[Path], Any],
  *raises: type[Exception],
  follows_links: bool = False,
) -> Callable[..., Any]:
  def register(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    FORMATS[name] = Format(inputs, read, raises or (UserError,), follows_links)
    return read

  return register


def _caffemodels(_: Path) -> st.SearchStrategy[Input]:
  blobs = other_formats.caffe_blobs()
  encoders = (
    caffe_files.old_caffemodel,
    caffe_files.caffemodel,
    functools.partial(caffe_files.caffemodel, encode=caffe_files.double_blob),
  )
  small = {layer: blobs[layer] for layer in ('conv1', 'fc8')}
  return _one_file(
    'x.caffemodel', [mutated(encode(b)) for encode in encoders for b in (small, blobs)]
  )


@_format('caffemodel', _caffemodels)
def _read_caffemodel(folder: Path) -> Any:
  return convert.read(folder / 'x.caffemodel', other_formats.caffe_config())


def _onnx_files(_: Path) -> st.SearchStrategy[Input]:
  blobs = other_formats.caffe_blobs()
  small = {layer: blobs[layer] for layer in ('conv1', 'fc8')}
  kernel = small['conv1'][0]
  beside = onnx_files.elsewhere('x.data', 0, kernel.nbytes)
  files = [onnx_files.of_caffe2(b, ('Relu', 'LRN', 'MaxPool')) for b in (small, blobs)]
  within = _one_file('x.onnx', [mutated(file) for file in files])
  other = mutated(onnx_files.model([onnx_files.tensor('conv1_w_0', kernel, beside)]))
  data = st.sampled_from([kernel.tobytes(), None, *_ELSEWHERE])
  return within | st.tuples(other, data).map(lambda pair: {'x.onnx': pair[0], 'x.data': pair[1]})


@_format('onnx', _onnx_files)
def _read_onnx(folder: Path) -> Any:
  return convert.read(folder / 'x.onnx', other_formats.caffe_config())


def _binaryprotos(_: Path) -> st.SearchStrategy[Input]:
  return _one_file('x.binaryproto', [mutated(caffe_files.binaryproto(np.ones((3, 4, 4))))])


@_format('binaryproto', _binaryprotos)
def _read_binaryproto(folder: Path) -> Any:
  return convert.read_mean(folder / 'x.binaryproto', 4, 3)


def _npys(_: Path) -> st.SearchStrategy[Input]:
  layers = {'conv1': [np.ones((2, 2), np.float32), np.ones(2)], 'fc8': [np.ones(1), np.ones(3)]}
  pickles = [other_formats.pickled(layers, protocol) for protocol in (2, 3, 4, 5)]
  named = {'conv1': {'weights': np.ones((2, 2), np.float32), 'biases': np.ones(2)}}
  pickles.append(other_formats.pickled(named))
  pickles.append(other_formats.pickled_by_python_2({k: v[:1] for k, v in layers.items()}))
  whole = [other_formats.as_npy(pickled) for pickled in pickles]
  whole.append(other_formats.as_npy(other_formats.pickled(other_formats.tensorflow_layers())))
  inside = [mutated(pickled).map(other_formats.as_npy) for pickled in pickles]
  return _one_file('x.npy', [*map(mutated, whole), *inside])


@_format('npy', _npys)
def _read_npy(folder: Path) -> Any:
  return convert.read(folder / 'x.npy', other_formats.caffe_config())


def _npzs(folder: Path) -> st.SearchStrategy[Input]:
  layer = np.empty((), object)
  layer[()] = {'weights': np.ones((2, 2), np.float32), 'biases': np.ones(2)}
  np.savez(folder / 'valid.npz', conv1=layer, fc8_W=np.ones((3, 2)), fc8_b=np.ones(2, np.float16))
  valid = (folder / 'valid.npz').read_bytes()
  return _one_file('x.npz', [mutated(valid), mutated_zip(valid)])


@_format('npz', _npzs)
def _read_npz(folder: Path) -> Any:
  return convert.read(folder / 'x.npz', other_formats.caffe_config())


def _means(folder: Path) -> st.SearchStrategy[Input]:
  np.save(folder / 'valid.npy', np.ones((3, 4, 4)))
  return _one_file('x.npy', [mutated((folder / 'valid.npy').read_bytes())])


@_format('mean', _means)
def _read_mean(folder: Path) -> Any:
  return convert.read_mean(folder / 'x.npy', 4, 3)


def _pths(folder: Path) -> st.SearchStrategy[Input]:
  small = {'features.0.bias': np.ones(8, np.float32), 'x': np.ones((2, 3), np.float32)}
  monkeypatch = pytest.MonkeyPatch()
  beside = {'epoch': 3, 'args': argparse.Namespace(lr=0.1), 'steps': {0: collections.Counter([1])}}
  legacy = other_formats.write_legacy_pth(folder / 'legacy.pth', small, monkeypatch).read_bytes()
  checkpoint = other_formats.write_pth(
    folder / 'x.pth', small, monkeypatch, wrap=lambda state: {**beside, 'state_dict': state}
  ).read_bytes()
  valid = [
    checkpoint,
    *(
      other_formats.write_pth(folder / 'valid.pth', arrays, monkeypatch, dtype).read_bytes()
      for arrays, dtype in (
        (small, np.float16),
        (small, np.float64),
        (other_formats.state_dict(), np.float32),
      )
    ),
  ]
  return _one_file('x.pth', [*map(mutated, [*valid, legacy]), *map(mutated_zip, valid)])


@_format('pth', _pths)
def _read_pth(folder: Path) -> Any:
  return convert.read(folder / 'x.pth', other_formats.torchvision_config())


def _safetensors(folder: Path) -> st.SearchStrategy[Input]:
  network = other_formats.random_network(small_config())
  pretrained.write(folder / 'valid.safetensors', network)
  convert.write(folder / 'valid.torch.safetensors', network)
  safetensors_file.write(folder / 'plain.safetensors', other_formats.state_dict(), {'format': 'pt'})
  valid = [path.read_bytes() for path in sorted(folder.glob('*.safetensors'))]
  return _one_file('x.safetensors', [*map(mutated, valid), *map(mutated_safetensors, valid)])


@_format('safetensors', _safetensors)
def _read_safetensors(folder: Path) -> Any:
  try:
    return convert.read(folder / 'x.safetensors')
  except UserError:
    return convert.read(folder / 'x.safetensors', other_formats.torchvision_config())


def write_checkpoint(folder: Path) -> None:
  """Has a checkpoint written below a folder, of step 3, its network that of `small_config`."""
  network = other_formats.random_network(small_config())
  content = {
    'config': experiment.resolved(network.config),
    'class_names': list(network.class_names),
    'step': 3,
    'progress': {'best_step': 3},
  }
  writer = checkpoint.Writer(folder / 'checkpoints', 2)
  trees = {'params': network.params, 'statistics': network.statistics._asdict()}
  writer.save(3, trees, content, 3)
  writer.close()


def _written_checkpoints(folder: Path) -> tuple[dict[str, bytes], Any]:
  write_checkpoint(folder)
  valid = _contents(folder)
  return valid, json.loads(valid['checkpoints/3/description/metadata'])


@st.composite
def _described_anew(draw: st.DrawFn, valid: dict[str, bytes], written: Any) -> Input:
  """A checkpoint whose description is mutated, with the digest that belongs to it."""
  text = draw(mutated_json({key: written[key] for key in ('content', 'digests')}))
  with contextlib.suppress(ValueError, RecursionError):
    changed = {**written, **json.loads(text)}
    signed = [changed['format'], changed.get('content'), changed.get('digests')]
    changed['digest'] = hashlib.sha256(json.dumps(signed, sort_keys=True).encode()).hexdigest()
    text = json.dumps(changed).encode()
  return {**valid, 'checkpoints/3/description/metadata': text}


def _checkpoints(folder: Path) -> st.SearchStrategy[Input]:
  valid, written = _written_checkpoints(folder)
  return st.one_of(
    _a_mutated_file(valid), _described_anew(valid, written), strange(st.just(dict(valid)))
  )


@_format('checkpoint', _checkpoints)
def _read_checkpoint(folder: Path) -> Any:
  return pretrained.read(folder)


def _configs(_: Path) -> st.SearchStrategy[Input]:
  resolved = experiment.resolved(small_config())
  inputs = _one_file('config.json', [_json_or_bytes(resolved)])
  return st.one_of(inputs, strange(inputs))


@_format('config', _configs)
def _read_config(folder: Path) -> Any:
  resolved = workdir.read_config(folder)
  if resolved is None:
    return None
  with contextlib.suppress(UserError):
    workdir.check(folder, experiment.resolved(small_config()))
  return experiment.checked(resolved, str(folder))


def _metrics(_: Path) -> st.SearchStrategy[Input]:
  lines = sweeps.lines([0.9, 0.5])

  @st.composite
  def text(draw: st.DrawFn) -> bytes:
    at = draw(st.integers(0, len(lines) - 1))
    packed = [json.dumps(line).encode() for line in lines]
    packed[at] = draw(_json_or_bytes(lines[at]))
    return b'\n'.join(packed) + b'\n'

  whole = b''.join(json.dumps(line).encode() + b'\n' for line in lines)
  inputs = _one_file('metrics.jsonl', [text(), mutated(whole)])
  return st.one_of(inputs, strange(inputs))


@_format('metrics', _metrics)
def _read_metrics(folder: Path) -> Any:
  with contextlib.suppress(UserError):
    workdir.last_epoch(folder)
  records = workdir.read_metrics(folder)
  workdir.MetricsLog(folder, 1).close()
  return curves.learning_curves({'x': records}, 'x')


@_format('curves', _metrics)
def _draw_curves(folder: Path) -> Any:
  records = workdir.read_metrics(folder)
  return canvas.save(curves.learning_curves({'x': records}, 'x'), folder / 'curves')


def write_sweep(folder: Path) -> None:
  """Fills the folder of a sweep, one of whose runs has failed."""
  sweeps.write_sweep(folder, {'base': [0.2, 0.25], 'no_overlap': [0.3, 0.35], 'tanh': [0.4]})
  for picture in folder.rglob('*.svg'):  # which nothing reads
    picture.unlink()
  (folder / 'tanh' / 'seed1').mkdir(parents=True, exist_ok=True)
  (folder / 'tanh' / 'seed1' / runner.FAILURE).write_text('it failed')


def _sweep_folders(folder: Path) -> st.SearchStrategy[Input]:
  write_sweep(folder)
  valid = _contents(folder)
  described = _json_or_bytes(json.loads(valid['sweep.json']))
  return st.one_of(
    _a_mutated_file(valid),
    described.map(lambda text: {**valid, 'sweep.json': text}),
    strange(st.just(dict(valid))),
  )


@_format('sweep', _sweep_folders)
def _read_sweep(folder: Path) -> Any:
  results = sweep_results.gather(folder)
  return (
    tables.markdown(results),
    tables.table_csv(results),
    tables.runs_csv(results),
    report.html(results, []),
  )


@_format('sweep_page', _sweep_folders)
def _write_sweep_page(folder: Path) -> Any:
  return report.write(folder)


def _statistics(folder: Path) -> st.SearchStrategy[Input]:
  arrays = {
    'mean_image': np.ones((4, 4, 3)),
    'eigenvalues': np.ones(3),
    'eigenvectors': np.eye(3),
  }
  statistics.save(folder / 'valid.npz', arrays)
  valid = (folder / 'valid.npz').read_bytes()
  return _one_file('statistics.npz', [mutated(valid), mutated_zip(valid)])


@_format('statistics', _statistics)
def _read_statistics(folder: Path) -> Any:
  return statistics.load(folder / 'statistics.npz', 4)


_IDENTITY = {'class_names': ['a', 'b', 'c']}


def _predictions(folder: Path) -> st.SearchStrategy[Input]:
  shares = np.full((4, 3), 1 / 3, np.float32)
  found = predictions.Predictions(shares, shares, np.array([0, 1, 2, 0], np.int32))
  predictions.save(folder / 'valid.npz', found, _IDENTITY)
  valid = (folder / 'valid.npz').read_bytes()
  return _one_file('predictions.npz', [mutated(valid), mutated_zip(valid)])


@_format('predictions', _predictions)
def _read_predictions(folder: Path) -> Any:
  found = predictions.load(folder / 'predictions.npz', _IDENTITY)
  return found and predictions.errors(found)


def _prepared(_: Path) -> st.SearchStrategy[Input]:
  metadata = {
    'splits': {'train': 3, 'validation': 2},
    'encoding': 'png',
    'statistics_of': 'train',
    'unreadable_files': 1,
  }
  return _one_file('metadata.json', [_json_or_bytes(metadata)])


@_format('prepared', _prepared)
def _read_prepared(folder: Path) -> Any:
  (folder / 'metadata.json').rename(folder / prepare._METADATA)
  return prepare.read_metadata(folder)


def _image_files(_: Path) -> st.SearchStrategy[Input]:
  pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
  color, valid = Image.fromarray(pixels), []
  exif = Image.Exif()
  exif[0x0112] = 6
  for kind, options in (
    ('JPEG', {'exif': exif}), ('JPEG', {'progressive': True}), ('PNG', {'exif': exif}), ('GIF', {}),
    ('BMP', {}), ('WEBP', {'lossless': True}), ('TIFF', {}), ('TIFF', {'compression': 'jpeg'}),
    ('TIFF', {'compression': 'tiff_adobe_deflate'}), ('PPM', {}),
    *((kind, {}) for kind in ('AVIF', 'JPEG2000') if kind in images.FORMATS),
  ):  # fmt: skip
    file = io.BytesIO()
    color.save(file, kind, **options)
    valid.append(file.getvalue())
  for mode in ('P', 'LA', 'I;16', '1', 'CMYK'):
    file = io.BytesIO()
    made = Image.new(mode, (9, 11)) if mode == 'I;16' else color.convert(mode)
    made.save(file, 'TIFF' if mode == 'CMYK' else 'PNG')
    valid.append(file.getvalue())
  pngs = [content for content in valid if content.startswith(b'\x89PNG')]
  inputs = _one_file('image', [*map(mutated, valid), *map(mutated_png, pngs)])
  return st.one_of(inputs, inputs, strange(inputs))


@_format('image', _image_files, images.UnreadableError, follows_links=True)
def _read_image(folder: Path) -> Any:
  source = image_folder.FolderSource(
    folder, {'train': [(str(folder / 'image'), 0)]}, 'x', ['x'], {}
  )
  return images.fit_square(images.decode(next(source.examples('train', 0)).read()), 8)


class TooLongError(BaseException):
  """Reading takes longer than it may."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
  def stop(*_: object) -> None:
    raise TooLongError(f'more than {seconds:g} s')

  before = signal.signal(signal.SIGALRM, stop)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def check(of: Format, given: Input) -> None:
  """Reads an input; raises AssertionError, or what reading raised, where it may not do so."""
  with tempfile.TemporaryDirectory() as temporary:
    folder, outside = Path(temporary, 'folder'), Path(temporary, 'outside')
    _write({**given, f'{_OUTSIDE}/canary': _CANARY.encode()}, folder)
    before = _contents(outside)
    try:
      with _limited(SECONDS):
        found = of.read(folder)
      assert _CANARY not in repr(found), 'a file outside was read'
      assert of.follows_links or not _leads_out(given), 'a link was followed'
    except of.raises as error:
      message, cause = str(error), error.__cause__
      assert not isinstance(cause, MemoryError), f'too much memory: {message[:200]}'
      assert len(message) <= _LONGEST_MESSAGE, f'a long message: {message[:200]}'
      lines = message.splitlines()
      assert len(lines) <= _LINES, f'{len(lines)} lines: {message[:200]}'
      assert all(map(str.isprintable, lines)), f'not printable: {message[:200]!r}'
      assert _CANARY not in message, f'a file outside was read: {message[:200]}'
    assert _contents(outside) == before, 'something was written outside'


def _write(given: Input, folder: Path) -> None:
  folder.mkdir()
  for name, content in given.items():
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
      os.mkfifo(path)
    elif isinstance(content, str):
      path.symlink_to(folder / content)
    else:
      path.write_bytes(content)


def _leads_out(given: Input) -> bool:
  return any(
    isinstance(content, str) and content.startswith(('/', '..')) for content in given.values()
  )


def _stderr() -> Iterator[str]:
  """From now on, what has come on stderr each time it is asked."""
  kept = tempfile.TemporaryFile()  # noqa: SIM115
  os.dup2(kept.fileno(), 2)
  while True:
    sys.stderr.flush()
    kept.seek(0)
    said = kept.read().decode(errors='replace')
    kept.seek(0)
    kept.truncate()
    yield said


def _place(error: BaseException) -> str:
  """Where in this project an error came from, which tells findings apart."""
  frames = [
    f'{Path(frame.filename).name}:{frame.lineno}'
    for frame in traceback.extract_tb(error.__traceback__)
    if 'alexnet_jax' in frame.filename
  ]
  kind = type(error).__name__
  return f'{kind} {frames[-1]}' if frames else f'{kind}: {str(error)[:14]}'


def _worker(name: str, seconds: float, seed: int, folder: Path) -> None:
  """Fuzzes a format in this process; writes counts and findings to stdout as JSON."""
  of = FORMATS[name]
  with tempfile.TemporaryDirectory() as valid:
    inputs = of.inputs(Path(valid))
  for given in _some(inputs):  # whatever is to be loaded, started and compiled first
    with contextlib.suppress(Exception, TooLongError):
      check(of, given)
  size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, resource.RLIM_INFINITY))
  ends, tried, seen = time.monotonic() + seconds, 0, set()
  said = _stderr()
  next(said)
  stop = False

  def once(given: Input) -> None:
    nonlocal tried, stop
    if time.monotonic() > ends:
      stop = True
      return
    tried += 1
    (folder / f'{name}.last').write_bytes(pickle.dumps(given))
    print(json.dumps({'tried': tried}), flush=True)
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # where no signal is heard
    error: BaseException | None = None
    try:
      check(of, given)
    except (Exception, TooLongError) as caught:
      error = caught
    words = next(said)
    if error is None and words:
      error = AssertionError(f'stderr: {words[:300]}')
    if error is not None and (place := _place(error)) not in seen:
      seen.add(place)
      kept = folder / f'{name}-{len(seen)}.input'
      kept.write_bytes(pickle.dumps(given))
      trace = ''.join(traceback.format_exception(error))[-3000:]
      kept.with_suffix('.txt').write_text(trace)
      finding = {'place': place, 'error': str(error)[:300], 'input': str(kept)}
      print(json.dumps(finding), flush=True)

  for number in itertools.count(seed):
    if stop:
      break
    settings = hypothesis.settings(
      max_examples=300,
      deadline=None,
      database=None,
      phases=[hypothesis.Phase.generate],
      suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.seed(number)(settings(hypothesis.given(inputs)(once)))()


def _some(inputs: st.SearchStrategy[Input]) -> list[Input]:
  found: list[Input] = []
  settings = hypothesis.settings(
    max_examples=50,
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  settings(hypothesis.given(inputs)(lambda given: found.append(given)))()
  return found


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> tuple[int, list[dict[str, str]]]:
  """Fuzzes a format in other processes.

  Args:
    name: the format's.
    seconds: how long.
    seed: of the inputs.
    folder: for what is found.

  Returns:
    The inputs tried, and the findings.
  """
  ends, tried, findings = time.monotonic() + seconds, 0, list[dict[str, str]]()
  while (left := ends - time.monotonic()) > 1:
    arguments = ('--worker', f'--format={name}', f'--seconds={left}', f'--seed={seed}')
    command = [sys.executable, '-m', 'tests.robustness.fuzz', *arguments, f'--findings={folder}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
      assert process.stdout is not None
      of_worker = 0
      for line in process.stdout:
        said = json.loads(line)
        if 'tried' in said:
          of_worker = said['tried']
        elif said['place'] not in {finding['place'] for finding in findings}:
          findings.append(said)
    tried += of_worker
    seed += 10_000
    if process.returncode:
      last = folder / f'{name}.last'
      kept = last.with_name(f'{name}-died-{seed}.input')
      if last.exists():
        last.rename(kept)
      findings.append({'place': f'the process ended: {process.returncode}', 'input': str(kept)})
      if not of_worker:
        break
  return tried, findings


def main() -> int:
  """Fuzzes formats in turn; returns 1 where something was found."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--seconds', type=float, default=600, help='in all')
  parser.add_argument('--format', choices=FORMATS, action='append', help='default: all')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--findings', type=Path, default=Path('fuzz-findings'))
  parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
  flags = parser.parse_args()
  chosen = flags.format or list(FORMATS)
  if flags.worker:
    _worker(chosen[0], flags.seconds, flags.seed, flags.findings)
    return 0
  flags.findings.mkdir(parents=True, exist_ok=True)
  found = False
  for name in chosen:
    each = flags.seconds / len(chosen)
    tried, findings = fuzz(name, each, flags.seed, flags.findings)
    print(f'{name}: {tried:,} inputs, {each:.0f} s, {len(findings)} findings', flush=True)
    for finding in findings:
      print('  ' + '  '.join(finding.values()), flush=True)
    found |= bool(findings)
  return int(found)


if __name__ == '__main__':
  sys.exit(main())
