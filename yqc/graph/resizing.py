"""Change the input size of a traced graph, into what a trace at that size would have given.

A trace holds height and width as numbers, in the arguments of reshapes and in constants that count
cells (a row of `(i + 0.5) * stride`). They are found by running the graph on meta tensors of both
sizes: a dimension that differs between the two varies with the image.
"""

import copy
import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from yqc.errors import TraceError, YqcError, first_line
from yqc.graph.calls import get_attribute
from yqc.graph.meta_tensors import to_meta
from yqc.graph.values import KEY, Evaluator, TensorSpec, spec

Side = tuple[int, int]
"""A dimension at the traced size, and at the new one."""

RESHAPES = {
    torch.reshape,
    torch.unflatten,
    torch.flatten,
    "view",
    "reshape",
    "unflatten",
    "flatten",
}
ELEMENTWISE = {
    *(operator.add, operator.sub, operator.mul, operator.truediv),
    *(torch.add, torch.sub, torch.mul, torch.div, "add", "sub", "mul", "div"),
}
"""Operations whose constants grow with the tensor that they are combined with."""
TRIALS = (2, 3, 5, 7)
"""Sides of the size to compare with, in largest strides: the first pair that
fits. Small, so that an end-to-end head has fewer cells than the rows that it picks;
primes, so that sizes of different maps are seldom equal by chance."""


def trial_size(gm: fx.GraphModule, stride: int) -> tuple[int, int]:
    """Choose another height and width, multiples of `stride`; nor is their product as traced."""
    high, wide = _image(gm).shape[2:]
    pairs = ((h * stride, w * stride) for w, h in itertools.permutations(TRIALS, 2))
    return next((h, w) for h, w in pairs if h != high and w != wide and h * w != high * wide)


