"""Folders are read as their user means them, or refused: splits, classes, and neither."""

import pytest

from alexnet_jax.data import image_folder
from tests.mistakes import refusal


def fill(root, *paths):
  """Makes files below a folder; each contains its own path."""
  for path in paths:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(path)


def two_each(*folders):
  return [f'{folder}/{i}.jpg' for folder in folders for i in range(2)]


def open_folder(root, class_depth=None):
  return image_folder.open_folder(root, 0.1, class_depth)


def classes_of(split, *names):
  return [f'{split}/{name}' for name in names]


def accounted(source, root):
  """Whether each file below the root is used once or left out once."""
  used = [path for files in source.files.values() for path, _ in files]
  every = [*used, *(str(root / file.file_name) for file in source.left_out)]
  return sorted(every) == sorted(str(path) for path in root.rglob('*') if not path.is_dir())


@pytest.mark.parametrize(
  ('train', 'test'),
  [
    ('training_set', 'test_set'),
    ('Train', 'Test'),
    ('trainSet', 'testSet'),
    ('trainset', 'testset'),
    ('TRAIN_IMAGES', 'TEST_IMAGES'),
    ('seg_train', 'seg_test'),
    ('data-train', 'data-testing'),
    ('train2017', 'test2017'),
    ('dataset/train', 'dataset/test'),
    ('training_data/train', 'training_data/test'),
    ('asl_alphabet_train', 'asl_alphabet_test'),
    ('mnist.training', 'mnist.test'),
  ],
)
def test_folders_named_as_splits_are_no_classes(tmp_path, train, test):
  fill(tmp_path, *two_each(f'{train}/cats', f'{train}/dogs', f'{test}/cats', f'{test}/dogs'))
  source = open_folder(tmp_path)
  assert list(source.class_names) == ['cats', 'dogs']
  assert source.splits == {'train': 2, 'validation': 2, 'test': 4}
  assert accounted(source, tmp_path)


@pytest.mark.parametrize('validation', ['dev', 'val_data', 'validation_set', 'Valid', 'valset'])
def test_validation_has_many_names(tmp_path, validation):
  fill(tmp_path, *two_each('train/cats', 'train/dogs', f'{validation}/cats'))
  assert open_folder(tmp_path).splits == {'train': 4, 'validation': 2}


@pytest.mark.parametrize(
  'names',
  [
    ('steam_train', 'toy_train'),
    ('trains', 'buses'),
    ('blood_test', 'model_train'),
    ('set1', 'set2'),
    ('contest', 'valley'),
  ],
)
def test_names_with_other_words_are_classes(tmp_path, names):
  fill(tmp_path, *two_each(*names))
  assert list(open_folder(tmp_path).class_names) == sorted(names)


def test_intels_folders_of_scenes(tmp_path):
  train, test = (f'seg_{split}/seg_{split}' for split in ('train', 'test'))
  fill(tmp_path, *two_each(f'{train}/sea', f'{train}/forest', f'{test}/sea', f'{test}/forest'))
  fill(tmp_path, 'seg_pred/seg_pred/1.jpg', 'seg_pred/seg_pred/2.jpg')
  source = open_folder(tmp_path)
  assert list(source.class_names) == ['forest', 'sea']
  assert source.splits == {'train': 2, 'validation': 2, 'test': 4}
  assert f'{tmp_path / "seg_train"} has its images in seg_train: read from there' in source.notes
  assert f'{tmp_path / "seg_pred"} has images without classes: it is skipped' in source.notes
  assert accounted(source, tmp_path)


def test_the_alphabet_of_signs_with_a_test_folder_without_classes(tmp_path):
  name = 'asl_alphabet'
  fill(tmp_path, *two_each(f'{name}_train/{name}_train/A', f'{name}_train/{name}_train/B'))
  fill(tmp_path, f'{name}_test/{name}_test/A_test.jpg')
  source = open_folder(tmp_path)
  assert list(source.class_names) == ['A', 'B']
  assert source.splits == {'train': 2, 'validation': 2}
  assert accounted(source, tmp_path)


