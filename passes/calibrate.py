"""calibrate: choose a scale and a zero point for every observed tensor, and scales for weights.

1. With data, the calibration images go through the graph once; every observer keeps extremes and a
   histogram of fixed length, so memory does not grow with the images. The first few run with
   gradients.
2. Observers of one group get one range, chosen from the sum of their histograms. The method `mse`
   takes the least rounding error of the histogram; where an activation alone reads the tensor, the
   error behind it. The method `relevance` is the same with each value weighted by the mean
   relevance of values of its size (`yqc.quant.value_relevance`), so that values that only objects
   have are not clipped for the sake of background.
3. Without data, ranges follow from the batch norms (`yqc.quantizing.distribution`); those that do
   not are measured on seeded noise.
4. The graph's input is in 0..1 by contract, and the result of a sigmoid always; that is their
   range, and 8-bit images lose nothing.
5. Weights get a symmetric scale for each output channel.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, fx, nn

from yqc import Call, Context, Pass, State, calls, is_function, shape
from yqc.graph import head_nodes, make_noise
from yqc.pipeline import Bounds, Count, Stage, Workload
from yqc.quant import (
    DTYPES,
    FULL_RANGE,
    REDUCED_RANGE,
    Histogram,
    Int8Weights,
    Observer,
    RangeMethod,
    ValueRelevance,
    check_range,
    choose_range,
    minmax_channel_scale,
    mse_channel_scale,
    qparams_from_range,
    rounding_error,
)
from yqc.quantizing import (
    OnlyActivation,
    ReferenceOutputs,
    correctable_convolutions,
    find_only_activation,
    follow_distributions,
    gather_statistics,
    put_outputs,
)
from yqc.registered import OBSERVERS


@dataclass(frozen=True)
class Calibrate(Pass):
    """Choose scales and zero points for tensors and weights."""

    name: ClassVar[str] = "calibrate"
    reads_images: ClassVar[bool] = True
    reads_upcoming: ClassVar[frozenset[str]] = frozenset({"bias-correct"})
    requires: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.FLOAT32})
    provides: ClassVar[frozenset[str]] = frozenset({State.CALIBRATED})
    keeps_numbers: ClassVar[bool] = True

    ranges: RangeMethod = "relevance"
    """How the range of an activation is chosen from its statistics."""
    observer: Annotated[str, OBSERVERS] = "histogram"
    """Statistics of activations; any but histogram choose the range themselves, with data."""
    images: Count = 8
    """Number of images on which relevance is measured."""
    percentile: Annotated[float, Bounds(above=0, most=100)] = 99.99
    """Share of values, in percent, that the percentile method keeps."""
    weights: Literal["minmax", "mse"] = "minmax"
    """How the range of a weight is chosen; mse clips, which eight bits seldom need."""
    reduce_range: bool = False
    """Weights of 7 bits, -63..63: on x86 CPUs without VNNI, larger ones can saturate."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        observers = calls(gm, Observer)
        if ctx.calibration is None:
            self.without_data(gm, ctx, observers)
        else:
            self.with_data(gm, ctx, observers, ctx.calibration())
        for each in observers:
            each.module.stop()
        for conv in calls(gm, nn.Conv2d):
            if Int8Weights.on(conv.node) is not None:
                choose = minmax_channel_scale if self.weights == "minmax" else mse_channel_scale
                most = REDUCED_RANGE if self.reduce_range else FULL_RANGE
                Int8Weights(choose(conv.module.weight, most), most=most).put(conv.node)

    def foresee(self, work: Workload) -> tuple[Stage, ...]:
        return (Stage("calibrating", 1.5 * work.forward * work.images),)

    def with_data(
        self,
        gm: fx.GraphModule,
        ctx: Context,
        observers: list[Call[Observer]],
        images: Iterable[Tensor],
    ) -> None:
        """Choose ranges from images; keep the convolutions' outputs if `bias-correct` follows."""
        seen = [o for o in observers if o.module.records and not is_bounded(source_of(o))]
        relevance = {o.node: (ValueRelevance(), o.node) for o in seen}
        for members in group_observers(observers):
            made = only_activation(gm, members)
            if made is not None and members[0].node in relevance:
                relevance[members[0].node] = (ValueRelevance(), made.node)
        if (added := OBSERVERS.find(self.observer)) is not None:
            ctx = replace(ctx, cache=None)  # which knows no statistics of users
            for each in observers:
                each.module.statistics = added.value()
        wanted = correctable_convolutions(gm) if "bias-correct" in ctx.upcoming else ()
        kept = {node: ReferenceOutputs() for node in wanted}
        gather_statistics(
            gm,
            seen,
            images,
            ctx,
            with_gradients=self.images,
            relevance=relevance,
            outputs=kept,
        )
        if kept:
            put_outputs(gm, kept)
        self.from_statistics(gm, observers, {n: r for n, (r, _) in relevance.items()}, ctx)

    def from_statistics(
        self,
        gm: fx.GraphModule,
        observers: list[Call[Observer]],
        relevance: Mapping[fx.Node, ValueRelevance],
        ctx: Context,
    ) -> None:
        """Choose one range a group from its observers' histograms."""
        ends = set(head_nodes(gm)) if ctx.decode != "full" else set()
        for members in group_observers(observers):
            if any(is_bounded(source_of(m)) for m in members):
                set_range(members, 0.0, 1.0, ctx)
                continue
            rising = not any(m.node in ends for m in members)
            found = {m.node: h for m in members if (h := m.module.histogram) is not None}
            plain = Histogram.merged(list(found.values()))
            weighed = Histogram.merged(
                [relevance[node].weigh(h, rising=rising) for node, h in found.items()]
            )
            symmetric = members[0].module.symmetric
            behind = only_activation(gm, members)
            response = None if behind is None else behind.function
            if self.observer == "histogram":
                low, high = choose_range(
                    weighed if self.ranges == "relevance" else plain,
                    "mse" if self.ranges == "relevance" else self.ranges,
                    weighed=weighed,
                    symmetric=symmetric,
                    percentile=self.percentile,
                    response=response,
                )
            else:
                low, high = self.observed_range(members)
            low, high = set_range(members, low, high, ctx)
            damage = rounding_error(weighed, low, high, symmetric=symmetric, response=response)
            damage /= max(1.0, count_images(found))
            for member in members:
                member.module.damage.fill_(damage)

    def observed_range(self, members: list[Call[Observer]]) -> tuple[float, float]:
        """Return the range that holds those which a user's statistics chose for a group."""
        recorded = [m.module.statistics for m in members if m.module.records]
        who = f"observer {self.observer!r}"
        found = [check_range(one.range(), who) for one in recorded if one is not None]
        return min((low for low, _ in found), default=0.0), max((h for _, h in found), default=0.0)

    def without_data(
        self, gm: fx.GraphModule, ctx: Context, observers: list[Call[Observer]]
    ) -> None:
        """Choose ranges from the batch norms, and from noise where they do not reach."""
        known = follow_distributions(gm)
        unknown = [o for o in observers if o.node not in known]
        if unknown:
            gather_statistics(gm, unknown, make_noise(gm, ctx.seed), ctx)
            ctx.says(f"{len(unknown)} of {len(observers)} ranges were measured on seeded noise")
        ctx.warn("no data was given: ranges come from the batch norms, accuracy is not measured")
        for members in group_observers(observers):
            ends = [(0.0, 0.0)]
            for member in members:
                histogram = member.module.histogram
                if (found := known.get(member.node)) is not None:
                    member.module.mean = found.mean
                    ends.append((float(found.low.min()), float(found.high.max())))
                elif histogram is not None and histogram.bound:
                    ends.append((histogram.smallest, histogram.largest))
            set_range(members, min(low for low, _ in ends), max(high for _, high in ends), ctx)


