"""calibrate: choose a scale and a zero point for every observed tensor, and scales for weights.

1. With data, the calibration images go through the graph once; every observer keeps extremes and a
   histogram of fixed length. Memory does not grow with the images. A few of them go through with
   gradients before that.
2. Observers of one group get one range, chosen from their histograms together. The method `mse`
   quantizes the histogram; where all that reads a tensor is an activation, behind that. The method
   `relevance` does so with each value counted as much as values like it matter to the detections
   (`yqc.quant.worth`), so that what only objects make is not clipped for the sake of background.
3. Without data, ranges follow from the batch norms that were folded (`yqc.quant.datafree`); what
   cannot be told so is measured on seeded noise.
4. The graph's input is in 0..1 by contract, and a sigmoid by its nature; their range is that, and
   8-bit images lose nothing.
5. Weights get a symmetric scale, one an output channel.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

import torch
from torch import Tensor, fx, nn

from yqc import Call, Context, Pass, calls, is_function
from yqc.errors import PassError
from yqc.graph.memory import as_weights, channels_last
from yqc.quant import (
    DTYPES,
    FULL,
    REDUCED,
    Histogram,
    Int8,
    Method,
    Observer,
    Response,
    Worth,
    best_channel_scale,
    channel_scale,
    choose,
    error,
    from_range,
    relevance,
    response,
)
from yqc.quant.datafree import follow
from yqc.quant.noise import noise


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
            with channels_last(gm):
                worth = weigh(gm, observers, list(islice(ctx.calibration(), self.images)), ctx)
                watch(gm, observers, ctx.calibration(), ctx)
            self.from_statistics(gm, observers, worth, ctx)
        for each in observers:
            each.module.stop()
        for conv in calls(gm, nn.Conv2d):
            if "yqc.int8" in conv.node.meta:
                choice = channel_scale if self.weights == "minmax" else best_channel_scale
                most = REDUCED if self.reduce_range else FULL
                conv.node.meta["yqc.int8"] = Int8(choice(conv.module.weight, most), most=most)

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
            watch(gm, unknown, noise(gm, ctx.seed), ctx)
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


def watch(
    gm: fx.GraphModule, observers: list[Call[Observer]], images: Iterable[Tensor], ctx: Context
) -> None:
    """Send images through the graph while the observers keep statistics.

    Raises:
        PassError: a tensor holds values that are not finite; the message names its node.
    """
    for each in observers:
        each.module.start()
    count = len(images) if isinstance(images, Sized) else 0
    with torch.inference_mode(), ctx.progress.task("calibrating", count) as advance:
        for image in images:
            gm(as_weights(image, gm))
            for each in observers:
                finite(each)
            advance(1)


def weigh(
    gm: fx.GraphModule, observers: list[Call[Observer]], images: Sequence[Tensor], ctx: Context
) -> dict[fx.Node, Worth]:
    """Measure how much the values of each tensor that counts for a range matter."""
    behind = {m[0].node: activation(gm, m) for m in grouped(observers)}
    read = {
        o.node: o.node if (made := behind.get(o.node)) is None else made.node
        for o in observers
        if o.module.records
    }
    found = {node: Worth() for node in read}
    with ctx.progress.task("weighing values", len(images)) as advance:
        laid = (as_weights(image, gm) for image in images)
        for one in relevance(gm, {*read, *read.values()}, laid, ctx.layout, ctx.seed):
            for node, counts in read.items():
                found[node].add(one[node][0], one[counts][1])
            advance(1)
    return found


def finite(observer: Call[Observer]) -> None:
    """Raise if an observer has met values that are not finite."""
    histogram = observer.module.histogram
    if histogram is not None and not histogram.finite:
        source = observer.node.all_input_nodes[0]
        raise PassError(
            f"node {source} computes values that are not finite on the calibration images; "
            "the checkpoint is damaged, or its training diverged"
        )
