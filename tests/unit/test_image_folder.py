"""Folders and ImageNet's tars: every image once, in a fixed order, and mistakes named."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from alexnet_jax.data import sources
from tests.mistakes import refusal
from tests.tars import make_tar

REPOSITORY = Path(__file__).parents[2]


def fill(root, *paths):
  """Makes files below a folder; each contains its own path."""
  for path in paths:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(path)


def numbered(folder, count, suffix='.jpg'):
  return [f'{folder}/{i:03d}{suffix}' for i in range(count)]


def read(source, split, start=0):
  return list(source.examples(split, start))


def names(source, split):
  return sorted(example.file_name for example in source.examples(split, 0))


def open_folder(root, validation_fraction=0.1):
  return sources.open_folder(root, validation_fraction)


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
      assert example.encoded.decode() == example.file_name
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


@pytest.mark.parametrize('train', ['train', 'Train', 'training', 'TRAINING'])
@pytest.mark.parametrize('validation', ['val', 'VAL', 'valid', 'Validation'])
def test_splits_have_several_names(tmp_path, train, validation):
  for split in (train, validation, 'Test', 'notes', 'annotations'):
    fill(tmp_path, f'{split}/a/1.jpg', f'{split}/b/2.jpg')
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
  encoded = {e.file_name: e.encoded for e in open_folder(root).examples('train', 0)}
  assert encoded['train/sea/pipe.jpg'] == b''


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
  encoded = {example.file_name: example.encoded for example in source.examples('train', 0)}
  assert encoded['train/linked/2.jpg'] == b'2.jpg'
  assert encoded['train/sea/linked.jpg'] == b'1.jpg'


def test_a_part_of_each_class_is_held_out(tmp_path):
  sizes = {'large': 40, 'middle': 10, 'pair': 2, 'single': 1, 'small': 4}
  for name, count in sizes.items():
    fill(tmp_path / 'data', *numbered(f'train/{name}', count))
  source = open_folder(tmp_path / 'data', 0.2)
  assert source.description['validation'] == {
    'fraction': 0.2,
    'seed': 2012,
    'of_each_class': True,
  }
  held_out = {'large': 8, 'middle': 2, 'pair': 1, 'single': 0, 'small': 1}
  for label, name in enumerate(sorted(sizes)):
    train, validation = (
      {e.file_name for e in source.examples(split, 0) if e.label == label}
      for split in ('train', 'validation')
    )
    assert len(validation) == held_out[name]
    assert not train & validation
    assert sorted(train | validation) == numbered(f'train/{name}', sizes[name])
  assert source.splits == {'train': 45, 'validation': 12}
  assert names(open_folder(tmp_path / 'data', 0.2), 'validation') == names(source, 'validation')
  # Not simply the first ones.
  large = [name for name in names(source, 'validation') if 'large' in name]
  assert large != numbered('train/large', 8)


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
  assert {example.encoded for example in read(source, 'validation')} == {
    f'val/{folder}/000.jpg'.encode() for folder in classes
  }


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
  encoded = {e.file_name: e.encoded for s in source.splits for e in source.examples(s, 0)}
  assert encoded['a/001.jpg'] == b'a/001.jpg'
  for name in ('a/empty.png', 'a/dangling.png', 'b/001.jpg'):
    assert encoded[name] == b''
  assert len(encoded) == 8


@pytest.mark.parametrize('fraction', [-0.1, 0, 1, 20, float('nan')])
def test_the_held_out_fraction_is_one(root, fraction):
  assert 'data.validation_fraction' in refusal(open_folder, root, fraction)


def test_no_folder(tmp_path):
  fill(tmp_path, 'file')
  assert f'{tmp_path / "gone"} does not exist; give' in refusal(open_folder, tmp_path / 'gone')
  assert f'{tmp_path / "file"} is a file; give' in refusal(open_folder, tmp_path / 'file')


def test_no_images(tmp_path):
  message = refusal(open_folder, tmp_path)
  assert message.startswith(f'{tmp_path} has no images in folders of classes; give <folder>/train')
  fill(tmp_path, '1.jpg', '2.jpg')
  assert '(those in it lie outside of such folders)' in refusal(open_folder, tmp_path)


def test_images_of_unknown_kinds_alone(tmp_path):
  fill(tmp_path, 'a/1.heic', 'b/2.txt', 'b/LICENSE')
  message = refusal(open_folder, tmp_path)
  assert 'no images' in message
  assert 'its files end in .heic, .txt, LICENSE; images in .jpg' in message


def test_a_split_without_images(root):
  (root / 'test' / 'sea').mkdir(parents=True)
  assert f'{root / "test"} has no images in folders of classes' in refusal(open_folder, root)
  fill(root, 'test/1.jpg')
  assert '(those in it lie outside of such folders)' in refusal(open_folder, root)


def test_an_empty_class(root):
  (root / 'train' / 'forest').mkdir()
  message = refusal(open_folder, root)
  assert message.startswith("the class 'forest' is empty: ")
  assert str(root / 'train' / 'forest') in message
  fill(root, 'train/forest/1.heic')
  assert 'its files end in .heic; images in .jpg' in refusal(open_folder, root)


def test_a_class_need_not_be_in_validation(root):
  fill(root, *numbered('train/forest', 3))
  (root / 'val' / 'forest').mkdir()
  assert open_folder(root).splits == {'train': 24, 'validation': 7}


@pytest.mark.parametrize('split', ['val', 'test'])
def test_a_class_that_training_lacks(root, split):
  fill(root, f'{split}/Sea/1.jpg', f'{split}/forest/1.jpg', f'{split}/sea/1.jpg')
  (root / split / 'Sea' / '1.jpg').unlink()
  (root / split / 'Sea').rmdir()
  message = refusal(open_folder, root)
  assert f"{root / split} has classes that training lacks (1, such as 'forest')" in message
  assert str(root / 'train') in message


def test_classes_that_differ_in_capitals_alone(root):
  fill(root, 'train/Sea/1.jpg')
  message = refusal(open_folder, root)
  assert str(root / 'train') in message
  assert "'Sea' and 'sea'" in message


def test_a_single_class(tmp_path):
  fill(tmp_path, 'scenes/train/sea/1.jpg', 'scenes/train/glacier/1.jpg')
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
  assert f"{tmp_path} has 'test' and 'val', but no folder 'train'" in message


def test_nothing_to_hold_out(tmp_path):
  fill(tmp_path, 'a/1.jpg', 'b/1.jpg')
  assert f'{tmp_path} has one image a class' in refusal(open_folder, tmp_path)


@pytest.mark.parametrize('name', ['two\nlines', ' sea', 'sea ', 'sea\u2028side', b'\xff'])
def test_names_that_are_no_names_of_classes(root, name):
  os.mkdir(os.path.join(os.fsencode(root / 'train'), os.fsencode(name)))
  message = refusal(open_folder, root)
  assert repr(os.fsdecode(name)) in message
  assert str(root / 'train') in message
  assert 'rename it' in message


SYNSETS = ('n01', 'n02', 'n03')
VALIDATION = ('n02', 'n03', 'n03', 'n01', 'n02')  # of images in the order of their names
TRAIN_TAR, VALIDATION_TAR = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'


def synset_tar(synset, count):
  # Of sizes below, at and above a tar's blocks.
  return make_tar({f'{synset}_{i}.JPEG': f'{synset}_{i}'.encode() * 128 * i for i in range(count)})


@pytest.fixture
def store(tmp_path, monkeypatch):
  """Puts files into a folder as though they were ImageNet's."""
  monkeypatch.setattr(sources, 'imagenet_synsets', lambda: SYNSETS)
  monkeypatch.setattr(sources, 'validation_synsets', lambda: VALIDATION)

  def put(train, validation, num_images=(9, 5)):
    folder = tmp_path / 'imagenet'
    folder.mkdir(exist_ok=True)
    (folder / TRAIN_TAR).write_bytes(train)
    (folder / VALIDATION_TAR).write_bytes(validation)
    archives = tuple(
      archive._replace(size=len(content), num_images=count)
      for archive, content, count in zip(
        sources.IMAGENET_ARCHIVES, (train, validation), num_images, strict=True
      )
    )
    monkeypatch.setattr(sources, 'IMAGENET_ARCHIVES', archives)
    return folder

  return put


