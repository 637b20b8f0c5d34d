"""Folders of images: every image once, in a fixed order, and mistakes named."""

import hashlib
import itertools
import json
import os
import random
import shutil
import unicodedata
from pathlib import Path
from typing import NamedTuple

import pytest

from alexnet_jax.data import image_folder, images
from tests.mistakes import refusal

REPOSITORY = Path(__file__).parents[2]


def fill(root, *paths):
  """Makes files below a folder; each contains its own path."""
  for path in paths:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(path)


def numbered(folder, count, suffix='.jpg'):
  return [f'{folder}/{i:03d}{suffix}' for i in range(count)]


class Read(NamedTuple):
  """An example that has been read."""

  file_name: str
  content: bytes
  label: int


def read(source, split, start=0):
  return [Read(e.file_name, e.read(), e.label) for e in source.examples(split, start)]


def names(source, split):
  return sorted(example.file_name for example in source.examples(split, 0))


def open_folder(root, validation_fraction=0.1):
  return image_folder.open_folder(root, validation_fraction)


def without_digest(source):
  """A folder's name as a data set, without what tells apart other images of the same name."""
  name, digest = source.name.rsplit('_', 1)
  assert len(digest) == 8
  return name


@pytest.fixture
def root(tmp_path):
  """Two classes, in training and validation."""
  folder = tmp_path / 'scenes'
  fill(folder, *numbered('train/sea', 12), *numbered('train/glacier', 9))
  fill(folder, *numbered('val/sea', 4), *numbered('val/glacier', 3))
  return folder


def test_splits_and_classes_are_folders(root):
  source = open_folder(root)
  assert (without_digest(source), source.version) == ('scenes', '1.0.0')
  assert list(source.class_names) == ['glacier', 'sea']
  assert source.splits == {'train': 21, 'validation': 7}
  for split, folder in (('train', 'train'), ('validation', 'val')):
    examples = read(source, split)
    assert len(examples) == source.splits[split]
    for example in examples:
      assert example.content.decode() == example.file_name
      assert example.file_name.startswith(f'{folder}/{source.class_names[example.label]}/')
    assert len({example.file_name for example in examples}) == len(examples)


def test_a_source_is_described_as_json(root):
  description = open_folder(root).description
  assert json.loads(json.dumps(description)) == description
  assert description['kind'] == 'folder'
  assert description['path'] == str(root)
  assert description['validation'] == 'folder'
  every = [
    f'{split}/{name}/{i:03d}.jpg\0{len(f"{folder}/{name}/000.jpg")}\n'
    for split, folder, name, n in (
      ('train', 'train', 'glacier', 9),
      ('train', 'train', 'sea', 12),
      ('validation', 'val', 'glacier', 3),
      ('validation', 'val', 'sea', 4),
    )
    for i in range(n)
  ]
  assert description['fingerprint'] == hashlib.sha256(''.join(every).encode()).hexdigest()


def test_the_fingerprint_is_that_of_names_and_sizes(root, tmp_path):
  before = open_folder(root).description['fingerprint']
  (root / 'val').rename(root / 'Validation')
  moved = root.rename(tmp_path / 'elsewhere')
  assert open_folder(moved).description['fingerprint'] == before
  name = open_folder(moved).name
  fill(moved, 'train/sea/one more.jpg')
  assert open_folder(moved).name != name
  more = open_folder(moved).description['fingerprint']
  assert more != before
  (moved / 'train/sea/one more.jpg').write_text('another')
  assert open_folder(moved).description['fingerprint'] not in (before, more)


def test_the_order_is_fixed_and_mixes_classes(root):
  source, again = open_folder(root), open_folder(root)
  examples = read(source, 'train')
  assert examples == read(source, 'train') == read(again, 'train')
  labels = [example.label for example in examples]
  assert sum(a != b for a, b in itertools.pairwise(labels)) > 4
  # Were it ever another, what is half prepared would be finished with the wrong images.
  order = ' '.join(example.file_name[4:-4] for example in read(source, 'validation'))
  assert order == 'glacier/002 sea/000 sea/002 glacier/001 glacier/000 sea/003 sea/001'


