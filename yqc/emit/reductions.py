"""Lowerings that reduce, search or sort along dimensions."""

# ruff: noqa: ARG001, D103  # the decorator says what is lowered, the arguments are PyTorch's

import math
from collections.abc import Sequence

import torch
from torch import fx

from yqc.emit.arithmetic import operands
from yqc.emit.emitter import Emitter, Operand
from yqc.emit.geometry import Dims
from yqc.emit.table import LoweringTarget, lowering

AXES_OPSET = 18
"""From here on all reductions take their axes as an input; before, only ReduceSum does."""

REDUCTIONS: dict[str, tuple[LoweringTarget, ...]] = {
    "ReduceMean": (torch.mean, "mean"),
    "ReduceSum": (torch.sum, "sum"),
    "ReduceMax": (torch.amax, "amax"),
    "ReduceMin": (torch.amin, "amin"),
    "ReduceProd": (torch.prod, "prod"),
}


def _reduce(
    e: Emitter, node: fx.Node, op_type: str, x: fx.Node, dim: Dims | None, keepdim: bool
) -> str:
    """Reduce over some dimensions, or over all of them if `dim` is None or empty."""
    rank, dtype = len(e.shape(x)), e.specs(node)[0].dtype
    dims = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
    axes = [d % rank for d in dims] or list(range(rank))
    return reduce_axes(e, op_type, e.number(x, dtype), axes, keepdim)


def reduce_axes(e: Emitter, op_type: str, value: Operand, axes: Sequence[int], keep: bool) -> str:
    """Add a reduction over axes."""
    if op_type == "ReduceSum" or e.opset >= AXES_OPSET:
        return e.op(op_type, value, list(axes), keepdims=keep)
    return e.op(op_type, value, axes=list(axes), keepdims=keep)


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
    node: fx.Node,
    x: fx.Node,
    k: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # noqa: A002
) -> tuple[str, ...]:
    axis, count = e.axis(x, dim), e.value([k])
    picked = e.sizes.sides(node, e.specs(node)[0].shape)[axis]
    if picked[0] != picked[1]:
        if e.sizes.is_known(picked):
            count = e.value(e.dims([picked]))
        else:
            count = e.op("Min", count, e.dims([e.sides(x)[axis]]))
    return e.ops("TopK", 2, x, count, axis=axis, largest=largest, sorted=sorted)


@lowering(torch.sort, "sort")
def sort(
    e: Emitter, node: fx.Node, x: fx.Node, dim: int = -1, descending: bool = False
) -> tuple[str, ...]:
    return topk(e, node, x, e.shape(x)[dim], dim, descending)


@lowering(torch.argsort, "argsort")
def argsort(e: Emitter, node: fx.Node, x: fx.Node, dim: int = -1, descending: bool = False) -> str:
    return sort(e, node, x, dim, descending)[1]


def _axes(e: Emitter, x: fx.Node, dim: Dims | None) -> list[int]:
    rank = len(e.shape(x))
    dims = range(rank) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    return [d % rank for d in dims]


@lowering(torch.var, "var")
def variance(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    dim: Dims | bool | None = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: int | None = None,
) -> str:
    """Lower the mean square of the distance from the mean, times n / (n - correction)."""
    given = None if isinstance(dim, bool) else dim
    axes = _axes(e, x, given)
    less = int(unbiased if not isinstance(dim, bool) else dim) if correction is None else correction
    count = math.prod(e.shape(x)[a] for a in axes)
    apart = e.op("Sub", x, reduce_axes(e, "ReduceMean", x, axes, True))
    found = reduce_axes(e, "ReduceMean", e.op("Mul", apart, apart), axes, keepdim)
    if not less:
        return found
    return e.op("Mul", found, e.scalar(count / max(count - less, 1), e.spec(x).dtype))


@lowering(torch.std, "std")
def deviation(e: Emitter, node: fx.Node, x: fx.Node, *args: object, **kwargs: object) -> str:
    return e.op("Sqrt", variance(e, node, x, *args, **kwargs))  # type: ignore[arg-type]


@lowering(torch.norm, "norm")
def norm(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    p: float | str = 2,
    dim: Dims | None = None,
    keepdim: bool = False,
    out: None = None,
    dtype: torch.dtype | None = None,
) -> str:
    axes = _axes(e, x, dim)
    if dtype is not None:
        e.refuse("a dtype has no ONNX form here; convert before")
    if p in {2, "fro"}:
        return e.op("Sqrt", reduce_axes(e, "ReduceSum", e.op("Mul", x, x), axes, keepdim))
    if p != 1:
        e.refuse(f"only norms 1 and 2 have an ONNX form here, not {p}")
    return reduce_axes(e, "ReduceSum", e.op("Abs", x), axes, keepdim)


@lowering(torch.cumsum, "cumsum")
def cumulative_sum(e: Emitter, _: fx.Node, x: fx.Node, dim: int) -> str:
    return e.op("CumSum", x, torch.tensor(e.axis(x, dim)))
