"""Lowerings that reduce, search or sort along dimensions."""

# ruff: noqa: ARG001, D103  # the decorator says what is lowered, the arguments are PyTorch's

import torch
from torch import fx

from yqc.emit.arithmetic import operands
from yqc.emit.emitter import Emitter
from yqc.emit.geometry import Dims
from yqc.emit.table import LoweringTarget, lowering

AXES_OPSET = 18
"""From here on all reductions take their axes as an input; before, only ReduceSum does."""

REDUCTIONS: dict[str, tuple[LoweringTarget, ...]] = {
    "ReduceMean": (torch.mean, "mean"),
    "ReduceSum": (torch.sum, "sum"),
    "ReduceMax": (torch.amax, "amax"),
    "ReduceMin": (torch.amin, "amin"),
}


def _reduce(
    e: Emitter, node: fx.Node, op_type: str, x: fx.Node, dim: Dims | None, keepdim: bool
) -> str:
    """Reduce over some dimensions, or over all of them if `dim` is None or empty."""
    rank, dtype = len(e.shape(x)), e.specs(node)[0].dtype
    dims = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
    axes = [d % rank for d in dims] or list(range(rank))
    value = e.number(x, dtype)
    if op_type == "ReduceSum" or e.opset >= AXES_OPSET:
        return e.op(op_type, value, axes, keepdims=keepdim)
    return e.op(op_type, value, axes=axes, keepdims=keepdim)


def _register(op_type: str, targets: tuple[LoweringTarget, ...]) -> None:
    @lowering(*targets)
    def lower(
        e: Emitter,
        node: fx.Node,
        x: fx.Node,
        dim: Dims | None = None,
        keepdim: bool = False,
        dtype: torch.dtype | None = None,  # it is the node's own dtype
    ) -> str:
        return _reduce(e, node, op_type, x, dim, keepdim)


for _op_type, _targets in REDUCTIONS.items():
    _register(_op_type, _targets)


def _extreme(
    e: Emitter, node: fx.Node, kind: str, x: fx.Node, dim: fx.Node | int | None, keepdim: bool
) -> str | tuple[str, str]:
    """Lower max or min: of all, of two tensors, or along a dimension with the positions."""
    if isinstance(dim, fx.Node):
        return e.op(kind, *operands(e, x, dim))
    values = _reduce(e, node, f"Reduce{kind}", x, dim, keepdim)
    if dim is None:
        return values
    return values, e.op(f"Arg{kind}", x, axis=e.axis(x, dim), keepdims=keepdim)


def _register_extreme(kind: str, both: LoweringTarget, place: LoweringTarget) -> None:
    """Register `max` or `min` and its `argmax` or `argmin`, as functions and as methods."""

    @lowering(both, kind.lower())
    def lower(
        e: Emitter,
        node: fx.Node,
        x: fx.Node,
        dim: fx.Node | int | None = None,
        keepdim: bool = False,
    ) -> str | tuple[str, str]:
        return _extreme(e, node, kind, x, dim, keepdim)

    @lowering(place, f"arg{kind.lower()}")
    def lower_place(
        e: Emitter, _: fx.Node, x: fx.Node, dim: int | None = None, keepdim: bool = False
    ) -> str:
        if dim is None:
            e.refuse("give its dim")
        return e.op(f"Arg{kind}", x, axis=e.axis(x, dim), keepdims=keepdim)


_register_extreme("Max", torch.max, torch.argmax)
_register_extreme("Min", torch.min, torch.argmin)


@lowering(torch.topk, "topk")
def topk(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # noqa: A002
) -> tuple[str, ...]:
    return e.ops("TopK", 2, x, [k], axis=e.axis(x, dim), largest=largest, sorted=sorted)


@lowering(torch.sort, "sort")
def sort(
    e: Emitter, node: fx.Node, x: fx.Node, dim: int = -1, descending: bool = False
) -> tuple[str, ...]:
    return topk(e, node, x, e.shape(x)[dim], dim, descending)


@lowering(torch.argsort, "argsort")
def argsort(e: Emitter, node: fx.Node, x: fx.Node, dim: int = -1, descending: bool = False) -> str:
    return sort(e, node, x, dim, descending)[1]
