"""Pages of HTML as a browser shows them, on a desktop and on a phone: for `pages.py`, and for tests."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

PROGRAMS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
SCREENS = {
  'desktop': {'viewport': {'width': 1280, 'height': 800}},
  'phone': {
    'viewport': {'width': 390, 'height': 844},
    'device_scale_factor': 3,
    'is_mobile': True,
    'has_touch': True,
  },
}


def program() -> str | None:
  """The path of an installed browser, or None."""
  return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def started(path: str) -> Iterator[Browser]:
  """The browser of `program`, without a window."""
  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=path,
      args=[
        '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync',
      ],
    )  # fmt: skip
    yield browser
    browser.close()


class Opened(NamedTuple):
  """A page that is open.

  Attributes:
    page: the page.
    width: its screen's, in pixels.
    requests: the addresses that it requested beside its own; data: addresses are not counted.
    messages: in the console, and errors of scripts.
  """

  page: Page
  width: int
  requests: list[str]
  messages: list[str]

  def overflow(self) -> int:
    """By how many pixels the page is wider than its screen."""
    return max(0, self.page.evaluate('document.documentElement.scrollWidth') - self.width)


@contextlib.contextmanager
def opened(
  browser: Browser, path: Path, screen: str, color_scheme: str = 'light'
) -> Iterator[Opened]:
  """Opens a page.

  Args:
    browser: of `started`.
    path: the page's file.
    screen: a key of `SCREENS`.
    color_scheme: 'light' or 'dark', which the reader prefers.
  """
  context = browser.new_context(**SCREENS[screen], color_scheme=color_scheme)
  page = context.new_page()
  shown = Opened(page, SCREENS[screen]['viewport']['width'], [], [])
  own = path.resolve().as_uri()

  def note(url: str) -> None:
    if url != own and not url.startswith('data:'):
      shown.requests.append(url)

  page.on('request', lambda request: note(request.url))
  page.on('console', lambda said: shown.messages.append(f'{said.type}: {said.text}'))
  page.on('pageerror', lambda error: shown.messages.append(str(error)))
  page.goto(own)
  yield shown
  context.close()
