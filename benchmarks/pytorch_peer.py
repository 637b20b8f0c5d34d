"""A config's network in PyTorch, as its users would write it, timed beside ours by `contest.py`.

  python benchmarks/pytorch_peer.py --config=configs/imagenet.py --mode=train --batch_size=128

A line of JSON says that it is ready; then, for each number of steps read from standard input, a
line says how long one took on average; at the input's end, a line says what memory it had. Where
inductor has a program in its cache (TORCHINDUCTOR_CACHE_DIR), the first step does not compile it
again.

What differs from our network:

- The input is one random batch of floats, so mirror images, lighting and the mean image are left
  out, in PyTorch's favor.
- Where conv1's output is rounded up, the input is larger, as in Caffe: 227 pixels for 224.
- Columns are groups, and the response norm is over the maps of all of them, as `LocalResponseNorm`
  has it; under autocast the norms are computed in bfloat16 where PyTorch does not choose float32.
- Dropout is inverted, and SGD has one rate and one weight decay for all parameters.
- On a GPU float32 products may be TF32, as XLA's are.
"""

import argparse
import contextlib
import json
import math
import resource
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
  import torch
  from torch import nn
except ImportError:
  sys.exit('pytorch_peer.py: PyTorch is not installed; pip install torch')

ROOT = Path(__file__).parents[1]
CONVOLUTIONS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'conv6')
HIDDEN = ('fc6', 'fc7')
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
  'relu': lambda: nn.ReLU(inplace=True),
  'tanh': nn.Tanh,
  'logistic': nn.Sigmoid,
}


