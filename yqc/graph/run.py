"""Running a graph, or a part of it, and keeping what chosen nodes compute.

    values = run_graph(gm, [image], keep=[conv, gm.graph.output_node()])

Gradients are recorded or not as the caller's context says.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from torch import fx, nn
from torch.fx.node import map_arg

from yqc.graph.calls import get_attribute, has_effect

NodeValues: TypeAlias = Mapping[fx.Node, Any]
NodeFunction: TypeAlias = Callable[[fx.Node, NodeValues], Any]
"""Computes a node from the values of its inputs."""


def run_graph(
    gm: fx.GraphModule,
    inputs: Sequence[Any],
    keep: Iterable[fx.Node] = (),
    *,
    replace: Mapping[fx.Node, NodeFunction] | None = None,
    known: NodeValues | None = None,
) -> dict[fx.Node, Any]:
    """Run the part of a graph that computes some nodes, and return their values.

    Nodes are computed in graph order: those of `keep` and `replace`, what they depend on, and nodes
    with side effects before the last of them. Values are freed after their last use.

    Args:
        gm: the graph.
        inputs: a value for each placeholder; none if `known` has all that are needed.
        keep: nodes whose values are returned; `gm.graph.output_node()` for what the graph returns.
        replace: functions to call in place of computing a node; `compute_node` computes it as it
            is, so that a function can also look at a value or change it.
        known: values of nodes that are not computed.

    Returns:
        The values of the nodes in `keep`. Operations that write into a tensor may have changed it.
    """
    special: Mapping[fx.Node, NodeFunction] = replace or {}
    compute: NodeFunction = partial(compute_node, gm)
    values = dict(known or {})
    placeholders = [node for node in gm.graph.nodes if node.op == "placeholder"]
    values |= zip(placeholders, inputs, strict=bool(inputs))
    wanted = list(keep)
    kept = set(wanted)
    order = _nodes_to_compute(gm.graph, kept.union(special), values)
    finished = last_uses(order)
    for node in order:
        values[node] = special.get(node, compute)(node, values)
        for source in finished[node]:
            if source not in kept:
                del values[source]
    return {node: values[node] for node in wanted}


def compute_node(root: nn.Module, node: fx.Node, values: NodeValues) -> Any:  # noqa: ANN401  # any result
    """Compute one node, any but a placeholder, from its inputs; `root` holds its modules."""
    if node.op == "get_attr":
        return get_attribute(root, str(node.target))
    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
    if node.op == "call_module":
        return root.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    if node.op == "call_function" and callable(node.target):
        return node.target(*args, **kwargs)
    return args[0]  # output


def last_uses(order: Iterable[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Return for each of some nodes, in graph order, the inputs that no later one of them reads."""
    found: dict[fx.Node, list[fx.Node]] = {}
    seen: set[fx.Node] = set()
    for node in reversed(list(order)):
        found[node] = [source for source in node.all_input_nodes if source not in seen]
        seen.update(node.all_input_nodes)
    return found


def _nodes_to_compute(graph: fx.Graph, wanted: set[fx.Node], known: NodeValues) -> list[fx.Node]:
    """List the nodes to compute, in graph order."""
    needed: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node in known:
            continue
        effect = bool(needed) and node.op not in {"placeholder", "output"} and has_effect(node)
        if node in wanted or node in needed or effect:
            needed.update((node, *node.all_input_nodes))
    return [node for node in graph.nodes if node in needed and node not in known]