@pytest.mark.parametrize(
  ('wrapper', 'around'),
  [
    ('flower_photos', ''),
    ('flower_photos/flower_photos', ''),
    ('images', ''),
    ('wrapper', 'train'),
    ('train', 'train'),
    ('data/train/train', ''),
    ('Images', 'annotations'),
  ],
)
def test_one_folder_around_the_classes_is_gone_into(tmp_path, wrapper, around):
  inside = f'{wrapper}/{around}' if around == 'train' else wrapper
  fill(tmp_path, *two_each(f'{inside}/cats', f'{inside}/dogs'))
  fill(tmp_path, 'README.txt', '.DS_Store', '__MACOSX/x/1.jpg')
  if around == 'annotations':
    fill(tmp_path, 'annotations/cats/1.xml', 'annotations/dogs/1.xml')
  source = open_folder(tmp_path)
  assert list(source.class_names) == ['cats', 'dogs']
  assert source.splits == {'train': 2, 'validation': 2}
  assert any('read from there' in note for note in source.notes)
  if around == 'annotations':
    passed = f"{tmp_path} has folders without images, which are skipped: 'annotations'"
    assert passed in source.notes
  assert accounted(source, tmp_path)


def test_folders_without_images_are_no_classes(tmp_path):
  fill(tmp_path, *two_each('cats', 'dogs'), 'annotations/1.xml', 'labels/cats/1.txt')
  source = open_folder(tmp_path)
  assert list(source.class_names) == ['cats', 'dogs']
  passed = f"{tmp_path} has folders without images, which are skipped: 'annotations', 'labels'"
  assert passed in source.notes
  assert accounted(source, tmp_path)


@pytest.mark.parametrize(
  ('folders', 'no_class'),
  [
    (('images', 'annotations/trimaps'), 'annotations'),
    (('images', 'masks'), 'images'),
    (('images', 'trimaps'), 'images'),
    (('jpg', 'segmim'), 'jpg'),  # Oxford's flowers
    (('CUB/images/1', 'CUB/images/2', 'segmentations/1', 'segmentations/2'), 'segmentations'),
  ],
)
def test_images_beside_pictures_of_annotations_are_refused(tmp_path, folders, no_class):
  fill(tmp_path, *two_each(*folders))
  message = refusal(open_folder, tmp_path)
  assert f'{tmp_path} has images in ' in message
  assert f'{no_class!r} is probably not a class' in message


@pytest.mark.parametrize(
  ('folders', 'words'),
  [
    (
      ('yes', 'no', 'brain_tumor/yes', 'brain_tumor/no'),
      "has 'brain_tumor', in which there are 'no', 'yes' again; move it away",
    ),
    (
      ('x-20240101T000000Z-001/x/cats', 'x-20240101T000000Z-002/x/cats'),
      'put what is in its parts together',
    ),
    (
      ('train/cats', 'train/dogs', 'test/cats', 'Meta'),
      "has 'train', which is read as a split, beside 'Meta'",
    ),
    (
      ('Training/cats', 'Training/dogs', 'Pruefung/cats'),
      "if it is a split, rename the folder of the validation images to 'val'",
    ),
    (('train_mini/cats', 'train_mini/dogs', 'val/cats'), "rename 'train_mini' to 'train'"),
    (('DCIM/100APPLE', 'DCIM/101CANON'), 'which are parts by their names'),
    (('images_001/images', 'images_002/images'), 'which are parts by their names'),
    (
      ('amazon/images/mug', 'amazon/images/pen', 'dslr/images/mug'),
      "folders in them, such as 'amazon/images/",
    ),
  ],
)
def test_folders_as_they_are_downloaded_are_refused_with_what_to_do(tmp_path, folders, words):
  fill(tmp_path, *two_each(*folders))
  assert words in refusal(open_folder, tmp_path)


