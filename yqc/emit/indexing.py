"""Lowerings of indexing: items of results, slices, and gathering by computed positions."""

# ruff: noqa: D103  # the decorator says what is lowered, the arguments are PyTorch's

import operator
from collections.abc import Sequence
from types import EllipsisType
from typing import TypeAlias

import torch
from torch import fx

from yqc.emit.emitter import Emitter, Operand
from yqc.emit.table import lowering

END = torch.iinfo(torch.int64).max
"""As the end of a slice: the end of the dimension."""

Index: TypeAlias = int | slice | EllipsisType | fx.Node | None


@lowering(operator.getitem)
def getitem(
    e: Emitter, node: fx.Node, x: fx.Node, index: Index | tuple[Index, ...]
) -> fx.Node | str | tuple[str, ...]:
    """Lower an item of a node with several results, or the indexing of a tensor.

    A tensor may be indexed by integers, slices with steps, `...`, `None`, and one tensor of
    integers.
    """
    value = e.values[x]
    if isinstance(value, tuple):
        item = value[index]  # type: ignore[index]  # an integer or a slice, as for any tuple
        if isinstance(item, str):
            e.name(item, node)
        return item
    whole = index if isinstance(index, tuple) else (index,)
    picks = _spread(whole, len(e.shape(x)))
    result: Operand = _slice(e, x, [p for p in picks if p is not None])
    axis = 0
    for pick in picks:
        if isinstance(pick, int):
            result = e.op("Gather", result, torch.tensor(pick), axis=axis)
            continue
        if isinstance(pick, fx.Node):
            result = _take(e, result, pick, axis, picks)
            axis += len(e.shape(pick)) - 1
        if pick is None:
            result = e.op("Unsqueeze", result, [axis])
        axis += 1
    return x if result is x else e.value(result)


def _spread(index: Sequence[Index], rank: int) -> list[int | slice | fx.Node | None]:
    """Write out `...`, so that every dimension has its own pick; `None` makes a new dimension."""
    used = sum(pick is not None and pick is not Ellipsis for pick in index)
    rest = [slice(None)] * (rank - used)
    if Ellipsis not in index:
        return [*(p for p in index if not isinstance(p, EllipsisType)), *rest]
    at = index.index(Ellipsis)
    before = [p for p in index[:at] if not isinstance(p, EllipsisType)]
    after = [p for p in index[at + 1 :] if not isinstance(p, EllipsisType)]
    return [*before, *rest, *after]


def _slice(e: Emitter, x: fx.Node, picks: Sequence[int | slice | fx.Node]) -> Operand:
    """Apply all slices that take less than everything in one Slice."""
    starts, ends, axes, steps = [], [], [], []
    for axis, pick in enumerate(picks):
        if isinstance(pick, slice) and pick != slice(None):
            bounds = (pick.start, pick.stop, pick.step)
            if any(isinstance(bound, fx.Node) for bound in bounds):
                e.refuse("a slice between computed bounds has no ONNX form here")
            if pick.start in {None, 0} and pick.stop in {None, END} and pick.step in {None, 1}:
                continue
            starts.append(pick.start or 0)
            ends.append(END if pick.stop is None else pick.stop)
            axes.append(axis)
            steps.append(pick.step or 1)
    return e.op("Slice", x, starts, ends, axes, steps) if axes else x


def _take(e: Emitter, data: Operand, index: fx.Node, axis: int, picks: Sequence[object]) -> str:
    if e.spec(index).dtype == torch.bool:
        e.refuse("the size of what a mask picks is not known beforehand; use torch.where")
    if sum(isinstance(pick, (int, fx.Node)) for pick in picks) > 1:
        e.refuse("an index tensor beside another index has no ONNX form here; use torch.gather")
    return e.op("Gather", data, index, axis=axis)


@lowering(torch.gather, "gather")
def gather(e: Emitter, _: fx.Node, x: fx.Node, dim: int, index: fx.Node) -> str:
    return e.op("GatherElements", x, index, axis=e.axis(x, dim))


@lowering(torch.index_select, "index_select")
def index_select(e: Emitter, _: fx.Node, x: fx.Node, dim: int, index: fx.Node) -> str:
    return e.op("Gather", x, index, axis=e.axis(x, dim))


@lowering(torch.select, "select")
def select(e: Emitter, _: fx.Node, x: fx.Node, dim: int, index: int) -> str:
    return e.op("Gather", x, torch.tensor(index), axis=e.axis(x, dim))


@lowering(torch.narrow, "narrow")
def narrow(e: Emitter, _: fx.Node, x: fx.Node, dim: int, start: int, length: int) -> str:
    return e.op("Slice", x, [start], [start + length], [e.axis(x, dim)])
