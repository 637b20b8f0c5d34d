"""Pages of HTML as a browser shows them, on a desktop and on a phone."""

import contextlib
import shutil
from typing import NamedTuple

import pytest
from playwright.sync_api import Page, sync_playwright

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
SCREENS = {
  'desktop': {'viewport': {'width': 1280, 'height': 800}},
  'phone': {
    'viewport': {'width': 390, 'height': 844},
    'device_scale_factor': 3,
    'is_mobile': True,
    'has_touch': True,
  },
}


@contextlib.contextmanager
def chromium():
  """Chromium without a window."""
  program = next(filter(None, map(shutil.which, BROWSERS)), None)
  if program is None:
    pytest.skip('no browser was found: install chromium (apt-get install chromium)')
  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=program,
      args=[
        '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync',
      ],
    )  # fmt: skip
    yield browser
    browser.close()


class Opened(NamedTuple):
  """A page, its screen's width, the addresses it asked for, and what the browser said of it."""

  page: Page
  width: int
  asked: list[str]
  complaints: list[str]


@contextlib.contextmanager
def opened(browser, path, screen):
  """A page, opened on one of SCREENS."""
  context = browser.new_context(**SCREENS[screen])
  page = context.new_page()
  shown = Opened(page, SCREENS[screen]['viewport']['width'], [], [])
  page.on('request', lambda asking: shown.asked.append(asking.url))
  page.on('console', lambda said: shown.complaints.append(f'{said.type}: {said.text}'))
  page.on('pageerror', lambda error: shown.complaints.append(str(error)))
  page.goto(path.as_uri())
  yield shown
  context.close()
