"""Spatial pyramids (He et al. 2014, SPP), and blocks that pool on the way down."""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yqc.models.blocks.base import Block, ResidualBlock, run_keeping, run_module, split_halves
from yqc.models.blocks.conv import Conv
from yqc.models.blocks.csp import C3

MOST_POOLS = 16
"""Largest stored `n`: released models have 3. A limit on hostile files."""


def same_pool(k: int) -> nn.MaxPool2d:
    """Make a max pool of stride 1 that keeps the size."""
    return nn.MaxPool2d(k, stride=1, padding=k // 2)


class SPP(Block):
    """Max pools of several sizes side by side."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden * (len(k) + 1), c2)
        self.m = nn.ModuleList(same_pool(size) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x] + [pool(x) for pool in self.m], 1))


class SPPF(ResidualBlock):
    """One max pool applied `n` times over, each result kept.

    YOLO26's form has a residual, and no activation before the pools.
    """

    n: int = 3
    add: bool = False

    def __init__(self, c1: int, c2: int, k: int = 5, n: int = 3, shortcut: bool = False) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, act=not shortcut)
        self.cv2 = Conv(hidden * (n + 1), c2)
        self.m = same_pool(k)
        self.n = n
        self.add = shortcut and c1 == c2

    def finish(self) -> None:
        """Refuse a number of pools that no model has."""
        if not 0 < self.n <= MOST_POOLS:
            raise ValueError(f"n is {self.n}, so many pools in a row")

    def inner(self, x: Tensor) -> Tensor:
        return run_module(self.cv2, run_keeping([self.m] * self.n, self.cv1(x)))


class C3SPP(C3):
    """A `C3` around an `SPP` (YOLOv5)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Sequence[int] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = SPP(hidden, hidden, k)


class SPPCSPC(Block):
    """A CSP block around a spatial pyramid (YOLOv7)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,  # YAMLs give a repeat count; the block has no chain
        shortcut: bool = False,
        g: int = 1,
        e: float = 0.5,
        k: Sequence[int] = (5, 9, 13),
    ) -> None:
        super().__init__()
        hidden = int(2 * c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.cv3 = Conv(hidden, hidden, 3)
        self.cv4 = Conv(hidden, hidden)
        self.m = nn.ModuleList(same_pool(size) for size in k)
        self.cv5 = Conv((len(k) + 1) * hidden, hidden)
        self.cv6 = Conv(hidden, hidden, 3)
        self.cv7 = Conv(2 * hidden, c2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv4(self.cv3(self.cv1(x)))
        deep = self.cv6(self.cv5(torch.cat([y] + [pool(y) for pool in self.m], 1)))
        return self.cv7(torch.cat((deep, self.cv2(x)), 1))


class SPPELAN(Block):
    """Three max pools in a row, each result kept (YOLOv9)."""

    c: int

    def __init__(self, c1: int, c2: int, c3: int, k: int = 5) -> None:
        super().__init__()
        self.c = c3
        self.cv1 = Conv(c1, c3)
        self.cv2, self.cv3, self.cv4 = same_pool(k), same_pool(k), same_pool(k)
        self.cv5 = Conv(4 * c3, c2)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv5(run_keeping((self.cv2, self.cv3, self.cv4), self.cv1(x)))


class MP(Block):
    """A max pool that divides the size by `k` (YOLOv7)."""

    def __init__(self, k: int = 2) -> None:
        super().__init__()
        self.m = nn.MaxPool2d(k, k)

    def forward(self, x: Tensor) -> Tensor:
        return run_module(self.m, x)


class SP(MP):
    """A max pool that keeps the size (YOLOv7)."""

    def __init__(self, k: int = 3, s: int = 1) -> None:
        super().__init__()
        self.m = nn.MaxPool2d(k, s, k // 2)


class DownC(Block):
    """A strided convolution beside a max pool, each giving half of the channels (YOLOv7)."""

    def __init__(self, c1: int, c2: int, n: int = 1, k: int = 2) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c1)
        self.cv2 = Conv(c1, c2 // 2, 3, k)
        self.cv3 = Conv(c1, c2 // 2)
        self.mp = nn.MaxPool2d(k, k)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.cv2(self.cv1(x)), self.cv3(self.mp(x))), 1)


class AConv(Block):
    """A 2x2 mean, then a strided convolution (YOLOv9)."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2, 3, 2, 1)
        self.finish()

    def finish(self) -> None:
        """Add the mean as a module; the original calls a function."""
        self.mean = nn.AvgPool2d(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv1(self.mean(x))


class ADown(Block):
    """A 2x2 mean; one half of the channels convolved, the other max-pooled (YOLOv9)."""

    c: int

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.c = c2 // 2
        self.cv1 = Conv(c1 // 2, self.c, 3, 2, 1)
        self.cv2 = Conv(c1 // 2, self.c, 1, 1, 0)
        self.finish()

    def finish(self) -> None:
        """Add the mean and the pool as modules; the original calls functions."""
        self.mean = nn.AvgPool2d(2, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = split_halves(self.mean(x))
        return torch.cat((self.cv1(first), self.cv2(self.pool(second))), 1)
