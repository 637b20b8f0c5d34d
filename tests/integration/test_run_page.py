"""A run's report.html: what it says, and that a browser shows it on a desktop and on a phone."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import experiment
from alexnet_jax.checkpoints import workdir
from alexnet_jax.evaluation import predictions
from alexnet_jax.reports import page_curves, run_page
from alexnet_jax.utils.errors import UserError
from benchmarks import browser
from configs import digits
from tests import sweeps

NAMES = ['<b>ant</b>', 'a bee, and more', *(f'class{i}' for i in range(2, 10))]
ERRORS = (0.9, 0.5, 0.2, 0.3)


def leave_run(path):
  """Config, metrics of four epochs with a cut of the rate before the last, and a start."""
  path.mkdir()
  config = experiment.resolved(digits.get_config())
  (path / 'config.json').write_text(json.dumps(config))
  lines = sweeps.lines(ERRORS)
  lines.insert(4, {**lines[4], 'step': 25, 'epoch': 2.5, 'top1_error': 0.4})  # in epoch 3
  for line in lines:
    if line['split'] == 'train' and line['epoch'] > 3:
      line['learning_rate'] /= 10
  (path / 'metrics.jsonl').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
  start = {'step': 0, 'date': '2026-11-28T10:00:00+00:00', 'devices': '2 cpu (A)'}
  start |= {'commit': f'{"a" * 40}-dirty', 'versions': {'jax': '0.10.2'}}
  workdir.record_start(path, {**start, 'command': 'python launch.py --config=<i>.py'})


def leave_evaluation(path, classes=10, names=None):
  """Predictions of 40 images, of which the network takes 8 for the next class."""
  labels = (np.arange(40) % classes).astype(np.int32)
  probabilities = np.full((40, classes), 0.01, np.float32)
  taken = np.where(np.arange(40) < 8, (labels + 1) % classes, labels)
  probabilities[np.arange(40), taken] = 0.5 + np.arange(40) / 100
  names = names or (NAMES if classes == 10 else [f'class{i}' for i in range(classes)])
  files = [f'{names[label]}/{i}.jpg' for i, label in enumerate(labels)]
  (path / 'evaluation').mkdir()
  predictions.write_tables(path / 'evaluation', probabilities, labels, names, files)
  errors = {'top1_error': 0.2, 'top5_error': 0.0}
  content = {'center_crop': errors, 'ten_views': {**errors, 'top1_error': 0.175}}
  content |= {'members': [{'step': 20}], 'images': 40, 'data': 'folder /b', 'split': 'all'}
  content['classes'] = classes
  (path / 'evaluation.json').write_text(json.dumps(content))


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'a run'
  leave_run(path)
  leave_evaluation(path)
  (path / 'figures').mkdir()
  for name in ('figure2_network', 'figure3_kernels'):
    Image.new('RGB', (1500, 400)).save(path / 'figures' / f'{name}.png')
  return run_page.write(path)


@pytest.fixture(scope='module')
def text(page):
  return page.read_text('utf-8')


def test_the_best_epoch_and_the_cut_of_the_rate_are_marked(text):
  assert 'Lowest validation error: 20.00% (epoch 3). Last: 30.00% (epoch 4).' in text
  assert 'Red line: lowest error, 20.00%, epoch 3.' in text
  assert text.count('stroke-dasharray') == 1
  assert re.findall(r'<title>(epoch .*?)</title>', text)[2] == (
    'epoch 3: validation error 20.00%, training 30.00%, rate 0.01'
  )
  assert len(re.findall(r'<circle ', text)) == len(ERRORS)


def test_mistakes_have_their_files_and_the_surest_is_first(text):
  found = re.findall(r'<td class="break">(.*?)</td>', text)
  first = found.index('class7/7.jpg')
  assert found[first : first + 3] == ['class7/7.jpg', 'class7', 'class8']
  assert '57.00%' in text
  assert found.index('class6/6.jpg') > first
  assert 'The 8 most confident of 8 mistakes, by ten views.' in text


def test_which_checkpoint_was_evaluated_on_what_is_said(text):
  assert (
    'Of the checkpoint of step 20, on the 40 images of folder /b (all), as last evaluated: top-1'
    ' error 20.00% (top-5 0.00%) by center crop, 17.50% (top-5 0.00%) by ten views.'
  ) in text
  assert 'The lowest validation error is now that of step 30.' in text


@pytest.mark.parametrize('content', ['{"images": 3}', '[]', 'null'])
def test_an_evaluation_that_cannot_be_read_is_named(tmp_path, content):
  leave_run(tmp_path / 'run')
  (tmp_path / 'run' / 'evaluation.json').write_text(content)
  with pytest.raises(UserError, match=r'evaluation\.json cannot be read; remove it'):
    run_page.write(tmp_path / 'run')


def test_names_that_look_like_html_are_shown_as_they_are(text):
  assert '&lt;b&gt;ant&lt;/b&gt;' in text
  assert not re.search(r'<b>|<i>|<script', text)


def test_what_differs_from_the_paper_and_where_it_comes_from_is_said(text):
  row = (
    r'<td class="break">data.<wbr>image_size</td><td class="break">8</td><td class="break">256</td>'
  )
  assert row in text
  assert 'data.validation_fraction' not in text
  for words in (
    '2026-11-28',
    '10:00:00 UTC',
    '2 cpu (A)',
    'aaaaaaaaaaaa and changes',
    'jax 0.10.2',
  ):
    assert words in text


@pytest.mark.parametrize(
  ('caller', 'by'), [({}, ''), ({'caller': 'a<b>.py'}, ', by a&lt;b&gt;.py')]
)
def test_a_run_started_from_python_says_that_it_has_no_command(caller, by, tmp_path):
  leave_run(tmp_path / 'run')
  file = tmp_path / 'run' / workdir.STARTS
  start = json.loads(file.read_text())
  file.write_text(json.dumps({**start, 'command': None, **caller}) + '\n')
  text = run_page.write(tmp_path / 'run').read_text('utf-8')
  assert f'Started from Python{by}, without a command. What it was called with' in text
  assert 'To run it again' not in text


def test_the_commands_of_all_starts_are_told_each_once(tmp_path):
  leave_run(tmp_path / 'run')
  file = tmp_path / 'run' / workdir.STARTS
  start = json.loads(file.read_text())
  commands = ('first', 'first', 'second', None)
  starts = [{**start, 'step': step, 'command': each} for step, each in enumerate(commands)]
  file.write_text(''.join(f'{json.dumps(each)}\n' for each in starts))
  text = run_page.write(tmp_path / 'run').read_text('utf-8')
  assert 'To run it again, one after the other:</p>\n<pre>first</pre>\n<pre>second</pre>' in text
  assert 'Started from Python' in text
  assert 'Versions of the last start: jax' in text


def test_top_5_errors_are_told_where_there_are_more_than_five_classes(tmp_path):
  leave_run(tmp_path / 'run')
  leave_evaluation(tmp_path / 'run')
  file = tmp_path / 'run' / 'evaluation.json'
  file.write_text(json.dumps({**json.loads(file.read_text()), 'classes': 10}))
  text = run_page.write(tmp_path / 'run').read_text('utf-8')
  assert 'error 20.00% (top-5 0.00%) by center crop, 17.50% (top-5 0.00%) by ten views.' in text


SAVED_AGAIN = {
  'with_semicolons': lambda content: content.replace(b',', b';'),
  'cut': lambda content: content[:-6],
  'in_utf_16': lambda content: content.decode().encode('utf-16'),
}


@pytest.mark.parametrize('name', ['confusion', 'images', 'per_class'])
@pytest.mark.parametrize('saved', SAVED_AGAIN.values(), ids=SAVED_AGAIN)
def test_a_table_that_another_program_has_saved_is_named(tmp_path, name, saved):
  leave_run(tmp_path / 'run')
  leave_evaluation(tmp_path / 'run')
  file = tmp_path / 'run' / 'evaluation' / f'{name}.csv'
  file.write_bytes(saved(file.read_bytes()))
  with pytest.raises(UserError, match=rf'{name}\.csv cannot be read, .*evaluate again'):
    run_page.write(tmp_path / 'run')


def test_a_table_may_begin_with_the_mark_of_windows(tmp_path):
  leave_run(tmp_path / 'run')
  leave_evaluation(tmp_path / 'run')
  expected = run_page.write(tmp_path / 'run').read_bytes()
  for file in (tmp_path / 'run' / 'evaluation').glob('*.csv'):
    file.write_text(file.read_text('utf-8'), 'utf-8-sig')
  assert run_page.write(tmp_path / 'run').read_bytes() == expected


@pytest.mark.parametrize('screen', browser.SCREENS)
def test_a_browser_shows_all_of_it_and_asks_for_nothing(page, screen, chromium):
  with browser.opened(chromium, page, screen) as shown:
    assert shown.overflow() == 0
    assert shown.requests == []
    assert shown.messages == []
    words = shown.page.locator('.point text').nth(1)
    assert not words.is_visible()
    shown.page.locator('.point').nth(1).hover()
    assert words.is_visible()
    assert words.text_content().startswith('epoch 2: validation error 50.00%')


def test_without_evaluation_and_pictures_the_page_says_how_to_make_them(tmp_path):
  path = tmp_path / 'run'
  leave_run(path)
  text = run_page.write(path).read_text('utf-8')
  for mode in ('evaluate', 'figures'):
    assert f'python launch.py --workdir={path} --mode={mode}' in text


def test_of_many_classes_the_pairs_that_are_confused_most_are_listed(tmp_path):
  path = tmp_path / 'run'
  leave_run(path)
  leave_evaluation(path, classes=30)
  text = run_page.write(path).read_text('utf-8')
  assert 'id="confusion"' not in text
  assert (
    '<td class="break">class0</td><td class="break">class1</td><td class="number">1</td>' in text
  )


def test_a_class_may_be_called_class(tmp_path):
  path = tmp_path / 'run'
  leave_run(path)
  leave_evaluation(path, classes=3, names=['cat', 'class', 'dog'])
  text = run_page.write(path).read_text('utf-8')
  [head] = re.findall(r'<thead><tr><td></td>(.*?)</tr></thead>', text)
  assert re.findall(r'<th scope="col">(.*?)</th>', head) == ['cat', 'class', 'dog']
  [first, *_] = re.findall(r'<tbody><tr><th scope="row">cat</th>(.*?)</tr>', text, re.S)
  assert re.findall(r'>(\d*)</td>', first) == ['11', '3', '']


def test_a_step_that_ends_an_epoch_is_said_to_be_at_its_end(tmp_path):
  path = tmp_path / 'run'
  leave_run(path)
  ends = [{**record, 'epoch': record['epoch'] + 0.02} for record in sweeps.lines(ERRORS)]
  ends[-1]['epoch'] = 4.5
  (path / 'metrics.jsonl').write_text(''.join(f'{json.dumps(line)}\n' for line in ends))
  text = run_page.write(path).read_text('utf-8')
  assert 'Lowest validation error: 20.00% (epoch 3). Last: 30.00% (epoch 4.5).' in text


def test_an_axis_of_errors_that_are_near_each_other_has_marks_too():
  marks = [mark.text for mark in page_curves.curves(sweeps.lines([0.9, 0.7])).up]
  assert marks == ['60%', '70%', '80%', '90%']


def test_synsets_of_imagenet_have_their_words_and_equal_first_words_the_rest_too():
  cranes = ['n02012849', 'n03126707']
  names = run_page._names(['n01440764', *cranes, 'a bee, and more'])
  assert names['n01440764'] == 'tench'
  assert names['a bee, and more'] == 'a bee, and more'
  assert names[cranes[0]] != names[cranes[1]]


def test_photographs_are_small_and_kernels_exact(tmp_path):
  path = tmp_path / 'run'
  leave_run(path)
  (path / 'figures').mkdir()
  noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
  kernels = Image.fromarray(noise).resize((400, 400), Image.Resampling.NEAREST)
  kernels.save(path / 'figures' / 'figure3_kernels.png')
  photograph = Image.fromarray(noise).resize((400, 400), Image.Resampling.BICUBIC)
  photograph.save(path / 'figures' / 'figure4_predictions.png')
  text = run_page.write(path).read_text('utf-8')
  kinds = re.findall(r'src="data:image/(\w+);base64,[^"]+" alt="(.*?)"', text)
  assert kinds == [('png', 'conv1&#39;s kernels'), ('jpeg', 'Predictions')]


def test_before_the_first_validation_there_are_no_curves(tmp_path):
  path = tmp_path / 'run'
  leave_run(path)
  (path / 'metrics.jsonl').unlink()
  assert 'No validation yet.' in run_page.write(path).read_text('utf-8')


def test_a_validation_before_the_first_step_has_a_page_without_curves(tmp_path):
  path = tmp_path / 'run'
  leave_run(path)
  record = {**sweeps.lines([0.5])[-1], 'step': 0, 'epoch': 0.0}
  (path / 'metrics.jsonl').write_text(f'{json.dumps(record)}\n')
  assert '<svg' not in run_page.write(path).read_text('utf-8')


def test_a_folder_that_is_no_run_is_named(tmp_path):
  with pytest.raises(UserError, match=r'has no config\.json'):
    run_page.write(tmp_path)