def resize_graph(gm: fx.GraphModule, size: tuple[int, int]) -> fx.GraphModule:
    """Return a graph for images of another height and width; it shares modules with `gm`.

    Nodes keep their names, so that each can be compared with the one of `gm`.

    Raises:
        TraceError: the graph is fixed to its size; the message names the node and the reason.
    """
    graph = copy.deepcopy(gm.graph)
    made = fx.GraphModule(gm, graph, type(gm).__name__)
    resizer = _Resizer(made, (_image(gm).shape[2:], size))
    for old, node in zip(gm.graph.nodes, graph.nodes, strict=True):
        try:
            resizer.resize(old, node)
        except TraceError:
            raise
        except (YqcError, RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = f"node {old.name} does not fit another size: {first_line(error)}"
            raise TraceError(f"height and width cannot vary: {reason}") from error
    made.recompile()
    return made


def find_difference(gm: fx.GraphModule, other: fx.GraphModule) -> str | None:
    """Return the first node in which two graphs of one model differ, or None.

    Operations, arguments, shapes and constants are compared; names of constants may differ.
    """
    pairs = list(zip(gm.graph.nodes, other.graph.nodes, strict=False))
    if len(gm.graph.nodes) != len(other.graph.nodes):
        return "the number of nodes"
    known = dict(pairs)
    for a, b in pairs:
        given = fx.map_arg((a.args, a.kwargs), known.__getitem__)
        same = a.op == b.op and (a.op == "output" or a.meta.get(KEY) == b.meta.get(KEY))
        if a.op == "get_attr":
            same &= _equal(get_attribute(gm, a.target), get_attribute(other, b.target))
        elif a.op != "placeholder":
            same &= a.target == b.target and _plain(given) == _plain((b.args, b.kwargs))
        if not same:
            return f"node {a.name}"
    return None


def _equal(one: object, other: object) -> bool:
    tensors = isinstance(one, Tensor) and isinstance(other, Tensor)
    return torch.equal(one, other) if tensors else one == other  # type: ignore[arg-type]


def _plain(value: object) -> object:
    """Return arguments with tuples and lists alike, and sizes as plain integers."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


def _image(gm: fx.GraphModule) -> TensorSpec:
    """Return shape and dtype of the images that a graph takes."""
    inputs = [node.meta.get(KEY) for node in gm.graph.nodes if node.op == "placeholder"]
    if len(inputs) == 1 and isinstance(inputs[0], TensorSpec) and len(inputs[0].shape) == 4:  # noqa: PLR2004
        return inputs[0]
    raise TraceError("height and width cannot vary: the graph does not take images [N,C,H,W] alone")


@dataclass
class _Resizer:
    """Evaluates the nodes of a copied graph at the new size, one after the other."""

    gm: fx.GraphModule
    sizes: tuple[Sequence[int], Sequence[int]]
    evaluator: Evaluator = field(init=False)
    merged: dict[Side, tuple[Side, ...]] = field(default_factory=dict)
    """The dimensions, in order, that each one was made of by a reshape."""
    picked: dict[int, int] = field(default_factory=dict)
    """How many are picked now in place of as many."""
    old: dict[fx.Node, TensorSpec] = field(default_factory=dict)
    """What nodes of the copy computed at the traced size."""

    def __post_init__(self) -> None:
        self.evaluator = Evaluator(self.gm)

    def resize(self, old: fx.Node, node: fx.Node) -> None:
        """Fit one node to the new sizes of its inputs, and find the size of its result."""
        if isinstance(known := old.meta.get(KEY), TensorSpec):
            self.old[node] = known
        if node.op == "placeholder":
            shape = (*self.old[node].shape[:2], *self.sizes[1])
            value = torch.empty(shape, dtype=self.old[node].dtype)
            self.evaluator.values[node] = to_meta(value)
            node.meta[KEY] = spec(value)
            return
        self._fit(node)
        self.evaluator.run(node)
        if node.op != "output":
            self._check(node)

    def sides(self, node: fx.Node) -> list[Side]:
        """Return the dimensions of a node at both sizes."""
        value = self.evaluator.values[node]
        return list(zip(self.old[node].shape, map(int, value.shape), strict=True))

    def _fit(self, node: fx.Node) -> None:
        target = node.target
        if target in ELEMENTWISE:
            for constant in node.all_input_nodes:
                if constant.op == "get_attr":
                    self._grow(constant, node)
        elif target in RESHAPES and node in self.old and isinstance(node.args[0], fx.Node):
            self._reshape(node, node.args[0])
        elif target is F.interpolate:
            self._interpolate(node)
        elif target in (torch.topk, "topk"):
            self._pick(node)

    def _check(self, node: fx.Node) -> None:
        """Refuse a dimension that varies and was 1: it cannot be told from one that is constant."""
        if node not in self.old:
            return
        if any(old == 1 != new for old, new in self.sides(node)):
            self._refuse(node, "a map has one cell; trace at a larger size")

    def _refuse(self, node: fx.Node, why: str) -> None:
        raise TraceError(f"height and width cannot vary: node {node.name}: {why}")

    def _grow(self, constant: fx.Node, user: fx.Node) -> None:
        """Continue a constant along the dimension that varies in the tensor it is combined with."""
        for other in user.all_input_nodes:
            if other.op == "get_attr" or other not in self.old:
                continue
            sides = self.sides(other)
            held = self.sides(constant)
            for axis in range(1, min(len(sides), len(held)) + 1):
                (old, new), (length, now) = sides[-axis], held[-axis]
                if length == old != new and now == length:
                    self._continue(constant, len(held) - axis, new)
                elif length == old and now != new:
                    self._refuse(constant, "it is combined with maps of different sizes")

    def _continue(self, constant: fx.Node, axis: int, count: int) -> None:
        value = get_attribute(self.gm, str(constant.target))
        if not isinstance(value, Tensor):
            self._refuse(constant, "it is no tensor")
            return
        longer = continue_progression(value, axis, count)
        if longer is None:
            self._refuse(constant, "it stores a number for each position of a map")
            return
        name = f"{str(constant.target).replace('.', '_')}_{count}"
        self.gm.register_buffer(name, longer)
        constant.target = name
        self.evaluator.run(constant)

    def _reshape(self, node: fx.Node, x: fx.Node) -> None:
        """Fit the sizes that a reshape names, and note which dimensions it merges."""
        before, after = self.sides(x), self.old[node].shape
        free, first = _written(node, len(before))
        found = self._regroup(node, before, after, free)
        if node.target in (torch.flatten, "flatten"):
            return
        new = [-1 if axis == free else side for axis, side in enumerate(found)]
        if node.target in (torch.unflatten, "unflatten"):
            count = len(after) - len(before) + 1
            node.args = (x, node.args[1], tuple(new[first : first + count]))
            node.kwargs = {}
        else:
            node.args, node.kwargs = (x, tuple(new)), {}

    def _regroup(
        self, node: fx.Node, before: Sequence[Side], after: Sequence[int], free: int | None
    ) -> list[int]:
        """Return the new shape: runs of dimensions are merged, or split into what they were."""
        found: list[int] = []
        i = j = 0
        while j < len(after) or i < len(before):
            ins, outs = [before[i]] if i < len(before) else [], list(after[j : j + 1])
            i, j = i + len(ins), j + len(outs)
            while (p := math.prod(s[0] for s in ins)) != (q := math.prod(outs)):
                if p < q:
                    ins.append(before[i])
                    i += 1
                else:
                    outs.append(after[j])
                    j += 1
            at = None if free is None or not j - len(outs) <= free < j else free - j + len(outs)
            found += self._split(node, ins, outs, at)
        return found

    def _split(
        self, node: fx.Node, ins: Sequence[Side], outs: Sequence[int], free: int | None
    ) -> list[int]:
        if all(old == new for old, new in ins):
            return list(outs)
        parts = [part for side in ins for part in self.merged.get(side, (side,))]
        total = math.prod(old for old, _ in ins), math.prod(new for _, new in ins)
        if len(outs) == 1:
            if len(parts) > 1:
                self.merged.setdefault(total, tuple(parts))
            return [total[1]]
        if free is None and (found := _regroup_parts(parts, outs)) is not None:
            return found
        # No dimensions that were merged: all but one of the results stay as they are.
        largest = max(range(len(outs)), key=outs.__getitem__) if free is None else free
        fixed = math.prod(out for k, out in enumerate(outs) if k != largest)
        if total[1] % fixed:
            self._refuse(node, f"it splits a map's {total[0]} positions into {list(outs)}")
        return [total[1] // fixed if k == largest else out for k, out in enumerate(outs)]

    def _interpolate(self, node: fx.Node) -> None:
        """Fit the size that a map is resized to, where that is the size of another map."""
        size = node.args[1] if len(node.args) > 1 else node.kwargs.get("size")
        if not isinstance(size, (tuple, list)):
            return
        new = []
        for axis, side in zip((-2, -1), size, strict=True):
            maps = (self.sides(n) for n, s in self.old.items() if self._is_map(n, s, node))
            known = {sides[axis][1] for sides in maps if sides[axis][0] == side}
            if len(known) > 1:
                self._refuse(node, f"several maps are {side} wide or high")
            new.append(known.pop() if known else side)
        node.args = (node.args[0], *node.args[2:])
        node.kwargs = {**node.kwargs, "size": tuple(new)}

    def _is_map(self, node: fx.Node, known: TensorSpec, before: fx.Node) -> bool:
        value: Any = self.evaluator.values.get(node)
        return node is not before and isinstance(value, Tensor) and len(known.shape) == 4  # noqa: PLR2004

    def _pick(self, node: fx.Node) -> None:
        """Fit how many positions are picked, where there are fewer now."""
        x, count, *rest = node.args
        if not isinstance(x, fx.Node) or not isinstance(count, int):
            return
        dim = node.kwargs.get("dim", rest[0] if rest else -1)
        old, new = self.sides(x)[dim]  # type: ignore[index]
        if old != new and count == old:
            self._refuse(node, f"it picks all {old} positions; trace at a larger size")
        node.args = (x, self.picked.setdefault(count, min(count, new)), *rest)


def _regroup_parts(parts: Sequence[Side], outs: Sequence[int]) -> list[int] | None:
    """Return the new sizes where each result is a run of the parts; None if one is not."""
    found, rest = [], list(parts)
    for out in outs:
        taken: list[Side] = []
        while rest and math.prod(old for old, _ in taken) < out:
            taken.append(rest.pop(0))
        if math.prod(old for old, _ in taken) != out:
            return None
        found.append(math.prod(new for _, new in taken))
    return found


def _written(node: fx.Node, rank: int) -> tuple[int | None, int]:
    """Return the axis that a reshape writes as -1, and the first axis whose size it names."""
    given = node.args[1:]
    if node.target in (torch.unflatten, "unflatten"):
        axis = given[0] if isinstance(given[0], int) else 0
        sizes = given[1] if len(given) > 1 else node.kwargs.get("sizes")
        first = axis % rank
    else:
        sizes, first = given[0] if given and isinstance(given[0], (tuple, list)) else given, 0
    listed = list(sizes) if isinstance(sizes, (tuple, list)) else []
    return (first + listed.index(-1) if -1 in listed else None), first


def continue_progression(value: Tensor, axis: int, count: int) -> Tensor | None:
    """Return a constant with more or fewer terms along an axis; None unless it is a progression.

    All values along the axis are `first + i * step`, exactly.
    """
    first = value.narrow(axis, 0, 1).double()
    step = value.narrow(axis, 1, 1).double() - first
    shape = [1] * value.ndim
    shape[axis] = -1

    def terms(n: int) -> Tensor:
        return (first + step * torch.arange(n, dtype=torch.float64).view(shape)).to(value.dtype)

    return terms(count) if torch.equal(terms(value.shape[axis]), value) else None


__all__ = ["continue_progression", "find_difference", "resize_graph", "trial_size"]
