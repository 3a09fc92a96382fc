"""Train packed weights: float weights that are rounded when they are used, then packed again.

    uniform    w -> s * clamp(round(w / s), low - z, high - z)
    table      w -> s * t[nearest(w / s)]

Gradients pass straight through the rounding to the weight, where it does not saturate. Scales and
the entries of tables are trained, too; both stay float16 in the graph. The offsets that stand for
zero, and the number of weights that share a scale, stay as they are.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn

from yqc.graph.calls import get_attribute
from yqc.quant.weights.ops import expand_scales
from yqc.quant.weights.packing import pack, unpack, unsigned
from yqc.training.fake_quantize import Latent, Scale, latent, round_to_steps, write_tensor


class _RoundToFloat16(torch.autograd.Function):
    """Round to float16 with straight-through gradients."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        """Round float32 to float16 and widen it again."""
        return x.half().float()

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:  # noqa: ARG004
        """Pass the gradient on."""
        return grads[0]


def round_straight_through(x: Tensor) -> Tensor:
    """Round float32 to float16 and widen it again, with straight-through gradients."""
    y: Tensor = _RoundToFloat16.apply(x)  # type: ignore[no-untyped-call]
    return y


class UniformWeight(Latent):
    """Codes times a scale, counted from an offset."""

    def __init__(self, gm: fx.GraphModule, node: fx.Node) -> None:
        super().__init__()
        packed, scale, zero, self.shape, self.bits, self.block = _arguments(node)
        self.path = str(packed.target)
        stored = _tensor(gm, scale)
        self.scale = Scale(stored.float(), str(scale.target))
        self.symmetric = zero is None
        self.low = -(1 << (self.bits - 1)) if zero is None else 0
        self.high = self.low + (1 << self.bits) - 1
        offset = torch.zeros(stored.shape)
        if zero is not None:
            codes = unpack(_tensor(gm, zero), stored.numel(), self.bits)
            offset = codes.view(stored.shape).float()
        self.register_buffer("offset", offset)
        self.value = nn.Parameter(node.target(*_values(gm, node)).clone())  # type: ignore[operator]

    def forward(self) -> Tensor:
        """Return the weight as the graph unpacks it."""
        rows, scale, offset = self._rows()
        share = 1 / math.sqrt(max(1, rows.numel() // scale.numel()) * self.high)
        rounded = round_to_steps(rows, scale, self.low - offset, self.high - offset, share)
        return rounded.view(self.shape)

    def _rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weight as rows, and scale and offset of each of its values."""
        rows = self.value.reshape(self.shape[0], -1)
        scale = expand_scales(round_straight_through(self.scale()), rows.shape[1], self.block)
        offset = expand_scales(cast("Tensor", self.offset), rows.shape[1], self.block)
        return rows, scale, offset

    @torch.no_grad()
    def store(self, gm: fx.GraphModule) -> None:
        """Write codes and scale."""
        rows, scale, offset = self._rows()
        codes = ((rows / scale).round() + offset).clamp(self.low, self.high)
        integers = unsigned(codes, self.bits) if self.symmetric else codes.to(torch.uint8)
        write_tensor(gm, self.path, pack(integers, self.bits))
        write_tensor(gm, self.scale.path, self.scale().half())


class TableWeight(Latent):
    """Entries of a table times a scale."""

    def __init__(self, gm: fx.GraphModule, node: fx.Node) -> None:
        super().__init__()
        packed, table, scale, self.shape, self.bits, self.block = _arguments(node)
        self.path, self.table_path = str(packed.target), str(table.target)
        self.scale = Scale(_tensor(gm, scale).float(), str(scale.target))  # type: ignore[arg-type,union-attr]
        self.table = nn.Parameter(_tensor(gm, table).float())
        self.value = nn.Parameter(node.target(*_values(gm, node)).clone())  # type: ignore[operator]

    def forward(self) -> Tensor:
        """Return the weight as the graph looks it up."""
        rows, scale, table = self._rows()
        units = (rows / scale).detach().view(len(table), -1)
        found = table.gather(1, nearest_entries(units, table.detach())).view_as(rows)
        lowest, highest = table.detach().amin(1, keepdim=True), table.detach().amax(1, keepdim=True)
        inside = ((units >= lowest) & (units <= highest)).view_as(rows)
        straight = (rows - rows.detach()) * inside  # nothing, with the gradient of the weight
        return (found * scale + straight).view(self.shape)

    def _rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weight as rows, the scale of each of its values, and the table."""
        rows = self.value.reshape(self.shape[0], -1)
        scale = expand_scales(round_straight_through(self.scale()), rows.shape[1], self.block)
        return rows, scale, round_straight_through(self.table)

    @torch.no_grad()
    def store(self, gm: fx.GraphModule) -> None:
        """Write codes, table and scale."""
        rows, scale, table = self._rows()
        codes = nearest_entries((rows / scale).view(len(table), -1), table)
        write_tensor(gm, self.path, pack(codes.view_as(rows), self.bits))
        write_tensor(gm, self.table_path, table.half())
        write_tensor(gm, self.scale.path, self.scale().half())


def nearest_entries(x: Tensor, table: Tensor) -> Tensor:
    """Return the index [T, n] of the entry of a table [T, entries] nearest to each of x [T, n]."""
    ordered, index = table.sort(1)
    middles = (ordered[:, 1:] + ordered[:, :-1]) / 2
    return index.gather(1, torch.searchsorted(middles.contiguous(), x.contiguous()))


latent(torch.ops.yqc.unpack_uniform)(UniformWeight)
latent(torch.ops.yqc.unpack_table)(TableWeight)


def _arguments(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node | None, list[int], int, int]:
    """Return the three stored tensors, the shape, the bits and the block size."""
    first, second, third, shape, bits, block = node.args
    sizes = list(cast("Sequence[int]", shape))
    found = (first, second, third, sizes, bits, block)
    return cast("tuple[fx.Node, fx.Node, fx.Node | None, list[int], int, int]", found)


def _tensor(gm: fx.GraphModule, node: fx.Node) -> Tensor:
    return cast("Tensor", get_attribute(gm, str(node.target)))


def _values(gm: fx.GraphModule, node: fx.Node) -> list[object]:
    """Return a node's arguments with the stored tensors in place of the nodes that read them."""
    return [_tensor(gm, a) if isinstance(a, fx.Node) else a for a in node.args]
