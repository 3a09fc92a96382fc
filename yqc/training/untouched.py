"""Find the nodes of a rewritten graph that compute exactly what they do in the original.

They need no training and are computed once for both graphs. In a detector that was pruned behind
its backbone, that is the backbone, where most of a step's time would go.
"""

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, fx, nn

from yqc.graph import has_effect
from yqc.graph.calls import get_attribute

COUNT = "num_batches_tracked"


def find_sources(gm: fx.GraphModule, same: Collection[str], ends: Iterable[str]) -> list[str]:
    """Find the last shared nodes before the nodes to compute, shared or not, in graph order.

    These are the placeholders if nothing is shared.
    """
    found, wanted = set[str](), set(ends)
    left = [node for node in gm.graph.nodes if node.name in wanted]
    seen = set(left)
    while left:
        node = left.pop()
        if node.name in same or node.op == "placeholder":
            found.add(node.name)
            continue
        new = set(node.all_input_nodes) - seen
        seen |= new
        left.extend(new)
    return [node.name for node in gm.graph.nodes if node.name in found]


def find_untouched(gm: fx.GraphModule, original: fx.GraphModule) -> set[str]:
    """Find the nodes that compute what the node of the same name in the original does.

    No other node calls their modules or writes into their results. Returns their names.
    """
    theirs = {node.name: node for node in original.graph.nodes}
    same: dict[fx.Node, bool] = {}
    for node in gm.graph.nodes:
        twin = theirs.get(node.name)
        same[node] = twin is not None and _alike(gm, node, original, twin)
    while True:
        for node in gm.graph.nodes:
            same[node] = same[node] and all(same[n] for n in node.all_input_nodes)
        wrong = _entangled(gm, same)
        if not wrong:
            return {node.name for node, equal in same.items() if equal}
        same |= dict.fromkeys(wrong, False)


def _alike(gm: fx.GraphModule, node: fx.Node, original: fx.GraphModule, twin: fx.Node) -> bool:
    """Return whether two nodes do the same to inputs of the same names."""
    written = [(n.op, n.target, str((n.args, n.kwargs))) for n in (node, twin)]
    if node.op == "output" or written[0] != written[1]:
        return False
    if node.op not in {"call_module", "get_attr"}:
        return True
    one, other = (get_attribute(g, str(node.target)) for g in (gm, original))
    if isinstance(one, nn.Module) and repr(one) != repr(other):
        return False
    mine, theirs = _values(one), _values(other)
    return mine.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in mine.items())


def _values(held: object) -> dict[str, Tensor]:
    """Return the tensors that decide the result, without the number of batches of a norm."""
    if isinstance(held, nn.Module):
        return {k: v for k, v in held.state_dict().items() if not k.endswith(COUNT)}
    return {"": held} if isinstance(held, Tensor) else {}


def _entangled(gm: fx.GraphModule, same: dict[fx.Node, bool]) -> list[fx.Node]:
    """List untouched nodes whose tensors or results another node trains or changes."""
    trained = {i for node, equal in same.items() if not equal for i in _held(gm, node)}
    return [
        node
        for node, equal in same.items()
        if equal
        and (
            not trained.isdisjoint(_held(gm, node))
            or any(not same[user] and _writes(gm, user) for user in node.users)
        )
    ]


def _held(gm: fx.GraphModule, node: fx.Node) -> set[int]:
    """Return the identities of the parameters and buffers that a node reads."""
    if node.op not in {"call_module", "get_attr"}:
        return set()
    held = get_attribute(gm, str(node.target))
    if isinstance(held, nn.Module):
        return {id(t) for t in (*held.parameters(), *held.buffers())}
    return {id(held)}


def _writes(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node changes a tensor that it reads."""
    module = gm.get_submodule(str(node.target)) if node.op == "call_module" else None
    in_place = node.kwargs.get("inplace", False) or getattr(module, "inplace", False)
    return bool(in_place) or (node.op != "output" and has_effect(node))
