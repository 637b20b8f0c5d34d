"""What one version of JAX writes, read under others: checkpoints, .safetensors and .jaxexport files.

  python benchmarks/across_versions.py --python=jax072/bin/python,jax0102/bin/python,jax012/bin/python

Each Python, of an environment of its own that has this project's dependencies, trains an epoch of the
digits, converts the network, and keeps its logits of the validation images. Then each reads what all
others wrote, and the table has the largest difference of the logits, or the last line of what went
wrong. A run is also resumed for a second epoch under each other version ("resumed").
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = ('checkpoint', 'safetensors', 'jaxexport', 'resumed')

_WRITE = """
import sys
import jax, numpy as np
import alexnet_jax
from alexnet_jax.data import included
from alexnet_jax.data import datasets
folder = sys.argv[1]
images = included.digits('validation').images
np.save(f'{folder}/logits.npy', alexnet_jax.load(f'{folder}/checkpoint').logits(images))
print(jax.__version__)
"""

_READ = """
import sys
import jax, numpy as np
from alexnet_jax.data import datasets
folder, kind, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
images = included.digits('validation').images
if kind == 'jaxexport':
  import jax.export, safetensors.numpy
  arrays = safetensors.numpy.load_file(f'{folder}/digits.jaxexport')
  program = jax.export.deserialize(bytearray(arrays.pop('program')))
  border = (images.shape[1] - side) // 2
  middle = slice(border, border + side)
  logits = jax.jit(program.call)(arrays, images[:, middle, middle])
else:
  import alexnet_jax
  path = f'{folder}/checkpoint' if kind == 'checkpoint' else f'{folder}/digits.safetensors'
  logits = alexnet_jax.load(path).logits(images)
print(float(np.abs(np.asarray(logits) - np.load(f'{folder}/logits.npy')).max()))
"""


def run(python: str, *arguments: str) -> str:
  """What a command prints last; raises RuntimeError with the line that names its error."""
  done = subprocess.run(
    [python, *arguments], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ)
  )
  if done.returncode:
    lines = done.stderr.strip().splitlines() or [f'exit code {done.returncode}']
    named = [line for line in lines if re.match(r'[\w.]*(Error|Exception): ', line)]
    raise RuntimeError((named or lines)[-1])
  return (done.stdout.strip().splitlines() or [''])[-1]


def write(python: str, folder: Path) -> str:
  """Trains, converts and keeps logits; returns the version of JAX."""
  launch = ['launch.py', '--config=configs/digits.py', '--config.train.num_epochs=1']
  run(python, *launch, '--config.mesh.column_devices=1', f'--workdir={folder}/checkpoint')
  for ending in ('safetensors', 'jaxexport'):
    run(
      python,
      'launch.py',
      '--mode=convert',
      f'--source={folder}/checkpoint',
      f'--target={folder}/digits.{ending}',
    )
  return run(python, '-c', _WRITE, str(folder))


def read(python: str, folder: Path, kind: str, scratch: Path) -> str:
  """The largest difference of logits; of a resumed run its validation error."""
  if kind != 'resumed':
    config = json.loads((folder / 'checkpoint' / 'config.json').read_text())
    side = config['model']['input_size']
    return f'{float(run(python, "-c", _READ, str(folder), kind, str(side))):.1e}'
  subprocess.run(['cp', '-r', f'{folder}/checkpoint', str(scratch)], check=True)
  run(
    python,
    'launch.py',
    '--config=configs/digits.py',
    '--config.train.num_epochs=2',
    '--config.mesh.column_devices=1',
    f'--workdir={scratch}',
  )
  lines = (scratch / 'metrics.jsonl').read_text().splitlines()
  return f'{json.loads(lines[-1])["top1_error"]:.2%}'


def main() -> None:
  """Writes with each, reads with each, and prints a table in Markdown."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--python', required=True, help='interpreters, separated by commas')
  pythons = parser.parse_args().python.split(',')
  with tempfile.TemporaryDirectory() as top:
    versions = {}
    for number, python in enumerate(pythons):
      (folder := Path(top) / str(number)).mkdir()
      versions[python] = write(python, folder)
      print(f'written under {versions[python]}', file=sys.stderr)
    print('| written under | read under |', ' | '.join(KINDS), '|')
    print('|---' * (2 + len(KINDS)) + '|')
    for (i, writer), (j, reader) in itertools.product(enumerate(pythons), repeat=2):
      cells = []
      for kind in KINDS:
        try:
          cells.append(read(reader, Path(top) / str(i), kind, Path(top) / f'{i}-{j}'))
        except RuntimeError as error:
          cells.append(str(error))
      print(f'| {versions[writer]} | {versions[reader]} |', ' | '.join(cells), '|', flush=True)


if __name__ == '__main__':
  main()
