"""Residual and CSP blocks that YOLOv7's project shares with YOLOR (Wang et al. 2021)."""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

import torch
from torch import Tensor, nn

from yqc.models.blocks.base import Block, ResidualBlock, chain_of
from yqc.models.blocks.conv import Conv
from yqc.models.blocks.csp import C3


class Res(ResidualBlock):
    """A ResNet bottleneck: pointwise, 3x3, pointwise, with a residual."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden, hidden, 3, g=g)
        self.cv3 = Conv(hidden, c2)
        self.add = shortcut and c1 == c2

    def inner(self, x: Tensor) -> Tensor:
        return self.cv3(super().inner(x))


class BottleneckCSPA(C3):
    """A chain beside a pointwise convolution of the input, as in `C3`."""


class BottleneckCSPB(BottleneckCSPA):
    """A chain beside a pointwise convolution, both of one convolution's result."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 1.0
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        hidden = int(c2 * e)
        self.cv2 = Conv(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv3(torch.cat((self.m(x), self.cv2(x)), 1))


class BottleneckCSPC(BottleneckCSPA):
    """A chain that ends in a convolution, beside a pointwise convolution of the input."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        hidden = int(c2 * e)
        self.cv3 = Conv(hidden, hidden)
        self.cv4 = Conv(2 * hidden, c2)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.cv3(self.m(self.cv1(x)))
        return self.cv4(torch.cat((deep, self.cv2(x)), 1))


class ResCSPA(BottleneckCSPA):
    """`BottleneckCSPA` of `Res`."""

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return chain_of(n, lambda: Res(c, c, shortcut, g))


class ResCSPB(BottleneckCSPB):
    """`BottleneckCSPB` of `Res`."""

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return chain_of(n, lambda: Res(c, c, shortcut, g))


class ResCSPC(BottleneckCSPC):
    """`BottleneckCSPC` of `Res`."""

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return chain_of(n, lambda: Res(c, c, shortcut, g))


class Stem(Block):
    """Two strided convolutions beside a strided one and a max pool; a quarter of the size."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        hidden = c2 // 2
        self.cv1 = Conv(c1, hidden, 3, 2)
        self.cv2 = Conv(hidden, hidden)
        self.cv3 = Conv(hidden, hidden, 3, 2)
        self.pool = nn.MaxPool2d(2, 2)
        self.cv4 = Conv(2 * hidden, c2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv4(torch.cat((self.cv3(self.cv2(x)), self.pool(x)), 1))
