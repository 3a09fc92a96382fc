"""Residual bottlenecks, and cross-stage-partial blocks of them (Wang et al. 2019, CSPNet)."""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

from typing import ClassVar

import torch
from torch import Tensor, nn

from yqc.models.blocks.base import (
    Block,
    ResidualBlock,
    chain_of,
    make_batch_norm,
    run_keeping,
    run_module,
    split_halves,
)
from yqc.models.blocks.conv import Conv, CrossConv

Kernel = int | tuple[int, int]


class Bottleneck(ResidualBlock):
    """Two convolutions with a residual where the channels agree."""

    def __init__(
        self,
        c1: int,
        c2: int,
        shortcut: bool = True,
        g: int = 1,
        k: tuple[Kernel, Kernel] = (3, 3),
        e: float = 0.5,
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, k[0])
        self.cv2 = Conv(hidden, c2, k[1], g=g)
        self.add = shortcut and c1 == c2


class Bottleneck1(Bottleneck):
    """A `Bottleneck` whose first convolution is pointwise, as in the YOLOv5 and YOLOv7 projects."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__(c1, c2, shortcut, g, (1, 3), e)


class BottleneckCSP(Block):
    """The CSP block of YOLOv5 up to release 3: plain convolutions join under one batch norm."""

    kernels: ClassVar[tuple[int, int]] = (1, 3)

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = nn.Conv2d(c1, hidden, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2)
        self.bn = make_batch_norm(2 * hidden)
        self.act: nn.Module = nn.SiLU()
        kernels = self.kernels
        self.m = chain_of(n, lambda: Bottleneck(hidden, hidden, shortcut, g, kernels, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        deep, skip = self.cv3(self.m(self.cv1(x))), self.cv2(x)
        return self.cv4(self.act(self.bn(torch.cat((deep, skip), 1))))


class BottleneckCSPU(BottleneckCSP):
    """The same in Ultralytics, whose bottlenecks have two 3x3 convolutions."""

    kernels: ClassVar[tuple[int, int]] = (3, 3)


class C1(Block):
    """A pointwise convolution and a residual chain of 3x3 convolutions."""

    def __init__(self, c1: int, c2: int, n: int = 1) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2)
        self.m = chain_of(n, lambda: Conv(c2, c2, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return run_module(self.m, y) + y


class C2(Block):
    """A CSP block whose halves come from one convolution."""

    c: int

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        self.c = int(c2 * e)
        self.cv1 = Conv(c1, 2 * self.c)
        self.cv2 = Conv(2 * self.c, c2)
        self.m = chain_of(n, lambda: Bottleneck(self.c, self.c, shortcut, g, e=1.0))

    def forward(self, x: Tensor) -> Tensor:
        deep, skip = split_halves(self.cv1(x))
        return self.cv2(torch.cat((self.m(deep), skip), 1))


class C3(Block):
    """A CSP block with three convolutions (YOLOv5 from release 4 on).

    Also the forward of every block that differs only in what the chain `m` is made of.
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.cv3 = Conv(2 * hidden, c2)
        self.m = self.chain(hidden, n, shortcut, g)

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        """Make the chain of `n` blocks of `c` channels."""
        return chain_of(n, lambda: Bottleneck(c, c, shortcut, g, (1, 3), 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3x(C3):
    """A `C3` of row-and-column convolutions (YOLOv5)."""

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return chain_of(n, lambda: CrossConv(c, c, 3, 1, g, 1.0, shortcut))


class C3xU(C3):
    """The `C3x` of Ultralytics: bottlenecks with a 1x3 and a 3x1 kernel."""

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return chain_of(n, lambda: Bottleneck(c, c, shortcut, g, ((1, 3), (3, 1)), 1.0))


class C3k(C3):
    """A `C3` of bottlenecks with two equal kernels (YOLO11)."""

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return chain_of(n, lambda: Bottleneck(c, c, shortcut, g, (3, 3), 1.0))


class C2f(Block):
    """A CSP block that keeps what every step of its chain computes (YOLOv8)."""

    c: int

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        self.c = int(c2 * e)
        self.cv1 = Conv(c1, 2 * self.c)
        self.cv2 = Conv((2 + n) * self.c, c2)
        self.m = nn.ModuleList(Bottleneck(self.c, self.c, shortcut, g, e=1.0) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(run_keeping(self.m, *split_halves(self.cv1(x))))


class C2fV2(C2f):
    """A `C2f` whose first convolution is two, as pruning by Torch-Pruning's example leaves it."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        self.cv0 = Conv(c1, self.c)
        self.cv1 = Conv(c1, self.c)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(run_keeping(self.m, self.cv0(x), self.cv1(x)))


class C3f(Block):
    """A `C2f` with two convolutions of the input in place of halves of one."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        c = int(c2 * e)
        self.cv1 = Conv(c1, c)
        self.cv2 = Conv(c1, c)
        self.cv3 = Conv((2 + n) * c, c2)
        self.m = nn.ModuleList(Bottleneck(c, c, shortcut, g, e=1.0) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(run_keeping(self.m, self.cv2(x), self.cv1(x)))
