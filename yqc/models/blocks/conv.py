"""Plain convolution blocks, and the rearrangements of pixels and channels between them."""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from yqc.models.blocks.base import (
    Block,
    ResidualBlock,
    keeping_padding,
    make_activation,
    make_batch_norm,
    run_module,
)


class Conv(Block):
    """Convolution, batch norm, activation; the batch norm is absent where the project fused it."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int | tuple[int, int] = 1,
        s: int | tuple[int, int] = 1,
        p: int | tuple[int, int] | None = None,
        g: int = 1,
        d: int = 1,
        act: bool | nn.Module = True,
    ) -> None:
        super().__init__()
        pad = keeping_padding(k, d) if p is None else p
        self.conv = nn.Conv2d(c1, c2, k, s, pad, groups=g, dilation=d, bias=False)
        self.bn = make_batch_norm(c2)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.child("bn") is not None:
            x = self.bn(x)
        return run_module(self.act, x)


class Conv2(Conv):
    """A `Conv` with a pointwise convolution beside the other, merged by the project's fusing."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        d: int = 1,
        act: bool | nn.Module = True,
    ) -> None:
        super().__init__(c1, c2, k, s, p, g, d, act)
        self.cv2 = nn.Conv2d(c1, c2, 1, s, groups=g, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if (beside := self.child("cv2")) is not None:
            y = y + beside(x)
        if self.child("bn") is not None:
            y = self.bn(y)
        return run_module(self.act, y)


class DWConv(Conv):
    """A `Conv` with as many groups as its channels allow (depthwise for equal counts)."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, d: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


class ConvTranspose(Block):
    """Transposed convolution, batch norm, activation."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 2,
        s: int = 2,
        p: int = 0,
        bn: bool = True,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv_transpose = nn.ConvTranspose2d(c1, c2, k, s, p, bias=not bn)
        self.bn = make_batch_norm(c2) if bn else nn.Identity()
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_transpose(x)
        if self.child("bn") is not None:
            x = self.bn(x)
        return run_module(self.act, x)


class CrossConv(ResidualBlock):
    """A row kernel, then a column kernel, with a residual where the channels agree (YOLOv5)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        g: int = 1,
        e: float = 1.0,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, (1, k), (1, s))
        self.cv2 = Conv(hidden, c2, (k, 1), (s, 1), g=g)
        self.add = shortcut and c1 == c2


class MixConv2d(Block):
    """Convolutions with several kernel sizes side by side (Tan and Le 2019, MixConv)."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (1, 3), s: int = 1) -> None:
        super().__init__()
        shares = [c2 // len(k) + (i < c2 % len(k)) for i in range(len(k))]
        self.m = nn.ModuleList(
            nn.Conv2d(c1, c, size, s, size // 2, groups=math.gcd(c1, c), bias=False)
            for c, size in zip(shares, k, strict=True)
        )
        self.bn = make_batch_norm(c2)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return run_module(self.act, self.bn(torch.cat([m(x) for m in self.m], 1)))


def space_to_depth(x: Tensor) -> Tensor:
    """Move each 2x2 square of pixels into the channels: `[N, C, H, W]` to `[N, 4C, H/2, W/2]`.

    The four copies of the channels are the upper left, lower left, upper right and lower right
    pixels, the order of YOLOv5's Focus and YOLOv7's ReOrg.
    """
    upper, lower = x[:, :, ::2], x[:, :, 1::2]
    left, right = slice(None, None, 2), slice(1, None, 2)
    corners = [upper[..., left], lower[..., left], upper[..., right], lower[..., right]]
    return torch.cat(corners, 1)


class Focus(Block):
    """Space to depth, then a `Conv` (the stem of YOLOv5 up to release 5)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        act: bool | nn.Module = True,
    ) -> None:
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k, s, p, g, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(space_to_depth(x))


class ReOrg(Block):
    """Space to depth (the stem of YOLOv7's P6 models)."""

    def forward(self, x: Tensor) -> Tensor:
        return space_to_depth(x)


class Contract(Block):
    """Space to depth with any gain: `[N, C, H, W]` to `[N, C * gain^2, H/gain, W/gain]`."""

    gain: int

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        g = self.gain
        x = torch.unflatten(x, 3, (w // g, g))
        x = torch.unflatten(x, 2, (h // g, g))  # N, C, H/g, g, W/g, g
        return x.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)


class Expand(Contract):
    """Depth to space, the inverse of `Contract`."""

    def forward(self, x: Tensor) -> Tensor:
        g = self.gain
        x = torch.unflatten(x, 1, (g, g, x.shape[1] // g**2))  # N, g, g, C/g^2, H, W
        return x.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


class Silence(Block):
    """Give the input back (YOLOv9, where several layers read the image)."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Index(Block):
    """Choose one of several inputs."""

    index: int

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self.index = index

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        return xs[self.index]


class Along(Block):
    """Base of blocks that work along the dimension `d`."""

    d: int = 1

    def __init__(self, d: int = 1) -> None:
        super().__init__()
        self.d = d


class Concat(Along):
    """Concatenate along one dimension."""

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(xs), self.d)


class Chuncat(Along):
    """Concatenate the first halves of all inputs, then their second halves (YOLOv7)."""

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        pairs = [torch.chunk(x, 2, self.d) for x in xs]
        return torch.cat([p[0] for p in pairs] + [p[1] for p in pairs], self.d)


class Shortcut(Along):
    """Add two inputs (YOLOv7)."""

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        return xs[0] + xs[1]


class Foldcut(Along):
    """Add the two halves of one input (YOLOv7)."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.chunk(x, 2, self.d)
        return first + second


class Sum(Block):
    """Add several inputs, the later ones optionally weighted by learned factors (YOLOv5)."""

    weight: bool

    def __init__(self, n: int, weight: bool = False) -> None:
        super().__init__()
        self.weight = weight
        if weight:
            self.w = nn.Parameter(-torch.arange(1.0, n) / 2)

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        factors = 2 * torch.sigmoid(cast(Tensor, self.w)) if self.weight else None
        y = xs[0]
        for i, x in enumerate(xs[1:]):
            y = y + x if factors is None else y + x * factors[i]
        return y
