"""Made-up sweeps: their folders as a finished sweep leaves them, without any training."""

import json

import pytest

from alexnet_jax import experiment
from alexnet_jax.checkpoints import workdir
from alexnet_jax.reports import canvas
from alexnet_jax.sweeps import planning, report
from alexnet_jax.sweeps.spec import Reported, Sweep, Variant
from tests.small import small_config

SWEEP = Sweep(
  'A made-up sweep',
  (
    Variant('no_overlap', {'model.pool.window': 2}, 'pools apart', Reported(0.4, 0.3)),
    Variant('tanh', {'model.activation': 'tanh'}, 'tanh | <b>not</b> ReLU'),
    Variant('same', {'model.num_columns': 2}, 'changes nothing'),
  ),
  seeds=(0, 1),
)
EPOCHS = 4


def plan(path, sweep_of=SWEEP, overrides=None, name='made_up'):
  """The plan of a sweep over `small_config`."""
  overrides = {'train.num_epochs': EPOCHS, **(overrides or {})}
  return planning.plan(
    name,
    sweep_of,
    small_config(overrides),
    path,
    config_file='configs/digits.py',
    overrides=overrides,
  )


def lines(errors, training_errors=None):
  """Lines of metrics.jsonl: validations with these errors, an epoch each, of ten steps."""
  records = []
  for epoch, error in enumerate(errors, 1):
    common = {'step': 10 * epoch, 'epoch': float(epoch), 'loss': 2 * error, 'top5_error': error / 2}
    trained = (training_errors or errors)[epoch - 1]
    speed = {'images_per_second': 320.0, 'learning_rate': 0.01}
    records.append({**common, 'split': 'train', 'top1_error': trained, **speed})
    records.append({**common, 'split': 'validation', 'top1_error': error})
  return records


def start(**changes):
  """A line of starts.jsonl, some of its fields changed."""
  return {
    'step': 0,
    'date': '2026-11-28T10:00:00+00:00',
    'command': 'python launch.py',
    'caller': None,
    'commit': 'a' * 40,
    'versions': {'python': '3.11.9', 'jax': '0.10.2'},
    'devices': '1 H100',
    **changes,
  }


def write_run(run, records, config=None):
  """A run's folder with config.json, metrics.jsonl and a picture."""
  picture = run.path / f'{workdir.LEARNING_CURVES}.svg'
  picture.parent.mkdir(parents=True, exist_ok=True)
  picture.touch()
  resolved = experiment.resolved(run.config if config is None else config)
  (run.path / 'config.json').write_text(json.dumps(resolved))
  (run.path / 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in records))


def report_quickly(path):
  """Writes a sweep's report without the PDFs of its pictures, whose fonts take half of the time."""
  without = {kind: of for kind, of in canvas._KINDS.items() if kind != 'pdf'}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(canvas, '_KINDS', without)
    return report.write(path)


def write_sweep(path, finals):
  """A sweep's folder whose runs end with these errors, by variant, one for each seed."""
  planned = plan(path)
  planning.write(planned, {'command': 'python launch.py --mode=sweep', 'caller': None})
  for run in planned.runs:
    if run.seed < len(finals.get(run.variant, ())):
      final = finals[run.variant][run.seed]
      falling = [min(1.0, final * factor) for factor in (4, 3, 2)]
      write_run(run, lines([*falling, final]))
      workdir.record_start(run.path, start())
  return planned
