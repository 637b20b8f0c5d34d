"""What a terminal shows of each command: lines that wrap, cells that are cut, and the screens to look at.

  python benchmarks/screens.py --out=screens
  python benchmarks/screens.py --out=screens --columns=40,200 --only=train,sweep
  NO_COLOR=1 TERM=dumb LANG=C python benchmarks/screens.py --out=screens

Each command is run in a pseudo-terminal of its own, in the environment of this process. A screen is
written as COLUMNS/NAME.txt, and the lines that were erased on the way, which are progress bars, as
COLUMNS/NAME.erased.txt.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import terminal
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
CUT = '…'  # what rich has in place of what it cuts


def commands(epochs: int) -> dict[str, list[str]]:
  """Arguments of launch.py by the screen's name; later ones read what `train` leaves in its workdir."""
  config, run = '--config=configs/digits.py', '--workdir=train'
  length = f'--config.train.num_epochs={epochs}'
  return {
    'help': ['--help'],
    'list': ['--mode=list'],
    'config': [config, '--mode=config'],
    'summary': [config, '--mode=summary'],
    'summary_imagenet': ['--config=configs/imagenet.py', '--mode=summary'],
    'mistake': [config, '--config.train.num_epoch=3'],
    'train': [config, length, run],
    'evaluate': [run, '--mode=evaluate'],
    'figures': [run, '--mode=figures'],
    'predict': [run, '--mode=predict', '--images=digits'],
    'sweep': [
      config, length, '--mode=sweep', '--sweep=configs/sweeps/ablations.py', '--jobs=2',
      '--only=no_dropout,norm_over_all_channels', '--seeds=0,1', '--workdir=sweep',
    ],
  }  # fmt: skip


def show(arguments: list[str], columns: int, folder: Path) -> tuple[terminal.Screen, int]:
  """The screen of a command, run in a folder, and its exit code."""
  screen = terminal.Screen(columns)
  command = [sys.executable, str(ROOT / 'launch.py'), *arguments]
  with terminal.started(command, columns, folder, os.environ) as (process, output):
    for _, text in output:
      screen.feed(text)
  return screen, process.returncode


def main() -> None:
  """Writes the screens, and prints what is wrong with each."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--out', type=Path, required=True, help='a folder, made if need be')
  parser.add_argument(
    '--columns', type=lambda text: [int(width) for width in text.split(',')], default=[80, 120]
  )
  parser.add_argument(
    '--only', type=lambda text: text.split(','), help='screens, as train,evaluate (default: all)'
  )
  parser.add_argument('--epochs', type=int, default=3)
  args = parser.parse_args()
  sys.path.insert(0, str(ROOT))
  from alexnet_jax.utils.display import print_table

  rows, lines = [], []
  for columns in args.columns:
    folder = args.out.resolve() / str(columns)
    (folder / 'digits').mkdir(parents=True, exist_ok=True)
    for number, digit in enumerate(load_digits().images[:8]):
      Image.fromarray((digit * 15).astype('uint8')).save(folder / 'digits' / f'{number}.png')
    for name, arguments in commands(args.epochs).items():
      if args.only and name not in args.only:
        continue
      shutil.rmtree(folder / name, ignore_errors=True)  # the workdir of what is run anew
      screen, code = show(arguments, columns, folder)
      (folder / f'{name}.txt').write_text(screen.text(), 'utf-8')
      (folder / f'{name}.erased.txt').write_text(
        ''.join(f'{line}\n' for line in screen.erased), 'utf-8'
      )
      cut = [line for line in [*screen.text().splitlines(), *screen.erased] if CUT in line]
      counts = (screen.longest, len(screen.wrapped), len(cut), len(screen.unknown), code)
      rows.append((name, f'{columns}', *map(str, counts)))
      lines += [f'{columns}/{name}: wraps: {line}' for line in screen.wrapped]
      lines += [f'{columns}/{name}: cut: {line}' for line in cut]
      lines += [f'{columns}/{name}: unknown: {code}' for code in screen.unknown]
      print(f'{columns}/{name}', file=sys.stderr)
  print_table(
    f'Screens in {args.out}',
    ('screen', 'columns', 'longest', 'wrapped', 'cut', 'unknown codes', 'exit code'),
    rows,
  )
  for line in lines:
    print(line)


if __name__ == '__main__':
  main()
