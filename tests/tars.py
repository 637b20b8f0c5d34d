"""Tar files made in memory."""

import io
import tarfile


def make_tar(contents):
  """The content of a tar file of {name: bytes}."""
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w') as tar:
    for name, content in contents.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  return file.getvalue()
