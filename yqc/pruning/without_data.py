"""Prune without data: saliency and correction from batch norms.

After a batch norm a channel has mean `shift` and standard deviation |scale|, which are followed
through activations, additions and concatenations. When a channel is removed, its mean is added to
the biases of its consumers (data-free bias correction, Nagel et al., ICCV 2019). Its variance times
the squared weights is lost; a score is the share of that in the variance of a consumer's output.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from yqc.graph import callers
from yqc.graph.channels import rules as ops
from yqc.graph.channels.sets import Axis, Channels
from yqc.graph.metadata import BatchNorm
from yqc.pruning.statistics import consumers, correctable, full_weight
from yqc.pruning.surgery import Keep, kept_positions
from yqc.pruning.weight_scores import Saliency

ADDITIONS = ("add", "iadd")
SAME = (*ops.SPATIAL, nn.Identity, nn.Dropout)


@dataclass(frozen=True)
class Spread:
    """Mean and deviation of each channel of a tensor: float32 [C] each."""

    mean: Tensor
    deviation: Tensor


def spreads(gm: fx.GraphModule, channels: Channels) -> dict[fx.Node, Spread]:
    """Tell mean and deviation of the tensors whose channels are known, as far as batch norms do."""
    found: dict[fx.Node, Spread] = {}
    for node in gm.graph.nodes:
        axis = channels.axes.get(node)
        spread = _of_node(gm, node, found, channels) if axis is not None else None
        if axis is not None and spread is not None and len(spread.mean) == len(axis.ids):
            found[node] = spread
    return found


def _of_node(  # noqa: PLR0911  # one return a kind of node
    gm: fx.GraphModule, node: fx.Node, found: dict[fx.Node, Spread], channels: Channels
) -> Spread | None:
    if isinstance(known := node.meta.get("yqc.bn"), BatchNorm):
        return Spread(known.shift, known.scale.abs())
    sources = node.all_input_nodes
    if node.op == "call_module":
        module = gm.get_submodule(str(node.target))
        if isinstance(module, _NormBase) and module.running_var is not None:
            norm = BatchNorm.of(module)  # type: ignore[arg-type]  # has the same fields
            return Spread(norm.shift, norm.scale.abs())
        before = found.get(sources[0])
        if before is None or isinstance(module, SAME):
            return before
        return bent(module, before) if isinstance(module, ops.ELEMENTWISE) else None
    name = ops.name_of(node)
    if name == "getitem":
        return _part(node, found, channels)
    inputs = [found.get(s) for s in sources]
    known_inputs = [s for s in inputs if s is not None]
    if len(known_inputs) < len(inputs) or not known_inputs:
        return None
    if name in ADDITIONS and len(known_inputs) == 2:  # noqa: PLR2004
        a, b = known_inputs
        return Spread(a.mean + b.mean, (a.deviation.square() + b.deviation.square()).sqrt())
    if name in {"cat", "concat"} and channels.axes[node].dim == 1:
        parts = [found[n] for n in node.args[0]]  # type: ignore[union-attr,index]
        return Spread(torch.cat([p.mean for p in parts]), torch.cat([p.deviation for p in parts]))
    return known_inputs[0] if name in {"interpolate", "max_pool2d", "avg_pool2d"} else None


def _part(node: fx.Node, found: dict[fx.Node, Spread], channels: Channels) -> Spread | None:
    """Tell of one part of a chunk or split."""
    cut = node.args[0]
    if not isinstance(cut, fx.Node) or not isinstance(node.args[1], int):
        return None
    parts = next((c.ids for c in channels.cuts if c.node is cut and c.kind == "parts"), None)
    whole = found.get(cut.all_input_nodes[0])
    if parts is None or whole is None:
        return None
    first = sum(len(p) for p in parts[: node.args[1]])
    part = slice(first, first + len(parts[node.args[1]]))
    return Spread(whole.mean[part], whole.deviation[part])


def bent(function: Callable[[Tensor], Tensor], before: Spread) -> Spread:
    """Send normal distributions through an elementwise function, numerically."""
    at = torch.linspace(-5, 5, 201)
    weight = torch.exp(-0.5 * at.square())
    weight /= weight.sum()
    with torch.no_grad():
        y = function(before.mean.unsqueeze(1) + before.deviation.unsqueeze(1) * at)
    mean = (y * weight).sum(1)
    return Spread(mean, ((y - mean.unsqueeze(1)).square() * weight).sum(1).sqrt())


def score_by_variance(gm: fx.GraphModule, channels: Channels) -> Saliency:
    """Score sets by their share in the variance of their consumers' outputs, summed over consumers.

    Infinite where the distribution of a consumer's input is unknown; 0 where nothing reads a set.
    """
    known = spreads(gm, channels)
    scores = np.zeros(channels.count)
    for node in consumers(gm, channels):
        source = node.all_input_nodes[0]
        weight, spread = full_weight(gm, node), known.get(source)
        ids = channels.axes[source].ids
        if weight is None or spread is None:
            scores[ids] = np.inf
            continue
        power = weight.square().sum(2) * spread.deviation.double().square()
        share = (power / power.sum(1, keepdim=True).clamp_min(1e-30)).mean(0)
        np.add.at(scores, ids, share.numpy())
    return scores


def absorb_means(
    whole: fx.GraphModule, pruned: fx.GraphModule, channels: Channels, keep: Keep
) -> None:
    """Add the means of removed channels to biases, or running means of batch norms, in `pruned`."""
    known = spreads(whole, channels)
    partner = {n.name: n for n in pruned.graph.nodes}
    for node in correctable(whole, channels):
        source = node.all_input_nodes[0]
        weight, spread, axis = full_weight(whole, node), known.get(source), channels.axes[source]
        gone = torch.from_numpy(~keep[axis.ids])
        if weight is None or spread is None or not gone.any():
            continue
        move = (weight[:, gone].sum(2) @ spread.mean[gone].double()).float()
        out: Axis | None = channels.axes.get(node)
        if out is not None:
            move = move[kept_positions(out.ids, keep)]
        add_to_bias(pruned, partner[node.name], move)


def add_to_bias(gm: fx.GraphModule, node: fx.Node, move: Tensor) -> bool:
    """Add a value per channel to the output of a convolution or linear layer.

    Where it has no bias and a batch norm follows, the value is subtracted from the running mean of
    the norm, so that no parameter is added.

    Returns:
        Whether the node's own output changed; if not, that of the batch norm behind it did.
    """
    module = gm.get_submodule(str(node.target))
    if not isinstance(module, (_ConvNd, nn.Linear)):
        return False
    users = list(node.users)
    behind = users[0] if len(users) == 1 and users[0].op == "call_module" else None
    if module.bias is None and behind is not None and callers(gm, behind.target) == 1:
        norm = gm.get_submodule(str(behind.target))
        if isinstance(norm, _NormBase) and norm.running_mean is not None:
            norm.running_mean = norm.running_mean - move
            return False
    bias = move if module.bias is None else module.bias.detach() + move
    module.bias = nn.Parameter(bias, module.weight.requires_grad)
    return True
