"""--mode=predict: photographs without labels, from the command line into a table."""

import csv
import dataclasses
import errno
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet_jax
from alexnet_jax.data import imagenet_classes, images
from alexnet_jax.evaluation import photographs
from alexnet_jax.utils.errors import UserError
from tests.launching import ROOT, assert_message, launch, without_tensorflow
from tests.other_formats import random_network
from tests.small import small_config


@pytest.fixture
def run(tmp_path):
  """A workdir of a trained network."""
  return shutil.copytree(ROOT / 'tests' / 'data' / 'format1', tmp_path / 'run')


def write_photographs(folder, *names):
  rng = np.random.default_rng(0)
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name)


def read_rows(path):
  with Path(path).open(newline='') as file:
    return list(csv.DictReader(file))


def test_each_image_has_the_classes_that_the_classifier_gives_it(run, tmp_path):
  folder = tmp_path / 'new'
  write_photographs(folder, 'b.jpg', 'a.PNG', 'deep/er/c.png', '.hidden.png', '.git/d.png')
  write_photographs(tmp_path, 'alone.png')
  result = photographs.classify(run, [str(folder), str(tmp_path / 'alone.png')], None)
  assert result.target == run / 'predictions.csv'
  assert result.unreadable == []
  assert result.passed_over == [str(folder / '.git/d.png'), str(folder / '.hidden.png')]
  rows = read_rows(result.target)
  files = [folder / 'a.PNG', folder / 'b.jpg', folder / 'deep/er/c.png', tmp_path / 'alone.png']
  assert [row['file'] for row in rows] == list(map(str, files))
  for row, expected in zip(rows, alexnet_jax.load(run).predict(files), strict=True):
    assert [row[f'best_{k}'] for k in range(1, 6)] == list(expected.class_names)
    found = [float(row[f'probability_{k}']) for k in range(1, 6)]
    np.testing.assert_allclose(found, expected.probabilities, rtol=1e-4)


def test_imagenet_s_classes_are_in_words_whoever_reads_the_network(tmp_path):
  words = dict(list(imagenet_classes.words().items())[:10])
  network = dataclasses.replace(random_network(small_config()), class_names=list(words))
  (tmp_path / 'net.pth').touch()
  write_photographs(tmp_path, 'a.png')
  photographs.classify(
    tmp_path / 'net.pth',
    [str(tmp_path / 'a.png')],
    tmp_path / 'table.csv',
    lambda path, log: network,
  )
  [row] = read_rows(tmp_path / 'table.csv')
  assert {row[f'best_{k}'] for k in range(1, 6)} < set(words.values())


def test_what_cannot_be_read_is_listed_and_the_rest_classified(run, tmp_path, monkeypatch):
  monkeypatch.setattr(photographs, '_TOGETHER', 2)
  folder = tmp_path / 'new'
  write_photographs(folder, *(f'{i}.png' for i in range(5)))
  (folder / '1.png').write_bytes(b'no image')
  (folder / '4.png').write_bytes(b'')
  (folder / 'notes.txt').write_text('text')
  (folder / '5.heic').write_bytes(b'no image')
  os.mkfifo(folder / 'pipe.png')
  result = photographs.classify(run, [str(folder)], tmp_path / 'out' / 'table.csv')
  assert [row['file'] for row in read_rows(tmp_path / 'out' / 'table.csv')] == [
    str(folder / f'{i}.png') for i in (0, 2, 3)
  ]
  assert [name for name, _ in result.unreadable] == [
    str(folder / name) for name in ('5.heic', '1.png', '4.png', 'pipe.png')
  ]
  assert 'convert' in result.unreadable[0][1]
  assert result.passed_over == [str(folder / 'notes.txt')]


def test_one_that_cannot_be_read_has_none_of_the_others_decoded_again(run, tmp_path, monkeypatch):
  write_photographs(tmp_path / 'new', 'a.png', 'b.png')
  (tmp_path / 'new' / 'c.png').write_bytes(b'no image')
  contents, decode = [], images.decode
  monkeypatch.setattr(images, 'decode', lambda content, *a: contents.append(0) or decode(content))
  result = photographs.classify(run, [str(tmp_path / 'new')], None)
  assert (len(result.predictions), len(result.unreadable), len(contents)) == (2, 1, 3)


