"""Select the channels of each group to remove, so that a share of the whole is removed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yqc.graph.channels.sets import ChannelBlock
from yqc.pruning.sizes import SizeCounter
from yqc.pruning.surgery import Keep
from yqc.pruning.weight_scores import Saliency

SMALL = 32
"""Groups with fewer channels are rounded less. A convention: rounding 16 channels to multiples of 8
leaves two choices. Half of it removes less from narrow layers, double lets more odd widths stand.
"""


@dataclass(frozen=True)
class GroupLimits:
    """What a selection of channels must respect."""

    round_to: int = 8
    """What stays of a group is a multiple of this; less in groups under 32 channels."""
    max_per_layer: float = 0.9
    """At most this share of a group is removed."""
    min_channels: int = 4
    """At least this many channels of a group stay, or all of a smaller one."""
    small: int = SMALL

    def step(self, count: int) -> int:
        """Return the number that the channels left of a group of `count` are a multiple of."""
        if count >= self.small:
            return max(1, self.round_to)
        fitting = [d for d in range(1, self.round_to + 1) if self.round_to % d == 0]
        return max(d for d in fitting if d <= max(1, count // 8))

    def most(self, count: int) -> int:
        """Return how many of `count` channels may be removed."""
        return max(0, min(count - max(1, self.min_channels), int(count * self.max_per_layer)))


@dataclass(frozen=True)
class Slice:
    """Some channels of one group, removed together."""

    saliency: float
    block: int
    """Number of the group's first set."""
    sets: NDArray[np.int64]


def cut_slices(
    blocks: Sequence[ChannelBlock], saliency: Saliency, limits: GroupLimits
) -> list[Slice]:
    """Cut the removable channels of every group into slices, the least salient first.

    The saliency of one group's slices never falls, so that sorting keeps their order.
    """
    found: list[Slice] = []
    for block in blocks:
        own = np.arange(block.first, block.first + block.count)
        order = own[np.argsort(saliency[own], kind="stable")]
        step, most = limits.step(block.count), 0 if block.pin else limits.most(block.count)
        done, last = 0, -np.inf
        size = block.count % step or step
        while done + size <= most:
            part = order[done : done + size]
            last = max(last, float(saliency[part].mean()))
            found.append(Slice(last, block.first, part))
            done, size = done + size, step
    return sorted(found, key=lambda s: s.saliency)


def rank_within_groups(blocks: Sequence[ChannelBlock], saliency: Saliency) -> Saliency:
    """Replace saliency by ranks in 0..1 within each group, so that all groups lose one share."""
    ranks = np.zeros_like(saliency)
    for block in blocks:
        own = slice(block.first, block.first + block.count)
        ranks[own] = np.argsort(np.argsort(saliency[own], kind="stable")) / block.count
    return ranks


def keep_without(count: int, parts: Sequence[Slice]) -> Keep:
    """Return the sets of `count` that stay when the slices are removed."""
    keep = np.ones(count, dtype=np.bool_)
    for part in parts:
        keep[part.sets] = False
    return keep


def select_share(sizes: SizeCounter, parts: Sequence[Slice], share: float) -> Keep:
    """Select what stays so that the share removed is as close to `share`, 0..1, as possible.

    The least salient slices are removed, up to the last that fits; then those behind it that still
    fit, and at last one more if that comes closer.
    """
    count = sizes.channels.count
    low, high = 0, len(parts)
    while low < high:  # the longest beginning that removes no more than `share`
        middle = (low + high + 1) // 2
        if sizes.share_removed(keep_without(count, parts[:middle])) <= share:
            low = middle
        else:
            high = middle - 1
    keep = keep_without(count, parts[:low])
    nearest, gap = keep, abs(sizes.share_removed(keep) - share)
    passed: set[int] = set()
    for part in parts[low:]:
        if part.block in passed or gap < share / 1000:
            continue
        trial = keep.copy()
        trial[part.sets] = False
        now = sizes.share_removed(trial)
        if abs(now - share) < gap:
            nearest, gap = trial, abs(now - share)
        if now <= share:
            keep = trial
        else:
            passed.add(part.block)
    return nearest
