"""relax: leave the inputs of a few convolutions in float, where rounding them does most damage.

1. The damage of rounding a tensor was measured as its range was chosen: its squared error an image,
   each value weighted by relevance (`yqc.quant.value_relevance`).
2. What a convolution in float adds to the time of the target's runtime is modelled
   (`yqc.quantizing.float_time`). A tensor is a candidate only if it removes at least `rate` of
   damage, as a share of the squared scores of an image, for each percent of time that its readers
   add. Where all damage together is more than these scores, as in a network of random weights, its
   estimate by gradients ranks nothing, and nothing is done.
3. Tensors that share a scale are left in float together. Of the candidates those are chosen whose
   damage is largest in total while at most `share` of all convolution inputs stay in float (a 0/1
   knapsack).
4. Their observers are removed; weights become int8 all the same. So are, where the target quantizes
   results of convolutions only for its integer kernels, the observers between such a convolution
   and its activation. Without data no damage was measured, and nothing is done.

Mixed precision by second-order sensitivity is that of HAWQ-V3 (Yao et al., ICML 2021).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

import torch
from torch import fx, nn

from yqc import Context, Pass, State, call, calls, is_function
from yqc.graph import bypass, drop_unread
from yqc.pipeline import Bounds, Share
from yqc.quant import Observer, weight_outputs
from yqc.quantizing import FloatTime, is_packed

IMAGES = 4
"""Calibration images whose scores are summed; only the order of the sum matters."""


@dataclass(frozen=True)
class Relax(Pass):
    """Leave the inputs of a few convolutions in float, where rounding them does most damage."""

    name: ClassVar[str] = "relax"
    reads_images: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({State.CALIBRATED})
    keeps_numbers: ClassVar[bool] = True

    share: Annotated[float, Share, Bounds(least=0, most=1)] = 0.1
    """At most this share of convolutions read float."""
    rate: Annotated[float, Share, Bounds(least=0)] = 0.006
    """Share of the squared scores that each percent of added time must save: some 1 % of mAP."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        readers = find_readers(gm)
        damage = {o.module.group: float(o.module.damage) for o in calls(gm, Observer)}
        time = FloatTime(gm, ctx.rules)
        total, room = sum(damage.values()), int(self.share * sum(map(len, readers.values())))
        if not total or not room:
            return
        scores = squared_scores(gm, ctx)
        if total > scores and self.rate:
            ctx.says(
                "rounding does more damage than a linear estimate can rank; none stays in float"
            )
            return
        least = 100 * self.rate * scores
        worth = {
            group: damage[group]
            for group, convs in readers.items()
            if damage[group] > 0 and damage[group] >= least * time.added(convs)
        }
        chosen = most_damage(worth, {g: len(convs) for g, convs in readers.items()}, room)
        for each in calls(gm, Observer):
            if (group := each.module.group) in chosen:
                added = time.added(readers[group])
                what = f"{damage[group] / total:.1%} of the damage, for {added:.1%} more time"
                ctx.rewrote(bypass(gm, each.node), f"stays in float; {what}")
        if ctx.rules.integer_results:
            for conv in (conv for group in chosen for conv in readers[group]):
                for node in list(inner_observers(gm, conv)):
                    bypass(gm, node)
        drop_unread(gm)
        gm.recompile()


def squared_scores(gm: fx.GraphModule, ctx: Context) -> float:
    """Return the sum of an image's squared scores, the mean of a few images; at least 1.

    Of a graph that is no detector's, all outputs count, each in units of its deviation.
    """
    sums = []
    for image in islice(ctx.calibration() if ctx.calibration else (), IMAGES):
        with torch.no_grad():
            outputs = weight_outputs(gm(image), ctx.form)
        counted = outputs[:1] if ctx.form else outputs  # scores come before boxes
        sums.append(sum(float((o * weight).square().sum()) for o, weight in counted))
    return max(1.0, sum(sums) / max(1, len(sums)))


def find_readers(gm: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """List the convolutions that read a tensor of each group of observers."""
    found: dict[str, list[fx.Node]] = defaultdict(list)
    for node in gm.graph.nodes:
        if call(gm, node, nn.Conv2d) is not None or is_packed(node):
            observer = call(gm, node.all_input_nodes[0], Observer)
            if observer is not None:
                found[observer.module.group].append(node)
    return found


def inner_observers(gm: fx.GraphModule, conv: fx.Node) -> Iterator[fx.Node]:
    """Yield the observers of a convolution's result, and of the sigmoid that reads it."""
    for node in conv.users:
        if call(gm, node, Observer) is not None:
            yield node
            yield from inner_observers(gm, node)
        elif is_function(node, torch.sigmoid):
            yield from (user for user in node.users if call(gm, user, Observer) is not None)


def most_damage(
    damage: Mapping[str, float], readers: Mapping[str, int], room: int
) -> frozenset[str]:
    """Choose the groups of most damage in total that fit; ties go to the first.

    Damages are positive, and at most `room` readers, of one or more each, are chosen in total.
    """
    best: list[tuple[float, frozenset[str]]] = [(0.0, frozenset())] * (room + 1)
    for name, amount in damage.items():
        for left in range(room, readers[name] - 1, -1):
            before, taken = best[left - readers[name]]
            if before + amount > best[left][0]:
                best[left] = (before + amount, taken | {name})
    return best[room][1]