def train_tar(synsets=('n03', 'n01', 'n02')):
  return make_tar({f'{synset}.tar': synset_tar(synset, int(synset[1:]) + 1) for synset in synsets})


def validation_tar():
  names = [f'ILSVRC2012_val_{i:08d}.JPEG' for i in (3, 1, 2, 5, 4)]
  return make_tar({name: name.encode() for name in names})


def test_tars_are_read_in_place(store):
  folder = store(train_tar(), validation_tar())
  source = sources.open_imagenet_tars(folder)
  assert (source.name, source.version) == ('imagenet2012', '5.1.0')
  assert list(source.class_names) == list(SYNSETS)
  assert source.splits == {'train': 9, 'validation': 5}
  train = read(source, 'train')
  assert sorted(train) == sorted(
    (f'{synset}_{i}.JPEG', f'{synset}_{i}'.encode() * 128 * i, label)
    for label, (synset, count) in enumerate((('n01', 2), ('n02', 3), ('n03', 4)))
    for i in range(count)
  )
  assert sorted(read(source, 'validation')) == [
    (name, name.encode(), SYNSETS.index(synset))
    for i, synset in enumerate(VALIDATION, start=1)
    for name in [f'ILSVRC2012_val_{i:08d}.JPEG']
  ]
  assert sorted(os.listdir(folder)) == [TRAIN_TAR, VALIDATION_TAR]


