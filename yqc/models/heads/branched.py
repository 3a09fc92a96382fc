"""Heads of YOLOv9's authors: DDetect, DualDDetect and TripleDDetect, and those without groups.

Each map of the main branch, and of auxiliary ones before it, has convolutions of its own. The
branches before the last serve training only (Wang et al. 2024, programmable gradients).
"""

# ruff: noqa: D102 - what `DetectionHead` says of a method holds for its subclasses

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from yqc.models.blocks.conv import Conv
from yqc.models.heads.dfl import DFL, DistanceHead

GROUPS = 4
"""Of the convolutions for distances: one for each side of a box."""


class BranchedHead(DistanceHead):
    """DDetect: grouped convolutions for the distances, one branch."""

    branches: ClassVar[int] = 1
    groups: ClassVar[int] = GROUPS

    def __init__(self, nc: int, ch: Sequence[int], reg_max: int = 16) -> None:
        levels = len(ch) // self.branches
        super().__init__(nc, ch[:levels], reg_max, legacy=True)
        for branch in range(self.branches):
            widths = ch[branch * levels : (branch + 1) * levels]
            box, score, dfl = self.names(branch)
            wide = max(widths[0] // 4, reg_max * 4, 16)
            wide += -wide % GROUPS
            deep = max(widths[0], min(nc * 2, 128))
            self.add_module(box, nn.ModuleList(self.distances_of(c, wide) for c in widths))
            self.add_module(score, nn.ModuleList(scores_of(c, deep, nc) for c in widths))
            self.add_module(dfl, DFL(reg_max))

    def distances_of(self, c: int, hidden: int) -> nn.Sequential:
        """Make the branch of one level that gives distances."""
        g, out = self.groups, 4 * self.reg_max
        last = nn.Conv2d(hidden, out, 1, groups=g)
        return nn.Sequential(Conv(c, hidden, 3), Conv(hidden, hidden, 3, g=g), last)

    @staticmethod
    def names(branch: int) -> tuple[str, str, str]:
        """Return the names of a branch: for distances, for scores, of the expectation."""
        return f"cv{2 * branch + 2}", f"cv{2 * branch + 3}", f"dfl{branch + 1 if branch else ''}"

    def used(self, sources: tuple[int, ...]) -> tuple[int, ...]:
        return sources[-self.nl :]

    def finish(self) -> None:
        """Keep the main branch only, under the names of a single one."""
        main = self.names(self.branches - 1)
        if self.branches > 1 and all(self.child(name) is not None for name in main):
            kept = [self.get_submodule(name) for name in main]
            for branch in range(self.branches):
                for name in self.names(branch):
                    self._modules.pop(name, None)
            for name, module in zip(self.names(0), kept, strict=True):
                self.add_module(name, module)
        super().finish()

    def raw(self, xs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        names = self.names(self.branches - 1)[:2]
        if any(self.child(name) is None for name in names):
            names = self.names(0)[:2]
        box, score = (self.get_submodule(name) for name in names)
        parts = zip(box.children(), score.children(), xs, strict=True)
        return [(distances(x), scores(x)) for distances, scores, x in parts]


class DualHead(BranchedHead):
    """DualDDetect: one auxiliary branch."""

    branches: ClassVar[int] = 2


class TripleHead(BranchedHead):
    """TripleDDetect: two auxiliary branches."""

    branches: ClassVar[int] = 3


class PlainHead(BranchedHead):
    """The project's Detect: no groups, one branch."""

    groups: ClassVar[int] = 1


class PlainDualHead(DualHead):
    """DualDetect: no groups."""

    groups: ClassVar[int] = 1


class PlainTripleHead(TripleHead):
    """TripleDetect: no groups."""

    groups: ClassVar[int] = 1


def scores_of(c: int, hidden: int, nc: int) -> nn.Sequential:
    """Make the branch of one level that gives class scores."""
    return nn.Sequential(Conv(c, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, nc, 1))
