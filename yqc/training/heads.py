"""Find the tensors by which two graphs are compared: raw outputs of the head, and features.

Raw outputs are those before any decoding, which gradients pass well. Their layout follows from
shapes: `split` heads give class logits and distances in different maps (roles `head.cls` and
`head.box`), and what else a task's detections have in further ones (`head.mask`, `head.keypoint`,
`head.angle`); `anchor` heads give all in one map, as many numbers per anchor as a row of the
decoded output has. Prototypes of masks and a classifier's logits are maps of their own. Any other
output is compared number by number (`plain`).
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


TapKind = Literal[
    "box", "cls", "mask", "keypoint", "angle", "anchor", "proto", "logits", "plain", "feature"
]
"""What a tensor to compare is; the first five are maps of a level."""
EXTRAS: dict[str, TapKind] = {
    "head.mask": "mask",
    "head.keypoint": "keypoint",
    "head.angle": "angle",
}
"""Maps of a level beside those of boxes and classes, by their roles."""


@dataclass(frozen=True)
class Tap:
    """One tensor to compare."""

    name: str
    """Of its node, in both graphs."""
    kind: TapKind
    numbers: int = 0
    """Numbers per anchor of an anchor head; of a map of keypoints, numbers of each."""
    coefficients: int = 0
    """For an anchor head: mask coefficients of an anchor, the last of its numbers."""
    kept: Tensor | None = field(default=None, compare=False)
    """For a feature: the channels of the teacher's that it has, int64; all by default."""
    weight: float = 1.0
    """For a feature: its weight among the features."""
    centered: bool = False
    """For a feature: whether it may be off by a constant in each channel."""


def head_taps(gm: fx.GraphModule) -> list[Tap]:
    """List the raw outputs of a graph's head, or the outputs of a graph that has none.

    The other maps of a level come right before its class map, the prototypes of masks last.
    """
    nodes = [node for node in head_nodes(gm) if role(node) != "head.proto"]
    if not nodes:
        sources = gm.graph.output_node().all_input_nodes
        return [Tap(n.name, "plain") for n in sources if isinstance(_shape(n), tuple)]
    if all(role(node) == "head.logits" for node in nodes):
        return [Tap(node.name, "logits") for node in nodes]
    outputs = gm.graph.output_node().all_input_nodes
    prototypes = [node for node in outputs if role(node) == "head.proto"]
    taps = _level_taps(nodes)
    if not taps:
        coefficients = sum((_shape(node) or (0, 0))[1] for node in prototypes)
        numbers = _numbers(gm, nodes)
        kind: TapKind = "anchor" if numbers else "plain"
        taps = [Tap(n.name, kind, numbers, coefficients) for n in nodes]
    return taps + [Tap(node.name, "proto") for node in prototypes]


def find_confidence(taps: Sequence[Tap], tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the highest class probability at each position of a level, [N, h, w].

    It is the same for all taps of a level, and stands under the name of each; tensors are those of
    the taps.
    """
    found: dict[str, Tensor] = {}
    sure: Tensor | None = None
    for tap, tensor in zip(reversed(taps), reversed(tensors), strict=True):
        if tap.kind == "cls":
            sure = tensor.detach().float().sigmoid().amax(1)
        if sure is not None and tap.kind in {"box", "cls", *EXTRAS.values()}:
            found[tap.name] = sure
    return found


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    value = node.meta.get("yqc.value")
    return value.shape if isinstance(value, TensorSpec) else None


def _level_taps(nodes: Sequence[fx.Node]) -> list[Tap]:
    """List the taps of a head with separate maps, level by level, or nothing for another head."""
    by_role: dict[str, list[fx.Node]] = {}
    for node in nodes:
        by_role.setdefault(role(node), []).append(node)
    boxes, classes = by_role.pop("head.box", []), by_role.pop("head.cls", [])
    if not boxes or not by_role.keys() <= EXTRAS.keys():
        return []
    rows = [boxes, *by_role.values(), classes]
    places = [[(_shape(n) or ())[2:] for n in row] for row in rows]
    multiple = all(len(s := _shape(n) or ()) == 4 and s[1] % 4 == 0 for n in boxes)  # noqa: PLR2004
    if not multiple or any(each != places[0] for each in places):
        return []
    kinds: list[TapKind] = ["box", *(EXTRAS[name] for name in by_role), "cls"]
    return [
        Tap(node.name, kind, _keypoint_numbers(node) if kind == "keypoint" else 0)
        for level in zip(*rows, strict=True)
        for kind, node in zip(kinds, level, strict=True)
    ]


def _keypoint_numbers(node: fx.Node) -> int:
    """Return how many numbers a keypoint has, by the shape in which the decoding reads the map."""
    count = (_shape(node) or (0, 0))[1]
    while (shape := _shape(node)) is not None and shape[1] == count and node.users:
        node = next(iter(node.users))
    shape = _shape(node) or ()
    split = len(shape) > 3 and shape[1] * shape[2] == count  # noqa: PLR2004  # [N, K, D, ...]
    return shape[2] if split else 2


def _numbers(gm: fx.GraphModule, nodes: Sequence[fx.Node]) -> int:
    """Return the numbers per anchor of an anchor head, or 0 for another one."""
    output = [n for n in gm.graph.output_node().all_input_nodes if role(n) != "head.proto"]
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
    """Return the tap of a map that both graphs have, given the original's shapes, or None.

    Where the node computes no map, it is that of the map which it is computed from.
    """
    while len(mine := _shape(node) or ()) != 4 or mine[2:] == (1, 1):  # noqa: PLR2004
        if len(node.all_input_nodes) != 1:
            return None
        node = node.all_input_nodes[0]  # a classifier's linear layer reads the mean of a map
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
