"""One pruning: a graph, its channels, what calibration images tell, and trials of what may go."""

import copy
import math
from collections import deque
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, fx

from yqc.errors import PassError
from yqc.graph.channels.groups import find_channels
from yqc.graph.channels.sets import Block, Channels
from yqc.graph.memory import as_weights, batched, channels_last
from yqc.graph.noise import image_shape, noise
from yqc.graph.values import TensorSpec, tensors
from yqc.pipeline.base import JUDGES, Context
from yqc.pruning import criteria, gradient_scores
from yqc.pruning.correct import Sweep
from yqc.pruning.cost import Cost, Measure
from yqc.pruning.reconstruct import reconstruction
from yqc.pruning.solve import Limits, Scores, Slice, by_layer, reach, slices, take
from yqc.pruning.statistics import moments, sensitivity
from yqc.pruning.surgery import Keep, remove
from yqc.pruning.without_data import absorb

Criterion: TypeAlias = Literal[
    "auto", "bn-scale", "l1", "l2", "taylor", "hessian", "reconstruction", "random"
]
DATA = ("taylor", "hessian", "reconstruction")
"""Criteria that look at images; `auto` gives them seeded noise where there are none."""
IMAGES = 16
"""So many images, at most, are corrected on."""
PROBED = 8
"""So many are sent back through the graph."""
COMPARED = 4
"""So many decide between criteria."""
LANES = 16
"""So many channels go through AVX-512 at once: with fewer, and with what is no multiple of it,
onnxruntime rearranges tensors on the way, which takes longer than what is saved."""
HALVES = (2, 4, 8, 16)
MEMORY = 2.5e9
"""Bytes of tensors that a correction may hold, about."""


