"""How much noise in each channel of a tensor matters to the convolutions that read it.

Independent noise of variance v_c in channel c of x adds, over all outputs of W * x, noise of energy
sum_c v_c sum_{o,k} W[o,c,k]^2. Divided by the energy of the convolution's output, that is the
inverse of its signal-to-noise ratio. A tensor whose large values meet small weights can be clipped
where that helps the rest, which the plain mean squared error of the tensor does not see.
"""

import torch
from torch import Tensor, fx, nn

from yqc.graph import call, is_function
from yqc.graph.metadata import BatchNorm
from yqc.quant.datafree import channels, part_of
from yqc.quant.observer import Observer
from yqc.quant.placement import hands_on, is_addition


def importance(gm: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """Tell the importance of each channel of every tensor that reaches a convolution.

    Returns:
        float32 [C] for each node; nodes that reach no convolution through additions, concats,
        poolings and splits are left out.
    """
    known: dict[fx.Node, Tensor] = {}
    for node in reversed(gm.graph.nodes):
        conv = call(gm, node, nn.Conv2d)
        if conv is not None:
            _add(known, node.all_input_nodes[0], _of_convolution(conv.module, node))
        elif node in known and node.op != "placeholder":
            _hand_back(gm, node, known)
    return known


def _of_convolution(conv: nn.Conv2d, node: fx.Node) -> Tensor:
    weight = conv.weight.detach()
    energy = weight.square().sum((2, 3))
    bn = node.meta.get("yqc.bn")
    signal = bn.scale.square().mean() if isinstance(bn, BatchNorm) else energy.sum(1).mean()
    groups = conv.groups
    by_group = energy.view(groups, conv.out_channels // groups, -1).sum(1)
    return by_group.reshape(-1) / signal.clamp(min=1e-12)


def _hand_back(gm: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Tensor]) -> None:
    """Pass a node's importance on to what it reads."""
    mine = known[node]
    if is_function(node, torch.cat):
        first = 0
        for source in node.args[0]:  # type: ignore[union-attr]  # a list of nodes
            count = channels(source.meta["yqc.value"])  # type: ignore[union-attr]
            _add(known, source, mine.narrow(0, first, count))  # type: ignore[arg-type]
            first += count
    elif (part := part_of(node)) is not None and isinstance(node.args[0], fx.Node):
        source, (first, count) = node.args[0], part
        whole = channels(source.meta["yqc.value"])
        _add(known, source, torch.nn.functional.pad(mine, (first, whole - first - count)))
    elif _is_transparent(gm, node):
        for source in node.all_input_nodes:
            _add(known, source, mine)


def _is_transparent(gm: fx.GraphModule, node: fx.Node) -> bool:
    return hands_on(gm, node) or is_addition(node) or call(gm, node, Observer) is not None


def _add(known: dict[fx.Node, Tensor], node: fx.Node, more: Tensor) -> None:
    if len(more) == channels(node.meta.get("yqc.value")):
        known[node] = known[node] + more if node in known else more
