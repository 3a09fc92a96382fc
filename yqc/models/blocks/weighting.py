"""Blocks that weight channels or positions of a map by numbers between 0 and 1."""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

import torch
from torch import Tensor, nn

from yqc.models.blocks.base import Block, run_module


class ChannelAttention(Block):
    """Weight channels by a pointwise convolution of their means (Ultralytics)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Conv2d(channels, channels, 1)
        self.act = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * run_module(self.act, self.fc(self.pool(x)))


class SpatialAttention(Block):
    """Weight positions by a convolution of the channels' mean and maximum (Ultralytics)."""

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.act = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat((torch.mean(x, 1, keepdim=True), torch.amax(x, 1, keepdim=True)), 1)
        return x * run_module(self.act, self.cv1(seen))


class CBAM(Block):
    """Weight channels, then positions (Woo et al. 2018, in the form of Ultralytics)."""

    def __init__(self, c1: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention(c1)
        self.spatial_attention = SpatialAttention(kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial_attention(self.channel_attention(x))


class ECA(Block):
    """Weight channels by a convolution over the means of neighbours (Wang et al. 2020, ECA-Net).

    Forks of the projects name the pool and the sigmoid in their own ways; each has one of both, or
    calls a function for the second.
    """

    def __init__(self, channels: int, k: int = 3) -> None:
        super().__init__()
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def finish(self) -> None:
        """Refuse what is no pool, convolution or sigmoid."""
        kinds = sorted(type(m).__name__ for m in self.children())
        if kinds[:2] != ["AdaptiveAvgPool2d", "Conv1d"] or kinds[2:] not in ([], ["Sigmoid"]):
            raise ValueError(f"forward is not known: it is made of {', '.join(kinds)}")

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for kind in (nn.AdaptiveAvgPool2d, nn.Conv1d, nn.Sigmoid):
            step = next((m for m in self.children() if isinstance(m, kind)), None)
            if kind is nn.Conv1d and step is not None:
                y = run_module(step, y.flatten(2).transpose(1, 2)).transpose(1, 2).unsqueeze(3)
            elif step is not None:
                y = run_module(step, y)
            elif kind is nn.Sigmoid:
                y = torch.sigmoid(y)
        return x * y