def test_examples_go_on_from_anywhere(root):
  source = open_folder(root)
  whole = read(source, 'train')
  for start in (0, 1, 13, 20, 21):
    assert read(source, 'train', start) == whole[start:]


@pytest.mark.parametrize(
  ('train', 'validation'),
  [('train', 'val'), ('Train', 'VAL'), ('training', 'valid'), ('TRAINING', 'Validation')],
)
def test_splits_have_several_names(tmp_path, train, validation):
  for split in (train, validation, 'Test'):
    fill(tmp_path, f'{split}/a/1.jpg', f'{split}/b/2.jpg')
  fill(tmp_path, 'notes/1.txt', 'annotations/a/1.xml')
  assert open_folder(tmp_path).splits == {'train': 2, 'validation': 2, 'test': 2}
  assert list(open_folder(tmp_path).splits) == ['train', 'validation', 'test']


def test_images_of_all_kinds_and_depths_are_found(tmp_path):
  images = [
    'a/1.JPG',
    'a/2.jpeg',
    'a/deep/er/3.Png',
    'a/4.gif',
    'a/5.webp',
    'b/6.tiff',
    'b/ä ö.bmp',
  ]
  fill(tmp_path, *images)
  fill(tmp_path, 'a/readme.txt', 'a/.hidden.jpg', 'a/._1.JPG', 'a/Thumbs.db', '.git/x/1.jpg')
  fill(tmp_path, '__MACOSX/a/1.jpg', 'a/.cache/1.jpg', 'a/__MACOSX/1.jpg', 'stray.jpg')
  source = open_folder(tmp_path)
  assert list(source.class_names) == ['a', 'b']
  assert sorted(names(source, 'train') + names(source, 'validation')) == sorted(images)


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='there are no pipes')
def test_a_pipe_among_the_images_is_not_waited_for(root):
  os.mkfifo(root / 'train' / 'sea' / 'pipe.jpg')
  files = {example.file_name: example for example in open_folder(root).examples('train', 0)}
  with pytest.raises(images.UnreadableError, match='not a regular file'):
    files['train/sea/pipe.jpg'].read()


def test_links_are_followed_but_not_in_circles(root, tmp_path):
  elsewhere = tmp_path / 'elsewhere'
  fill(elsewhere, '1.jpg', '2.jpg')
  (root / 'train' / 'linked').symlink_to(elsewhere)
  (root / 'train' / 'sea' / 'linked.jpg').symlink_to(elsewhere / '1.jpg')
  (elsewhere / 'round').symlink_to(elsewhere)
  (root / 'train' / 'sea' / 'up').symlink_to(root / 'train' / 'sea')
  source = open_folder(root)
  assert list(source.class_names) == ['glacier', 'linked', 'sea']
  assert source.splits['train'] == 21 + 2 + 1
  encoded = {example.file_name: example.content for example in read(source, 'train')}
  assert encoded['train/linked/2.jpg'] == b'2.jpg'
  assert encoded['train/sea/linked.jpg'] == b'1.jpg'


