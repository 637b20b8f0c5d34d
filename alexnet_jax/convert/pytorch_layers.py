"""The layers of AlexNet that PyTorch does not have.

`pytorch_module` copies those that a network needs, as text, into the file that it writes beside the
network's weights. Nothing in this package imports them, for they need PyTorch.
"""

import torch
from torch import nn


class ColumnNorm(nn.LocalResponseNorm):
  """Response normalization whose neighbors are maps of the same column.

  As `nn.LocalResponseNorm` it divides `alpha` by `size`, which the paper does not.
  """

  def __init__(self, columns: int, size: int, alpha: float, beta: float, k: float) -> None:
    super().__init__(size, alpha, beta, k)
    self.columns = columns

  def forward(self, input: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W], the columns side by side in C -> the same."""
    return torch.cat([*map(super().forward, input.chunk(self.columns, 1))], 1)


class PixelNorm(nn.Module):
  """`x / (k + alpha * mean of x^2)**beta`, the mean over the `size` x `size` nearest pixels of a map.

  Beyond the edges there are zeros, which are counted.
  """

  def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
    super().__init__()
    self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

  def forward(self, input: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> the same."""
    mean = nn.functional.avg_pool2d(input * input, self.size, stride=1, padding=self.size // 2)
    return input / (self.k + self.alpha * mean) ** self.beta


class PaperDropout(nn.Dropout):
  """Dropout that multiplies by 1 - p in evaluation, where PyTorch's divides by it in training."""

  def forward(self, input: torch.Tensor) -> torch.Tensor:
    """Any shape -> the same."""
    return (1 - self.p) * super().forward(input)


class LocallyConnected(nn.Module):
  """A convolution with kernels of its own for each place of the output, which has side `side`."""

  def __init__(
    self, inputs: int, outputs: int, window: int, side: int, padding: int, columns: int
  ) -> None:
    super().__init__()
    kernels = (outputs, inputs // columns, window, window, side, side)
    self.weight = nn.Parameter(torch.zeros(kernels))
    self.bias = nn.Parameter(torch.zeros(outputs, side, side))
    self.window, self.side, self.padding, self.columns = window, side, padding, columns

  def forward(self, input: torch.Tensor) -> torch.Tensor:
    """[N, inputs, H, W], the columns side by side in the maps -> [N, outputs, side, side]."""
    patches = nn.functional.unfold(input, self.window, padding=self.padding)
    patches = patches.unflatten(1, (self.columns, -1))
    kernels = self.weight.flatten(1, 3).flatten(2).unflatten(0, (self.columns, -1))
    maps = torch.einsum('ncip,coip->ncop', patches, kernels)
    return maps.flatten(1, 2).unflatten(2, (self.side, self.side)) + self.bias


class ColumnLinear(nn.Module):
  """A linear layer whose units read the units of their own column."""

  def __init__(self, columns: int, inputs: int, outputs: int) -> None:
    super().__init__()
    self.weight = nn.Parameter(torch.zeros(outputs, inputs // columns))
    self.bias = nn.Parameter(torch.zeros(outputs))
    self.columns = columns

  def forward(self, input: torch.Tensor) -> torch.Tensor:
    """[N, inputs], the columns side by side -> [N, outputs]."""
    columns = zip(input.chunk(self.columns, 1), self.weight.chunk(self.columns), strict=True)
    return torch.cat([nn.functional.linear(x, weight) for x, weight in columns], 1) + self.bias
