"""Blocks of RT-DETR's backbones and encoder (Zhao et al. 2023), which YOLO YAMLs borrow."""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yqc.models.blocks.base import Block, ResidualBlock, chain_of, run_keeping, run_module
from yqc.models.blocks.conv import Conv, DWConv
from yqc.models.blocks.rep import RepConv
from yqc.models.blocks.transformer import SelfAttention


class LightConv(Block):
    """A pointwise convolution, then a depthwise one (HGNet V2)."""

    def __init__(self, c1: int, c2: int, k: int = 1, act: bool | nn.Module = True) -> None:
        super().__init__()
        self.conv1 = Conv(c1, c2, act=False)
        self.conv2 = DWConv(c2, c2, k, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class HGStem(Block):
    """The stem of HGNet V2: a quarter of the size."""

    def __init__(self, c1: int, cm: int, c2: int) -> None:
        super().__init__()
        self.stem1 = Conv(c1, cm, 3, 2, act=nn.ReLU())
        self.stem2a = Conv(cm, cm // 2, 2, 1, 0, act=nn.ReLU())
        self.stem2b = Conv(cm // 2, cm, 2, 1, 0, act=nn.ReLU())
        self.stem3 = Conv(cm * 2, cm, 3, 2, act=nn.ReLU())
        self.stem4 = Conv(cm, c2, act=nn.ReLU())
        self.pool = nn.MaxPool2d(2, 1, 0, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem1(x), [0, 1, 0, 1])
        deep = self.stem2b(F.pad(self.stem2a(x), [0, 1, 0, 1]))
        return self.stem4(self.stem3(torch.cat((self.pool(x), deep), 1)))


class HGBlock(ResidualBlock):
    """Convolutions in a row, each result kept, and two pointwise ones (HGNet V2)."""

    def __init__(
        self,
        c1: int,
        cm: int,
        c2: int,
        k: int = 3,
        n: int = 6,
        lightconv: bool = False,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        block = LightConv if lightconv else Conv
        self.m = nn.ModuleList(
            block(c1 if i == 0 else cm, cm, k=k, act=nn.ReLU()) for i in range(n)
        )
        self.sc = Conv(c1 + n * cm, c2 // 2, act=nn.ReLU())
        self.ec = Conv(c2 // 2, c2, act=nn.ReLU())
        self.add = shortcut and c1 == c2

    def inner(self, x: Tensor) -> Tensor:
        return self.ec(self.sc(run_keeping(self.m, x)))


class RepC3(Block):
    """A chain of `RepConv`, added to a pointwise convolution."""

    def __init__(self, c1: int, c2: int, n: int = 3, e: float = 1.0) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.m = chain_of(n, lambda: RepConv(hidden, hidden))
        self.cv3: nn.Module = Conv(hidden, c2) if hidden != c2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return run_module(self.cv3, run_module(self.m, self.cv1(x)) + self.cv2(x))


class ResNetBlock(Block):
    """A bottleneck of ResNet (He et al. 2016)."""

    def __init__(self, c1: int, c2: int, s: int = 1, e: int = 4) -> None:
        super().__init__()
        c3 = e * c2
        self.cv1 = Conv(c1, c2)
        self.cv2 = Conv(c2, c2, 3, s, 1)
        self.cv3 = Conv(c2, c3, act=False)
        same = s == 1 and c1 == c3
        self.shortcut = nn.Sequential(*([] if same else [Conv(c1, c3, 1, s, act=False)]))

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv3(self.cv2(self.cv1(x)))
        return F.relu(y + run_module(self.shortcut, x))


class ResNetLayer(Block):
    """A row of `ResNetBlock`, or the stem before them."""

    def __init__(
        self, c1: int, c2: int, s: int = 1, is_first: bool = False, n: int = 1, e: int = 4
    ) -> None:
        super().__init__()
        if is_first:
            self.layer = nn.Sequential(Conv(c1, c2, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
            return
        rest = [ResNetBlock(e * c2, c2, 1, e) for _ in range(n - 1)]
        self.layer = nn.Sequential(ResNetBlock(c1, c2, s, e), *rest)

    def forward(self, x: Tensor) -> Tensor:
        return run_module(self.layer, x)


class TransformerEncoderLayer(Block):
    """Self-attention and two linear layers, each with a residual and a norm; `[N, P, C]`."""

    normalize_before: bool = False

    def __init__(self, c1: int, cm: int = 2048, num_heads: int = 8) -> None:
        super().__init__()
        self.ma = SelfAttention(c1, num_heads)
        self.fc1, self.fc2 = nn.Linear(c1, cm), nn.Linear(cm, c1)
        self.norm1, self.norm2 = nn.LayerNorm(c1), nn.LayerNorm(c1)
        self.dropout, self.dropout1, self.dropout2 = nn.Dropout(0.0), nn.Dropout(), nn.Dropout()
        self.act: nn.Module = nn.GELU()

    def encode(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """Encode `[N, P, C]`; positions `[1, P, C]` are added to queries and keys."""
        first, last = (self.norm1, nn.Identity()) if self.normalize_before else (None, self.norm1)
        seen = x if first is None else first(x)
        asked = seen if positions is None else seen + positions
        x = last(x + self.dropout1(self.ma(asked, asked, seen)))
        seen = self.norm2(x) if self.normalize_before else x
        y = self.dropout2(self.fc2(self.dropout(self.act(self.fc1(seen)))))
        return x + y if self.normalize_before else run_module(self.norm2, x + y)

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x, None)


class AIFI(TransformerEncoderLayer):
    """The same over the positions of a map, with sines and cosines of them."""

    def __init__(self, c1: int, cm: int = 2048, num_heads: int = 8) -> None:
        super().__init__(c1, cm, num_heads)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        c, size = x.shape[1], x.shape[-2:]
        y = self.encode(x.flatten(2).transpose(1, 2), waves(size, c))
        return torch.unflatten(y.transpose(1, 2), 2, size)


def waves(size: Sequence[int], channels: int) -> Tensor:
    """Return sines and cosines of columns and rows, `f32[1, H * W, channels]`.

    Positions are counted column by column, as the project counts them.
    """
    h, w = size
    quarter = channels // 4
    frequencies = 10000.0 ** -(torch.arange(quarter, dtype=torch.float32) / quarter)
    columns, rows = torch.meshgrid(
        torch.arange(w, dtype=torch.float32), torch.arange(h, dtype=torch.float32), indexing="ij"
    )
    x, y = (grid.flatten()[:, None] * frequencies[None] for grid in (columns, rows))
    return torch.cat((x.sin(), x.cos(), y.sin(), y.cos()), 1)[None]