def test_a_part_of_each_class_is_held_out(tmp_path):
  sizes = {'large': 40, 'middle': 10, 'pair': 2, 'single': 1, 'small': 4}
  for name, count in sizes.items():
    fill(tmp_path / 'data', *numbered(f'train/{name}', count))
  source = open_folder(tmp_path / 'data', 0.2)
  assert source.description['validation'] == {
    'fraction': 0.2,
    'of_each_class': True,
    'by': 'SHA-256 of class and file name',
  }
  # Were these ever others, images that networks were trained on would be validated on.
  held_out = {'large': 5, 'middle': 1, 'pair': 1, 'single': 0, 'small': 1}
  for label, name in enumerate(sorted(sizes)):
    train, validation = (
      {e.file_name for e in source.examples(split, 0) if e.label == label}
      for split in ('train', 'validation')
    )
    assert len(validation) == held_out[name]
    assert not train & validation
    assert sorted(train | validation) == numbered(f'train/{name}', sizes[name])
  assert source.splits == {'train': 49, 'validation': 8}
  assert 'validation has no images of 1 class (single), of one image each' in source.notes
  assert names(open_folder(tmp_path / 'data', 0.2), 'validation') == names(source, 'validation')
  # Not simply the first ones.
  large = [name for name in names(source, 'validation') if 'large' in name]
  assert large != numbered('train/large', 8)


@pytest.mark.parametrize('fraction', [0.1, 0.5])
def test_files_that_are_added_leave_the_others_where_they_are(tmp_path, fraction):
  """But for one that was all that its class had for training."""
  rng = random.Random(0)
  fill(tmp_path, *[f'{name}/first.jpg' for name in 'abcdefgh'])
  before: set[str] = set()
  for _ in range(60):
    fill(tmp_path, f'{rng.choice("abcdefgh")}/{rng.randrange(10**6)}.jpg')
    source = open_folder(tmp_path, fraction)
    train, validation = ({*names(source, split)} for split in ('train', 'validation'))
    for name in validation & before:
      assert sum(other.split('/')[0] == name.split('/')[0] for other in before) == 1
    before = train
    assert len(train) + len(validation) == len(list(tmp_path.glob('*/*')))


def test_about_the_fraction_is_held_out(tmp_path):
  fill(tmp_path, *numbered('a', 1_000), *numbered('b', 1_000))
  assert abs(open_folder(tmp_path, 0.1).splits['validation'] - 200) < 50


def test_what_is_held_out_follows_from_class_and_name_alone(tmp_path):
  """Not from where the folder is, what it is called, or how its letters are encoded."""
  names_of = [f'é{i}.jpg' for i in range(30)]
  held_out = []
  for folder, form in (('x', 'NFC'), ('y/train', 'NFD'), ('z/wrapped/Train_Set', 'NFC')):
    fill(
      tmp_path / folder, *(f'{c}/{unicodedata.normalize(form, n)}' for c in 'ab' for n in names_of)
    )
    source = open_folder(tmp_path / folder.split('/')[0])
    held_out.append(
      [
        unicodedata.normalize('NFC', '/'.join(n.split('/')[-2:]))
        for n in names(source, 'validation')
      ]
    )
  assert held_out[0]
  assert sorted(held_out[0]) == sorted(held_out[1]) == sorted(held_out[2])


def test_training_keeps_an_image_of_each_class(tmp_path):
  fill(tmp_path, *numbered('a', 2), *numbered('b', 3))
  source = open_folder(tmp_path, 0.999)
  assert source.splits == {'train': 2, 'validation': 3}
  assert {example.label for example in read(source, 'train')} == {0, 1}


def test_the_fingerprint_does_not_depend_on_what_is_held_out(tmp_path):
  fill(tmp_path, *numbered('a', 9), *numbered('b', 9))
  fingerprints = {open_folder(tmp_path, f).description['fingerprint'] for f in (0.1, 0.5)}
  assert len(fingerprints) == 1


def test_a_test_split_stays_when_validation_is_held_out(tmp_path):
  fill(tmp_path, *numbered('train/a', 10), *numbered('train/b', 10), *numbered('test/b', 5))
  assert open_folder(tmp_path).splits == {'train': 18, 'validation': 2, 'test': 5}


