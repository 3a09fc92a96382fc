"""What a graph's tensors hold, told from its batch norms instead of from data.

A batch norm says of each channel that its values have mean `shift` and deviation |scale|. From
there the distribution is followed along the graph: activations bend it, additions add, concats
join (Nagel et al., Data-Free Quantization, ICCV 2019, section 4.2, carried on past one layer).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc.graph import TensorSpec, call, is_function, role
from yqc.graph.metadata import BatchNorm
from yqc.quant.observer import Observer
from yqc.quantizing.placement import ACTIVATIONS, is_addition

REACH = {"backbone": 6.0, "neck": 8.0}
"""Deviations from the mean that a range covers, by role."""
REACH_OF_HEAD = 10.0
"""The same in a head. The deeper a layer is, the more it is about objects; objects are rare, and a
batch norm's statistics are mostly those of background, so the tails grow longer."""

SAME = (nn.MaxPool2d, nn.Upsample, nn.Identity, nn.AvgPool2d, Observer)
SAME_FUNCTIONS = (F.max_pool2d, F.interpolate)


@dataclass(frozen=True)
class Distribution:
    """What the channels hold: float32 [C] each."""

    mean: Tensor
    low: Tensor
    high: Tensor
    """The values to be covered; low <= mean <= high."""
    deviation: Tensor

    def narrow(self, first: int, count: int) -> "Distribution":
        """Return that of some consecutive channels."""
        values = (self.mean, self.low, self.high, self.deviation)
        mean, low, high, deviation = (v.narrow(0, first, count) for v in values)
        return Distribution(mean, low, high, deviation)


def follow(gm: fx.GraphModule) -> dict[fx.Node, Distribution]:
    """Tell the distribution of every tensor that can be told from batch norms.

    The graph's input is taken to lie in 0..1. Tensors behind convolutions without a batch norm,
    and behind operations that are not followed, are left out.
    """
    known: dict[fx.Node, Distribution] = {}
    for node in gm.graph.nodes:
        found = _of_node(gm, node, known)
        if found is not None:
            known[node] = found
    return known


def _of_node(  # noqa: PLR0911  # one return a kind of node
    gm: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Distribution]
) -> Distribution | None:
    if node.op == "placeholder":
        channels = node.meta["yqc.value"].shape[1]
        half = torch.full((channels,), 0.5)
        even = torch.full((channels,), 12**-0.5)
        return Distribution(half, torch.zeros(channels), torch.ones(channels), even)
    if isinstance(bn := node.meta.get("yqc.bn"), BatchNorm):
        deviation = bn.scale.abs()
        spread = REACH.get(role(node), REACH_OF_HEAD) * deviation
        return Distribution(bn.shift, bn.shift - spread, bn.shift + spread, deviation)
    sources = [known.get(n) for n in node.all_input_nodes]
    if not sources or any(s is None for s in sources):
        return None
    inputs = [s for s in sources if s is not None]
    if (found := call(gm, node, ACTIVATIONS)) is not None:
        return bend(found.module, inputs[0])
    if call(gm, node, SAME) is not None or is_function(node, *SAME_FUNCTIONS):
        return inputs[0]
    if is_addition(node):
        a, b = inputs
        deviation = torch.hypot(a.deviation, b.deviation)
        return Distribution(a.mean + b.mean, a.low + b.low, a.high + b.high, deviation)
    if is_function(node, torch.cat) and _axis(node) == 1:
        joined = [known[n] for n in node.args[0]]  # type: ignore[union-attr,index]
        return _join(joined)
    if (part := part_of(node)) is not None:
        first, count = part
        return inputs[0].narrow(first, count)
    return None


def _join(parts: list[Distribution]) -> Distribution:
    return Distribution(
        torch.cat([p.mean for p in parts]),
        torch.cat([p.low for p in parts]),
        torch.cat([p.high for p in parts]),
        torch.cat([p.deviation for p in parts]),
    )


def _axis(node: fx.Node) -> object:
    return node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)


def part_of(node: fx.Node) -> tuple[int, int] | None:
    """Return first channel and count of one result of a chunk or split along the channels.

    Of the chunk or split as a whole, all channels. None for anything else.
    """
    value = node.meta.get("yqc.value")
    if isinstance(value, tuple):
        return (0, sum(channels(part) for part in value)) if _splits_channels(node) else None
    source = node.args[0] if node.args else None
    index = node.args[1] if len(node.args) > 1 else None
    if not isinstance(source, fx.Node) or not isinstance(index, int):
        return None
    whole = source.meta.get("yqc.value")
    if not isinstance(whole, tuple) or not _splits_channels(source):
        return None
    return sum(channels(part) for part in whole[:index]), channels(value)


def channels(value: object) -> int:
    """Return how many channels a value has, over all its tensors."""
    if isinstance(value, TensorSpec):
        return value.shape[1]
    return sum(channels(part) for part in value) if isinstance(value, tuple) else 0


def _splits_channels(node: fx.Node) -> bool:
    split = node.target in {"chunk", "split"} or is_function(node, torch.chunk, torch.split)
    dim = node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else 0)  # noqa: PLR2004
    return split and isinstance(dim, int) and dim == 1


def bend(function: Callable[[Tensor], Tensor], x: Distribution) -> Distribution:
    """Send a distribution through an elementwise function, numerically, a channel at a time.

    Between low and high the values are taken as normal.
    """
    at = torch.linspace(-1, 1, 129)
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
