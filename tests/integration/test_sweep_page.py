"""A sweep's report.html as a browser shows it, on a desktop and on a phone."""

import pytest

from alexnet_jax.checkpoints import workdir
from alexnet_jax.sweeps import planning, tables
from alexnet_jax.sweeps import results as sweep_results
from alexnet_jax.sweeps.runner import FAILURE
from alexnet_jax.sweeps.spec import Reported, Sweep, Variant
from benchmarks import browser
from tests import sweeps

SWEEP = Sweep(
  'Ablations of <i>digits</i> & more',
  (
    Variant('tanh', {'model.activation': 'tanh'}, 'tanh, <b>& not</b> ReLU'),
    Variant(
      'no_overlap',
      {'model.pool.window': 2},
      'pools that do not overlap (3.4)',
      paper=Reported(0.4, 0.3),
      source=Reported(0.39, 0.30, where='ILSVRC-2012 validation'),
    ),
    Variant(
      'norm_over_all_channels_of_both_columns',
      {'model.response_norm.over': 'all_channels'},
      "normalization across both columns' maps, as Caffe does",
      paper=Reported(-1.0, roughly='over'),
    ),
    Variant('no_flips', {'augment.flip': False}, 'no mirror images (4.1)'),
    Variant('no_conv4', {'model.conv4.features': 0}, 'conv4 left out (7)'),
  ),
  seeds=(0, 1),
)
FINALS = {
  'base': (0.20, 0.22),
  'tanh': (0.30, 0.33),
  'no_overlap': (0.21, 0.22),
  'norm_over_all_channels_of_both_columns': (0.19, 0.24),
  'no_flips': (0.2, 0.18),
}


COMMAND = 'python launch.py --mode=sweep --workdir=' + '/a/long/path' * 20


@pytest.fixture(scope='module')
def report(tmp_path_factory):
  """The page of a sweep with a run that failed and one that has not ended."""
  path = tmp_path_factory.mktemp('sweep')
  planned = sweeps.plan(path, SWEEP)
  planning.write(planned, {'command': COMMAND, 'caller': None})
  for run in planned.runs:
    if run.variant in FINALS:
      final = FINALS[run.variant][run.seed]
      sweeps.write_run(run, sweeps.lines([0.9, 3 * final, 2 * final, final], [0.9, 0.6, 0.4, 0.2]))
      commit = ('b' if run.variant == 'no_flips' else 'a') * 40
      workdir.record_start(run.path, sweeps.start(commit=commit))
    elif run.seed == 0:
      sweeps.write_run(run, sweeps.lines([0.9, 0.8]))
    else:
      run.path.mkdir(parents=True)
      (run.path / FAILURE).write_text('loss is not a number at step 7; ' + 'a/long/path' * 9 + '\n')
  (path / 'base' / 'seed0' / 'report.html').touch()
  sweeps.report_quickly(path)
  return path / 'report.html'


@pytest.fixture(scope='module', params=browser.SCREENS)
def opened(request, report, chromium):
  """The page on a screen."""
  with browser.opened(chromium, report, request.param) as shown:
    yield shown


def test_every_variant_has_its_row_in_view(opened, report):
  page = opened.page
  rows = page.locator('#results tbody tr')
  results = sweep_results.gather(report.parent)
  assert rows.count() == len(results.rows) == 1 + len(SWEEP.variants)
  for row, shown in zip(results.rows, rows.all(), strict=True):
    assert shown.is_visible()
    name, *numbers, description = tables.cells(row)
    assert shown.locator('th').inner_text().split('\n') == [name, description]
    texts = [text.replace('\N{MINUS SIGN}', '-') for text in shown.locator('td').all_inner_texts()]
    assert texts == numbers
  # All of it, without scrolling sideways.
  box = page.locator('.scroll', has=page.locator('#results'))
  assert box.evaluate('box => box.scrollWidth <= box.clientWidth')


def test_every_number_has_its_heading_with_units(opened):
  page = opened.page
  number = page.locator('#results tbody tr').nth(2).locator('td')
  above = page.locator('#results thead th')
  headings = [
    'runs', 'top-1 error, %', 'difference, points', '95% interval, points', 'paper, points',
    '2012 logs, points', 'sign', 'p',
  ]  # fmt: skip
  if opened.width > 800:
    assert above.all_inner_texts()[1:] == headings
    assert all(heading.is_visible() for heading in above.all())
  else:  # each above its number
    shown = "cells => cells.map(cell => getComputedStyle(cell, '::before').content)"
    assert number.evaluate_all(shown) == [f'"{text}"' for text in headings]


def test_every_picture_is_there(opened):
  page = opened.page
  pictures = page.locator('img')
  assert page.locator('h2').all_inner_texts() == [
    'Figure 1', 'Differences from the base', 'Validation error', 'Runs', 'Provenance'
  ]  # fmt: skip
  loaded = pictures.evaluate_all('all => all.map(one => one.complete && one.naturalWidth > 0)')
  assert loaded == [True] * 3
  assert all(picture.is_visible() for picture in pictures.all())


def test_the_page_requests_nothing_and_leaves_the_console_empty(opened):
  assert opened.requests == []
  assert opened.messages == []


def test_the_page_is_no_wider_than_the_screen(opened):
  page = opened.page
  assert opened.overflow() == 0
  page.get_by_text("Each run's command").click()
  command = page.locator('details code').last
  assert command.is_visible()
  assert '--config.model.conv4.features=0' in command.inner_text()
  assert opened.overflow() == 0


def test_no_text_is_smaller_than_12_pixels(opened):
  page = opened.page
  sizes = page.evaluate("""() => {
    const sizes = {}
    const note = (style, text) => { sizes[text] = parseFloat(style.fontSize) }
    for (const element of document.body.querySelectorAll('*')) {
      for (const node of element.childNodes)
        if (node.nodeType == Node.TEXT_NODE && node.data.trim())
          note(getComputedStyle(element), node.data)
      const before = getComputedStyle(element, '::before')
      if (before.content != 'none') note(before, before.content)
    }
    return sizes
  }""")
  assert 'no mirror images (4.1)' in sizes
  assert {text: size for text, size in sizes.items() if size < 12} == {}


def test_text_that_looks_like_html_is_shown_as_it_is(opened):
  page = opened.page
  assert page.title() == f'{SWEEP.title}, digits'
  assert page.locator('h1').inner_text() == f'{SWEEP.title}, digits'
  assert page.locator('b, i, script').count() == 0


def test_where_it_comes_from_is_in_view(opened):
  names, texts = (opened.page.locator(f'dl {part}') for part in ('dt', 'dd'))
  told = dict(zip(names.all_inner_texts(), texts.all_inner_texts(), strict=True))
  assert told['command'] == COMMAND
  assert told['commit'].startswith('b' * 40 + ': no_flips/seed0, no_flips/seed1; ')
  for text in texts.all():
    box = text.bounding_box()
    assert box['x'] + box['width'] <= opened.width


def test_a_run_that_has_a_page_is_linked_to_it(opened):
  links = opened.page.locator('a')
  assert [link.get_attribute('href') for link in links.all()] == ['base/seed0/report.html']


def test_runs_that_are_not_finished_say_why(opened):
  page = opened.page
  states = page.locator('#runs .state').all_inner_texts()
  assert states[0] == 'at epoch 2 of 4'
  assert states[1].startswith('failed: loss is not a number at step 7; a/long/path')
  assert page.locator('#runs tbody tr').count() == 2 * (1 + len(SWEEP.variants))