@pytest.mark.parametrize(
  ('folder', 'name'),
  [
    ('Cats & Dogs', 'cats_dogs'),
    ('101_ObjectCategories', 'folder_101_objectcategories'),
    ('scenes-v2.1', 'scenes_v2_1'),
    ('_private', 'private'),
    ('図', 'folder'),
  ],
)
def test_the_data_set_is_called_as_its_folder(tmp_path, folder, name):
  fill(tmp_path / folder, *numbered('a', 2), *numbered('b', 2))
  assert without_digest(open_folder(tmp_path / folder)) == name
  assert without_digest(open_folder(f'{tmp_path / folder}/')) == name


def test_a_folder_may_be_here(root, monkeypatch):
  monkeypatch.chdir(root)
  assert without_digest(open_folder('.')) == 'scenes'
  assert open_folder('.').description == open_folder(root).description
  assert open_folder('.').splits == {'train': 21, 'validation': 7}


def test_names_of_classes_may_be_in_any_script(tmp_path):
  classes = ['Äpfel', 'red panda', 'كتاب', '図書']
  decomposed = unicodedata.normalize('NFD', 'Äpfel')
  for folder in (decomposed, *classes[1:]):
    fill(tmp_path, *numbered(f'train/{folder}', 2))
  for folder in classes:
    fill(tmp_path, *numbered(f'val/{folder}', 1))
  source = open_folder(tmp_path)
  assert list(source.class_names) == sorted(classes)
  assert source.splits == {'train': 8, 'validation': 4}
  assert {example.content for example in read(source, 'validation')} == {
    f'val/{folder}/000.jpg'.encode() for folder in classes
  }


def test_names_with_commas_are_quoted_where_classes_are_listed(tmp_path):
  fill(tmp_path, *numbered('gull, common', 2), *numbered('gull, herring', 2), *numbered('tern', 2))
  assert "3 classes ('gull, common', 'gull, herring', tern); " in open_folder(tmp_path).notes[0]


def test_names_of_files_may_be_no_unicode(tmp_path):
  fill(tmp_path, *numbered('a', 3), *numbered('b', 3))
  with open(os.fsencode(tmp_path) + b'/a/\xff.jpg', 'wb') as file:
    file.write(b'content')
  source = open_folder(tmp_path)
  examples = [*read(source, 'train'), *read(source, 'validation')]
  assert ('a/\ufffd.jpg', b'content', 0) in examples
  json.dumps(source.description)


def test_files_that_are_no_images_are_handed_on(tmp_path):
  fill(tmp_path, *numbered('a', 3), *numbered('b', 3))
  (tmp_path / 'a' / 'empty.png').touch()
  (tmp_path / 'a' / 'dangling.png').symlink_to(tmp_path / 'nowhere')
  source = open_folder(tmp_path)
  (tmp_path / 'b' / '001.jpg').unlink()
  files = {e.file_name: e for split in source.splits for e in source.examples(split, 0)}
  assert len(files) == 8
  assert files['a/001.jpg'].read() == b'a/001.jpg'
  assert files['a/empty.png'].read() == b''
  for name, reason in (('a/dangling.png', 'broken link'), ('b/001.jpg', 'no such file')):
    with pytest.raises(images.UnreadableError, match=reason):
      files[name].read()


@pytest.mark.parametrize('fraction', [-0.1, 0, 1, 20, float('nan')])
def test_the_held_out_fraction_is_one(root, fraction):
  assert 'data.validation_fraction' in refusal(open_folder, root, fraction)


def test_what_is_no_folder_is_refused(tmp_path):
  fill(tmp_path, 'file')
  assert f'{tmp_path / "gone"} does not exist; give' in refusal(open_folder, tmp_path / 'gone')
  assert f'{tmp_path / "file"} is a file; give' in refusal(open_folder, tmp_path / 'file')


def test_a_folder_without_images_is_refused(tmp_path):
  message = refusal(open_folder, tmp_path)
  assert message.startswith(f'{tmp_path} has no images in folders of classes; give <folder>/train')
  fill(tmp_path, '1.jpg', '2.jpg')
  assert '(those in it lie outside of such folders)' in refusal(open_folder, tmp_path)


