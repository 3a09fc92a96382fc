"""How much a set of channels matters, told from weights: pure functions of a graph.

A score is float64 [sets]; the lower, the sooner a set goes. Scores are gathered over all members
of a set: every convolution that makes it.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from yqc.graph.calls import attribute
from yqc.graph.channels.sets import Channels
from yqc.graph.channels.walk import is_transposed

Scores = NDArray[np.float64]


def magnitude(gm: fx.GraphModule, channels: Channels, power: int) -> Scores:
    """Score sets by the norm of the weights that make them, batch norms folded in.

    Each member's norms are divided by their mean over its channels, so that layers compare; a set's
    score is the mean over its members.

    Args:
        gm: the graph.
        channels: its channels.
        power: 1 for the sum of absolute values (Li et al., Pruning Filters, ICLR 2017), 2 for the
            Euclidean norm.
    """
    total, members = np.zeros(channels.count), np.zeros(channels.count)
    factors = norm_factors(gm)
    for slot in channels.slots:
        module = attribute(gm, slot.target)
        if slot.side == "in" or not isinstance(module, (_ConvNd, nn.Linear)):
            continue
        rows = weight_rows(module, len(slot.ids), factors.get(slot.target))
        norms = rows.double().abs().pow(power).sum(1).pow(1 / power).numpy()
        np.add.at(total, slot.ids, norms / max(norms.mean(), 1e-30))
        np.add.at(members, slot.ids, 1)
    return total / np.maximum(members, 1)


def weight_rows(module: _ConvNd | nn.Linear, count: int, factor: Tensor | None = None) -> Tensor:
    """Return a weight as rows, one a channel that it makes: float32 [count, rest].

    Args:
        module: a convolution or linear layer.
        count: how many channels it makes; of a depthwise one, how many it reads.
        factor: what each output channel is multiplied by, float32 [O].
    """
    weight = module.weight.detach()
    if is_transposed(module):
        groups = module.groups if isinstance(module, _ConvNd) else 1
        weight = torch.unflatten(weight, 0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    if factor is not None:
        weight = weight.flatten(1) * factor.unsqueeze(1)
    return weight.reshape(count, -1)


def norm_factors(gm: fx.GraphModule) -> dict[str, Tensor]:
    """Return gamma / sqrt(var + eps) of the batch norm behind each convolution, by its path."""
    found: dict[str, Tensor] = {}
    for node in gm.graph.nodes:
        if node.op != "call_module":
            continue
        norm, source = gm.get_submodule(str(node.target)), node.all_input_nodes[0]
        if not isinstance(norm, _NormBase) or norm.running_var is None:
            continue
        if source.op == "call_module":
            scale = torch.rsqrt(norm.running_var + norm.eps)
            found[str(source.target)] = (
                scale if norm.weight is None else scale * norm.weight.detach()
            )
    return found


def bn_scale(gm: fx.GraphModule, channels: Channels) -> Scores:
    """Score sets by |gamma| of their batch norms (Liu et al., Network Slimming, ICCV 2017).

    A set without a batch norm scores infinity: nothing is known of it.
    """
    total, members = np.zeros(channels.count), np.zeros(channels.count)
    for slot in channels.slots:
        module = attribute(gm, slot.target)
        if isinstance(module, _NormBase) and module.weight is not None:
            np.add.at(total, slot.ids, module.weight.detach().abs().double().numpy())
            np.add.at(members, slot.ids, 1)
    return np.where(members > 0, total / np.maximum(members, 1), np.inf)


def at_random(channels: Channels, seed: int) -> Scores:
    """Score sets by seeded chance."""
    return np.random.default_rng(seed).random(channels.count)


Criterion = Callable[[fx.GraphModule, Channels], Scores]
