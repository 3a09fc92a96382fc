"""Score sets of channels by their weights and batch norms: pure functions of a graph.

A saliency is float64 [sets]; the lower, the sooner a set is removed. It is gathered over all
members of a set: every convolution that makes it.
"""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from yqc.graph.calls import get_attribute
from yqc.graph.channels.sets import Channels
from yqc.graph.channels.walk import is_transposed

Saliency: TypeAlias = NDArray[np.float64]
"""Of each set of channels, float64 [sets]; the lower, the sooner a set is removed."""


def score_by_magnitude(gm: fx.GraphModule, channels: Channels, power: int) -> Saliency:
    """Score sets by the norm of the weights that make them, batch norms folded in.

    Each member's norms are divided by their mean over its channels, so that layers compare; a set's
    saliency is the mean over its members. The power is 1 for the sum of absolute values (Li et al.,
    Pruning Filters, ICLR 2017), 2 for the Euclidean norm.
    """
    total, members = np.zeros(channels.count), np.zeros(channels.count)
    factors = norm_factors(gm)
    for slot in channels.slots:
        module = get_attribute(gm, slot.target)
        if slot.side == "in" or not isinstance(module, (_ConvNd, nn.Linear)):
            continue
        rows = rows_of_weight(module, len(slot.ids), factors.get(slot.target))
        norms = rows.double().abs().pow(power).sum(1).pow(1 / power).numpy()
        np.add.at(total, slot.ids, norms / max(norms.mean(), 1e-30))
        np.add.at(members, slot.ids, 1)
    return total / np.maximum(members, 1)


def rows_of_weight(module: _ConvNd | nn.Linear, count: int, factor: Tensor | None = None) -> Tensor:
    """Return a weight as rows, one for each channel that it makes: float32 [count, rest].

    Of a depthwise one, `count` is that of the channels it reads. The factor, float32 [O],
    multiplies each output channel.
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


def score_by_bn_scale(gm: fx.GraphModule, channels: Channels) -> Saliency:
    """Score sets by |gamma| of their batch norms (Liu et al., Network Slimming, ICCV 2017).

    A set without a batch norm scores infinity, so that it stays.
    """
    total, members = np.zeros(channels.count), np.zeros(channels.count)
    for slot in channels.slots:
        module = get_attribute(gm, slot.target)
        if isinstance(module, _NormBase) and module.weight is not None:
            np.add.at(total, slot.ids, module.weight.detach().abs().double().numpy())
            np.add.at(members, slot.ids, 1)
    return np.where(members > 0, total / np.maximum(members, 1), np.inf)


def score_randomly(channels: Channels, seed: int) -> Saliency:
    """Score sets by seeded random numbers in 0..1."""
    return np.random.default_rng(seed).random(channels.count)