def test_images_of_unknown_kinds_alone(tmp_path):
  fill(tmp_path, 'a/1.mp4', 'b/2.txt', 'b/LICENSE')
  message = refusal(open_folder, tmp_path)
  assert 'no images' in message
  assert 'its files end in .mp4, .txt, LICENSE' in message


@pytest.mark.parametrize(
  'content', ['val/notes.txt', 'val/1.jpg', 'val/val/1.jpg', 'val/images/1.jpg']
)
def test_validation_images_must_be_in_classes(root, content):
  shutil.rmtree(root / 'val')
  fill(root, content)
  message = refusal(open_folder, root)
  assert f'{root / "val"} has no images in folders of classes' in message
  assert (
    'put them into val/<class>, or move val away: then a part of training is held out' in message
  )


@pytest.mark.parametrize(
  ('content', 'held'),
  [
    ('test/1.jpg', 'images without classes'),
    ('test/test/1.jpg', 'images without classes'),
    ('test/unknown/1.jpg', 'images without classes'),
    ('test/notes.txt', 'no images'),
  ],
)
def test_training_does_not_need_classes_of_test_images(root, content, held):
  fill(root, content)
  source = open_folder(root)
  assert source.splits == {'train': 21, 'validation': 7}
  note = f'{root / "test"} has {held}, and training does not need it: it is skipped'
  assert note in source.notes
  [left_out] = source.left_out
  assert left_out.file_name == content
  assert left_out.reason == ('not an image' if 'no images' in held else 'without a class')


def test_a_test_split_of_one_class_is_one(root):
  fill(root, 'test/sea/1.jpg')
  assert open_folder(root).splits['test'] == 1


def test_an_empty_class_is_refused(root):
  (root / 'train' / 'forest').mkdir()
  message = refusal(open_folder, root)
  assert message.startswith("the class 'forest' is empty: ")
  assert str(root / 'train' / 'forest') in message
  fill(root, 'train/forest/1.heic')
  message = refusal(open_folder, root)
  assert f'{root / "train" / "forest"} has no image that can be read, but 1 file such as' in message
  assert 'HEIC: Pillow does not read it; convert to JPEG' in message


def test_a_class_need_not_be_in_validation(root):
  fill(root, *numbered('train/forest', 3))
  (root / 'val' / 'forest').mkdir()
  source = open_folder(root)
  assert source.splits == {'train': 24, 'validation': 7}
  assert source.notes[-1] == 'validation has no images of 1 class (forest)'


@pytest.mark.parametrize('split', ['val', 'test'])
def test_a_class_that_training_lacks(root, split):
  fill(root, f'{split}/Sea/1.jpg', f'{split}/forest/1.jpg', f'{split}/sea/1.jpg')
  (root / split / 'Sea' / '1.jpg').unlink()
  (root / split / 'Sea').rmdir()
  message = refusal(open_folder, root)
  assert f"{root / split} has classes that training lacks (1, such as 'forest')" in message
  assert str(root / 'train') in message


@pytest.mark.parametrize(
  ('first', 'second', 'named'),
  [('Sea', 'sea', "'Sea' and 'sea'"), ('A\u0308', '\xc4', r"'A\u0308' and '\xc4'")],
)
def test_classes_that_differ_in_capitals_or_the_encoding_of_accents_alone(
  root, first, second, named
):
  fill(root, f'train/{first}/1.jpg', f'train/{second}/1.jpg')
  message = refusal(open_folder, root)
  assert str(root / 'train') in message
  assert f'but for capitals or the encoding of accents, {named}; rename one' in message


def test_a_single_class_is_refused(tmp_path):
  fill(tmp_path, 'scenes/1.jpg', 'scenes/2.jpg')
  message = refusal(open_folder, tmp_path)
  assert f"{tmp_path} has a single class, 'scenes'; give <folder>/train/<class>" in message


