"""Files that are whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
  """A temporary path, which takes the file's name in one move once all has gone well.

  Args:
    path: the file; its folder is made if need be. The temporary name ends as it does.
  """
  target = Path(path)
  target.parent.mkdir(parents=True, exist_ok=True)
  temporary = target.with_name(f'.new.{os.getpid()}.{target.name}')
  try:
    yield temporary
    temporary.replace(target)
  finally:
    temporary.unlink(missing_ok=True)
