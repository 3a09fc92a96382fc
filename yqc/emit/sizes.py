"""Heights and widths that vary: computed in the file from the shape of its input.

Which dimensions vary is known from the same graph at another input size (`yqc.graph.resizing`): a
dimension is a pair of its sizes in both.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from yqc.emit.tensors import DTYPES
from yqc.graph import TensorSpec
from yqc.graph.calls import get_attribute

Side = tuple[int, int]
"""A dimension at the traced size, and at another one."""
Operation = Callable[..., str]
"""Adds an ONNX node and returns the name of its value, as `Emitter.op`."""
SHAPE_OPSET = 15
"""From here on Shape can give a part of the shape."""


class VaryingSizes:
    """Knows the sizes of all nodes in both graphs, and writes what computes those that vary."""

    def __init__(self, gm: fx.GraphModule, other: fx.GraphModule | None, opset: int) -> None:
        self._other = dict(zip(gm.graph.nodes, other.graph.nodes, strict=True)) if other else {}
        self._held, self._opset = other, opset
        self._made: dict[object, str] = {}
        self._sources: dict[Side, tuple[str, int]] = {}
        self._image: tuple[Side, ...] = ()

    def sides(self, node: fx.Node, shape: Sequence[int]) -> list[Side]:
        """Return the dimensions of a node whose shape at the traced size is known."""
        found = self._other[node].meta.get("yqc.value") if node in self._other else None
        known = found[0] if isinstance(found, tuple) and found else found
        return list(
            zip(shape, known.shape if isinstance(known, TensorSpec) else shape, strict=True)
        )

    def is_known(self, side: Side) -> bool:
        """Return whether a tensor that was computed before has such a dimension."""
        return side in self._sources

    def note(self, node: fx.Node, value: str, shape: Sequence[int]) -> None:
        """Note a computed tensor, from whose shape sizes can be taken."""
        for axis, side in enumerate(self.sides(node, shape)):
            if side[0] != side[1]:
                self._sources.setdefault(side, (value, axis))
        if node.op == "placeholder":
            self._image = tuple(self.sides(node, shape)[2:])

    def value(self, side: Side, op: Operation) -> str:
        """Write what computes a dimension: int64 [1].

        One that is a part of the input's height or width (rounded up, as convolutions of stride 2
        do) is computed from that; other tensors need not be looked at then, and stay fusable.
        """
        if side not in self._made:
            self._made[side] = self._value(side, op)
        return self._made[side]

    def _value(self, side: Side, op: Operation) -> str:
        for whole in self._image:
            parts = whole[0] // side[0]
            if side != whole and (side[0] * parts, side[1] * parts) == whole:
                more = op("Add", self.value(whole, op), [parts - 1])
                return op("Div", more, [parts])
        source, axis = self._sources[side]
        if self._opset >= SHAPE_OPSET:
            return op("Shape", source, start=axis, end=axis + 1)
        return op("Slice", op("Shape", source), [axis], [axis + 1])

    def shape(self, sides: Sequence[Side | int], op: Operation) -> str | list[int]:
        """Return a shape: plain numbers, or the name of a value that is computed."""
        pairs = [(side, side) if isinstance(side, int) else side for side in sides]
        if all(old == new for old, new in pairs):
            return [old for old, _ in pairs]
        parts: list[str | list[int]] = []
        for old, new in pairs:
            if old != new:
                parts.append(self.value((old, new), op))
            elif parts and isinstance(last := parts[-1], list):
                last.append(old)
            else:
                parts.append([old])
        return op("Concat", *parts, axis=0) if len(parts) > 1 else str(parts[0])

    def counted(self, node: fx.Node, constant: Tensor, op: Operation) -> str | None:
        """Write a constant that counts cells along a dimension that varies; None for others."""
        sides = self.sides(node, constant.shape)
        axes = [axis for axis, (old, new) in enumerate(sides) if old != new]
        if not axes:
            return None
        longer = get_attribute(self._held, str(self._other[node].target))  # type: ignore[arg-type]
        assert isinstance(longer, Tensor)  # noqa: S101  # `resize_graph` made it
        first = constant.narrow(axes[0], 0, 1)
        step = (constant.narrow(axes[0], 1, 1).double() - first.double()).to(constant.dtype)
        side, trailing = sides[axes[0]], constant.ndim - 1 - axes[0]
        key = (side, trailing, tuple(first.flatten().tolist()), tuple(step.flatten().tolist()))
        if key not in self._made:
            zero, one = torch.tensor(0), torch.tensor(1)
            cells = op("Range", zero, op("Squeeze", self.value(side, op)), one)
            if trailing:
                cells = op("Unsqueeze", cells, list(range(1, trailing + 1)))
            cells = op("Cast", cells, to=DTYPES[constant.dtype])
            steps = op("Mul", cells, _flat(step))
            self._made[key] = op("Add", steps, _flat(first))
        return self._made[key]


def _flat(value: Tensor) -> Tensor:
    """Return a tensor of one number as a scalar."""
    return value.reshape(()) if value.numel() == 1 else value
