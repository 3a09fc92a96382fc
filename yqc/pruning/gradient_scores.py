"""Score sets of channels by gradients: the change of the head when a set is scaled down.

Scaling a channel is scaling the weights that read it, so the gradient of a loss with respect to the
scale of a set is the sum, over all consumers, of weight times gradient of the weight. The loss is
that of distillation, without labels: the distance of the head's outputs from the float ones.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from yqc.graph.channels.sets import Channels, Slot
from yqc.pruning.statistics import backpropagate, run_head
from yqc.pruning.weight_scores import Saliency
from yqc.training.heads import head_taps
from yqc.training.losses import distance

DIMMED = 0.9
"""The slope is taken where every channel is scaled by this: at 1 the loss has none. On a YOLOv8n of
320 px with 40 % and 60 % of its parameters removed, the agreement is 1.000 and 0.9995; at 0.95
1.000 and 0.9992, at 0.8 1.000 and 0.9967."""


def score_by_curvature(
    gm: fx.GraphModule, channels: Channels, images: Sequence[Tensor], seed: int
) -> Saliency:
    """Score sets by the curvature of the distillation loss along their scale.

    To second order, that is the loss after the set is removed (LeCun et al., Optimal Brain Damage,
    1990). The curvature is estimated from random projections of the head (Gauss-Newton; Hutchinson
    1989).
    """
    copied = copy_with_gradients(gm)
    total = np.zeros(channels.count)
    for _ in backpropagate(copied, (), images, seed):
        total += slopes_of_scales(copied, channels) ** 2
    return total / max(1, len(images))


def score_by_slope(gm: fx.GraphModule, channels: Channels, images: Sequence[Tensor]) -> Saliency:
    """Score sets by |scale x slope| of the distillation loss (Molchanov et al., CVPR 2019).

    The slope is taken where all channels are scaled by `DIMMED`, and averaged over images.
    """
    heads = head_taps(gm)
    dimmed = copy_with_gradients(gm)
    with torch.no_grad():
        for _, module in reading_modules(dimmed, channels):
            module.weight.mul_(DIMMED)
    total = np.zeros(channels.count)
    for image in images:
        dimmed.zero_grad(set_to_none=True)
        with torch.no_grad():
            want, _ = run_head(gm, heads, image)
        with torch.enable_grad():
            got, _ = run_head(dimmed, heads, image)
            loss = distance(heads, [*got.values()], [*want.values()], 0.0)
            torch.autograd.backward(loss)
        total += np.abs(slopes_of_scales(dimmed, channels))
    return total / max(1, len(images))


def copy_with_gradients(gm: fx.GraphModule) -> fx.GraphModule:
    """Copy a graph and let its weights have gradients."""
    copied = copy.deepcopy(gm)
    for parameter in copied.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_()
    return copied


def reading_modules(
    gm: fx.GraphModule, channels: Channels
) -> list[tuple[Slot, _ConvNd | nn.Linear]]:
    """List the slots of input channels, with their modules."""
    found = [(s, gm.get_submodule(s.target)) for s in channels.slots if s.side == "in"]
    return [(s, m) for s, m in found if isinstance(m, (_ConvNd, nn.Linear))]


def slopes_of_scales(gm: fx.GraphModule, channels: Channels) -> Saliency:
    """Return the gradient of the last loss by the scale of each set: float64 [sets]."""
    total = np.zeros(channels.count)
    for slot, module in reading_modules(gm, channels):
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