class WithinNorm(nn.Module):
  """`x / (k + alpha * sum of x^2 over a window of the map)**beta`, zeros beyond the edges.

  Attributes:
    window: side of the window in pixels, an odd number.
    k, alpha, beta: the constants.
  """

  def __init__(self, window: int, k: float, alpha: float, beta: float) -> None:
    super().__init__()
    self.window, self.k, self.alpha, self.beta = window, k, alpha, beta

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> the same."""
    total = nn.functional.avg_pool2d(
      x * x, self.window, stride=1, padding=self.window // 2, divisor_override=1
    )
    return x / (self.k + self.alpha * total) ** self.beta


def network(model: Any) -> tuple[nn.Sequential, int]:
  """Makes the network.

  Args:
    model: a config's `model` section.

  Returns:
    the network, its parts named as our outputs ('conv1', 'conv1_activation', ...), and the side of
    its input.
  """
  if model.num_classes is None:
    sys.exit('pytorch_peer.py: model.num_classes is not set')
  if model.bottleneck.features:
    sys.exit('pytorch_peer.py: there is a bottleneck, which this peer does not have')
  parts: dict[str, nn.Module] = {}
  channels, side = 3, model.input_size
  input_side = side
  for name in CONVOLUTIONS:
    layer, features = model[name], _features(model, name)
    if features and name in model.locally_connected:
      sys.exit(f'pytorch_peer.py: {name} is locally connected, which this peer does not have')
    if features:
      window, stride, padding = layer.kernel_size, layer.stride, _padding(model, name)
      outputs = _output_size(side, window, stride, padding, layer.rounding)
      missing = max(0, (outputs - 1) * stride + window - 2 * padding - side)
      if name == 'conv1':
        input_side += missing
      elif missing:
        parts[f'{name}_pad'] = nn.ZeroPad2d((0, missing, 0, missing))
      groups = 1 if name == 'conv1' else _groups(model, name)
      parts[name] = nn.Conv2d(channels, features, window, stride, padding, groups=groups)
      channels, side = features, outputs
    for step in layer.order.split('-'):
      if step == 'activation' and features:
        parts[f'{name}_activation'] = ACTIVATIONS[model.activation]()
      if step == 'norm' and features:
        parts |= _norms(model, name)
      if step == 'pool' and name in model.pool.layers:
        parts[f'{name}_pool'] = _pool(model.pool, name in model.pool.average, side)
        side = _output_size(side, model.pool.window, model.pool.stride, 0)
    if features:
      parts |= _dropout(model, name)
  parts['flatten'] = nn.Flatten()
  channels *= side**2
  for name in HIDDEN:
    if features := _features(model, name):
      parts |= _linear(name, channels, features, _groups(model, name))
      parts[f'{name}_activation'] = ACTIVATIONS[model.activation]()
      parts |= _dropout(model, name)
      channels = features
  parts['fc8'] = nn.Linear(channels, model.num_classes)
  net = nn.Sequential()
  for name, part in parts.items():
    net.add_module(name, part)
  return net, input_side


def _features(model: Any, name: str) -> int:
  halved = model.num_columns == 1 and name in model.one_column_halves
  return model[name].features // 2 if halved else model[name].features


def _padding(model: Any, name: str) -> int:
  trimmed = name in model.pool.trim and model.pool.window == model.pool.stride
  return model[name].padding - trimmed


def _groups(model: Any, name: str) -> int:
  return 1 if name in model.cross_column else model.num_columns


def _output_size(size: int, window: int, stride: int, padding: int, rounding: str = 'up') -> int:
  steps = (2 * padding + size - window) / stride
  return 1 + max(0, math.ceil(steps) if rounding == 'up' else math.floor(steps))


def _norms(model: Any, name: str) -> dict[str, nn.Module]:
  """The norms that follow a layer: across maps, and then within each."""
  norms: dict[str, nn.Module] = {}
  for norm, suffix, axes in (
    (model.response_norm, 'norm', 1),
    (model.within_norm, 'within_norm', 2),
  ):
    if name not in norm.layers:
      continue
    alpha = norm.alpha / norm.size**axes if norm.divide_alpha else norm.alpha
    if axes == 1:
      # PyTorch's divides alpha by the size.
      part: nn.Module = nn.LocalResponseNorm(norm.size, alpha * norm.size, norm.beta, norm.k)
    else:
      part = WithinNorm(norm.size, norm.k, alpha, norm.beta)
    norms[f'{name}_{suffix}'] = part
  return norms


def _pool(pool: Any, average: bool, side: int) -> nn.Module:
  """A pool whose windows may overhang; averages are divided by the whole window all the same."""
  window = min(pool.window, side)  # PyTorch refuses larger ones
  if average:
    return nn.AvgPool2d(window, pool.stride, ceil_mode=True, divisor_override=pool.window**2)
  return nn.MaxPool2d(window, pool.stride, ceil_mode=True)


def _dropout(model: Any, name: str) -> dict[str, nn.Module]:
  if name not in model.dropout.layers or not model.dropout.rate:
    return {}
  return {f'{name}_dropout': nn.Dropout(model.dropout.rate)}


def _linear(name: str, inputs: int, outputs: int, groups: int) -> dict[str, nn.Module]:
  if groups == 1:
    return {name: nn.Linear(inputs, outputs)}
  return {
    f'{name}_unflatten': nn.Unflatten(1, (inputs, 1)),
    name: nn.Conv1d(inputs, outputs, 1, groups=groups),
    f'{name}_flatten': nn.Flatten(),
  }


def make_step(config: Any, args: argparse.Namespace) -> tuple[Callable[[], None], int]:
  """Makes a step on a random batch.

  Args:
    config: the whole config.
    args: the command line's options.

  Returns:
    the step, which on a GPU may return before its work is done, and the number of parameters.
  """
  torch.manual_seed(0)
  net, side = network(config.model)
  net = net.to(args.device).train(args.mode == 'train')
  images = torch.randn(args.batch_size, 3, side, side, device=args.device)
  labels = torch.randint(0, config.model.num_classes, (args.batch_size,), device=args.device)
  if args.channels_last:
    net = net.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
  optimizer = config.optimizer
  sgd = torch.optim.SGD(
    net.parameters(),
    optimizer.learning_rate,
    momentum=optimizer.momentum,
    weight_decay=optimizer.weight_decay,
  )
  loss = nn.CrossEntropyLoss()
  forward = torch.compile(net) if args.compile else net

  def cast() -> contextlib.AbstractContextManager[Any]:
    if args.precision == 'bfloat16':
      return torch.autocast(args.device, torch.bfloat16)
    return contextlib.nullcontext()

  def train() -> None:
    sgd.zero_grad()
    with cast():
      cost = loss(forward(images), labels)
    cost.backward()
    sgd.step()

  def predict() -> None:
    with torch.no_grad(), cast():
      forward(images)

  step = train if args.mode == 'train' else predict
  return step, sum(parameter.numel() for parameter in net.parameters())


def _seconds(step: Callable[[], None], steps: int, device: str) -> float:
  """Seconds a step; a GPU is waited for after the last alone."""
  start = time.perf_counter()
  for _ in range(steps):
    step()
  if device == 'cuda':
    torch.cuda.synchronize()
  return (time.perf_counter() - start) / steps


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/imagenet.py', help='any config')
  parser.add_argument('--mode', choices=('train', 'predict'), default='train')
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--precision', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--no-compile', dest='compile', action='store_false')
  parser.add_argument('--channels_last', action='store_true')
  parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
  parser.add_argument('--threads', type=int, help='of a CPU; as PyTorch chooses if left out')
  return parser


def main() -> None:
  """Runs steps as it is asked to."""
  args = _parser().parse_args()
  sys.path.insert(0, str(ROOT))  # configs import each other
  config = runpy.run_path(args.config)['get_config']()
  if args.threads:
    torch.set_num_threads(args.threads)
  if args.device == 'cuda':
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.benchmark = True
  step, parameters = make_step(config, args)
  first = _seconds(step, 1, args.device)
  step()
  words = [f'PyTorch {"compiled" if args.compile else "eager"}', args.precision]
  ready = {
    'ready': True,
    'name': ', '.join(words + ['channels_last'] * args.channels_last),
    'version': torch.__version__,
    'first_step_seconds': first,
    'parameters': parameters,
    'threads': torch.get_num_threads(),
  }
  print(json.dumps(ready), flush=True)
  for line in sys.stdin:
    print(json.dumps({'seconds': [_seconds(step, int(line), args.device)]}), flush=True)
  if args.device == 'cuda':
    peak = torch.cuda.max_memory_allocated()
  else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  print(json.dumps({'peak_memory_bytes': peak}), flush=True)


if __name__ == '__main__':
  main()