def test_two_folders_of_a_split(root):
  fill(root, 'validation/sea/1.jpg')
  message = refusal(open_folder, root)
  assert "two folders for the split 'validation', 'val' and 'validation'" in message
  assert str(root) in message


def test_validation_without_training(tmp_path):
  fill(tmp_path, 'test/sea/1.jpg', 'val/sea/1.jpg')
  message = refusal(open_folder, tmp_path)
  assert f"{tmp_path} has 'val' and 'test', but no folder 'train'" in message


def test_nothing_to_hold_out(tmp_path):
  fill(tmp_path, 'a/1.jpg', 'b/1.jpg')
  assert f'{tmp_path} has one image per class, so none can be held out' in refusal(
    open_folder, tmp_path
  )


@pytest.mark.parametrize('name', ['two\nlines', ' sea', 'sea ', 'sea\u2028side', b'\xff'])
def test_names_that_are_no_names_of_classes(root, name):
  folder = os.path.join(os.fsencode(root / 'train'), os.fsencode(name))
  os.mkdir(folder)
  with open(os.path.join(folder, b'1.jpg'), 'wb'):
    message = refusal(open_folder, root)
  assert repr(os.fsdecode(name)) in message
  assert str(root / 'train') in message
  assert 'rename it' in message


def test_without_a_fraction_nothing_is_held_out(tmp_path):
  fill(tmp_path, *numbered('dog', 20), *numbered('ant', 3))
  source = image_folder.open_folder(tmp_path, None)
  assert (source.class_names, source.splits) == (['ant', 'dog'], {'train': 23})
  assert not source.held_out
  labels = {example.file_name: example.label for example in read(source, 'train')}
  assert labels == dict.fromkeys(numbered('ant', 3), 0) | dict.fromkeys(numbered('dog', 20), 1)


def test_without_a_fraction_one_split_of_one_class_is_enough(tmp_path):
  fill(tmp_path, 'test/cat/a.jpg', 'val/dog/b.jpg')
  source = image_folder.open_folder(tmp_path, None)
  assert (source.class_names, source.splits) == (['cat', 'dog'], {'validation': 1, 'test': 1})
  assert [example.label for example in read(source, 'validation')] == [1]


@pytest.mark.parametrize(
  ('files', 'counted'),
  [
    (('cat/a.jpg', 'dog/a.jpg', 'dog/b.jpg'), '3, in no splits'),
    (('train/cat/a.jpg', 'train/dog/a.jpg'), 'train 2'),
    (('test/cat/a.jpg', 'val/dog/b.jpg'), 'validation 1, test 1'),
  ],
)
def test_without_a_fraction_images_are_counted_by_the_splits_that_there_are(
  tmp_path, files, counted
):
  fill(tmp_path, *files)
  source = image_folder.open_folder(tmp_path, None)
  assert source.notes == [f'{tmp_path}: 2 classes (cat, dog); images: {counted}']


@pytest.mark.parametrize(
  ('files', 'words'),
  [
    (('a.jpg',), 'those in it lie outside of such folders'),
    (('cat/a.txt',), 'no images in folders of classes'),
  ],
)
def test_without_a_fraction_there_must_be_images_in_classes(tmp_path, files, words):
  fill(tmp_path, *files)
  assert words in refusal(image_folder.open_folder, tmp_path, None)
  missing = refusal(image_folder.open_folder, tmp_path / 'nowhere', None)
  assert 'nowhere does not exist' in missing


def test_what_is_prepared_without_a_fraction_is_another_data_set(root):
  names = [image_folder.open_folder(root, fraction).name for fraction in (0.5, None)]
  assert names[0] != names[1]


def test_a_folder_whose_path_is_not_unicode_is_refused(tmp_path):
  path = os.fsencode(tmp_path) + b'/fr\xfch'
  os.makedirs(path + b'/cats')
  message = refusal(image_folder.open_folder, os.fsdecode(path), 0.1)
  assert r"fr\udcfch' is not Unicode; rename the folder" in message
