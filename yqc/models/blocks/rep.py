"""Blocks with parallel branches that can become one convolution (Ding et al. 2021, RepVGG).

They are kept as trained; merging the branches is a pass's work.
"""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

from torch import Tensor, nn

from yqc.models.blocks.base import (
    Block,
    ResidualBlock,
    chain_of,
    keeping_padding,
    make_batch_norm,
    run_module,
)
from yqc.models.blocks.conv import Conv
from yqc.models.blocks.csp import C3, C2f


def make_conv_bn(c1: int, c2: int, k: int, s: int, g: int) -> nn.Sequential:
    """Make a convolution and a batch norm, without activation."""
    return nn.Sequential(nn.Conv2d(c1, c2, k, s, k // 2, groups=g, bias=False), make_batch_norm(c2))


class RepConv(Block):
    """A 3x3 and a pointwise branch, and a batch norm of the input if there is one (YOLOv9)."""

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, p: int = 1, g: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.act = nn.SiLU() if act else nn.Identity()
        self.conv1 = Conv(c1, c2, k, s, p, g, act=False)
        self.conv2 = Conv(c1, c2, 1, s, p - k // 2, g, act=False)

    def forward(self, x: Tensor) -> Tensor:
        if (merged := self.child("conv")) is not None:
            return run_module(self.act, merged(x))
        y = self.conv1(x) + self.conv2(x)
        if (identity := self.child("bn")) is not None:
            y = y + identity(x)
        return run_module(self.act, y)


class RepConv7(Block):
    """YOLOv7's form of `RepConv`; the batch-norm branch exists where nothing changes the shape."""

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, p: int | None = None, g: int = 1
    ) -> None:
        super().__init__()
        self.act = nn.SiLU()
        if c1 == c2 and s == 1:
            self.rbr_identity = make_batch_norm(c1)
        self.rbr_dense = make_conv_bn(c1, c2, k, s, g)
        self.rbr_1x1 = make_conv_bn(c1, c2, 1, s, g)
        if p is not None and p != keeping_padding(k):
            raise ValueError(
                f"RepConv keeps the size, so its padding is {keeping_padding(k)}, not {p}"
            )

    def forward(self, x: Tensor) -> Tensor:
        if (merged := self.child("rbr_reparam")) is not None:
            return run_module(self.act, merged(x))
        y: Tensor = self.rbr_dense(x) + self.rbr_1x1(x)
        if (identity := self.child("rbr_identity")) is not None:
            y = y + identity(x)
        return run_module(self.act, y)


class RepBottleneck(ResidualBlock):
    """A bottleneck that starts with a `RepConv` (YOLOv9)."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = RepConv(c1, hidden)
        self.cv2 = Conv(hidden, c2, 3, g=g)
        self.add = shortcut and c1 == c2


class RepCSP(C3):
    """A `C3` of `RepBottleneck` (YOLOv9)."""

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return chain_of(n, lambda: RepBottleneck(c, c, shortcut, g, e=1.0))


class RepVGGDW(Block):
    """A 7x7 and a 3x3 depthwise branch (YOLOv10)."""

    def __init__(self, ed: int) -> None:
        super().__init__()
        self.conv = Conv(ed, ed, 7, 1, 3, g=ed, act=False)
        self.conv1 = Conv(ed, ed, 3, 1, 1, g=ed, act=False)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if (small := self.child("conv1")) is not None:
            y = y + small(x)
        return run_module(self.act, y)


class CIB(ResidualBlock):
    """The compact inverted block: depthwise and pointwise convolutions in turn (YOLOv10)."""

    def __init__(
        self, c1: int, c2: int, shortcut: bool = True, e: float = 0.5, lk: bool = False
    ) -> None:
        super().__init__()
        wide = 2 * int(c2 * e)
        self.cv1 = nn.Sequential(
            Conv(c1, c1, 3, g=c1),
            Conv(c1, wide),
            RepVGGDW(wide) if lk else Conv(wide, wide, 3, g=wide),
            Conv(wide, c2),
            Conv(c2, c2, 3, g=c2),
        )
        self.add = shortcut and c1 == c2

    def inner(self, x: Tensor) -> Tensor:
        return run_module(self.cv1, x)


class C2fCIB(C2f):
    """A `C2f` of `CIB` (YOLOv10)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = False,
        lk: bool = False,
        g: int = 1,
        e: float = 0.5,
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        self.m = nn.ModuleList(CIB(self.c, self.c, shortcut, 1.0, lk) for _ in range(n))


class SCDown(Block):
    """A pointwise convolution, then a strided depthwise one (YOLOv10)."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 2) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2)
        self.cv2 = Conv(c2, c2, k, s, g=c2, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(self.cv1(x))
