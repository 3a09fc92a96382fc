"""Find the tensors by which two graphs are compared: raw outputs of the head, and features.

Raw outputs are those before any decoding, which gradients pass well. Their layout follows from
shapes: `split` heads give class logits and distances in different maps (roles `head.cls` and
`head.box`); `anchor` heads give both in one map, `5 + nc` numbers per anchor, as many as a row of
the decoded output has; any other output is compared number by number (`plain`).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor, fx

from yqc.errors import TraceError
from yqc.graph import TensorSpec, has_effect, role
from yqc.graph.compare import head_nodes
from yqc.graph.metadata import Kept, Swapped

HINTS = 3.0
"""Weight of all features of a graph with swapped activations together: that of three maps before a
head. Not varied: half of it follows the detections more, double the blocks' outputs."""


@dataclass(frozen=True)
class Tap:
    """One tensor to compare."""

    name: str
    """Of its node, in both graphs."""
    kind: Literal["box", "cls", "anchor", "plain", "feature"]
    numbers: int = 0
    """For an anchor head: numbers per anchor."""
    kept: Tensor | None = field(default=None, compare=False)
    """For a feature: the channels of the teacher's that it has, int64; all by default."""
    weight: float = 1.0
    """For a feature: its weight among the features."""
    centered: bool = False
    """For a feature: whether it may be off by a constant in each channel."""


def head_taps(gm: fx.GraphModule) -> list[Tap]:
    """List the raw outputs of a graph's head, or the outputs of a graph that has none.

    The box map of a level comes right before its class map.
    """
    nodes = head_nodes(gm)
    if not nodes:
        sources = gm.graph.output_node().all_input_nodes
        return [Tap(n.name, "plain") for n in sources if isinstance(_shape(n), tuple)]
    if pairs := _pairs(nodes):
        return [t for box, cls in pairs for t in (Tap(box.name, "box"), Tap(cls.name, "cls"))]
    numbers = _numbers(gm, nodes)
    return [Tap(n.name, "anchor" if numbers else "plain", numbers) for n in nodes]


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    value = node.meta.get("yqc.value")
    return value.shape if isinstance(value, TensorSpec) else None


def _pairs(nodes: Sequence[fx.Node]) -> list[tuple[fx.Node, fx.Node]]:
    """Pair the maps of boxes and classes of each level, or return nothing."""
    boxes = [n for n in nodes if role(n) == "head.box"]
    classes = [n for n in nodes if role(n) == "head.cls"]
    if len(boxes) != len(classes) or len(boxes) + len(classes) != len(nodes):
        return []
    places = [[(_shape(n) or ())[2:] for n in each] for each in (boxes, classes)]
    multiple = all(len(s := _shape(n) or ()) == 4 and s[1] % 4 == 0 for n in boxes)  # noqa: PLR2004
    return list(zip(boxes, classes, strict=True)) if places[0] == places[1] and multiple else []


