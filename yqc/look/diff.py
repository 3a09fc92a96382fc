"""Compare two graphs: counts of ops, nodes, parameters, bytes of layers."""

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from yqc.look.view import View, WeightArray
from yqc.report import Shown

ROUNDING = 1e-6
"""Share of the largest value by which equal weights may differ: what folding in float32 rounds
(YOLOv8n: 3e-7). A tenth of it lists every layer of a checkpoint beside its own ONNX file; ten times
as much could hide a correction."""


@dataclass(frozen=True, kw_only=True)
class OpCount:
    """How often an ONNX op occurs on either side."""

    op: str
    before: int
    after: int

    @property
    def delta(self) -> int:
        """How many more there are."""
        return self.after - self.before


@dataclass(frozen=True, kw_only=True)
class NodeChange:
    """A node that is on one side only, or does something else there; None where it is not."""

    name: str
    ops: tuple[str, ...]
    """Its ONNX ops, on the later side if it is there."""
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class ParamChange:
    """A weight or bias that differs by more than float rounding, or is on one side only."""

    name: str
    shape_before: tuple[int, ...] | None
    shape_after: tuple[int, ...] | None
    largest: float | None
    """Largest absolute difference of the values as the layer uses them; None if shapes differ."""


@dataclass(frozen=True, kw_only=True)
class LayerBytes:
    """Bytes that a layer stores, where they differ; 0 where it is not."""

    name: str
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class Diff(Shown):
    """What differs between two graphs; nodes go by their names, ops by their ONNX names."""

    before: str
    after: str
    ops: tuple[OpCount, ...]
    nodes: tuple[NodeChange, ...]
    unified: tuple[str, ...]
    """Lines of a unified diff of the nodes, with context."""
    unpacking: tuple[int, int] = (0, 0)
    """Nodes of either side that only unpack weights: counted as ops, and not listed."""
    params: tuple[ParamChange, ...] | None = None
    """None where they were not compared."""
    bytes: tuple[LayerBytes, ...] | None = None
    """None where they were not compared."""

    @property
    def same(self) -> bool:
        """Whether nothing differs in what was compared."""
        ops = any(one.delta for one in self.ops)
        return not (ops or self.nodes or self.params or self.bytes)


def compare_views(a: View, b: View, *, context: int = 3, params: bool = False) -> Diff:
    """Compare two graphs.

    Args:
        a: the earlier one.
        b: the later one.
        context: lines around every change in the unified diff.
        params: whether to compare weights and biases too.
    """
    return Diff(
        before=a.title,
        after=b.title,
        ops=_ops(a, b),
        nodes=_nodes(a, b),
        unified=_unified(a, b, context),
        unpacking=(sum(one.unpacks for one in a.items), sum(one.unpacks for one in b.items)),
        params=_params(a.weights(), b.weights()) if params else None,
        bytes=_bytes(a, b) if params else None,
    )


def _ops(a: View, b: View) -> tuple[OpCount, ...]:
    before, after = (Counter(op for item in v.items for op in item.onnx) for v in (a, b))
    return tuple(
        OpCount(op=op, before=before[op], after=after[op]) for op in sorted({*before, *after})
    )


def _nodes(a: View, b: View) -> tuple[NodeChange, ...]:
    before, after = ({one.name: one for one in v.items if not one.unpacks} for v in (a, b))
    found = []
    for name in {**before, **after}:
        old, new = (one[name].line if name in one else None for one in (before, after))
        if old != new:
            ops = (after.get(name) or before[name]).onnx
            found.append(NodeChange(name=name, ops=ops, before=old, after=new))
    return tuple(found)


def _unified(a: View, b: View, context: int) -> tuple[str, ...]:
    before, after = ([one.line for one in v.items if not one.unpacks] for v in (a, b))
    return tuple(difflib.unified_diff(before, after, a.title, b.title, n=context, lineterm=""))


def _params(
    before: Mapping[str, WeightArray], after: Mapping[str, WeightArray]
) -> tuple[ParamChange, ...]:
    found = []
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        largest = None
        if old is not None and new is not None and old.shape == new.shape:
            difference = old.astype(np.float64) - new.astype(np.float64)
            largest = float(np.abs(difference).max(initial=0.0))
            if largest <= ROUNDING * np.abs(old).max(initial=0.0):
                continue
        found.append(
            ParamChange(
                name=name,
                shape_before=None if old is None else tuple(old.shape),
                shape_after=None if new is None else tuple(new.shape),
                largest=largest,
            )
        )
    return tuple(found)


def _bytes(a: View, b: View) -> tuple[LayerBytes, ...]:
    before, after = a.bytes_by_layer(), b.bytes_by_layer()
    return tuple(
        LayerBytes(name=name, before=before.get(name, 0), after=after.get(name, 0))
        for name in {**before, **after}
        if before.get(name, 0) != after.get(name, 0)
    )
