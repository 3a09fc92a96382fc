"""Attention over the positions of a feature map, as plain matrix products and a softmax.

Positions are numbered row by row. Where YOLOv12 reshapes areas into the batch dimension, the twin
keeps them in a dimension of their own, so the batch size stays free.
"""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

import torch
from torch import Tensor, nn

from yqc.models.blocks.base import Block, run_keeping, run_module, split_halves
from yqc.models.blocks.conv import Conv
from yqc.models.blocks.csp import Bottleneck, C2f, C3k


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Mix values by the softmax of query-key products (Vaswani et al. 2017).

    Args:
        q: `[..., key, P]`, with the P positions in the last dimension.
        k: the same.
        v: `[..., head, P]`.
        scale: what the products are multiplied by before the softmax.

    Returns:
        `[..., head, P]`.
    """
    weights = torch.softmax(torch.matmul(q.transpose(-2, -1), k) * scale, -1)
    return torch.matmul(v, weights.transpose(-2, -1))


class Attention(Block):
    """Multi-head self-attention with a depthwise positional term (YOLOv10, 11, 26)."""

    num_heads: int
    head_dim: int
    key_dim: int
    scale: float

    def __init__(self, dim: int, num_heads: int = 8, attn_ratio: float = 0.5) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.key_dim = int(self.head_dim * attn_ratio)
        self.scale = self.key_dim**-0.5
        self.qkv = Conv(dim, dim + 2 * self.key_dim * num_heads, act=False)
        self.proj = Conv(dim, dim, act=False)
        self.pe = Conv(dim, dim, 3, g=dim, act=False)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        sizes = [self.key_dim, self.key_dim, self.head_dim]
        heads = torch.unflatten(self.qkv(x).flatten(2), 1, (self.num_heads, sum(sizes)))
        q, k, v = torch.split(heads, sizes, 2)
        mixed = as_map(attend(q, k, v, self.scale), size)
        return self.proj(mixed + self.pe(as_map(v, size)))


def as_map(x: Tensor, size: torch.Size) -> Tensor:
    """Lay positions and heads out again: `[N, heads, C, P]` to `[N, heads * C, H, W]`."""
    return torch.unflatten(x.flatten(1, 2), 2, size)


def feed_forward(dim: int, hidden: int) -> nn.Sequential:
    """Make the two pointwise convolutions that follow an attention."""
    return nn.Sequential(Conv(dim, hidden), Conv(hidden, dim, act=False))


class PSABlock(Block):
    """Attention and feed-forward, each with a residual (YOLO11)."""

    add: bool

    def __init__(
        self, c: int, attn_ratio: float = 0.5, num_heads: int = 4, shortcut: bool = True
    ) -> None:
        super().__init__()
        self.attn = Attention(c, num_heads, attn_ratio)
        self.ffn = feed_forward(c, 2 * c)
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x) if self.add else self.attn(x)
        return x + run_module(self.ffn, x) if self.add else run_module(self.ffn, x)


class PSA(Block):
    """Attention on half of the channels (YOLOv10)."""

    c: int

    def __init__(self, c1: int, c2: int, e: float = 0.5) -> None:
        super().__init__()
        self.c = int(c1 * e)
        self.cv1 = Conv(c1, 2 * self.c)
        self.cv2 = Conv(2 * self.c, c2)
        self.attn = Attention(self.c, num_heads=max(self.c // 64, 1))
        self.ffn = feed_forward(self.c, 2 * self.c)

    def forward(self, x: Tensor) -> Tensor:
        skip, deep = split_halves(self.cv1(x))
        deep = deep + self.attn(deep)
        deep = deep + run_module(self.ffn, deep)
        return self.cv2(torch.cat((skip, deep), 1))


class C2PSA(Block):
    """A chain of `PSABlock` on half of the channels (YOLO11)."""

    c: int

    def __init__(self, c1: int, c2: int, n: int = 1, e: float = 0.5) -> None:
        super().__init__()
        self.c = int(c1 * e)
        self.cv1 = Conv(c1, 2 * self.c)
        self.cv2 = Conv(2 * self.c, c2)
        heads = max(self.c // 64, 1)
        self.m = nn.Sequential(*(PSABlock(self.c, 0.5, heads) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        skip, deep = split_halves(self.cv1(x))
        return self.cv2(torch.cat((skip, self.m(deep)), 1))


class C2fPSA(C2f):
    """A `C2f` of `PSABlock`."""

    def __init__(self, c1: int, c2: int, n: int = 1, e: float = 0.5) -> None:
        super().__init__(c1, c2, n, e=e)
        self.m = nn.ModuleList(PSABlock(self.c, 0.5, max(self.c // 64, 1)) for _ in range(n))


class C3k2(C2f):
    """A `C2f` of `C3k`, of bottlenecks, or of a bottleneck with attention (YOLO11, 12, 26)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        c3k: bool = False,
        e: float = 0.5,
        attn: bool = False,
        g: int = 1,
        shortcut: bool = True,
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        c = self.c

        def step() -> nn.Module:
            if attn:
                return nn.Sequential(
                    Bottleneck(c, c, shortcut, g), PSABlock(c, 0.5, max(c // 64, 1))
                )
            return C3k(c, c, 2, shortcut, g) if c3k else Bottleneck(c, c, shortcut, g)

        self.m = nn.ModuleList(step() for _ in range(n))


class AAttn(Block):
    """Attention within horizontal bands of the map, `area` of them (Tian et al. 2025, YOLOv12).

    Ultralytics stores one projection `qkv`, head by head; the authors' repository has `qk` (all
    queries, then all keys) and `v`.
    """

    area: int
    num_heads: int
    head_dim: int

    def __init__(self, dim: int, num_heads: int, area: int = 1) -> None:
        super().__init__()
        self.area = area
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        inner = self.head_dim * num_heads
        self.qkv = Conv(dim, 3 * inner, act=False)
        self.proj = Conv(inner, dim, act=False)
        self.pe = Conv(inner, dim, 7, 1, 3, g=dim, act=False)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        q, k, v = self.project(x)
        if self.area > 1:
            bands = attend(self.bands(q), self.bands(k), self.bands(v), self.head_dim**-0.5)
            mixed = bands.transpose(2, 3).flatten(3)
        else:
            mixed = attend(q, k, v, self.head_dim**-0.5)
        return self.proj(as_map(mixed, size) + self.pe(as_map(v, size)))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values, `[N, heads, head_dim, H*W]` each."""
        heads = (self.num_heads, self.head_dim)
        if (packed := self.child("qkv")) is not None:
            parts = (self.num_heads, 3 * self.head_dim)
            return torch.chunk(torch.unflatten(packed(x).flatten(2), 1, parts), 3, 2)
        q, k = torch.chunk(run_module(self.get_submodule("qk"), x).flatten(2), 2, 1)
        flat = (q, k, run_module(self.get_submodule("v"), x).flatten(2))
        return tuple(torch.unflatten(part, 1, heads) for part in flat)

    def bands(self, x: Tensor) -> Tensor:
        """`[N, heads, head_dim, P]` to `[N, heads, area, head_dim, P/area]`."""
        return torch.unflatten(x, 3, (self.area, -1)).transpose(2, 3)


class ABlock(Block):
    """Area attention and feed-forward, each with a residual (YOLOv12)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 1.2, area: int = 1) -> None:
        super().__init__()
        self.attn = AAttn(dim, num_heads, area)
        self.mlp = feed_forward(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + run_module(self.mlp, x)


class A2C2f(Block):
    """A chain that keeps every step, of pairs of `ABlock` or of `C3k` (YOLOv12)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        a2: bool = True,
        area: int = 1,
        residual: bool = False,
        mlp_ratio: float = 2.0,
        e: float = 0.5,
        g: int = 1,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv((1 + n) * hidden, c2)
        if a2 and residual:
            self.gamma = nn.Parameter(torch.full((c2, 1, 1), 0.01))

        def step() -> nn.Module:
            if not a2:
                return C3k(hidden, hidden, 2, shortcut, g)
            pair = (ABlock(hidden, hidden // 32, mlp_ratio, area) for _ in range(2))
            return nn.Sequential(*pair)

        self.m = nn.ModuleList(step() for _ in range(n))

    def finish(self) -> None:
        """Give the residual's factor, stored as a vector, the shape it is multiplied in."""
        gamma = self._parameters.get("gamma")
        if gamma is not None:
            self.gamma = nn.Parameter(gamma.data.view(-1, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(run_keeping(self.m, self.cv1(x)))
        gamma = self._parameters.get("gamma")
        return y if gamma is None else x + gamma * y
