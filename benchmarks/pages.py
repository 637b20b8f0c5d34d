"""A browser's view of report.html, of runs and of sweeps: size, overflow, requests, console messages.

  python benchmarks/pages.py --out=pages runs/digits runs/ablations_digits

Each page is opened on a phone (390 pixels wide) and on a desktop (1280) in a browser that is installed,
and kept as WORKDIR-SCREEN.png from its top to its end; as WORKDIR-dark.png as a desktop whose reader
prefers dark pages has it; and as WORKDIR.pdf as it is printed. Needs `pip install -e ".[test]"`. Exits
with 1 where a page is wider than its screen, requests anything, or has messages in the console.
"""

import argparse
import sys
from pathlib import Path

import browser

ROOT = Path(__file__).parents[1]


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('workdirs', type=Path, nargs='+', help='folders of runs or of sweeps')
  parser.add_argument('--out', type=Path, required=True, help='a folder, made if need be')
  args = parser.parse_args()
  program = browser.program()
  if program is None:
    parser.error('no browser was found: install chromium (apt-get install chromium)')
  pages = [path / 'report.html' for path in args.workdirs]
  if missing := [f'{page}' for page in pages if not page.is_file()]:
    parser.error(f'there is no {", ".join(missing)}; draw them with --mode=figures')
  args.out.mkdir(parents=True, exist_ok=True)
  sys.path.insert(0, str(ROOT))
  from alexnet_jax.utils.display import print_table

  rows, problems = [], []
  with browser.started(program) as started:
    for page in pages:
      name = page.resolve().parent.name
      for screen in browser.SCREENS:
        with browser.opened(started, page, screen) as shown:
          shown.page.screenshot(path=args.out / f'{name}-{screen}.png', full_page=True)
          height = shown.page.evaluate('document.documentElement.scrollHeight')
          counts = (shown.overflow(), len(shown.requests), len(shown.messages))
        rows.append((name, screen, f'{page.stat().st_size:,}', f'{height:,}', *map(str, counts)))
        problems += [f'{name}, {screen}: {text}' for text in [*shown.requests, *shown.messages]]
        problems += [f'{name}, {screen}: too wide'] * bool(counts[0])
      with browser.opened(started, page, 'desktop', 'dark') as shown:
        shown.page.screenshot(path=args.out / f'{name}-dark.png')
        shown.page.pdf(path=args.out / f'{name}.pdf')
  print_table(
    'Pages',
    ('workdir', 'screen', 'bytes', 'height', 'overflow', 'requests', 'console'),
    rows,
  )
  for line in problems:
    print(line)
  sys.exit(bool(problems))


if __name__ == '__main__':
  main()
