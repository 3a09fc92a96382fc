"""Lowerings that reduce or sort along dimensions."""

from collections.abc import Sequence

import torch
from torch import fx

from yqc.emit.arithmetic import operands
from yqc.emit.emitter import Emitter
from yqc.emit.geometry import Ints
from yqc.emit.table import Target, lowering

AXES_OPSET = 18
"""From here on all reductions take their axes as an input; before, only ReduceSum does."""

REDUCTIONS: dict[str, tuple[Target, ...]] = {
    "ReduceMean": (torch.mean, "mean"),
    "ReduceSum": (torch.sum, "sum"),
    "ReduceMax": (torch.amax, "amax"),
    "ReduceMin": (torch.amin, "amin"),
}


def reduce(e: Emitter, op_type: str, x: fx.Node, dim: Ints | None, keepdim: bool) -> str:
    """Reduce over some dimensions, or over all of them if `dim` is None or empty."""
    rank = len(e.shape(x))
    dims = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
    axes = [d % rank for d in dims] or list(range(rank))
    if op_type == "ReduceSum" or e.opset >= AXES_OPSET:
        return e.op(op_type, x, axes, keepdims=keepdim)
    return e.op(op_type, x, axes=axes, keepdims=keepdim)


def _register(op_type: str, targets: Sequence[Target]) -> None:
    @lowering(*targets)
    def lower(
        e: Emitter,
        node: fx.Node,
        x: fx.Node,
        dim: Ints | None = None,
        keepdim: bool = False,
        dtype: torch.dtype | None = None,  # noqa: ARG001  # it is the node's own dtype
    ) -> str:
        want = e.spec(node).dtype
        if e.spec(x).dtype == want:
            return reduce(e, op_type, x, dim, keepdim)
        rank, value = len(e.shape(x)), e.number(x, want)
        return _reduce(e, op_type, value, rank, dim, keepdim)


