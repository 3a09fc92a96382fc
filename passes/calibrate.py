"""calibrate: choose a scale and a zero point for every observed tensor, and scales for weights.

1. With data, the calibration images go through the graph once; every observer keeps extremes and a
   histogram of fixed length. Memory does not grow with the images. The first few go through with
   gradients.
2. Observers of one group get one range, chosen from their histograms together. The method `mse`
   quantizes the histogram; where all that reads a tensor is an activation, behind that. The method
   `relevance` does so with each value counted as much as values like it matter to the detections
   (`yqc.quant.value_relevance`), so that what only objects make is not clipped for the sake of
   background.
3. Without data, ranges follow from the batch norms that were folded
   (`yqc.quantizing.distribution`); what they do not give is measured on seeded noise.
4. The graph's input is in 0..1 by contract, and a sigmoid by its nature; their range is that, and
   8-bit images lose nothing.
5. Weights get a symmetric scale, one an output channel.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, fx, nn

from yqc import Call, Context, Pass, calls, is_function
from yqc.graph.noise import noise
from yqc.quant import (
    DTYPES,
    FULL,
    REDUCED,
    Histogram,
    Int8,
    Method,
    Observer,
    Worth,
    best_channel_scale,
    channel_scale,
    choose,
    error,
    from_range,
)
from yqc.quantizing import Response, bias_error, response
from yqc.quantizing.bias_error import Outputs
from yqc.quantizing.calibration import gather
from yqc.quantizing.distribution import follow


@dataclass(frozen=True)
class Calibrate(Pass):
    """Choose scales and zero points for tensors and weights."""

    name: ClassVar[str] = "calibrate"
    requires: ClassVar[frozenset[str]] = frozenset({"observed"})
    provides: ClassVar[frozenset[str]] = frozenset({"calibrated"})
    keeps_numbers: ClassVar[bool] = True

    ranges: Method | Literal["relevance"] = "relevance"
    """How the range of an activation is chosen from its statistics."""
    images: int = 8
    """How many images tell what values matter."""
    percentile: float = 99.99
    """Share of values, in percent, that the percentile method keeps."""
    weights: Literal["minmax", "mse"] = "minmax"
    """How the range of a weight is chosen; mse clips, which eight bits seldom need."""
    reduce_range: bool = False
    """Weights of 7 bits, -63..63: on x86 CPUs without VNNI, larger ones can saturate."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images must be 1 or above, not {self.images}")

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        observers = calls(gm, Observer)
        if ctx.calibration is None:
            self.without_data(gm, ctx, observers)
        else:
            self.with_data(gm, ctx, observers, ctx.calibration())
        for each in observers:
            each.module.stop()
        for conv in calls(gm, nn.Conv2d):
            if "yqc.int8" in conv.node.meta:
                choice = channel_scale if self.weights == "minmax" else best_channel_scale
                most = REDUCED if self.reduce_range else FULL
                conv.node.meta["yqc.int8"] = Int8(choice(conv.module.weight, most), most=most)

    def with_data(
        self,
        gm: fx.GraphModule,
        ctx: Context,
        observers: list[Call[Observer]],
        images: Iterable[Tensor],
    ) -> None:
        """Choose ranges from what images tell; leave to `bias-correct` what it wants of them."""
        worth = {o.node: (Worth(), o.node) for o in observers if o.module.records}
        for members in grouped(observers):
            made = activation(gm, members)
            if made is not None and members[0].node in worth:
                worth[members[0].node] = (Worth(), made.node)
        wanted = bias_error.convolutions(gm) if "bias-correct" in ctx.upcoming else ()
        kept = {node: Outputs() for node in wanted}
        gather(gm, observers, images, ctx, with_gradients=self.images, worth=worth, outputs=kept)
        if kept:
            bias_error.leave(gm, kept)
        self.from_statistics(gm, observers, {n: w for n, (w, _) in worth.items()}, ctx)

    def from_statistics(
        self,
        gm: fx.GraphModule,
        observers: list[Call[Observer]],
        worth: Mapping[fx.Node, Worth],
        ctx: Context,
    ) -> None:
        """Choose one range a group from what its observers recorded."""
        for members in grouped(observers):
            found = {
                m.node: m.module.histogram
                for m in members
                if m.module.records and m.module.histogram is not None
            }
            plain = Histogram.merged(list(found.values()))
            weighed = Histogram.merged([worth[node].weigh(h) for node, h in found.items()])
            symmetric = members[0].module.symmetric
            behind = activation(gm, members)
            shape = None if behind is None else behind.function
            low, high = choose(
                weighed if self.ranges == "relevance" else plain,
                "mse" if self.ranges == "relevance" else self.ranges,
                symmetric=symmetric,
                percentile=self.percentile,
                response=shape,
            )
            low, high = settle(members, low, high, ctx)
            harm = error(weighed, low, high, symmetric=symmetric, response=shape)
            for member in members:
                member.module.harm.fill_(harm)

    def without_data(
        self, gm: fx.GraphModule, ctx: Context, observers: list[Call[Observer]]
    ) -> None:
        """Choose ranges from the batch norms, and from noise where they do not tell."""
        known = follow(gm)
        unknown = [o for o in observers if o.node not in known]
        if unknown:
            gather(gm, unknown, noise(gm, ctx.seed), ctx)
            ctx.warn(f"{len(unknown)} of {len(observers)} ranges were measured on seeded noise")
        ctx.warn("no data was given: ranges come from the batch norms, accuracy is not measured")
        for members in grouped(observers):
            ends = [(0.0, 0.0)]
            for member in members:
                histogram = member.module.histogram
                if (told := known.get(member.node)) is not None:
                    member.module.mean = told.mean
                    ends.append((float(told.low.min()), float(told.high.max())))
                elif histogram is not None and histogram.bound:
                    ends.append((histogram.smallest, histogram.largest))
            settle(members, min(low for low, _ in ends), max(high for _, high in ends), ctx)


def grouped(observers: Iterable[Call[Observer]]) -> list[list[Call[Observer]]]:
    """Gather the observers that share a scale, in graph order."""
    groups: dict[str, list[Call[Observer]]] = defaultdict(list)
    for each in observers:
        groups[each.module.group].append(each)
    return list(groups.values())


def activation(gm: fx.GraphModule, members: list[Call[Observer]]) -> Response | None:
    """Return the activation that alone reads what a group of one observer marks, if there is."""
    return response(gm, members[0].node) if len(members) == 1 else None


def settle(
    members: list[Call[Observer]], low: float, high: float, ctx: Context
) -> tuple[float, float]:
    """Give the observers of one group the scale and zero point of a range; return the range."""
    if any(is_bounded(m.node.all_input_nodes[0]) for m in members):
        low, high = 0.0, 1.0
    module = members[0].module
    chosen = from_range(
        torch.tensor(low), torch.tensor(high), DTYPES[module.dtype], symmetric=module.symmetric
    )
    for member in members:
        member.module.scale, member.module.zero_point = chosen.scale, chosen.zero_point
        ctx.rewrote(member.node, f"range {low:.4g} to {high:.4g}")
    return low, high


def is_bounded(node: fx.Node) -> bool:
    """Tell whether a tensor is in 0..1 whatever the image is."""
    return node.op == "placeholder" or is_function(node, torch.sigmoid)