@dataclass(frozen=True)
class Wishes:
    """What decides what goes."""

    of: Measure = "params"
    scope: Literal["global", "layer"] = "global"
    limits: Limits = field(default_factory=Limits)
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A pruned copy of a graph; its nodes do not know their new shapes."""

    gm: fx.GraphModule
    keep: Keep
    removed: float
    """Share that is gone."""
    error: float | None
    """How far the head's outputs are from the graph's as it was, after correction."""


class Job:
    """Tries what happens when channels go from a graph; the graph itself stays as it is.

    Args:
        gm: the graph; its nodes know their shapes.
        ctx: gives images, agreement and seed.
        wishes: what decides what goes.
    """

    def __init__(self, gm: fx.GraphModule, ctx: Context, wishes: Wishes) -> None:
        self.gm, self.ctx, self.wishes = gm, ctx, wishes
        self.channels = chosen(find_channels(gm), wishes.keep, wishes.only)
        self.cost = Cost(gm, self.channels, wishes.of)
        self._scores: dict[str, Scores] = {}

    @cached_property
    def images(self) -> tuple[Tensor, ...]:
        """Calibration images: as many as fit into memory, at most `IMAGES`.

        The first ones are left to judge by, where there are more. Without data, seeded noise; none
        for a graph that takes no images.
        """
        if self.ctx.calibration is None:
            return noise(self.gm, self.ctx.seed) if image_shape(self.gm) else ()
        count = max(4, min(IMAGES, int(MEMORY / footprint(self.gm))))
        return tuple(deque(islice(self.ctx.calibration(), JUDGES + count), maxlen=count))

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What `auto` chooses from."""
        return ("reconstruction", "l2") if self.images else ("l2",)

    def scores(self, criterion: str) -> Scores:
        """Score all sets; the lower, the sooner a set goes.

        Criteria in `DATA` look at the images.
        """
        if criterion not in self._scores:
            with channels_last(self.gm):
                self._scores[criterion] = self._score(criterion)
        return self._scores[criterion]

    def _score(self, criterion: str) -> Scores:
        gm, channels, seed = self.gm, self.channels, self.ctx.seed
        if criterion in {"l1", "l2"}:
            return criteria.magnitude(gm, channels, int(criterion[1]))
        if criterion == "bn-scale":
            return criteria.bn_scale(gm, channels)
        if criterion == "random":
            return criteria.at_random(channels, seed)
        images = [as_weights(image, gm) for image in self.images]
        some = images[:PROBED]
        if criterion == "taylor":
            return gradient_scores.taylor(gm, channels, some) / self.price
        if criterion == "hessian":
            return gradient_scores.hessian(gm, channels, some, seed) / self.price
        found = moments(gm, channels, batched(gm, images), seed)
        felt = sensitivity(gm, channels, batched(gm, some), seed)
        return reconstruction(gm, channels, found, felt) / self.price

    @cached_property
    def price(self) -> Scores:
        """What each set saves; scores that are losses are counted a unit of it."""
        saving = self.cost.saving()
        least: Scores = np.maximum(saving, saving.max(initial=1.0) * 1e-9)
        return least

    def slices(self, criterion: str, limits: Limits | None = None) -> list[Slice]:
        """Return what may go, the least important first."""
        scores, blocks = self.scores(criterion), self.channels.blocks
        if self.wishes.scope == "layer":
            scores = by_layer(blocks, scores)
        return slices(blocks, scores, limits or self.wishes.limits)

    def highest(self, limits: Limits | None = None) -> float:
        """Return the largest share that can go."""
        every = slices(
            self.channels.blocks, np.zeros(self.channels.count), limits or self.wishes.limits
        )
        return self.cost.removed(take(self.channels.count, every))

    def choose(self, criterion: str, ratio: float) -> Keep:
        """Choose what stays so that the share `ratio` goes, as nearly as rounding allows.

        A share of multiply-accumulates is asked for the sake of speed: what stays of a group is a
        multiple of `LANES` then, if the share can be reached so.

        Raises:
            PassError: that much cannot go; the message says how much can.
        """
        limits = self.wishes.limits
        wide = replace(limits, round_to=LANES, small=0)
        if self.wishes.of == "macs" and limits.round_to in HALVES and self.highest(wide) >= ratio:
            keep = reach(self.cost, self.slices(criterion, wide), ratio)
            if abs(self.cost.removed(keep) - ratio) <= ratio / 100:
                return keep
        if self.highest() < ratio:
            limits = replace(limits, round_to=1)
            if (most := self.highest(limits)) < ratio:
                raise PassError(
                    f"ratio={ratio:g} of {self.wishes.of} is impossible: the highest possible is "
                    f"{math.floor(most * 1000) / 1000:g} ({self.why_not()})"
                )
        keep = reach(self.cost, self.slices(criterion, limits), ratio)
        if abs(self.cost.removed(keep) - ratio) > ratio / 100 and limits.round_to > 1:
            finer = reach(self.cost, self.slices(criterion, replace(limits, round_to=1)), ratio)
            self.ctx.warn(
                f"prune: rounding to {limits.round_to} channels reaches "
                f"{self.cost.removed(keep):.3f} of {self.wishes.of} instead of {ratio:g} "
                f"(round_to=1 would reach {self.cost.removed(finer):.3f})"
            )
        return keep

    def nearest(self, criterion: str, share: float) -> Keep:
        """Choose what stays so that about `share` goes, as rounding allows."""
        return reach(self.cost, self.slices(criterion), share)

    def why_not(self) -> str:
        """Say what keeps more from going."""
        limits, pinned = self.wishes.limits, sum(b.count for b in self.channels.blocks if b.pin)
        return (
            f"{pinned} of {self.channels.count} channel groups must stay, "
            f"max_per_layer={limits.max_per_layer:g}, min_channels={limits.min_channels}"
        )

    def trial(self, keep: Keep, *, images: int | None = None) -> Trial:
        """Prune a copy of the graph, and correct it."""
        pruned = copy.deepcopy(self.gm)
        remove(pruned, self.channels, keep, shapes=False)
        error = None
        if self.images and not keep.all():
            sweep = Sweep(self.gm, pruned, self.channels, keep, self.ctx.seed)
            with channels_last(self.gm, pruned):
                error = sweep.run(as_weights(torch.cat(self.images[:images]), self.gm))
        elif not keep.all():
            absorb(self.gm, pruned, self.channels, keep)
        return Trial(pruned, keep, self.cost.removed(keep), error)

    def best(self, ratio: float) -> Criterion:
        """Return the criterion whose trial comes closest to the graph as it is."""
        if len(self.criteria) == 1:
            return self.criteria[0]
        trials = {c: self.trial(self.nearest(c, ratio), images=COMPARED) for c in self.criteria}
        return min(self.criteria, key=lambda c: trials[c].error or 0.0)

    def agreement(self, trial: Trial) -> float | None:
        """Return how well a trial agrees with the float original, 0..1; None if nobody can tell.

        Where detections cannot be compared, one minus the distance of the head's outputs.
        """
        found = None if self.ctx.agreement is None else self.ctx.agreement(trial.gm)
        if found is not None:
            return found
        if self.ctx.calibration is None or trial.error is None:
            return None
        return max(0.0, 1 - trial.error)


def chosen(channels: Channels, keep: tuple[str, ...], only: tuple[str, ...]) -> Channels:
    """Pin the groups that the patterns exclude.

    Args:
        channels: as found.
        keep: module paths, with * as a wildcard: groups that they make stay.
        only: groups that no module of these makes stay; empty means that all may go.
    """
    if not keep and not only:
        return channels
    pins = list(channels.pins)
    blocks: list[Block] = []
    for block in channels.blocks:
        slots = [channels.slots[place] for place, _ in block.places]
        makers = [s.target for s in slots if s.side != "in"]
        why = block.pin
        if not why and any(_matches(m, keep) for m in makers):
            why = f"keep={'|'.join(keep)} names it"
        if not why and only and not any(_matches(m, only) for m in makers):
            why = f"only={'|'.join(only)} does not name it"
        pins[block.first : block.first + block.count] = [why] * block.count
        blocks.append(replace(block, pin=why))
    return replace(channels, pins=tuple(pins), blocks=tuple(blocks))


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, p) or path.startswith(f"{p}.") for p in patterns)


def footprint(gm: fx.GraphModule) -> float:
    """Return about how many bytes of tensors two runs of a graph hold at a time, for one image."""
    sizes = [
        math.prod(spec.shape) * 4
        for node in gm.graph.nodes
        for spec in tensors(node.meta.get("yqc.value"))
        if isinstance(spec, TensorSpec)
    ]
    return 16.0 * max(sizes, default=1)
