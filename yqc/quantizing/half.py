"""Compute a part of a graph in half precision: which nodes, and the conversions around them."""

import operator
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatch

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from yqc.graph import get_attribute, role
from yqc.graph.values import KEY, list_specs

COMPUTED = frozenset({"call_module", "call_function", "call_method"})
CONVERSIONS = frozenset({"to", "type", "float", "double", "half", "type_as"})
"""Methods whose result has a dtype of its own."""
IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
"""Functions that write over their first argument."""


def half_candidates(gm: fx.GraphModule) -> list[fx.Node]:
    """List the nodes that compute float32 from float32 and are no part of the decoding.

    Those that name a dtype, and yqc's own operators of integers, are left out.
    """
    return [node for node in gm.graph.nodes if node.op in COMPUTED and _is_candidate(node)]


def _is_candidate(node: fx.Node) -> bool:
    own = node.op == "call_function" and str(node.target).startswith("yqc.")
    named = any(isinstance(leaf, torch.dtype) for leaf in tree_leaves((node.args, node.kwargs)))
    fixed = named or (node.op == "call_method" and node.target in CONVERSIONS)
    reads = any(is_float32(source) for source in node.all_input_nodes)
    decodes = role(node) == "head.decode"
    return is_float32(node) and reads and not (own or fixed or decodes)


def is_float32(node: fx.Node) -> bool:
    """Return whether a node computes, or holds, float32 tensors only."""
    specs = list_specs(node.meta.get(KEY))
    return bool(specs) and all(spec.dtype == torch.float32 for spec in specs)


def spread_obstacles(
    gm: fx.GraphModule, obstacles: dict[fx.Node, str], nodes: Sequence[fx.Node]
) -> None:
    """Add obstacles until no node stays in float32 without those that it belongs together with.

    All calls of a module with weights belong together, a node that computes several tensors and its
    items, and a node that writes into its input and what computed that.
    """
    pairs = list(_inseparable_pairs(gm, nodes))
    while found := {
        (b, a)
        for pair in pairs
        for a, b in (pair, pair[::-1])
        if a in obstacles and b not in obstacles
    }:
        for node, other in found:
            obstacles[node] = f"{other} stays in float32"


def _inseparable_pairs(
    gm: fx.GraphModule, nodes: Sequence[fx.Node]
) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Yield pairs of nodes that are both in half or both in float32."""
    callers: dict[str, fx.Node] = {}
    for node in nodes:
        source = node.all_input_nodes[0]
        if source in nodes and (isinstance(source.meta[KEY], tuple) or writes_in_place(gm, node)):
            yield source, node
        if node.op == "call_module" and gm.get_submodule(str(node.target)).state_dict():
            first = callers.setdefault(str(node.target), node)
            if first is not node:
                yield first, node


def writes_in_place(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node writes its result over its first input."""
    if node.op == "call_module":
        return bool(getattr(gm.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_")
    return bool(node.kwargs.get("inplace")) or node.target in IN_PLACE


def compute_in_half(gm: fx.GraphModule, nodes: Collection[fx.Node]) -> list[fx.Node]:
    """Let nodes be computed in half, in place; return the conversions that were inserted.

    What they call becomes half; what they read is converted, once, behind the node that computes
    it, and so is what others read of them.
    """
    inside = set(nodes)
    for path in {str(node.target) for node in inside if node.op == "call_module"}:
        gm.get_submodule(path).half()
    made = []
    for node in list(gm.graph.nodes):
        if not (is_float32(node) and node.op != "output"):
            continue
        if isinstance(node.meta[KEY], tuple):  # its items are converted
            continue
        within = node in inside
        readers = {user for user in node.users if (user in inside) is not within}
        if readers and node.op == "get_attr" and readers == set(node.users):
            halve_attribute(gm, str(node.target))
        elif readers:
            made.append(
                insert_conversion(gm, node, readers, torch.float32 if within else torch.float16)
            )
    return made


def halve_attribute(gm: fx.GraphModule, path: str) -> None:
    """Round a tensor that the graph holds to half."""
    owner, _, name = path.rpartition(".")
    module, value = gm.get_submodule(owner), get_attribute(gm, path)
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, nn.Parameter(value.half(), requires_grad=False))
    elif isinstance(value, torch.Tensor):
        module.register_buffer(name, value.half())


def insert_conversion(
    gm: fx.GraphModule, node: fx.Node, readers: Collection[fx.Node], dtype: torch.dtype
) -> fx.Node:
    """Insert a conversion of what a node computes, for some of its readers."""
    kind = "half" if dtype == torch.float16 else "float"
    place = node
    while place.next.op == "placeholder":
        place = place.next
    with gm.graph.inserting_after(place):
        made = gm.graph.create_node("call_method", "to", (node, dtype), name=f"{node.name}_{kind}")
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user in readers)
    return made


def skip_reason(node: fx.Node, skip: Iterable[str]) -> str | None:
    """Return that a node was asked to stay in float32, by the path of its module, or None."""
    path = str(node.target) if node.op == "call_module" else node.name
    return "asked to skip it" if any(fnmatch(path, pattern) for pattern in skip) else None
