"""What a newcomer sees first, each line with the second at which it came, and how long nothing came.

  python benchmarks/first_minutes.py
  python benchmarks/first_minutes.py --installer=uv --python=python3.12

Clones this checkout's last commit into a temporary folder, installs it into a fresh environment there,
runs the README's first command, loads what it trained, and classifies a digit: in a terminal of 80
columns, with caches as they are. A line's time is that of its last change; bars are such lines too.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import terminal

ROOT = Path(__file__).parents[1]
COLUMNS = 80
SILENCE = 5  # seconds without any sign

PREDICT = """
from PIL import Image
from sklearn.datasets import load_digits
Image.fromarray((15 * load_digits().images[0]).astype('uint8')).save('digit.png')

import alexnet_jax

classifier = alexnet_jax.load('runs/digits')
print(classifier.predict('digit.png'))
"""


def steps(installer: str, python: str) -> dict[str, list[str]]:
  """The commands by their names, in order, each run in the clone but for the first."""
  own = 'environment/bin/python'
  if installer == 'uv':
    make = ['uv', 'venv', f'--python={python}', 'environment']
    install = ['uv', 'pip', 'install', f'--python={own}', '-e', '.']
  else:
    make = [python, '-m', 'venv', 'environment']
    install = [own, '-m', 'pip', 'install', '-e', '.']
  return {
    'clone': ['git', 'clone', str(ROOT), '.'],
    'environment': make,
    'install': install,
    'train': [own, 'launch.py', '--config=configs/digits.py'],
    'predict': [own, '-c', PREDICT],
  }


def watch(command: list[str], folder: Path, since: float) -> tuple[list[str], int]:
  """Runs a command, and prints its lines when it has ended.

  Args:
    command: the program and its arguments.
    folder: where to run it.
    since: when everything began, of `time.monotonic`.

  Returns:
    A row's cells (seconds, seconds to the first sign, longest silence), and the exit code.
  """
  screen, lines, changed = terminal.Screen(COLUMNS), list[str](), dict[int, float]()
  begin = time.monotonic()
  signs = [0.0]
  with terminal.started(command, COLUMNS, folder, os.environ) as (process, output):
    for seconds, text in output:
      screen.feed(text)
      signs.append(seconds)
      before, lines = lines, screen.text().splitlines()
      for i, line in enumerate(lines):
        if i >= len(before) or before[i] != line:
          changed[i] = begin - since + seconds
  whole = time.monotonic() - begin
  for i, line in enumerate(lines):
    if line:
      print(f'{changed[i]:7.1f}  {line}')
  gap, start = max((b - a, a) for a, b in zip(signs, [*signs[1:], whole], strict=True))
  silence = f'{gap:.1f}' + (f' from {begin - since + start:.1f}' if gap > SILENCE else '')
  return [f'{whole:.1f}', f'{signs[1]:.1f}' if signs[1:] else '', silence], process.returncode


def main() -> None:
  """Prints the lines, and a table of the steps."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--installer', choices=('pip', 'uv'), default='pip')
  parser.add_argument('--python', default=sys.executable, help="the environment's (this one)")
  args = parser.parse_args()
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    since = time.monotonic()
    for name, command in steps(args.installer, args.python).items():
      print(f'{time.monotonic() - since:7.1f}  $ {" ".join(command).splitlines()[0]}', flush=True)
      cells, code = watch(command, Path(folder), since)
      rows.append([name, *cells])
      if code:
        sys.exit(f'{name} failed with exit code {code}')
  sys.path.insert(0, str(ROOT))
  from alexnet_jax.utils.display import print_table

  print_table(
    f'Seconds, {os.cpu_count()} cores', ('step', 'seconds', 'first sign', 'longest silence'), rows
  )


if __name__ == '__main__':
  main()
