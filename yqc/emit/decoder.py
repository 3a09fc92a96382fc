"""Collect the nodes and tensors that decode stored weights, and store codes of few bits."""

from collections.abc import Sequence
from typing import TypeAlias

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from yqc.emit.tensors import to_onnx
from yqc.emit.wiring import take_name
from yqc.quant.weights.packing import PLANES

Attribute: TypeAlias = int | str | Sequence[int]
BYTE, NIBBLE = 8, 4
REDUCING = 18
"""The first opset in which ReduceMax takes its axes as an input."""


def sum_bits(parts: Tensor) -> Tensor:
    """Add bytes whose bits do not overlap, uint8 [parts, n] to [n]."""
    return parts.sum(0, dtype=torch.int32).to(torch.uint8)


class Decoder:
    """Nodes and tensors that are put in front of a graph; values are numbered.

    If `seeded`, simplifiers fold nothing of it: what is stored is read by a Gather whose index
    comes out of QuantizeLinear, which onnxsim 0.8.1 and onnxslim 0.1.98 leave alone and with it all
    that depends on it, and which onnxruntime 1.32 folds when it loads the file. Otherwise codes of
    4 bits are stored as UINT4, which onnxsim cannot read, and behind which OpenVINO folds.
    """

    def __init__(self, taken: set[str], opset: int, *, seeded: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[tuple[int, tuple[int, ...], bytes], TensorProto] = {}
        self.opset = opset
        self._taken, self._seeded = taken, seeded
        self._index = ""
        self._made = 0

    # Nodes.

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Attribute) -> str:
        """Add a node with one output and return its name, which is `out` or a number."""
        return self.ops(kind, [out or self._number()], *inputs, **attributes)[0]

    def ops(
        self, kind: str, outputs: Sequence[str], *inputs: str, **attributes: Attribute
    ) -> list[str]:
        """Add a node with the given outputs and return them."""
        name = outputs[0]
        made = helper.make_node(kind, list(inputs), list(outputs), name=name, **attributes)  # type: ignore[arg-type]
        self.nodes.append(made)
        return list(outputs)

    def split(self, value: str, sizes: Sequence[int]) -> list[str]:
        """Split a value along its first dimension, if into more than one."""
        if len(sizes) == 1:
            return [value]
        outputs = [self._number() for _ in sizes]
        return self.ops("Split", outputs, value, self.integers(*sizes), axis=0)

    def reshape(self, value: str, *shape: int, out: str = "") -> str:
        """Reshape a value; one dimension may be -1."""
        return self.op("Reshape", value, self.integers(*shape), out=out)

    def cast(self, value: str, dtype: int) -> str:
        """Convert a value to an ONNX element type."""
        return self.op("Cast", value, to=dtype)

    def largest_of_rows(self, value: str) -> str:
        """Return the largest value of each row of a matrix: [R, C] to [R, 1]."""
        if self.opset < REDUCING:
            return self.op("ReduceMax", value, axes=[1], keepdims=1)
        return self.op("ReduceMax", value, self.integers(1), keepdims=1)

    def ordinals(self, like: str, counts: Sequence[int]) -> str:
        """Return 0 `counts[0]` times, 1 `counts[1]` times, ...: int32 [sum of counts].

        They are computed from a value `like` of as many rows, so that nothing folds them early.
        """
        ones = self.cast(self.op("Equal", like, like), TensorProto.INT32)
        place = self.op("CumSum", ones, self.number(0, torch.int32))
        ends = torch.tensor(counts, dtype=torch.int32).cumsum(0, dtype=torch.int32)[:-1]
        column = self.reshape(place, -1, 1)
        behind = self.op("Greater", column, self.tensor(ends.view(1, -1)))
        whole = self.cast(behind, TensorProto.INT32)
        return self.op("ReduceSum", whole, self.integers(1), keepdims=0)

    # Tensors.

    def tensor(self, value: Tensor, name: str = "", dtype: int | None = None) -> str:
        """Store a tensor once, by content, and return its name."""
        made = to_onnx(value, "", dtype)
        key = (made.data_type, tuple(made.dims), made.raw_data)
        if key not in self.tensors:
            made.name = take_name(self._taken, name) if name else self._number()
            self.tensors[key] = made
        return self.tensors[key].name

    def integers(self, *values: int) -> str:
        """Store a vector of int64."""
        return self.tensor(torch.tensor(values, dtype=torch.int64))

    def number(self, value: float, dtype: torch.dtype = torch.float32) -> str:
        """Store one number."""
        return self.tensor(torch.tensor(value, dtype=dtype))

    def stored(self, value: Tensor, name: str) -> str:
        """Store a tensor behind the seed, if there is one."""
        if not self._seeded:
            return self.tensor(value, name)
        if not self._index:
            seed = self.op("QuantizeLinear", self.number(0.0), self.number(1.0))
            self._index = self.cast(seed, TensorProto.INT64)
        return self.op("Gather", self.tensor(value.unsqueeze(0), name), self._index, axis=0)

    # Codes.

    def bits_of(self, values: Tensor, bits: int, name: str) -> str:
        """Store codes of `bits` bits, uint8 [n], n a multiple of 8; return a value uint8 [n].

        The widths are those of `PLANES`, and codes that share a byte lie n / (codes a byte) apart:
        a broadcast mask and shift take all of them out at once.
        """
        left, total = bits, ""
        for width in PLANES[bits]:
            left -= width
            part = (values >> left) & ((1 << width) - 1)
            plane = self._folded(part, width, f"{name}.{width}" if width < bits else name)
            if left:
                plane = self.op("BitShift", plane, self._byte(left), direction="LEFT")
            total = self.op("BitwiseOr", total, plane) if total else plane
        return total

    def _folded(self, values: Tensor, width: int, name: str) -> str:
        if width == BYTE:
            return self.stored(values, name)
        shifts = torch.arange(0, BYTE, width, dtype=torch.uint8).view(-1, 1)
        held = self.stored(sum_bits(values.view(len(shifts), -1) << shifts), name)
        masks = self.tensor(torch.full_like(shifts, (1 << width) - 1) << shifts)
        kept = self.op("BitwiseAnd", held, masks)
        cut = self.op("BitShift", kept, self.tensor(shifts), direction="RIGHT")
        return self.reshape(cut, -1)

    def codes(self, values: Tensor, bits: int, name: str) -> str:
        """Store codes of `bits` bits, uint8 [n], in planes; return a value uint8 [n].

        The planes are those of `PLANES`. A plane of width w is stored in cells of 8 bits (UINT4: of
        4 bits), each of which holds 8 / w codes that lie n * w / 8 codes apart. n must be a
        multiple of 8.
        """
        left, total = bits, ""
        for width in PLANES[bits]:
            left -= width
            part = (values >> left) & ((1 << width) - 1)
            plane = self._plane(part, width, f"{name}.{width}" if width < bits else name)
            if left:
                plane = self.op("BitShift", plane, self._byte(left), direction="LEFT")
            total = self.op("BitwiseOr", total, plane) if total else plane
        return total

    def _plane(self, values: Tensor, width: int, name: str) -> str:
        if width == BYTE:
            return self.stored(values, name)
        cell = BYTE if self._seeded else NIBBLE
        shifts = range(0, cell, width)
        parts = values.view(len(shifts), -1)
        cells = torch.zeros_like(parts[0])
        for part, shift in zip(parts, shifts, strict=True):
            cells = cells | (part << shift)
        if self._seeded:
            held = self.stored(cells, name)
        else:
            held = self.cast(self.tensor(cells, name, TensorProto.UINT4), TensorProto.UINT8)
        if width == cell:
            return held
        return self.op("Concat", *(self._cut(held, at, width) for at in shifts), axis=0)

    def _cut(self, cells: str, at: int, width: int) -> str:
        """Return the bits from `at` on of each cell.

        The others are masked out before the shift: OpenVINO 2026.4 divides and may round up.
        """
        kept = self.op("BitwiseAnd", cells, self._byte(((1 << width) - 1) << at))
        return self.op("BitShift", kept, self._byte(at), direction="RIGHT") if at else kept

    def _byte(self, value: int) -> str:
        return self.number(value, torch.uint8)

    def _number(self) -> str:
        self._made += 1
        return take_name(self._taken, f"w.{self._made}")
