"""Lowerings that only rearrange: reshape, transpose, join, split.

A reshape is written so that it holds for any batch size. The dimensions in front that stay as they
are become 0 ("copy"). Of the others, the one that PyTorch infers is -1, or the first
one if a batch dimension was merged into it or split off it.
"""

# ruff: noqa: ARG001, D103  # the decorator says what is lowered, the arguments are PyTorch's

import builtins
from collections.abc import Sequence

import torch
from torch import fx

from yqc.emit.emitter import Emitter
from yqc.emit.table import lowering


@lowering("view", "reshape", torch.reshape, "view_as", "reshape_as")
def reshape(
    e: Emitter, node: fx.Node, x: fx.Node, *shape: int | Sequence[int] | fx.Node, **_: object
) -> fx.Node | str:
    if shape and isinstance(shape[0], torch.dtype):
        e.refuse("a view in another dtype has no ONNX form")
    wanted: Sequence[object] = shape
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        wanted = shape[0]
    inferred = wanted.index(-1) if -1 in wanted else None
    return _reshape(e, node, x, inferred)


def _reshape(e: Emitter, node: fx.Node, x: fx.Node, inferred: int | None = None) -> fx.Node | str:
    before, after = e.sides(x), e.sides(node)
    if after == before:
        return x
    if 0 in e.shape(node) or not after:
        return e.op("Reshape", x, torch.tensor(e.shape(node), dtype=torch.int64), allowzero=1)
    kept = 0
    while kept < min(len(before), len(after)) and before[kept] == after[kept]:
        kept += 1
    shape = [0] * kept + list(after[kept:])
    if kept < len(after):
        free = inferred if inferred is not None and inferred >= kept > 0 else kept
        varying = [axis for axis in range(kept, len(after)) if after[axis][0] != after[axis][1]]
        shape[varying[-1] if varying and kept else free] = -1
    return e.op("Reshape", x, e.dims(shape))


@lowering(torch.flatten, torch.nn.Flatten, "flatten")
@lowering(torch.unflatten, torch.nn.Unflatten, "unflatten")
def reshape_by_result(
    e: Emitter, node: fx.Node, x: fx.Node, *_: object, **__: object
) -> fx.Node | str:
    """Lower what differs from a reshape only in how the new shape is written."""
    return _reshape(e, node, x)


@lowering(torch.squeeze, "squeeze")
def squeeze(
    e: Emitter, node: fx.Node, x: fx.Node, dim: int | Sequence[int] | None = None
) -> fx.Node | str:
    shape = e.shape(x)
    if len(shape) == len(e.shape(node)):
        return x
    asked = range(len(shape)) if dim is None else [dim] if isinstance(dim, int) else dim
    return e.op("Squeeze", x, sorted(d % len(shape) for d in asked if shape[d] == 1))


@lowering(torch.unsqueeze, "unsqueeze")
def unsqueeze(e: Emitter, node: fx.Node, x: fx.Node, dim: int) -> str:
    return e.op("Unsqueeze", x, [e.axis(node, dim)])


def _numbers(given: Sequence[int | Sequence[int]]) -> list[int]:
    """Return sizes that may be given one by one or as one list."""
    return [int(n) for item in given for n in ([item] if isinstance(item, int) else item)]


@lowering(torch.permute, "permute")
def permute(e: Emitter, _: fx.Node, x: fx.Node, *dims: int | Sequence[int]) -> str:
    return e.op("Transpose", x, perm=[e.axis(x, d) for d in _numbers(dims)])


@lowering(torch.transpose, "transpose", torch.swapaxes, "swapaxes")
def transpose(e: Emitter, _: fx.Node, x: fx.Node, dim0: int, dim1: int) -> str:
    order = list(range(len(e.shape(x))))
    first, second = e.axis(x, dim0), e.axis(x, dim1)
    order[first], order[second] = second, first
    return e.op("Transpose", x, perm=order)


@lowering("t", torch.t)
def matrix_transpose(e: Emitter, node: fx.Node, x: fx.Node) -> str:
    return transpose(e, node, x, -2, -1)


@lowering(builtins.getattr)
def tensor_attribute(e: Emitter, node: fx.Node, x: fx.Node, name: str) -> str:
    if name not in {"T", "mT"}:
        e.refuse(f"the attribute {name} of a tensor has no ONNX form")
    return transpose(e, node, x, -2, -1)


@lowering("expand", "expand_as", torch.broadcast_to, "broadcast_to")
def expand(e: Emitter, node: fx.Node, x: fx.Node, *_: object) -> fx.Node | str:
    """Lower an expansion; a dimension that keeps its size is written 1, so the batch may vary."""
    before, after = e.sides(x), e.sides(node)
    if before == after:
        return x
    before = [*[(1, 1)] * (len(after) - len(before)), *before]
    sizes = [1 if b == a else a for b, a in zip(before, after, strict=True)]
    return e.op("Expand", x, e.dims(sizes))


@lowering("repeat", "tile", torch.tile)
def repeat(e: Emitter, _: fx.Node, x: fx.Node, *repeats: int | Sequence[int]) -> str:
    counts = _numbers(repeats)
    rank = len(e.shape(x))
    counts = [1] * (rank - len(counts)) + counts
    new = len(counts) - rank
    return e.op("Tile", e.op("Unsqueeze", x, list(range(new))) if new else x, counts)


@lowering(torch.cat, torch.concat)
def cat(
    e: Emitter, node: fx.Node, tensors: fx.Node | Sequence[fx.Node], dim: int = 0
) -> fx.Node | str:
    if isinstance(tensors, fx.Node):
        parts = e.items(tensors)
    else:
        dtype = e.spec(node).dtype
        parts = [e.number(part, dtype) for part in tensors if e.shape(part) != (0,)]
    if len(parts) == 1:
        return parts[0]
    return e.op("Concat", *parts, axis=e.axis(node, dim))


@lowering(torch.stack)
def stack(e: Emitter, node: fx.Node, tensors: fx.Node | Sequence[fx.Node], dim: int = 0) -> str:
    axis = e.axis(node, dim)
    parts = [e.op("Unsqueeze", part, [axis]) for part in e.items(tensors)]
    return e.op("Concat", *parts, axis=axis)


@lowering(torch.chunk, "chunk", torch.split, "split", "split_with_sizes", torch.tensor_split)
@lowering("tensor_split")
def split(
    e: Emitter, node: fx.Node, x: fx.Node, sizes: int | Sequence[int], dim: int = 0
) -> tuple[str, ...]:
    """Lower every way of cutting to a Split with explicit sizes: those of the results."""
    axis = e.axis(x, dim)
    if len(set(e.sides(x)[axis])) > 1:
        e.fixed(x, "a map is cut into parts of fixed sizes")
    parts = [spec.shape[axis] for spec in e.specs(node)]
    return e.ops("Split", len(parts), x, parts, axis=axis)


@lowering(torch.unbind, "unbind")
def unbind(e: Emitter, node: fx.Node, x: fx.Node, dim: int = 0) -> tuple[str, ...]:
    axis = e.axis(x, dim)
    count = len(e.specs(node))
    return tuple(e.op("Gather", x, torch.tensor(i), axis=axis) for i in range(count))
