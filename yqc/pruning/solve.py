"""How many channels of which group go, so that a share of the whole is gone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yqc.graph.channels.sets import Block
from yqc.pruning.cost import Cost
from yqc.pruning.surgery import Keep

Scores = NDArray[np.float64]
SMALL = 32


@dataclass(frozen=True)
class Limits:
    """What a choice of channels must respect."""

    round_to: int = 8
    """What stays of a group is a multiple of this; less in groups under 32 channels."""
    max_per_layer: float = 0.9
    """At most this share of a group goes."""
    min_channels: int = 4
    """At least so many channels of a group stay, or all of a smaller one."""
    small: int = SMALL
    """Groups with fewer channels are rounded less."""

    def step(self, count: int) -> int:
        """Return what the number of channels that stay is a multiple of, in a group of `count`."""
        if count >= self.small:
            return max(1, self.round_to)
        fitting = [d for d in range(1, self.round_to + 1) if self.round_to % d == 0]
        return max(d for d in fitting if d <= max(1, count // 8))

    def most(self, count: int) -> int:
        """Return how many of `count` channels may go."""
        return max(0, min(count - max(1, self.min_channels), int(count * self.max_per_layer)))


@dataclass(frozen=True)
class Slice:
    """Some channels of one group, which go together."""

    score: float
    block: int
    """Number of the group's first set."""
    sets: NDArray[np.int64]


def slices(blocks: Sequence[Block], scores: Scores, limits: Limits) -> list[Slice]:
    """Cut the removable channels of every group into slices, the least important first.

    The scores of one group's slices never fall, so that sorting keeps their order.

    Args:
        blocks: the groups; pinned ones give nothing.
        scores: of each set; the lower, the sooner it goes.
        limits: what is respected.
    """
    found: list[Slice] = []
    for block in blocks:
        own = np.arange(block.first, block.first + block.count)
        order = own[np.argsort(scores[own], kind="stable")]
        step, most = limits.step(block.count), 0 if block.pin else limits.most(block.count)
        done, last = 0, -np.inf
        size = block.count % step or step
        while done + size <= most:
            part = order[done : done + size]
            last = max(last, float(scores[part].mean()))
            found.append(Slice(last, block.first, part))
            done, size = done + size, step
    return sorted(found, key=lambda s: s.score)


def by_layer(blocks: Sequence[Block], scores: Scores) -> Scores:
    """Replace scores by ranks within each group, 0..1, so that all groups lose the same share."""
    ranks = np.zeros_like(scores)
    for block in blocks:
        own = slice(block.first, block.first + block.count)
        ranks[own] = np.argsort(np.argsort(scores[own], kind="stable")) / block.count
    return ranks


def take(count: int, parts: Sequence[Slice]) -> Keep:
    """Return what stays of `count` sets when the slices are gone."""
    keep = np.ones(count, dtype=np.bool_)
    for part in parts:
        keep[part.sets] = False
    return keep


def reach(cost: Cost, parts: Sequence[Slice], share: float) -> Keep:
    """Choose what stays so that the share that is gone comes as close to `share` as it can.

    The least important slices go, up to the last that fits; then those behind it that still fit,
    and at last one more, if that comes closer.

    Args:
        cost: what is counted.
        parts: slices, the least important first.
        share: 0..1.
    """
    count = cost.channels.count
    low, high = 0, len(parts)
    while low < high:  # the longest beginning that takes no more than is asked
        middle = (low + high + 1) // 2
        if cost.removed(take(count, parts[:middle])) <= share:
            low = middle
        else:
            high = middle - 1
    keep = take(count, parts[:low])
    nearest, gap = keep, abs(cost.removed(keep) - share)
    passed: set[int] = set()
    for part in parts[low:]:
        if part.block in passed or gap < share / 1000:
            continue
        trial = keep.copy()
        trial[part.sets] = False
        now = cost.removed(trial)
        if abs(now - share) < gap:
            nearest, gap = trial, abs(now - share)
        if now <= share:
            keep = trial
        else:
            passed.add(part.block)
    return nearest
