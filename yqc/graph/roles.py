"""Assigning each node to a part of the detector, from the structure of the graph.

    head.decode   between the last convolutions and the output: scores, boxes, grids
    head.cls      a last convolution whose output only becomes class scores, and its branch
    head.box      the other last convolutions (boxes, or boxes and scores in one), and theirs
    neck          what an upsampling feeds, and the side branches that join it
    backbone      the rest

Layer numbers, names and classes of blocks are not used.
"""

import operator
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.graph.calls import call, is_function

KEY = "yqc.role"
ROLES = ("backbone", "neck", "head.box", "head.cls", "head.decode")

SOFTMAX = (torch.softmax, F.softmax)
ARITHMETIC = (
    *SOFTMAX,
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.matmul),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.exp, torch.matmul),
)
ARITHMETIC_METHODS = {"softmax", "exp", "add", "sub", "mul", "div", "pow", "matmul"}
UPSAMPLING = (F.interpolate, F.pixel_shuffle)


def role(node: fx.Node) -> str:
    """Return the role of a node; "backbone" for an unmarked one."""
    return str(node.meta.get(KEY, "backbone"))


def assign_roles(gm: fx.GraphModule) -> None:
    """Write `node.meta["yqc.role"]` of every node.

    A graph without a detection head (fewer than two last convolutions that meet in a concat) has
    no `head.*` roles.
    """
    decode, last = _decode(gm)
    found: dict[fx.Node, str] = dict.fromkeys(decode, "head.decode")
    kinds = {node: "head.cls" if _is_score(gm, node) else "head.box" for node in last}
    split = len(set(kinds.values())) > 1
    for node, kind in kinds.items():
        found |= dict.fromkeys(_branch(node) if split else [node], kind)
    for node in _neck(gm, set(found)):
        found[node] = "neck"
    for node in gm.graph.nodes:
        node.meta[KEY] = found.get(node, "backbone")


def _decode(gm: fx.GraphModule) -> tuple[set[fx.Node], list[fx.Node]]:
    """Find the nodes behind the last convolutions, and these convolutions in graph order."""
    output = gm.graph.output_node()
    seen, last, todo = {output}, set[fx.Node](), list(output.all_input_nodes)
    while todo:
        node = todo.pop()
        if node in seen or node in last:
            continue
        if _is_convolution(gm, node):
            last.add(node)
        elif node.op != "placeholder":
            seen.add(node)
            todo += node.all_input_nodes
    if len(last) < 2 or not any(is_function(n, torch.cat) for n in seen):  # noqa: PLR2004
        return set(), []
    return seen, sorted(last)


def _is_convolution(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Check for a convolution or linear layer, but not one that averages a softmax (DFL)."""
    if call(gm, node, (nn.Conv2d, nn.Linear)) is None:
        return False
    source = node.all_input_nodes[0]
    while source.op == "call_method" and source.target in {"transpose", "permute", "view"}:
        source = source.all_input_nodes[0]
    return not _is_softmax(gm, source)


def _is_softmax(gm: fx.GraphModule, node: fx.Node) -> bool:
    return (
        is_function(node, *SOFTMAX)
        or (node.op == "call_method" and node.target == "softmax")
        or call(gm, node, nn.Softmax) is not None
    )


def _is_score(gm: fx.GraphModule, last: fx.Node) -> bool:
    """Check that no arithmetic and no softmax follows a last convolution."""
    todo, seen = list(last.users), set[fx.Node]()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if is_function(node, *ARITHMETIC) or _is_softmax(gm, node):
            return False
        if node.op == "call_method" and node.target in ARITHMETIC_METHODS:
            return False
        todo += node.users
    return True


def _branch(last: fx.Node) -> list[fx.Node]:
    """Walk back from a last convolution as far as nothing else uses what is computed."""
    branch, node = {last}, last.prev
    while node.op != "root":  # each node comes after all its users when walking back
        if node.op != "placeholder" and node.users and branch.issuperset(node.users):
            branch.add(node)
        node = node.prev
    return sorted(branch)


def _neck(gm: fx.GraphModule, head: set[fx.Node]) -> set[fx.Node]:
    neck: set[fx.Node] = set()
    for node in gm.graph.nodes:
        grows = is_function(node, *UPSAMPLING) or call(gm, node, (nn.Upsample, nn.ConvTranspose2d))
        if node not in head and (grows or any(n in neck for n in node.all_input_nodes)):
            neck.add(node)
    return neck | _laterals(neck)


def _laterals(neck: Iterable[fx.Node]) -> set[fx.Node]:
    """Find the single-user chains that lead from a node with several users into the neck."""
    found: set[fx.Node] = set()
    inside = set(neck)
    for node in inside:
        for source in node.all_input_nodes:
            chain: list[fx.Node] = []
            while source not in inside and len(source.users) == 1 and source.all_input_nodes:
                chain.append(source)
                source = source.all_input_nodes[0]  # noqa: PLW2901  # walking back
            if source not in inside and len(source.users) > 1:
                found |= set(chain)
    return found
