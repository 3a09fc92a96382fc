"""The options of channel pruning, which the pass and the recipe share."""

from dataclasses import dataclass
from typing import Annotated, Literal

from yqc.pipeline import Bounds, Count, Share
from yqc.pruning.selection import GroupLimits
from yqc.pruning.sizes import SizeUnit
from yqc.registered import CRITERIA

DATA_CRITERIA = ("taylor", "hessian", "reconstruction")
"""Criteria that run images through the graph; `auto` uses seeded noise where there are none."""


@dataclass(frozen=True)
class PruningOptions:
    """How many channels are removed, which ones, and where."""

    ratio: Annotated[float | None, Share, Bounds(above=0, below=1)] = None
    """Share to remove, above 0 and below 1; by default as much as keeps the agreement."""
    of: SizeUnit = "params"
    """What the ratio is a share of; of macs, groups keep multiples of 16 channels if they can."""
    criterion: Annotated[str, CRITERIA] = "auto"
    """How channels are scored; auto takes reconstruction or l2, whichever measures better."""
    scope: Literal["global", "layer"] = "global"
    """Compare channels over the whole graph, or take the same share of every group."""
    agreement: Annotated[float, Share, Bounds(above=0, most=1)] = 0.97
    """What is kept, where no ratio is given: AP50 against the float model's detections."""
    round_to: Count = 8
    """What stays of a group is a multiple of this; less in groups under 32 channels."""
    max_per_layer: Annotated[float, Share, Bounds(above=0, most=1)] = 0.9
    """At most this share of a group is removed."""
    min_channels: Count = 4
    """At least this many channels of a group stay."""
    keep: tuple[str, ...] = ()
    """Modules whose channels stay: their paths, with * as a wildcard."""
    only: tuple[str, ...] = ()
    """Modules whose channels may be removed: their paths, * as a wildcard; all by default."""

    @property
    def limits(self) -> GroupLimits:
        """What a selection of channels must respect."""
        return GroupLimits(self.round_to, self.max_per_layer, self.min_channels)
