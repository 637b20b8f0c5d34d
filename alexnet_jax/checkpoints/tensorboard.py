"""TensorBoard's events of a run: curves, config, hyperparameters and pictures.

A workdir's `tensorboard` folder has three of TensorBoard's runs: its own, and in `train` and
`validation` the scalars of each, by the same names, which puts both into one chart.
"""

import contextlib
import io
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.utils import config_fields, files

FOLDER = 'tensorboard'
"""In the workdir."""

_SIDE = 512  # pixels, to which the longer side of a picture is enlarged


class Events:
  """Writes events for TensorBoard, each flushed at once.

  tensorboardX's own SummaryWriter writes them in a thread, whose errors are not raised, and waits
  forever once its queue is full.
  """

  def __init__(self, workdir: str | os.PathLike[str], first_step: int):
    """Opens no file yet.

    Args:
      workdir: the run's folder.
      first_step: with which a run begins or resumes: TensorBoard hides events of it and later steps
        in earlier files.
    """
    self._path, self._first_step = files.inside(workdir, FOLDER), first_step
    self._writers: dict[str, Any] = {}

  def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
    """Writes values by name: of the run 'train' or 'validation', or '' for that of both."""
    from tensorboardX import summary  # here, for it imports PyTorch

    self._write(run, step, *(summary.scalar(name, value) for name, value in values.items()))

  def config(self, step: int, config: Mapping[str, Any]) -> None:
    """Writes a config as text, and what defines the experiment in it as hyperparameters.

    Without tensorboardX's summary of an experiment, for TensorBoard would take that of one run for
    all; as it is, it gathers fields and results of all runs.

    Args:
      step: the one before the first.
      config: as values for JSON.
    """
    from tensorboardX import summary
    from tensorboardX.proto.plugin_hparams_pb2 import SessionStartInfo

    code = json.dumps(config, indent=2).replace('\n', '\n    ')  # as Markdown marks code
    info = SessionStartInfo()
    for name, value in config_fields.flatten(config):
      if value is None or config_fields.is_among(name, config_fields.CIRCUMSTANCES):
        continue
      if isinstance(value, bool):
        info.hparams[name].bool_value = value
      elif isinstance(value, int | float):
        info.hparams[name].number_value = value
      else:
        info.hparams[name].string_value = value if isinstance(value, str) else json.dumps(value)
    start = _hparams('session_start_info', info)
    self._write('', step, summary.text('config', f'    {code}'), start)

  def finished(self, step: int) -> None:
    """Writes that the run has come to its end."""
    from tensorboardX.proto.api_pb2 import Status
    from tensorboardX.proto.plugin_hparams_pb2 import SessionEndInfo

    info = SessionEndInfo(status=Status.Value('STATUS_SUCCESS'), end_time_secs=time.time())
    self._write('', step, _hparams('session_end_info', info))

  def picture(self, step: int, name: str, picture: np.ndarray) -> None:
    """Writes a picture, enlarged so that single pixels can be seen.

    Args:
      step: the step.
      name: under which TensorBoard shows it.
      picture: [H, W, 3] uint8.
    """
    from tensorboardX.proto.summary_pb2 import Summary

    scale = -(-_SIDE // max(picture.shape[:2]))
    image = Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1))
    content = io.BytesIO()
    image.save(content, 'png')
    encoded = Summary.Image(
      height=image.height,
      width=image.width,
      colorspace=3,  # RGB
      encoded_image_string=content.getvalue(),
    )
    self._write('', step, Summary(value=[Summary.Value(tag=name, image=encoded)]))

  def close(self) -> None:
    """Closes the files."""
    for writer in self._writers.values():
      with contextlib.suppress(OSError):  # `_write` has raised it
        writer.close()

  def _write(self, run: str, step: int, *summaries: Any) -> None:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    folder = self._path / run
    with files.naming(folder / 'events.out.tfevents'):
      if run not in self._writers:
        folder.mkdir(parents=True, exist_ok=True)
        # With the process's number, since two files may start in the same second.
        self._writers[run] = EventsWriter(os.fspath(folder / 'events'), f'.{os.getpid()}')
        started = SessionLog(status=SessionLog.START)
        self._writers[run].write_event(Event(step=self._first_step, session_log=started))
      for each in summaries:
        event = Event(wall_time=time.time(), step=step, summary=each)
        self._writers[run].write_event(event)
      self._writers[run].flush()


def _hparams(kind: str, info: Any) -> Any:
  """A summary for TensorBoard's plugin of hyperparameters: 'session_start_info' or '..._end_info'."""
  from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
  from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

  content = HParamsPluginData(version=0, **{kind: info}).SerializeToString()
  data = SummaryMetadata.PluginData(plugin_name='hparams', content=content)
  value = Summary.Value(tag=f'_hparams_/{kind}', metadata=SummaryMetadata(plugin_data=data))
  return Summary(value=[value])
