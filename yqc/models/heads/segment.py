"""Heads that find masks: Segment and Segment26 of Ultralytics, Segment of YOLOv5's project.

A detection has as many coefficients as there are prototypes; its mask is the sigmoid of the sum of
the prototypes, each times its coefficient, within its box (Bolya et al. 2019, YOLACT).
"""

# ruff: noqa: D102 - what `DetectionHead` says of a method holds for its subclasses

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yqc.errors import CheckpointError
from yqc.facts import Task
from yqc.models.blocks.base import Block, run_module
from yqc.models.blocks.conv import Conv
from yqc.models.heads.anchor import AnchorHead
from yqc.models.heads.dfl import DistanceHead, extra_branch


class Proto(Block):
    """Prototypes of masks from the finest map, at twice its height and width."""

    cv1: nn.Module
    cv2: nn.Module
    cv3: nn.Module

    def __init__(self, c1: int, hidden: int = 256, c2: int = 32, *, learned: bool = True) -> None:
        """Make it; `learned` says whether the upsampling has weights, or repeats its pixels."""
        super().__init__()
        self.cv1 = Conv(c1, hidden, 3)
        self.upsample = (
            nn.ConvTranspose2d(hidden, hidden, 2, 2) if learned else nn.Upsample(scale_factor=2)
        )
        self.cv2 = Conv(hidden, hidden, 3)
        self.cv3 = Conv(hidden, c2)

    def forward(self, x: Tensor) -> Tensor:
        return run_module(self.cv3, self.cv2(self.upsample(self.cv1(x))))

    def of_maps(self, xs: Sequence[Tensor]) -> Tensor:
        """Map the head's maps to prototypes `f32[N, c2, 2 h, 2 w]`, h and w those of the first."""
        return self(xs[0])


class Proto26(Proto):
    """Prototypes from all maps: coarser ones are added to the finest (YOLO26).

    The branch `semseg` serves training only.
    """

    left_out: ClassVar[frozenset[str]] = frozenset({"semseg"})

    def __init__(self, ch: Sequence[int], hidden: int = 256, c2: int = 32) -> None:
        super().__init__(hidden, hidden, c2)
        self.feat_refine = nn.ModuleList(Conv(c, ch[0]) for c in ch[1:])
        self.feat_fuse = Conv(ch[0], hidden, 3)

    def of_maps(self, xs: Sequence[Tensor]) -> Tensor:
        total, *coarser = xs
        for refine, x in zip(self.feat_refine, coarser, strict=True):
            factor = total.shape[-1] // x.shape[-1]
            total = total + F.interpolate(refine(x), scale_factor=float(factor))
        return self(self.feat_fuse(total))


class SegmentHead(DistanceHead):
    """Ultralytics' Segment: branches `cv4` for coefficients, and `proto`."""

    task: Task = "segment"
    branches_of: ClassVar[tuple[str, ...]] = (*DistanceHead.branches_of, "cv4")
    nm: int = 32
    """How many prototypes."""
    proto: Proto

    def __init__(
        self,
        nc: int,
        ch: Sequence[int],
        nm: int = 32,
        hidden: int = 256,
        *,
        reg_max: int = 16,
        end2end: bool = False,
        legacy: bool = False,
    ) -> None:
        super().__init__(nc, ch, reg_max, end2end, legacy)
        self.nm = nm
        self.proto = self.make_proto(ch, hidden)
        self.cv4 = extra_branch(ch, nm)
        if end2end:
            self.one2one_cv4 = extra_branch(ch, nm)

    def make_proto(self, ch: Sequence[int], hidden: int) -> Proto:
        """Make the branch of prototypes."""
        return Proto(ch[0], hidden, self.nm)

    @property
    def coefficients(self) -> int:
        return self.nm

    def channels_of(self) -> dict[str, int]:
        return {**super().channels_of(), "cv4": self.nm}

    def check(self) -> None:
        super().check()
        check_prototypes(self.child("proto"), self.nm)

    def decode(self, raw: tuple[Tensor, ...], stride: float) -> tuple[Tensor, ...]:
        box, score, mask = raw
        return (*super().decode((box, score), stride), mask.flatten(2))

    def forward(self, xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = super().forward(xs)
        return *(found if isinstance(found, tuple) else (found,)), self.proto.of_maps(xs)


class Segment26Head(SegmentHead):
    """YOLO26's Segment26: prototypes from all maps."""

    def make_proto(self, ch: Sequence[int], hidden: int) -> Proto:
        return Proto26(ch, hidden, self.nm)


class AnchorSegmentHead(AnchorHead):
    """YOLOv5's Segment: the coefficients of an anchor follow its scores, without a sigmoid."""

    task: Task = "segment"
    nm: int = 32
    """How many prototypes."""
    proto: Proto

    def __init__(
        self,
        nc: int,
        anchors: Sequence[Sequence[float]],
        ch: Sequence[int],
        nm: int = 32,
        hidden: int = 256,
    ) -> None:
        super().__init__(nc, anchors, ch)
        self.nm, self.no = nm, self.no + nm
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch[: self.nl])
        self.proto = Proto(ch[0], hidden, nm, learned=False)

    @property
    def coefficients(self) -> int:
        return self.nm

    def check(self) -> None:
        super().check()
        check_prototypes(self.child("proto"), self.nm)

    def forward(self, xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = super().forward(xs)
        return *(found if isinstance(found, tuple) else (found,)), self.proto.of_maps(xs)

    def decode_cells(self, i: int, y: Tensor) -> Tensor:
        """Decode level i: boxes, scores and coefficients, `f32[N, na, 5 + nc + nm, h, w]`."""
        sizes = [self.no - self.nm, self.nm]
        found, mask = torch.split(torch.unflatten(y, 1, (self.na, self.no)), sizes, 2)
        return torch.cat((super().decode_cells(i, found.flatten(1, 2)), mask), 2)


def check_prototypes(proto: nn.Module | None, nm: int) -> None:
    """Raise a CheckpointError unless a head has as many prototypes as coefficients."""
    last = proto.cv3 if isinstance(proto, Proto) else None
    convs = [m for m in last.modules() if isinstance(m, nn.Conv2d)] if last else []
    found = convs[-1].out_channels if convs else 0
    if found != nm:
        raise CheckpointError(
            f"the head has {nm} mask coefficients and {found} prototypes: the checkpoint is damaged"
        )