@pytest.mark.parametrize(
  ('files', 'words'),
  [
    (
      [f'train/{name}.{i}.jpg' for name in ('cat', 'dog') for i in range(3)],
      "names that begin with 'cat', 'dog': if these are the classes, put each into a folder",
    ),
    (
      [f'{name}_{i}.jpg' for name in ('beagle', 'great_pyrenees') for i in (8, 10)],
      "'beagle', 'great_pyrenees'",
    ),
    ([f'image_{i}.jpg' for i in range(4)], '(those in it lie outside of such folders)'),
    (['a1.jpg', 'b1.jpg', 'b2.jpg', 'x.jpg'], '(those in it lie outside of such folders)'),
    (['train.zip', 'test.zip', 'labels.csv'], '(its files end in .csv, .zip; unpack them)'),
  ],
)
def test_files_without_folders_of_classes(tmp_path, files, words):
  fill(tmp_path, *files)
  assert words in refusal(open_folder, tmp_path)


@pytest.mark.parametrize('below', ['', '/a', '/b'])
def test_a_class_called_train_is_refused_beside_other_classes(tmp_path, below):
  vehicles = ('airplane', 'bus', 'car', 'train')
  fill(tmp_path, *two_each(*(f'{name}{below}' for name in vehicles)))
  message = refusal(open_folder, tmp_path)
  assert "'train', which is read as a split, beside 'airplane', 'bus', 'car'" in message
  assert "rename it, to 'train_class'" in message
  (tmp_path / 'train').rename(tmp_path / 'train_class')
  assert len(open_folder(tmp_path).class_names) == 4
  # In a split it may be called so.
  fill(tmp_path / 'more', *two_each(*classes_of('train', *vehicles)))
  assert list(open_folder(tmp_path / 'more').class_names) == list(vehicles)


@pytest.mark.parametrize(
  'names',
  [
    ('horse-or-human', 'validation-horse-or-human'),
    ('train_cats', 'train_dogs', 'test_cats', 'test_dogs'),
  ],
)
def test_names_that_differ_in_a_split_alone(tmp_path, names):
  fill(tmp_path, *two_each(*(f'{name}{below}' for name in names for below in ('/x', '/y'))))
  message = refusal(open_folder, tmp_path)
  assert 'differ in the name of a split alone' in message


def test_splits_within_a_split(tmp_path):
  fill(tmp_path, *two_each('train/train/cats', 'train/val/cats', 'test/cats'))
  message = refusal(open_folder, tmp_path)
  assert f"{tmp_path / 'train'} has 'train', 'val', which are splits, not classes" in message


def test_splits_within_classes(tmp_path):
  fill(tmp_path, *two_each('cats/train', 'cats/test', 'dogs/train', 'dogs/test'))
  message = refusal(open_folder, tmp_path)
  assert 'put them above the classes, as in test/cats' in message
  assert list(open_folder(tmp_path, 1).class_names) == ['cats', 'dogs']


@pytest.mark.parametrize('names', [('class 1', 'class 2'), ('0', '1'), ('part a', 'part b')])
def test_names_that_differ_in_a_number_are_classes(tmp_path, names):
  fill(tmp_path, *two_each(*names))
  assert list(open_folder(tmp_path).class_names) == list(names)


def test_folders_that_hold_the_same_classes_may_be_splits(tmp_path):
  fill(tmp_path, *two_each('fold 1/cats', 'fold 1/dogs', 'fold2/cats', 'fold2/dogs'))
  message = refusal(open_folder, tmp_path)
  assert f"choose one, --config.data.data_dir='{tmp_path}/fold 1'" in message
  assert 'rename them to train and val if they are splits' in message
  assert 'class_depth=1 for 2' in message


def test_letters_above_the_classes(tmp_path):
  fill(tmp_path, *two_each('a/abbey', 'a/airport', 'b/bar'))
  message = refusal(open_folder, tmp_path)
  assert '--config.data.class_depth=1 for 2 such as' in message
  assert "or 2 for 3 such as 'a/abbey'" in message
  letters, places = (open_folder(tmp_path, depth) for depth in (1, 2))
  assert list(letters.class_names) == ['a', 'b']
  assert list(places.class_names) == ['a/abbey', 'a/airport', 'b/bar']
  assert letters.name != places.name
  assert accounted(letters, tmp_path)
  assert accounted(places, tmp_path)
  assert 'so deep in' in refusal(open_folder, tmp_path, 3)