def group_observers(observers: Iterable[Call[Observer]]) -> list[list[Call[Observer]]]:
    """List the observers that share a scale together, in graph order."""
    groups: dict[str, list[Call[Observer]]] = defaultdict(list)
    for each in observers:
        groups[each.module.group].append(each)
    return list(groups.values())


def count_images(found: Mapping[fx.Node, Histogram]) -> float:
    """Return on how many images the histograms of nodes were taken."""
    pairs = ((h, math.prod(shape(node.all_input_nodes[0])[1:])) for node, h in found.items())
    return max((float(h.counts.sum()) / max(1, size) for h, size in pairs), default=1.0)


def only_activation(gm: fx.GraphModule, members: list[Call[Observer]]) -> OnlyActivation | None:
    """Return the activation that alone reads the tensor of a group of one observer, or None."""
    return find_only_activation(gm, members[0].node) if len(members) == 1 else None


def set_range(
    members: list[Call[Observer]], low: float, high: float, ctx: Context
) -> tuple[float, float]:
    """Set scale and zero point of a group's observers from a range; return the range used."""
    if any(is_bounded(source_of(m)) for m in members):
        low, high = 0.0, 1.0
    module = members[0].module
    chosen = qparams_from_range(
        torch.tensor(low), torch.tensor(high), DTYPES[module.dtype], symmetric=module.symmetric
    )
    for member in members:
        member.module.scale, member.module.zero_point = chosen.scale, chosen.zero_point
        ctx.rewrote(member.node, f"range {low:.4g} to {high:.4g}")
    return low, high


def source_of(observer: Call[Observer]) -> fx.Node:
    """Return the node whose result is observed."""
    return observer.node.all_input_nodes[0]


def is_bounded(node: fx.Node) -> bool:
    """Return whether a tensor is in 0..1 for every image."""
    return node.op == "placeholder" or is_function(node, torch.sigmoid)
