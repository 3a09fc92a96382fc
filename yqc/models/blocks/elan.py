"""Layer-aggregation blocks of YOLOv9 (Wang et al. 2024), and the links of its auxiliary branch."""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

import operator
from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yqc.models.blocks.base import Block, run_keeping, split_halves
from yqc.models.blocks.conv import Conv
from yqc.models.blocks.rep import RepCSP


class RepNCSPELAN4(Block):
    """Two `RepCSP` in a row on one half of the channels, each result kept."""

    c: int

    def __init__(self, c1: int, c2: int, c3: int, c4: int, n: int = 1) -> None:
        super().__init__()
        self.c = c3 // 2
        self.cv1 = Conv(c1, c3)
        self.cv2: nn.Module = nn.Sequential(RepCSP(c3 // 2, c4, n), Conv(c4, c4, 3))
        self.cv3: nn.Module = nn.Sequential(RepCSP(c4, c4, n), Conv(c4, c4, 3))
        self.cv4 = Conv(c3 + 2 * c4, c2)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv4(run_keeping((self.cv2, self.cv3), *split_halves(self.cv1(x))))


class ELAN1(RepNCSPELAN4):
    """The same with plain convolutions as steps."""

    def __init__(self, c1: int, c2: int, c3: int, c4: int) -> None:
        super().__init__(c1, c2, c3, c4)
        self.cv2, self.cv3 = Conv(c3 // 2, c4, 3), Conv(c4, c4, 3)


class CBLinear(Block):
    """A convolution whose channels are dealt out to several `CBFuse`; returns a tuple."""

    c2s: tuple[int, ...]

    def __init__(
        self, c1: int, c2s: Sequence[int], k: int = 1, s: int = 1, p: int | None = None, g: int = 1
    ) -> None:
        super().__init__()
        self.c2s = tuple(c2s)
        self.conv = nn.Conv2d(c1, sum(c2s), k, s, k // 2 if p is None else p, groups=g)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(self.conv(x), list(self.c2s), 1)


class CBFuse(Block):
    """Add one part of each `CBLinear`, enlarged to the size of the last input, to that input."""

    idx: tuple[int, ...]

    def __init__(self, idx: Sequence[int]) -> None:
        super().__init__()
        self.idx = tuple(idx)

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        *links, y = xs
        h, w = y.shape[-2:]
        parts = [
            link[i] if link[i].shape[-2:] == (h, w) else F.interpolate(link[i], size=(h, w))
            for link, i in zip(links, self.idx, strict=True)
        ]
        return reduce(operator.add, [*parts, y])
