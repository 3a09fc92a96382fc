"""The transformer block of YOLOv5 (Dosovitskiy et al. 2020, without layer norms)."""

# ruff: noqa: D102 - the class describes forward; arguments come by place from YAML rows

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yqc.models.blocks.base import Block, chain_of, run_module
from yqc.models.blocks.conv import Conv
from yqc.models.blocks.csp import C3


class SelfAttention(Block):
    """The twin of `torch.nn.MultiheadAttention`: four linear layers around a softmax.

    Rebuilt from the packed projection; works on `[N, P, C]` and returns the mixed values alone.
    """

    embed_dim: int
    num_heads: int

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.in_proj_weight: nn.Parameter = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias: nn.Parameter = nn.Parameter(torch.zeros(3 * embed_dim))
        nn.init.xavier_uniform_(self.in_proj_weight)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def finish(self) -> None:
        """Unpack the projection into linear layers, which passes know."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            linear = nn.Linear(self.embed_dim, self.embed_dim, device="meta")
            linear.weight, linear.bias = nn.Parameter(weight.data), nn.Parameter(bias.data)
            self.add_module(name, linear)
        del self.in_proj_weight, self.in_proj_bias

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = (self.num_heads, self.embed_dim // self.num_heads)
        q, k, v = (
            torch.unflatten(x, 2, shape).transpose(1, 2)  # [N, heads, P, C/heads]
            for x in self.project(q, k, v)
        )
        weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)) / math.sqrt(shape[1]), -1)
        return run_module(self.out_proj, torch.matmul(weights, v).transpose(1, 2).flatten(2))

    def project(self, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        """Apply the three input projections."""
        inputs = (q, k, v)
        if self.child("q") is not None:
            return [
                run_module(getattr(self, name), x) for name, x in zip("qkv", inputs, strict=True)
            ]
        packed = zip(inputs, self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        return [F.linear(x, weight, bias) for x, weight, bias in packed]


class TransformerLayer(Block):
    """Self-attention and two linear layers, each with a residual; `[N, P, C]` to the same."""

    def __init__(self, c: int, num_heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(c, c, bias=False)
        self.k = nn.Linear(c, c, bias=False)
        self.v = nn.Linear(c, c, bias=False)
        self.ma = SelfAttention(c, num_heads)
        self.fc1 = nn.Linear(c, c, bias=False)
        self.fc2 = nn.Linear(c, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ma(self.q(x), self.k(x), self.v(x)) + x
        return run_module(self.fc2, self.fc1(x)) + x


class TransformerBlock(Block):
    """A learned position term and a chain of layers over the positions of a map."""

    def __init__(self, c1: int, c2: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        if c1 != c2:
            self.conv = Conv(c1, c2)
        self.linear = nn.Linear(c2, c2)
        self.tr = chain_of(num_layers, lambda: TransformerLayer(c2, num_heads))

    def forward(self, x: Tensor) -> Tensor:
        if (conv := self.child("conv")) is not None:
            x = conv(x)
        size = x.shape[-2:]
        positions = x.flatten(2).transpose(1, 2)
        y = run_module(self.tr, positions + self.linear(positions))
        return torch.unflatten(y.transpose(1, 2), 2, size)


class C3TR(C3):
    """A `C3` around a transformer block."""

    def chain(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return TransformerBlock(c, c, 4, n)
