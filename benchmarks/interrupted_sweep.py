"""A sweep run whole, and run again killed twice on the way: seconds, and whether the tables agree.

  python benchmarks/interrupted_sweep.py
  python benchmarks/interrupted_sweep.py --config.train.num_epochs=2 --only=no_dropout

Ablations of the digits with --jobs=2, unless other arguments for launch.py say otherwise.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLES = ('results.csv',)  # the others have dates


def _start(folder: str) -> subprocess.Popen[bytes]:
  """The sweep, in the folder `sweep` of a folder: its commands name no other place."""
  defaults = [
    '--mode=sweep',
    f'--sweep={ROOT}/configs/sweeps/ablations.py',
    f'--config={ROOT}/configs/digits.py',
    '--jobs=2',
    '--workdir=sweep',
  ]
  return subprocess.Popen(
    [sys.executable, ROOT / 'launch.py', *defaults, *sys.argv[1:]], cwd=folder
  )


def main() -> None:
  """Prints the seconds of both, and which tables are the same."""
  with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as cut:
    start = time.perf_counter()
    if code := _start(whole).wait():
      sys.exit(f'the sweep failed with exit code {code}')
    seconds = time.perf_counter() - start
    print(f'whole: {seconds:.0f} s', flush=True)
    start = time.perf_counter()
    for share in (0.3, 0.7):  # of that time; each start takes some again
      process = _start(cut)
      time.sleep(max(0.0, share * seconds - (time.perf_counter() - start)))
      os.kill(process.pid, signal.SIGKILL)
      process.wait()
      done = len(list(Path(cut, 'sweep').glob('*/seed*/figures')))
      print(f'killed after {time.perf_counter() - start:.0f} s, {done} runs finished', flush=True)
    if code := _start(cut).wait():
      sys.exit(f'the sweep failed with exit code {code}')
    print(f'killed twice: {time.perf_counter() - start:.0f} s')
    for name in TABLES:
      same = Path(whole, 'sweep', name).read_bytes() == Path(cut, 'sweep', name).read_bytes()
      print(f'{name}: {"the same, byte for byte" if same else "NOT the same"}')


if __name__ == '__main__':
  main()