def test_the_order_of_tars_is_fixed(store):
  source = sources.open_imagenet_tars(store(train_tar(), validation_tar()))
  whole = read(source, 'train')
  assert whole == read(source, 'train') != sorted(whole)
  for start in (1, 5, 9):
    assert read(source, 'train', start) == whole[start:]
  # Nor does it depend on the order within the tar.
  assert whole == read(
    sources.open_imagenet_tars(store(train_tar(SYNSETS), validation_tar())), 'train'
  )


def test_tars_are_described_as_json(store):
  folder = store(train_tar(), validation_tar())
  description = sources.open_imagenet_tars(folder).description
  assert json.loads(json.dumps(description)) == description
  assert (description['kind'], description['path']) == ('imagenet tars', str(folder))
  train = description['archives'][0]
  assert train == {
    'file_name': TRAIN_TAR,
    'size': len(train_tar()),
    'md5': '1d675b47d978889d74fa0da5fadfb00e',
  }


def test_the_archives_are_imagenets():
  train, validation = sources.IMAGENET_ARCHIVES
  assert (train.split, train.file_name, train.size) == ('train', TRAIN_TAR, 147_897_477_120)
  assert (validation.split, validation.file_name) == ('validation', VALIDATION_TAR)
  assert (validation.size, validation.num_images) == (6_744_924_160, 50_000)


def test_tars_are_found(store, tmp_path):
  folder = store(train_tar(), validation_tar())
  assert sources.find_imagenet_tars(folder) == folder
  data_dir = tmp_path / 'data'
  assert sources.find_imagenet_tars(data_dir) is None
  manual = data_dir / 'downloads' / 'manual'
  manual.parent.mkdir(parents=True)
  assert sources.find_imagenet_tars(data_dir) is None
  folder.rename(manual)
  assert sources.find_imagenet_tars(data_dir) == manual
  (data_dir / TRAIN_TAR).touch()  # one alone does not hide the pair
  assert sources.find_imagenet_tars(data_dir) == manual


@pytest.mark.parametrize('missing', [TRAIN_TAR, VALIDATION_TAR])
def test_one_of_two_tars(store, missing):
  folder = store(train_tar(), validation_tar())
  (folder / missing).unlink()
  for function in (sources.find_imagenet_tars, sources.open_imagenet_tars):
    assert f'{folder} lacks {missing}; put it there' in refusal(function, folder)