def test_classes_may_lie_at_any_depth(tmp_path):
  kinds = ('animals/birds/crow', 'animals/mammals/cat', 'animals/mammals/dog', 'plants/trees/oak')
  fill(tmp_path, *two_each(*kinds))
  message = refusal(open_folder, tmp_path)
  assert (
    "--config.data.class_depth=1 for 2 such as 'animals', 2 for 3 such as 'animals/birds', or 3 for 4"
    " such as 'animals/birds/crow'"
  ) in message
  assert list(open_folder(tmp_path, 3).class_names) == list(kinds)


def test_letters_above_the_classes_of_splits(tmp_path):
  fill(tmp_path, *two_each('train/a/abbey', 'train/a/airport', 'train/b/bar', 'val/b/bar'))
  assert 'class_depth' in refusal(open_folder, tmp_path)
  source = open_folder(tmp_path, 2)
  assert list(source.class_names) == ['a/abbey', 'a/airport', 'b/bar']
  assert source.splits == {'train': 6, 'validation': 2}
  assert {label for _, label in source.files['validation']} == {2}


def test_folders_in_one_of_the_classes_are_told(tmp_path):
  fill(tmp_path, *two_each('sea', 'street', 'street/2024', 'street/2025', 'zoo/cats', 'zoo/dogs'))
  source = open_folder(tmp_path)
  assert source.class_names == ['sea', 'street', 'zoo']
  assert source.notes[1:] == [
    f"{tmp_path}/zoo has 'cats', 'dogs', which are read as one class, 'zoo'; if these are the"
    ' classes, put them beside the others'
  ]
  fill(tmp_path, *two_each('animals/owls', 'animals/pigs'))
  assert "one class, 'animals', as in 1 other folder; if" in open_folder(tmp_path).notes[1]
  assert len(open_folder(tmp_path, class_depth=1).notes) == 1


def test_one_folder_in_each_class_is_no_question(tmp_path):
  fill(tmp_path, *two_each('train/n01/images', 'train/n02/images'), 'train/n01/boxes.txt')
  assert list(open_folder(tmp_path).class_names) == ['n01', 'n02']


def test_no_folders_of_the_depth_that_is_asked_for(tmp_path):
  fill(tmp_path, *two_each('a', 'b'))
  message = refusal(open_folder, tmp_path, 2)
  assert message.startswith('data.class_depth is 2, but')
  assert message.endswith('the deepest are at 1')


@pytest.mark.parametrize(
  ('link', 'to'), [('train/puppies', 'train/dogs'), ('val', 'train'), ('val/dogs', 'train/dogs')]
)
def test_links_that_make_one_folder_two_are_refused(tmp_path, link, to):
  fill(tmp_path, *two_each('train/cats', 'train/dogs'))
  (tmp_path / link).parent.mkdir(exist_ok=True)
  (tmp_path / link).symlink_to(tmp_path / to)
  assert 'are the same folder, by a link; remove one' in refusal(open_folder, tmp_path)


def test_a_link_up_brings_no_images_of_other_classes(tmp_path):
  fill(tmp_path, *two_each('cats', 'dogs'))
  (tmp_path / 'cats' / 'all').symlink_to(tmp_path)
  assert sum(open_folder(tmp_path).splits.values()) == 4


def test_a_line_tells_classes_and_counts(tmp_path):
  fill(tmp_path / 'few', *two_each('cats', 'dogs'))
  [line] = open_folder(tmp_path / 'few').notes
  assert line == (
    f'{tmp_path / "few"}: 2 classes (cats, dogs); images: train 2, validation 2 (held out of train)'
  )
  fill(tmp_path / 'many', *two_each(*(f'train/{i:03}' for i in range(100)), 'val/000'))
  line, lacking = open_folder(tmp_path / 'many').notes
  assert '100 classes (000, 001, 002, 003, ..., 099); images: train 200, validation 2' in line
  assert lacking == 'validation has no images of 99 classes (001, 002, 003, 004, ..., 099)'