def _numbers(gm: fx.GraphModule, nodes: Sequence[fx.Node]) -> int:
    """Return the numbers per anchor of an anchor head, or 0 for another one."""
    output = gm.graph.output_node().all_input_nodes
    rows = _shape(output[0]) if len(output) == 1 else None
    shapes = [_shape(n) or () for n in nodes]
    if rows is None or len(rows) != 3 or rows[2] <= 5:  # noqa: PLR2004  # [N, A, 5 + nc]
        return 0
    if any(len(s) != 4 or s[1] % rows[2] for s in shapes):  # noqa: PLR2004
        return 0
    anchors = sum(s[1] // rows[2] * s[2] * s[3] for s in shapes)
    return rows[2] if anchors == rows[1] else 0


def feature_taps(gm: fx.GraphModule, original: fx.GraphModule) -> list[Tap]:
    """List the maps that the head's branches read, where both graphs have them.

    Of a pruned map, the channels that are left are compared with the same ones of the original.
    """
    theirs = {n.name: _shape(n) for n in original.graph.nodes}
    maps = {
        source.name: source
        for node in gm.graph.nodes
        if role(node).startswith("head.")
        for source in node.all_input_nodes
        if not role(source).startswith("head.")
    }
    return [tap for source in maps.values() if (tap := _feature_tap(source, theirs)) is not None]


def _feature_tap(node: fx.Node, theirs: Mapping[str, tuple[int, ...] | None]) -> Tap | None:
    """Return the tap of a map that both graphs have, given the original's shapes, or None."""
    mine = _shape(node) or ()
    if len(mine) != 4:  # noqa: PLR2004
        return None
    kept = Kept.on(node)
    stay = None if kept is None else kept.channels
    shape = theirs.get(node.name) or ()
    wide = mine if stay is None else (mine[0], *shape[1:2], *mine[2:])
    return Tap(node.name, "feature", kept=stay) if shape == wide else None


def hint_taps(gm: fx.GraphModule, original: fx.GraphModule) -> list[Tap]:
    """List the features to compare where activations were swapped, or nothing where none was.

    These are the maps that the head's branches read, and the last swapped activation of each block:
    modules whose paths begin with the same two names. They may be off by a constant per channel,
    which the layers behind take up. Together they weigh `HINTS`.
    """
    swapped = [(node, mark) for node in gm.graph.nodes if (mark := Swapped.on(node)) is not None]
    if not swapped:
        return []
    theirs = {n.name: _shape(n) for n in original.graph.nodes}
    ends = {".".join(mark.layer.split(".")[:2]): node for node, mark in swapped}
    found = {tap.name: tap for tap in feature_taps(gm, original)}
    for node in ends.values():
        if (tap := _feature_tap(node, theirs)) is not None:
            found.setdefault(node.name, tap)
    return [replace(tap, weight=HINTS / len(found), centered=True) for tap in found.values()]


def tap_graph(
    gm: fx.GraphModule, taps: Sequence[Tap], sources: Sequence[str] = ()
) -> fx.GraphModule:
    """Make a graph that returns the tensors of taps, as a tuple; see `cut_graph`."""
    return cut_graph(gm, [tap.name for tap in taps], sources)


def cut_graph(
    gm: fx.GraphModule, ends: Sequence[str], sources: Sequence[str] = ()
) -> fx.GraphModule:
    """Make a graph of the nodes between `sources` and `ends`; it shares modules with `gm`.

    Args:
        gm: the graph.
        ends: names of the nodes whose values are returned, as a tuple.
        sources: names of the nodes whose values are the inputs, in this order; the placeholders by
            default.

    Raises:
        TraceError: `gm` has no node of an end's name.
    """
    graph = copy.deepcopy(gm.graph)
    nodes = {node.name: node for node in graph.nodes}
    if missing := [name for name in ends if name not in nodes]:
        raise TraceError(f"the graph has no node {missing[0]}, by which it is to be compared")
    given: list[fx.Node] = []
    with graph.inserting_before(next(iter(graph.nodes))):
        for name in sources:
            given.append(graph.placeholder(f"given_{name}"))
            given[-1].meta = dict(nodes[name].meta)
    for name, node in zip(sources, given, strict=True):
        nodes[name].replace_all_uses_with(node)
        nodes[name] = node
    graph.output_node().args = (tuple(nodes[name] for name in ends),)
    if sources:
        _erase_before(graph, given)
    made = fx.GraphModule(gm, graph, type(gm).__name__)
    made.graph.eliminate_dead_code(has_effect)
    made.delete_all_unused_submodules()
    made.recompile()
    return made


def _erase_before(graph: fx.Graph, given: Sequence[fx.Node]) -> None:
    """Erase placeholders other than the given ones, and the nodes that are computed from them."""
    before: dict[fx.Node, None] = {}
    for node in graph.nodes:
        old = node.op == "placeholder" and node not in given
        if old or any(source in before for source in node.all_input_nodes):
            before[node] = None
    for node in reversed(before):
        graph.erase_node(node)