def test_folders_that_links_lead_back_to_are_listed_once(tmp_path):
  write_photographs(tmp_path, 'a/b.png')
  (tmp_path / 'a' / 'again').symlink_to(tmp_path)
  [image], unreadable, others = photographs.find([str(tmp_path)])
  assert (Path(image).name, unreadable, others) == ('b.png', [], [])


def test_a_relative_folder_is_not_left_through_a_link_above_it(tmp_path, monkeypatch):
  write_photographs(tmp_path, 'here/photos/b.png', 'c.png')
  (tmp_path / 'here' / 'photos' / 'up').symlink_to(tmp_path)
  monkeypatch.chdir(tmp_path / 'here')
  assert photographs.find(['photos']) == ([os.path.join('photos', 'b.png')], [], [])


def test_a_folder_that_cannot_be_written_to_says_to_give_another_place(run, tmp_path, monkeypatch):
  def refuse(**_):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  write_photographs(tmp_path, 'a.png')
  monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
  words = 'predictions.csv: Read-only file system; give another place with --target=FILE.csv'
  with pytest.raises(UserError, match=words):
    photographs.classify(run, [str(tmp_path / 'a.png')], None)


@pytest.mark.parametrize(
  ('paths', 'target', 'words'),
  [
    (['nowhere'], None, r'there is no nowhere \(--images\)'),
    (['empty'], None, r'empty has no images that can be read'),
    (['heic'], None, r'heic has no images that can be read; heic/a\.HEIC cannot be read: HEIC'),
    (['text.png'], None, r'1 file given, none can be read; the first: text\.png is not an image'),
    (['good.png'], 'table.txt', r'table\.txt \(--target\) must end in \.csv'),
  ],
)
def test_a_mistake_is_named_and_leaves_no_table(run, tmp_path, monkeypatch, paths, target, words):
  monkeypatch.chdir(tmp_path)
  write_photographs(tmp_path, 'good.png')
  Path('empty').mkdir()
  Path('heic').mkdir()
  Path('heic/a.HEIC').touch()
  Path('text.png').write_text('text')
  with pytest.raises(UserError, match=words):
    photographs.classify(run, paths, target)
  assert not list(tmp_path.rglob('*.csv'))


def test_a_checkpoint_is_given_a_table_elsewhere(run, tmp_path):
  write_photographs(tmp_path, 'a.png')
  [checkpoint] = (run / 'checkpoints').iterdir()
  with pytest.raises(UserError, match='not a workdir; say where to write with --target'):
    photographs.classify(checkpoint, [str(tmp_path / 'a.png')], None)
  photographs.classify(checkpoint, [str(tmp_path / 'a.png')], tmp_path / 'table.csv')
  assert len(read_rows(tmp_path / 'table.csv')) == 1


def test_the_command_line_classifies_without_tensorflow(run, tmp_path, monkeypatch):
  monkeypatch.setenv('PYTHONPATH', without_tensorflow(tmp_path / 'python'))
  folder = tmp_path / 'new'
  write_photographs(folder, *(f'{i}.png' for i in range(25)))
  (folder / 'bad.png').write_text('text')
  (folder / 'notes.txt').write_text('text')
  code, out, err = launch(f'--workdir={run}', '--mode=predict', f'--images={folder}')
  assert code == 0, err
  assert '25 images' in out
  assert 'and 5 more' in out
  assert str(run / 'predictions.csv') in out
  assert err.splitlines() == [
    f'{folder}/bad.png is not an image, or is incomplete: cannot identify image file',
    '1 of 26 files cannot be read',
    f'1 file is no image and is skipped: {folder}/notes.txt',
  ]


@pytest.mark.parametrize(
  ('args', 'code', 'words'),
  [
    ((), 1, ('pass --workdir and --images',)),
    (('--images=a', '--config=configs/digits.py'), 1, ('does not read --config',)),
    (('--images=a', '--config.train.seed=1'), 2, ('does not read --config.train.seed',)),
    (('--images=a', '--layer=fc6'), 1, ('does not read --layer',)),
  ],
)
def test_a_mistaken_command_is_answered_with_its_mending(run, args, code, words):
  assert_message(launch(f'--workdir={run}', '--mode=predict', *args), code, *words)
