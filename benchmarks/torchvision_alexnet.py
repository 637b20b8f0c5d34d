r"""Trains torchvision's AlexNet on a folder of photographs, as `train_in_memory.py` trains ours.

  python benchmarks/torchvision_alexnet.py --data_dir=PHOTOS --out=OUT --seeds=0,1,2

The same pixels in the same memory, crops of 224 and mirror images, batches, rate, momentum, weight
decay and epochs; torchvision's network (one column of 64, 192, 384, 256, 256 kernels, no response
norms), PyTorch's initial weights, its users' scaling of pixels and no lighting. On a GPU it computes
in bfloat16 with channels last, float32 parameters. OUT/torchvision.jsonl has a line for each epoch; a
run's last has the error by ten views as well.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ['JAX_PLATFORMS'] = 'cpu'  # of what train_in_memory imports; the GPU is PyTorch's
import torch
import torchvision
from torch.nn import functional
from train_in_memory import log, read_folder

SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's recipes


def crops(images: torch.Tensor, flips: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
  """[N, H, W, 3] uint8 -> [N, 3, 224, 224] float, cropped, mirrored and scaled."""
  reach = torch.arange(SIDE, device=images.device)
  rows = offsets[:, :1] + reach  # [N, 224]
  columns = offsets[:, 1:] + torch.where(flips[:, None], reach.flip(0), reach)
  numbers = torch.arange(len(images), device=images.device)
  cut = images[numbers[:, None, None], rows[:, :, None], columns[:, None, :]]
  mean, std = torch.tensor(MEAN, device=cut.device), torch.tensor(STD, device=cut.device)
  return ((cut.float() / 255 - mean) / std).permute(0, 3, 1, 2)  # channels last in memory


class Run:
  """One training."""

  def __init__(self, args: argparse.Namespace, splits: Any, classes: int, seed: int) -> None:
    torch.manual_seed(seed)
    self.args, self.seed, self.splits = args, seed, splits
    self.device = splits['train'][0].device
    net = torchvision.models.alexnet(num_classes=classes).to(self.device)
    self.net = net.to(memory_format=torch.channels_last)
    self.sgd = torch.optim.SGD(net.parameters(), args.rate, momentum=0.9, weight_decay=0.0005)

  def logits(self, pixels: torch.Tensor) -> torch.Tensor:
    """[N, classes] float32."""
    with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == 'cuda'):
      return self.net(pixels).float()

  def train(self, epoch: int) -> float:
    """Trains an epoch; returns the mean loss."""
    images, labels = self.splits['train']
    for group in self.sgd.param_groups:
      group['lr'] = self.args.rate * 0.1 ** sum(cut <= epoch for cut in self.args.cuts)
    self.net.train()
    losses = []
    order = torch.randperm(len(images), device=self.device)
    for numbers in order.split(self.args.batch_size):
      if len(numbers) < self.args.batch_size:
        continue
      offsets = torch.randint(0, 32, (len(numbers), 2), device=self.device)
      flips = torch.rand(len(numbers), device=self.device) < 0.5
      loss = functional.cross_entropy(
        self.logits(crops(images[numbers], flips, offsets)), labels[numbers]
      )
      self.sgd.zero_grad()
      loss.backward()
      self.sgd.step()
      losses.append(loss.detach())
    return float(torch.stack(losses).mean())

  @torch.no_grad()
  def error(self, views: list[tuple[int, int, bool]]) -> float:
    """The share of validation images that the mean over views (row, column, mirrored) has wrong."""
    images, labels = self.splits['val']
    self.net.eval()
    wrong = 0
    for some, label in zip(images.split(512), labels.split(512), strict=True):
      total: Any = 0
      for row, column, mirrored in views:
        flips = torch.full((len(some),), mirrored, device=self.device)
        offsets = torch.tensor([[row, column]], device=self.device).expand(len(some), 2)
        total = total + self.logits(crops(some, flips, offsets)).softmax(1)
      wrong += int((total.argmax(1) != label).sum())
    return wrong / len(images)


def main() -> None:
  """Trains once for each seed."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data_dir', type=Path, required=True)
  parser.add_argument('--out', type=Path, required=True)
  parser.add_argument('--seeds', default='0')
  parser.add_argument('--epochs', type=int, default=60)
  parser.add_argument(
    '--cuts', type=lambda text: [int(n) for n in text.split(',')], default='50,57'
  )
  parser.add_argument('--rate', type=float, default=0.01)
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--seconds', type=float, default=1e9, help='after which no epoch begins')
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.backends.cudnn.benchmark = True
  splits = {}
  for name in ('train', 'val'):
    pixels, labels, names = read_folder(args.data_dir / name, 256)
    if name == 'train':
      classes = names
    elif names != classes:
      sys.exit(f'{args.data_dir}: train and val have different classes, so labels would not agree')
    splits[name] = torch.from_numpy(pixels).to(device), torch.from_numpy(labels).long().to(device)
  border = (splits['train'][0].shape[1] - SIDE) // 2
  corners = [(0, 0), (0, 2 * border), (2 * border, 0), (2 * border, 2 * border), (border, border)]
  for seed in map(int, args.seeds.split(',')):
    run, start = Run(args, splits, len(classes), seed), time.perf_counter()
    for epoch in range(args.epochs):
      if time.perf_counter() - start > args.seconds:
        sys.exit(f'seed {seed} is cut off after {epoch} epochs')
      line = {'seed': seed, 'epoch': epoch + 1, 'loss': run.train(epoch)}
      line['top1_error'] = run.error([(border, border, False)])
      if epoch + 1 == args.epochs:
        line['ten_views_error'] = run.error([(*at, m) for at in corners for m in (False, True)])
      line['seconds'] = round(time.perf_counter() - start, 2)
      with (args.out / 'torchvision.jsonl').open('a') as file:
        file.write(json.dumps(line) + '\n')
    log(f'PyTorch {torch.__version__} on {device}', line)


if __name__ == '__main__':
  main()
