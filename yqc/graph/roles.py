"""Assigning each node to a part of the detector, from the structure of the graph.

    head.decode   between the last convolutions and the output: scores, boxes, grids
    head.cls      a last convolution whose output only becomes class scores, and its branch
    head.mask     one whose output is not computed with at all, beside scores that are
    head.angle    one of whose output sines are taken
    head.keypoint one whose output is computed with, and not for the box
    head.box      the other last convolutions (boxes, or boxes and scores in one), and theirs
    head.proto    what computes maps that are the second output, the prototypes of masks
    head.logits   a linear layer of whose softmax the output is, a classifier's last
    neck          what an upsampling feeds, and the side branches that join it
    backbone      the rest

Layer numbers, names and classes of blocks are not used.
"""

import operator
from collections.abc import Container, Iterable

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.graph.calls import call, is_function

KEY = "yqc.role"
ROLES = (
    *("backbone", "neck", "head.box", "head.cls", "head.decode", "head.mask", "head.proto"),
    *("head.keypoint", "head.angle", "head.logits"),
)

SOFTMAX = (torch.softmax, F.softmax)
ARITHMETIC = (
    *SOFTMAX,
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.matmul),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.exp, torch.matmul),
)
ARITHMETIC_METHODS = {"softmax", "exp", "add", "sub", "mul", "div", "pow", "matmul"}
TURNS = (torch.sin, torch.cos)
RESHAPING = {"transpose", "permute", "view", "reshape", "flatten", "contiguous"}
BOX, ROWS, MAPS = 4, 3, 4
"""Numbers of a box; dimensions of an output of rows, and of one of maps."""
UPSAMPLING = (F.interpolate, F.pixel_shuffle)


def role(node: fx.Node) -> str:
    """Return the role of a node; "backbone" for an unmarked one."""
    return str(node.meta.get(KEY, "backbone"))


def assign_roles(gm: fx.GraphModule) -> None:
    """Write `node.meta["yqc.role"]` of every node.

    A graph without a head (fewer than two last convolutions that meet in a concat, and no softmax
    of a linear layer as the output) has no `head.*` roles.
    """
    prototypes = _prototypes(gm)
    decode, last = _decode(gm, prototypes)
    found: dict[fx.Node, str] = dict.fromkeys(decode, "head.decode")
    kinds = _kinds(gm, last) if last else {}
    for node in _logits(gm) if not last else ():
        found |= {gm.graph.output_node(): "head.decode", node: "head.decode"}
        kinds[node.all_input_nodes[0]] = "head.logits"
    if prototypes is not None and last:
        found |= dict.fromkeys(_branch(prototypes), "head.proto")
    split = len(set(kinds.values())) > 1
    for node, kind in kinds.items():
        found |= dict.fromkeys(_branch(node) if split else [node], kind)
    for node in _neck(gm, set(found)):
        found[node] = "neck"
    for node in gm.graph.nodes:
        node.meta[KEY] = found.get(node, "backbone")


def _decode(gm: fx.GraphModule, but: fx.Node | None) -> tuple[set[fx.Node], list[fx.Node]]:
    """Find the nodes behind the last convolutions, and these convolutions in graph order.

    What only the output `but` is computed from is left out.
    """
    output = gm.graph.output_node()
    seen, last = {output}, set[fx.Node]()
    todo = [node for node in output.all_input_nodes if node is not but]
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


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape that a node's value was traced with; none if it is not one tensor."""
    return tuple(getattr(node.meta.get("yqc.value"), "shape", ()))


def _prototypes(gm: fx.GraphModule) -> fx.Node | None:
    """Return what computes the second output, if that is maps and the first is rows."""
    match gm.graph.output_node().args[0]:
        case (fx.Node() as rows, fx.Node() as maps):
            fits = len(_shape(rows)) == ROWS and len(_shape(maps)) == MAPS
            return maps if fits and rows is not maps else None
    return None


def _logits(gm: fx.GraphModule) -> list[fx.Node]:
    """Return the softmax that is the only output, if it is that of a linear layer."""
    found = gm.graph.output_node().args[0]
    if not isinstance(found, fx.Node) or not _is_softmax(gm, found):
        return []
    return [found] if call(gm, found.all_input_nodes[0], nn.Linear) is not None else []


def _kinds(gm: fx.GraphModule, last: Iterable[fx.Node]) -> dict[fx.Node, str]:
    """Return the role of each last convolution, by what is done with its output."""
    boxes = _box_nodes(gm)
    behind = {node: _descendants(node) for node in last}
    scored = any(_is_plain(gm, some) and _has_sigmoid(gm, some) for some in behind.values())
    kinds = {}
    for node, some in behind.items():
        if _is_plain(gm, some):
            kinds[node] = "head.mask" if scored and not _has_sigmoid(gm, some) else "head.cls"
        elif any(is_function(n, *TURNS) or _is_method(n, {"sin", "cos"}) for n in some):
            kinds[node] = "head.angle"
        else:
            kinds[node] = "head.keypoint" if boxes and not boxes & some else "head.box"
    return kinds


def _box_nodes(gm: fx.GraphModule) -> set[fx.Node]:
    """Find what boxes are computed from: the first of what the rows are joined of, 4 numbers."""
    node = next(iter(gm.graph.output_node().all_input_nodes), None)
    while node is not None and _is_method(node, RESHAPING):
        node = node.all_input_nodes[0]
    if node is None or not is_function(node, torch.cat) or not _shape(node):
        return set()
    parts, dim = node.args[0], node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    first = parts[0] if isinstance(parts, list | tuple) else None
    if not isinstance(first, fx.Node) or not isinstance(dim, int) or _shape(first)[dim] != BOX:
        return set()
    found, todo = set[fx.Node](), [first]
    while todo:
        if (node := todo.pop()) not in found:
            found.add(node)
            todo += node.all_input_nodes
    return found


def _descendants(node: fx.Node) -> set[fx.Node]:
    """Return all that is computed from a node, the node left out."""
    found, todo = set[fx.Node](), list(node.users)
    while todo:
        if (user := todo.pop()) not in found:
            found.add(user)
            todo += user.users
    return found


def _is_method(node: fx.Node, names: Container[object]) -> bool:
    return node.op == "call_method" and node.target in names


def _has_sigmoid(gm: fx.GraphModule, nodes: Iterable[fx.Node]) -> bool:
    return any(
        is_function(n, torch.sigmoid, F.sigmoid)
        or _is_method(n, {"sigmoid"})
        or call(gm, n, nn.Sigmoid) is not None
        for n in nodes
    )


def _is_softmax(gm: fx.GraphModule, node: fx.Node) -> bool:
    return (
        is_function(node, *SOFTMAX)
        or (node.op == "call_method" and node.target == "softmax")
        or call(gm, node, nn.Softmax) is not None
    )


def _is_plain(gm: fx.GraphModule, behind: Iterable[fx.Node]) -> bool:
    """Return whether there is no arithmetic and no softmax among nodes."""
    return not any(
        is_function(node, *ARITHMETIC)
        or _is_softmax(gm, node)
        or _is_method(node, ARITHMETIC_METHODS)
        for node in behind
    )


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
