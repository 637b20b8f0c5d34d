"""Figure 1 of the paper from a sweep's runs: after how many epochs ReLU and tanh reach 25% training error.

Each activation is shown at the learning rate of the sweep that is best for it, as in the paper.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_jax.checkpoints import workdir
from alexnet_jax.reports import canvas
from alexnet_jax.sweeps import spec
from alexnet_jax.sweeps.results import Results, RunResult
from alexnet_jax.utils.picture import Figure

ERROR = 0.25
"""The training error, a fraction, whose epochs figure 1 counts."""

# What two runs of figure 1 may differ in, beside their length.
_FIELDS = {'model.activation', 'optimizer.learning_rate', 'train.num_epochs'}


def of_sweep(results: Results) -> tuple[Figure, str] | None:
  """Figure 1 and its caption; None where it is not `asked_for`, or no run reaches ERROR."""
  if not asked_for(results):
    return None
  relu, tanh = _by_rate(results, 'relu'), _by_rate(results, 'tanh')
  best_relu, best_tanh = (min(of_rate.values(), key=_order) for of_rate in (relu, tanh))
  if all(math.isinf(epoch) for epoch in _epochs([*best_relu, *best_tanh])):
    return None
  picture, caption = draw(
    [run.records for run in best_relu],
    [run.records for run in best_tanh],
    best_relu[0].window,
    results.title,
  )
  for name, of_rate, shown in (('ReLU', relu, best_relu), ('tanh', tanh, best_tanh)):
    seeds = f'seed{"s" * (len(shown) > 1)} {", ".join(str(run.seed) for run in shown)}'
    caption += f' {name}: {seeds}, learning rate {_rate(shown[0]):g}; training error by rate: '
    caption += ', '.join(
      f'{rate:g}: {np.mean([_training_error(run) for run in runs]):.1%} ({runs[0].length[0]:g} epochs)'
      for rate, runs in sorted(of_rate.items())
    )
    caption += '.'
  return picture, caption


def asked_for(results: Results) -> bool:
  """Whether a sweep has finished runs of both activations that differ in nothing else but their rate."""
  return all(_by_rate(results, activation) for activation in ('relu', 'tanh'))


def training_errors(
  records: Sequence[Mapping[str, Any]], window: int
) -> tuple[list[float], list[float]]:
  """The training error over the epochs, each the mean of as many steps.

  A window ends where a line's step is a multiple of its length, and takes in the lines before it: an
  epoch's end, which cuts a line in two, changes nothing. Steps of no whole window are left out.

  Args:
    records: lines of metrics.jsonl; a training line is the mean since the one before.
    window: steps of each; the run's `train.log_every_steps`, or a multiple.

  Returns:
    Epochs, and the error (a fraction) of the `window` steps up to there.
  """
  epochs, errors = [], []
  start, wrong = 0, 0.0  # of the window
  for steps, record in workdir.training_lines(records):
    wrong += steps * record['top1_error']
    if record['step'] % window == 0:
      if record['step'] - start == window:
        epochs.append(float(record['epoch']))
        errors.append(wrong / window)
      start, wrong = record['step'], 0.0
  return epochs, errors


def epochs_to_error(records: Sequence[Mapping[str, Any]], window: int) -> float | None:
  """After how many epochs the training error first was at most ERROR; None where it never was.

  Args:
    records: lines of metrics.jsonl, taken as `training_errors` does.
    window: steps over which the error is taken.
  """
  for epoch, error in zip(*training_errors(records, window), strict=True):
    if error <= ERROR:
      return epoch
  return None


def draw(
  relu: Sequence[Sequence[Mapping[str, Any]]],
  tanh: Sequence[Sequence[Mapping[str, Any]]],
  window: int,
  title: str,
) -> tuple[Figure, str]:
  """Training error against epochs, ReLU solid and tanh dashed: the paper's figure 1.

  Args:
    relu: lines of metrics.jsonl of each run, a seed each.
    tanh: the same.
    window: steps over which the error is taken, as in `training_errors`.
    title: what stands above.

  Returns:
    The figure, and its caption: after how many epochs each run reached ERROR, and the ratio of the means.
  """
  picture = Figure(figsize=(6, 4.6), layout='constrained')
  canvas.set_title(picture, title)
  axes = picture.add_subplot()
  reached: dict[str, list[float | None]] = {}
  for name, runs, line, color in (
    ('ReLU', relu, '-', 'black'), ('tanh', tanh, '--', 'tab:blue')
  ):  # fmt: skip
    reached[name] = [epochs_to_error(records, window) for records in runs]
    for i, (records, at) in enumerate(zip(runs, reached[name], strict=True)):
      label = '_' if i else name  # in the legend once
      axes.plot(*training_errors(records, window), line, color=color, linewidth=1.2, label=label)
      if at is not None:
        axes.plot([at], [ERROR], 'o', color=color, markersize=5)
  axes.axhline(ERROR, color='0.6', linewidth=0.8, linestyle=':')
  beside = axes.get_yaxis_transform()  # the curves cross the line within the axes
  axes.text(1.01, ERROR, f'{ERROR:.0%}', transform=beside, ha='left', va='center')
  axes.set(xlabel='epochs', ylabel='training error', xlim=(0, None), ylim=(0, None))
  axes.grid(color='0.92')
  axes.spines[['top', 'right']].set_visible(False)
  axes.legend(frameon=False)

  def said(name: str, runs: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    there = [f'{at:.1f}' for at in reached[name] if at is not None]
    if not there:
      return f'{name} does not in {runs[0][-1]["epoch"]:.1f} epochs'
    of_all = '' if len(there) == len(runs) else f' in {len(there)} of {len(runs)} runs'
    return f'{name} after {", ".join(there)} epochs{of_all}'

  caption = (
    f'{ERROR:.0%} training error over {window} steps: {said("ReLU", relu)}; {said("tanh", tanh)}'
  )
  fast, slow = ([at for at in reached[name] if at is not None] for name in ('ReLU', 'tanh'))
  if len(fast) == len(relu):
    if len(slow) == len(tanh):
      caption += f'; {np.mean(slow) / np.mean(fast):.1f} times as many'
    elif not slow:
      caption += f'; more than {tanh[0][-1]["epoch"] / np.mean(fast):.1f} times as many'
  return picture, caption + '. In the paper: six times.'


def _by_rate(results: Results, activation: str) -> dict[float, list[RunResult]]:
  """Finished runs of an activation by their learning rate, of each one for each seed.

  Only those that differ from the base in nothing else but their length.
  """
  only = {spec.BASE} | {
    variant['name']
    for variant in results.description['variants']
    if set(variant['overrides']) <= _FIELDS
  }
  found: dict[float, dict[int, RunResult]] = {}
  for run in results.runs:
    if run.final and run.variant in only and run.config['model']['activation'] == activation:
      found.setdefault(_rate(run), {}).setdefault(run.seed, run)
  return {rate: list(by_seed.values()) for rate, by_seed in found.items()}


def _rate(run: RunResult) -> float:
  return float(run.config['optimizer']['learning_rate'])


def _epochs(runs: Sequence[RunResult]) -> list[float]:
  """After how many epochs each run reached ERROR; infinity where it did not."""
  reached = (epochs_to_error(run.records, run.window) for run in runs)
  return [math.inf if epoch is None else epoch for epoch in reached]


def _order(runs: Sequence[RunResult]) -> tuple[float, float, float, float]:
  """Orders learning rates, the best first, by the runs of one, a seed each.

  By how many do not reach ERROR; by when the others do; by their training error in the last epoch;
  by the loss of their last validation. All but the first are means over seeds.
  """
  epochs = _epochs(runs)
  reached = [epoch for epoch in epochs if epoch < math.inf]
  losses = [math.inf if run.final is None else float(run.final['loss']) for run in runs]
  return (
    1 - len(reached) / len(epochs),
    float(np.mean(reached)) if reached else math.inf,
    float(np.mean([_training_error(run) for run in runs])),
    float(np.mean(losses)),
  )


def _training_error(run: RunResult) -> float:
  """Of the last epoch: of the steps since the last validation but one; NaN without any."""
  validations = [record['step'] for record in run.records if record['split'] == 'validation']
  start = validations[-2] if len(validations) > 1 else 0
  lines = [
    (record['top1_error'], min(steps, record['step'] - start))
    for steps, record in workdir.training_lines(run.records)
    if record['step'] > start
  ]
  if not lines:
    return math.nan
  errors, weights = zip(*lines, strict=True)
  return float(np.average(errors, weights=weights))
