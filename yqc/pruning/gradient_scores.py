"""Scores from gradients: what the head would feel if a set of channels were scaled down.

Scaling a channel is scaling the weights that read it, so the gradient of a loss by the scale of a
set is the sum, over all consumers, of weight times gradient of the weight. The loss is that of
distillation, without labels: how far the head's outputs are from the float ones.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from yqc.graph.channels.sets import Channels, Slot
from yqc.pruning.criteria import Scores
from yqc.pruning.statistics import Recorder, gradients
from yqc.training.heads import head_taps
from yqc.training.losses import distance

DIMMED = 0.9
"""The first order is taken where every channel is scaled by this: at 1 the loss has no slope."""


def hessian(gm: fx.GraphModule, channels: Channels, images: Sequence[Tensor], seed: int) -> Scores:
    """Score sets by the curvature of the distillation loss along their scale.

    By random projections of the head (Gauss-Newton; Hutchinson's estimate), to second order: what
    the loss becomes when the set goes (LeCun et al., Optimal Brain Damage, 1990).
    """
    copied = trainable(gm)
    total = np.zeros(channels.count)
    for _ in gradients(copied, (), images, seed):
        total += slopes(copied, channels) ** 2
    return total / max(1, len(images))


def taylor(gm: fx.GraphModule, channels: Channels, images: Sequence[Tensor]) -> Scores:
    """Score sets by |scale x slope| of the distillation loss (Molchanov et al., CVPR 2019).

    The slope is taken where all channels are a little dimmed, and averaged over images.
    """
    heads = head_taps(gm)
    dimmed = trainable(gm)
    with torch.no_grad():
        for _, module in readers(dimmed, channels):
            module.weight.mul_(DIMMED)
    total = np.zeros(channels.count)
    for image in images:
        dimmed.zero_grad(set_to_none=True)
        want, got = Recorder(gm, heads, ()), Recorder(dimmed, heads, ())
        with torch.no_grad():
            want.run(image)
        with torch.enable_grad():
            got.run(image)
            pairs = [(got.head[tap.name], want.head[tap.name]) for tap in heads]
            loss = distance(heads, [g for g, _ in pairs], [w for _, w in pairs], 0.0)
            torch.autograd.backward(loss)
        total += np.abs(slopes(dimmed, channels))
    return total / max(1, len(images))


def trainable(gm: fx.GraphModule) -> fx.GraphModule:
    """Copy a graph; gradients reach its weights."""
    copied = copy.deepcopy(gm)
    for parameter in copied.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_()
    return copied


def readers(gm: fx.GraphModule, channels: Channels) -> list[tuple[Slot, _ConvNd | nn.Linear]]:
    """List the slots of input channels, with their modules."""
    found = [(s, gm.get_submodule(s.target)) for s in channels.slots if s.side == "in"]
    return [(s, m) for s, m in found if isinstance(m, (_ConvNd, nn.Linear))]


def slopes(gm: fx.GraphModule, channels: Channels) -> Scores:
    """Return the slope of the last loss by the scale of each set, float64 [sets]."""
    total = np.zeros(channels.count)
    for slot, module in readers(gm, channels):
        if module.weight.grad is None:
            continue
        product = (module.weight * module.weight.grad).detach().double()
        transposed = isinstance(module, _ConvNd) and module.transposed
        groups = getattr(module, "groups", 1)
        if transposed:
            each = product.flatten(1).sum(1)
        else:  # a column of each group is a channel
            each = torch.unflatten(product.flatten(1), 0, (groups, -1)).sum(1)
            each = torch.unflatten(each, 1, (len(slot.ids) // groups, -1)).sum(2).flatten()
        np.add.at(total, slot.ids, each.numpy())
    return total
