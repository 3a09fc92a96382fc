"""Blocks that make half of their channels by a cheap depthwise step (Han et al. 2019, GhostNet)."""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

import torch
from torch import Tensor, nn

from yqc.models.blocks.base import Block, chain_of, run_module
from yqc.models.blocks.conv import Conv, DWConv
from yqc.models.blocks.csp import C3


class GhostConv(Block):
    """A convolution, and a 5x5 depthwise one of its result beside it."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__()
        hidden = c2 // 2
        self.cv1 = Conv(c1, hidden, k, s, None, g, act=act)
        self.cv2 = Conv(hidden, hidden, 5, 1, None, hidden, act=act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(Block):
    """Two ghost convolutions with a residual; at stride 2 a depthwise step between them."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        hidden, strided = c2 // 2, s == 2  # noqa: PLR2004
        self.conv = nn.Sequential(
            GhostConv(c1, hidden),
            DWConv(hidden, hidden, k, s, act=False) if strided else nn.Identity(),
            GhostConv(hidden, c2, act=False),
        )
        self.shortcut = (
            nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, act=False))
            if strided
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return run_module(self.conv, x) + run_module(self.shortcut, x)


class C3Ghost(C3):
    """A `C3` of `GhostBottleneck`."""

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return chain_of(n, lambda: GhostBottleneck(c, c))