def test_a_tar_of_another_size(store):
  folder = store(train_tar(), validation_tar())
  size = (folder / TRAIN_TAR).stat().st_size
  os.truncate(folder / TRAIN_TAR, size - 700)
  for function in (sources.find_imagenet_tars, sources.open_imagenet_tars):
    message = refusal(function, folder)
    assert f'{folder / TRAIN_TAR} has {size - 700:,} of {size:,} bytes' in message
    assert 'md5sum must give 1d675b47d978889d74fa0da5fadfb00e' in message


def damaged(content, place, length=512):
  return content[:place] + b'\x17' * length + content[place + length :]


@pytest.mark.parametrize(
  ('train', 'validation', 'named', 'why'),
  [
    (damaged(train_tar(), 0), validation_tar(), TRAIN_TAR, 'damaged'),
    (bytes(20480), validation_tar(), TRAIN_TAR, '3 missing'),
    (damaged(train_tar(), train_tar().index(b'n01_1.JPEG')), validation_tar(), TRAIN_TAR, '8 im'),
    (damaged(train_tar(), train_tar().index(b'n01.tar')), validation_tar(), TRAIN_TAR, '2 missing'),
    (train_tar(), b'no tar at all' * 2000, VALIDATION_TAR, 'damaged'),
    (train_tar(), damaged(validation_tar(), 2048), VALIDATION_TAR, '2 images, not 5'),
    (train_tar(), make_tar({'1.JPEG': b''}), VALIDATION_TAR, '1 images, not 5'),
  ],
)
def test_damaged_tars(store, train, validation, named, why):
  folder = store(train, validation)
  split = 'train' if named == TRAIN_TAR else 'validation'
  message = refusal(read, sources.open_imagenet_tars(folder), split)
  assert f'{folder / named} is damaged' in message
  assert why in message


def test_synsets_that_are_not_imagenets(store):
  folder = store(train_tar(('n01', 'n03', 'n04')), validation_tar(), (11, 5))
  message = refusal(read, sources.open_imagenet_tars(folder), 'train')
  assert TRAIN_TAR in message
  assert "of its synsets, 1 missing, such as 'n02', and 1 unknown, such as 'n04'" in message


def test_classes_are_checked_against_the_synsets(monkeypatch):
  synsets = sources.imagenet_synsets()
  assert (len(synsets), synsets[0], synsets[-1]) == (1000, 'n01440764', 'n15075141')
  assert list(synsets) == sorted(synsets)
  sources.check_synsets(list(synsets))
  wrong = 'the classes are not the synsets of ImageNet 2012: '
  assert refusal(sources.check_synsets, ['cat', *synsets[1:]]) == (
    wrong + "1 missing, such as 'n01440764', and 1 unknown, such as 'cat'"
  )
  assert refusal(sources.check_synsets, synsets[:-2]).startswith(wrong + '2 missing')
  assert refusal(sources.check_synsets, synsets[::-1]).startswith(wrong + 'their order')


def test_validation_images_have_synsets():
  labels = sources.validation_synsets()
  assert len(labels) == 50_000
  assert set(labels) == set(sources.imagenet_synsets())
  assert labels[0] == 'n01751748'


def test_labels_come_without_importing_tfds():
  program = """
import sys
from alexnet_jax.data import sources
sources.imagenet_synsets(), sources.validation_synsets()
assert not {'tensorflow', 'tensorflow_datasets', 'jax'} & set(sys.modules)
"""
  subprocess.run([sys.executable, '-c', program], cwd=REPOSITORY, check=True)


def test_labels_without_tfds(monkeypatch):
  monkeypatch.setattr(sources.importlib.util, 'find_spec', lambda name: None)
  assert 'pip install -e ".[train]"' in refusal(sources.imagenet_synsets)


def test_instructions_say_what_to_put_where(tmp_path):
  data_dir = tmp_path / 'my data'
  text = sources.imagenet_instructions(data_dir)
  for archive in sources.IMAGENET_ARCHIVES:
    assert f'{archive.file_name}  {archive.size:,} bytes, MD5 {archive.md5}' in text
  assert f'into {data_dir}' in text
  assert 'https://image-net.org/download-images' in text
  assert text.endswith(
    'python launch.py --config=configs/imagenet.py --mode=prepare'
    f" --config.data.data_dir='{data_dir}'"
  )
