"""Anchor-free heads: Ultralytics' Detect (YOLOv3u to 12, 26) and v10Detect.

Each cell gives its distances left, top, right and bottom of its centre to the sides of a box, in
strides. With `reg_max > 1` a distance is the expectation of a distribution over 0 .. reg_max - 1
(Li et al. 2020, Generalized Focal Loss); with `reg_max == 1` it is the number itself.
"""

# ruff: noqa: D102 - what `DetectionHead` says of a method holds for its subclasses

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from yqc.facts import HeadFacts, Layout
from yqc.models.blocks.base import Block, run_module
from yqc.models.blocks.conv import Conv, DWConv
from yqc.models.heads.base import DetectionHead, HeadBranch, cell_centres, check_outputs
from yqc.models.heads.picking import MAX_DET, pick_best


class DFL(Block):
    """Where Ultralytics stores the numbers 0 .. c1 - 1 of the expectation; heads compute them."""

    c1: int

    def __init__(self, c1: int = 16) -> None:
        super().__init__()
        self.c1 = c1
        self.conv = nn.Conv2d(c1, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(c1).view(1, c1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map logits `f32[N, 4 * c1, A]` to expectations `f32[N, 4, A]`."""
        p = torch.softmax(torch.unflatten(x, 1, (4, self.c1)), 2)
        return run_module(self.conv, p.transpose(1, 2)).flatten(1, 2)


class DistanceHead(DetectionHead):
    """Two branches a level: `cv2` for distances, `cv3` for class scores; heads of tasks add others.

    Where branches `one2one_cv2`, `one2one_cv3` exist, they are the ones used, with the best
    detections picked in the graph; `choose_branch` says otherwise.
    """

    branches_of: ClassVar[tuple[str, ...]] = ("cv2", "cv3")
    """Names of the branches, without the `one2one_` of one-to-one ones."""

    reg_max: int = 16
    max_det: int = MAX_DET
    """Most rows of the end-to-end output."""
    agnostic_nms: bool = False
    """Whether the end-to-end output has each cell once, with its best class."""
    end2end: bool = True
    """Whether one-to-one branches, where there are any, make the output; of Ultralytics 8.1 on."""
    _end2end: bool = True
    """The same as releases since 8.4 store it."""

    def __init__(
        self,
        nc: int,
        ch: Sequence[int],
        reg_max: int = 16,
        end2end: bool = False,
        legacy: bool = False,
    ) -> None:
        super().__init__()
        self.nc, self.nl, self.reg_max = nc, len(ch), reg_max
        box, score = max(16, ch[0] // 4, reg_max * 4), max(ch[0], min(nc, 100))
        self.cv2 = nn.ModuleList(box_branch(c, box, 4 * reg_max) for c in ch)
        self.cv3 = nn.ModuleList(score_branch(c, score, nc, legacy) for c in ch)
        self.dfl: nn.Module = DFL(reg_max) if reg_max > 1 else nn.Identity()
        if end2end:
            self.one2one_cv2 = nn.ModuleList(box_branch(c, box, 4 * reg_max) for c in ch)
            self.one2one_cv3 = nn.ModuleList(score_branch(c, score, nc, legacy) for c in ch)

    @property
    def is_dual(self) -> bool:
        """Whether one-to-one branches are there."""
        return self.child("one2one_cv2") is not None

    @property
    def preferred(self) -> HeadBranch | None:
        wanted = self.end2end and self._end2end
        return "one2many" if self.is_dual and not wanted else None

    def ignored(self) -> list[str]:
        if self.is_dual:
            return []
        found = [f"max_det {self.max_det}"] if self.max_det != MAX_DET else []
        found += ["agnostic_nms"] if self.agnostic_nms else []
        return [
            f"the head records {setting}, which is ignored: it counts where detections are picked,"
            " after this output"
            for setting in found
        ]

    @property
    def layout(self) -> Layout:
        return "end2end" if self.is_dual else "yolov8"

    def facts(self) -> HeadFacts:
        return HeadFacts(reg_max=self.reg_max)

    @property
    def training_only(self) -> frozenset[str]:
        return frozenset(self.branches_of) if self.is_dual else frozenset()

    def finish(self) -> None:
        """Drop the stored expectation, which is recomputed; refuse one that was edited."""
        if self.max_det < 1:
            raise ValueError(f"max_det is {self.max_det}")
        dfl = self.child("dfl")
        if isinstance(dfl, DFL):
            weight = dfl.conv.weight.detach().float().flatten()
            if not weight.isfinite().all():
                raise ValueError("dfl.conv.weight holds numbers that are not finite")
            if not torch.equal(weight, torch.arange(len(weight)).float()):
                raise ValueError(
                    f"dfl.conv.weight was edited: it holds other numbers than 0 to "
                    f"{len(weight) - 1}, which the head computes with"
                )
        if dfl is not None:
            del self.dfl

    def choose_branch(self, branch: HeadBranch) -> None:
        if not self.is_dual:
            super().choose_branch(branch)
            return
        kind = "" if branch == "one2one" else "one2one_"
        for name in self.branches_of:
            self._modules.pop(kind + name, None)

    def check(self) -> None:
        for kind in ("", "one2one_") if self.is_dual else ("",):
            for name, channels in self.channels_of().items():
                check_outputs(self.child(kind + name), self.nl, channels, kind + name)

    def channels_of(self) -> dict[str, int]:
        """Return the channels that each branch ends in, by the branch's name."""
        return {"cv2": 4 * self.reg_max, "cv3": self.nc}

    def raw(self, xs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Return for each level `f32[N, 4 * reg_max, h, w]`, score logits `f32[N, nc, h, w]`, ...

        ... and what further branches give.
        """
        used = [self.branch(name) for name in self.channels_of()]
        return [tuple(branch[i](xs[i]) for branch in used) for i in range(self.nl)]

    def branch(self, name: str) -> nn.ModuleList:
        """Return the branch of that name that is used: the one-to-one one if it is there."""
        return cast(nn.ModuleList, self.get_submodule(f"one2one_{name}" if self.is_dual else name))

    def forward(self, xs: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        levels = [self.decode(*level) for level in zip(self.raw(xs), self.stride, strict=True)]
        box, score, *extra = (torch.cat(parts, 2) for parts in zip(*levels, strict=True))
        if not self.is_dual:
            return torch.cat((box, torch.sigmoid(score), *extra), 1)
        how = {"agnostic": self.agnostic_nms}
        return pick_best(box, torch.sigmoid(score), self.max_det, extra, **how)

    def decode(self, raw: tuple[Tensor, ...], stride: float) -> tuple[Tensor, ...]:
        """Decode one level: boxes `f32[N, 4, A]`, score logits `f32[N, nc, A]`, further numbers."""
        box, score = raw
        return self.boxes(box, stride, corners=self.is_dual).flatten(2), score.flatten(2)

    def boxes(self, raw: Tensor, stride: float, corners: bool) -> Tensor:
        """Decode one level to boxes `f32[N, 4, h, w]`, by corners or by centre and size."""
        h, w = raw.shape[-2:]
        before, after = torch.chunk(self.distances(raw, stride), 2, 1)  # left, top; right, bottom
        cols, rows = cell_centres(w, stride, 0.5), cell_centres(h, stride, 0.5)[:, None]
        if corners:
            left, top = torch.chunk(before, 2, 1)
            right, bottom = torch.chunk(after, 2, 1)
            return torch.cat((cols - left, rows - top, right + cols, bottom + rows), 1)
        x, y = torch.chunk((after - before) * 0.5, 2, 1)
        return torch.cat((x + cols, y + rows, before + after), 1)

    def distances(self, raw: Tensor, stride: float) -> Tensor:
        """Return `f32[N, 4, h, w]`, in pixels."""
        if self.reg_max == 1:
            return raw * stride
        p = torch.softmax(torch.unflatten(raw.flatten(2), 1, (4, self.reg_max)), 2)
        # A matrix product: runtimes are several times slower at multiplying and summing here.
        expected = torch.matmul(
            cell_centres(self.reg_max, stride, 0.0)[None], p
        )  # [N, 4, 1, h * w]
        return torch.unflatten(expected.flatten(1, 2), 2, raw.shape[-2:])


class SplitHead(DistanceHead):
    """v10Detect: depthwise class branches and one-to-one branches always (Wang et al. 2024)."""

    def __init__(self, nc: int, ch: Sequence[int], reg_max: int = 16) -> None:
        super().__init__(nc, ch, reg_max, end2end=True, legacy=False)


def box_branch(c: int, hidden: int, out: int) -> nn.Sequential:
    """Make the branch of one level that gives distances."""
    return nn.Sequential(Conv(c, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, out, 1))


def score_branch(c: int, hidden: int, nc: int, legacy: bool) -> nn.Sequential:
    """Make the branch of one level that gives class scores: depthwise ones from YOLOv10 on."""
    if legacy:
        return nn.Sequential(Conv(c, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, nc, 1))
    return nn.Sequential(
        nn.Sequential(DWConv(c, c, 3), Conv(c, hidden)),
        nn.Sequential(DWConv(hidden, hidden, 3), Conv(hidden, hidden)),
        nn.Conv2d(hidden, nc, 1),
    )


def extra_branch(ch: Sequence[int], out: int) -> nn.ModuleList:
    """Make branches, one a level, that give `out` further numbers of each cell."""
    hidden = max(ch[0] // 4, out)
    return nn.ModuleList(box_branch(c, hidden, out) for c in ch)
