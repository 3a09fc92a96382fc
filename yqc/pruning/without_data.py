"""Prune without data: saliency and correction from batch norms.

After a batch norm a channel has mean `shift` and standard deviation |scale|, which are followed
through activations, additions and concatenations. When a channel is removed, its mean is added to
the biases of its consumers (data-free bias correction, Nagel et al., ICCV 2019). Its variance times
the squared weights is lost; a score is the share of that in the variance of a consumer's output.
"""

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from yqc.graph import callers
from yqc.graph.channels.sets import Axis, Channels
from yqc.pruning.statistics import consumers, correctable, full_weight
from yqc.pruning.surgery import Keep, kept_positions
from yqc.pruning.weight_scores import Saliency
from yqc.quantizing.distribution import Distribution, follow_distributions


def follow_channels(gm: fx.GraphModule, channels: Channels) -> dict[fx.Node, Distribution]:
    """Return the distributions of the tensors whose channels are known, one value a channel."""
    return {
        node: found
        for node, found in follow_distributions(gm).items()
        if node in channels.axes and len(found.mean) == len(channels.axes[node].ids)
    }


def score_by_variance(gm: fx.GraphModule, channels: Channels) -> Saliency:
    """Score sets by their share in the variance of their consumers' outputs, summed over consumers.

    Infinite where the distribution of a consumer's input is unknown; 0 where nothing reads a set.
    """
    known = follow_channels(gm, channels)
    scores = np.zeros(channels.count)
    for node in consumers(gm, channels):
        source = node.all_input_nodes[0]
        weight, seen = full_weight(gm, node), known.get(source)
        ids = channels.axes[source].ids
        if weight is None or seen is None:
            scores[ids] = np.inf
            continue
        power = weight.square().sum(2) * seen.deviation.double().square()
        share = (power / power.sum(1, keepdim=True).clamp_min(1e-30)).mean(0)
        np.add.at(scores, ids, share.numpy())
    return scores


def absorb_means(
    whole: fx.GraphModule, pruned: fx.GraphModule, channels: Channels, keep: Keep
) -> None:
    """Add the means of removed channels to biases, or running means of batch norms, in `pruned`."""
    known = follow_channels(whole, channels)
    partner = {n.name: n for n in pruned.graph.nodes}
    for node in correctable(whole, channels):
        source = node.all_input_nodes[0]
        weight, seen, axis = full_weight(whole, node), known.get(source), channels.axes[source]
        gone = torch.from_numpy(~keep[axis.ids])
        if weight is None or seen is None or not gone.any():
            continue
        move = (weight[:, gone].sum(2) @ seen.mean[gone].double()).float()
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
