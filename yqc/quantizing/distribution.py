"""Mean, deviation and extremes of a graph's tensors, from batch norms instead of data.

A batch norm's output has mean `shift` and deviation |scale| in each channel over the training data.
From there the distribution is followed along the graph: activations transform it, additions add,
concats join (Nagel et al., Data-Free Quantization, ICCV 2019, section 4.2, here past one layer).
"""

import operator
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase

from yqc.graph import TensorSpec, call, is_function, role
from yqc.graph.channels.rules import ELEMENTWISE, SPATIAL, get_argument
from yqc.graph.metadata import BatchNorm
from yqc.graph.values import KEY
from yqc.quant.observer import Observer
from yqc.quantizing.activations import is_silu_product
from yqc.quantizing.placement import is_addition

REACH = {"backbone": 6.0, "neck": 8.0}
"""Deviations from the mean that a range covers, by role. Measured on yolov5n on COCO without data:
with 6 everywhere mAP is 0.3351, with 4 it is 0.3146; larger ranges lose resolution."""
REACH_OF_HEAD = 10.0
"""The same in a head. The deeper a layer is, the more it is about objects; objects are rare, and a
batch norm's statistics are mostly those of background, so the tails grow longer."""
POINTS = 129
"""Points between low and high at which an activation is evaluated: spacing 0.16 deviations for a
reach of 10. Half of them still gives moments of smooth activations, double changes little."""

UNCHANGED = (*SPATIAL, nn.Identity, nn.Dropout, Observer)
"""Modules that keep the channels' distributions, or nearly so."""
UNCHANGED_FUNCTIONS = (F.max_pool2d, F.avg_pool2d, F.interpolate)
"""Functions that do."""


class Distribution(NamedTuple):
    """Distribution of the values of each channel: float32 [C] each."""

    mean: Tensor
    low: Tensor
    high: Tensor
    """Ends of the range to cover; low <= mean <= high."""
    deviation: Tensor

    def narrow(self, first: int, count: int) -> "Distribution":
        """Return that of some consecutive channels."""
        return Distribution(*(values.narrow(0, first, count) for values in self))


def follow_distributions(gm: fx.GraphModule) -> dict[fx.Node, Distribution]:
    """Follow the distributions of channels from the input and the batch norms along a graph.

    Batch norms may be folded (the mark `BatchNorm`) or not. The graph's input is taken to lie in
    0..1. Tensors behind convolutions without a batch norm, and behind operations that are not
    followed, are left out, and so are those whose shape says another number of channels.
    """
    known: dict[fx.Node, Distribution] = {}
    for node in gm.graph.nodes:
        found = _of_node(gm, node, known)
        if found is not None and len(found.mean) == count_channels(node.meta.get(KEY)):
            known[node] = found
    return known


def _of_node(  # noqa: PLR0911  # one return a kind of node
    gm: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Distribution]
) -> Distribution | None:
    if node.op == "placeholder":
        channels = count_channels(node.meta.get(KEY))
        half = torch.full((channels,), 0.5)
        even = torch.full((channels,), 12**-0.5)
        return Distribution(half, torch.zeros(channels), torch.ones(channels), even)
    if (norm := _batch_norm(gm, node)) is not None:
        deviation = norm.scale.abs()
        reach = REACH.get(role(node), REACH_OF_HEAD) * deviation
        return Distribution(norm.shift, norm.shift - reach, norm.shift + reach, deviation)
    sources = [known.get(n) for n in node.all_input_nodes]
    inputs = [s for s in sources if s is not None]
    if not inputs or len(inputs) < len(sources):
        return None
    if call(gm, node, UNCHANGED) is not None or is_function(node, *UNCHANGED_FUNCTIONS):
        return inputs[0]
    if (function := _activation(gm, node)) is not None:
        return transform_distribution(function, inputs[0])
    if is_addition(node) or (is_function(node, operator.iadd) and len(inputs) == 2):  # noqa: PLR2004
        a, b = inputs
        deviation = torch.hypot(a.deviation, b.deviation)
        return Distribution(a.mean + b.mean, a.low + b.low, a.high + b.high, deviation)
    if is_function(node, torch.cat, torch.concat) and get_argument(node, 1, "dim", default=0) == 1:
        parts = [known[n] for n in node.args[0]]  # type: ignore[union-attr,index]
        return Distribution(*(torch.cat(values) for values in zip(*parts, strict=True)))
    if (part := find_channel_part(node)) is not None:
        return inputs[0].narrow(*part)
    return None


def _batch_norm(gm: fx.GraphModule, node: fx.Node) -> BatchNorm | None:
    """Return the statistics of a batch norm that a node calls, or that was folded into it."""
    found = call(gm, node, _NormBase)
    if found is not None and found.module.running_var is not None:
        return BatchNorm.of(found.module)  # type: ignore[arg-type]  # has the same fields
    return BatchNorm.on(node)


def _activation(gm: fx.GraphModule, node: fx.Node) -> Callable[[Tensor], Tensor] | None:
    """Return the elementwise function that a node computes of its first known input."""
    if (found := call(gm, node, ELEMENTWISE)) is not None:
        return found.module
    if is_function(node, torch.sigmoid):
        return torch.sigmoid
    first = node.all_input_nodes[0]
    return F.silu if is_silu_product(node, first) else None


def find_channel_part(node: fx.Node) -> tuple[int, int] | None:
    """Return first channel and count of one result of a chunk or split along the channels.

    Of the chunk or split as a whole, all channels. None for anything else.
    """
    value = node.meta.get(KEY)
    if isinstance(value, tuple):
        return (0, count_channels(value)) if _splits_channels(node) else None
    source = node.args[0] if node.args else None
    index = node.args[1] if len(node.args) > 1 else None
    if not isinstance(source, fx.Node) or not isinstance(index, int):
        return None
    whole = source.meta.get(KEY)
    if not isinstance(whole, tuple) or not _splits_channels(source):
        return None
    return count_channels(whole[:index]), count_channels(value)


def count_channels(value: object) -> int:
    """Return the number of channels of a value, over all its tensors."""
    if isinstance(value, TensorSpec):
        return value.shape[1] if len(value.shape) > 1 else 0
    return sum(count_channels(part) for part in value) if isinstance(value, tuple) else 0


def _splits_channels(node: fx.Node) -> bool:
    split = node.target in {"chunk", "split"} or is_function(node, torch.chunk, torch.split)
    return split and get_argument(node, 2, "dim", default=0) == 1


def transform_distribution(function: Callable[[Tensor], Tensor], x: Distribution) -> Distribution:
    """Send a distribution through an elementwise function, numerically, channel by channel.

    Between low and high the values are taken as normal.
    """
    at = torch.linspace(-1, 1, POINTS)
    half = ((x.high - x.low) / 2).unsqueeze(1)
    middle = ((x.high + x.low) / 2).unsqueeze(1)
    deviations = half / x.deviation.unsqueeze(1).clamp(min=torch.finfo(torch.float32).tiny)
    weight = torch.exp(-0.5 * (at * deviations).square())
    weight /= weight.sum(1, keepdim=True)
    with torch.no_grad():
        y = function(middle + half * at)
    mean = (y * weight).sum(1)
    deviation = ((y - mean.unsqueeze(1)).square() * weight).sum(1).sqrt()
    return Distribution(mean, y.amin(1), y.amax(1), deviation)
