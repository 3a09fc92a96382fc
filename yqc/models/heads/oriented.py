"""Heads for oriented boxes: OBB and OBB26 of Ultralytics.

The distances to the sides are measured along axes that are turned by the box's angle about the
cell; the output's boxes are centre, width along the turned x axis, height, and angle in radians.
"""

# ruff: noqa: D102 - what `DetectionHead` says of a method holds for its subclasses

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from yqc.facts import HeadFacts, Task
from yqc.models.heads.base import cell_centres
from yqc.models.heads.dfl import DistanceHead, extra_branch


class OrientedHead(DistanceHead):
    """Ultralytics' OBB: branches `cv4` for the angle, (sigmoid - 1/4) pi of their output."""

    task: Task = "obb"
    branches_of: ClassVar[tuple[str, ...]] = (*DistanceHead.branches_of, "cv4")
    given: ClassVar[Literal["sigmoid", "radians"]] = "sigmoid"
    """What the branches give: see `HeadFacts.angle`."""
    ne: int = 1
    """Numbers of an angle."""

    def __init__(
        self,
        nc: int,
        ch: Sequence[int],
        ne: int = 1,
        *,
        reg_max: int = 16,
        end2end: bool = False,
        legacy: bool = False,
    ) -> None:
        super().__init__(nc, ch, reg_max, end2end, legacy)
        self.ne = ne
        self.cv4 = extra_branch(ch, ne)
        if end2end:
            self.one2one_cv4 = extra_branch(ch, ne)

    def finish(self) -> None:
        super().finish()
        if self.ne != 1:
            raise ValueError(f"ne is {self.ne}, and an angle is one number")

    def facts(self) -> HeadFacts:
        return replace(super().facts(), angle=self.given)

    def channels_of(self) -> dict[str, int]:
        return {**super().channels_of(), "cv4": self.ne}

    def angle(self, raw: Tensor) -> Tensor:
        """Return the angle in radians."""
        return (torch.sigmoid(raw) - 0.25) * math.pi

    def decode(self, raw: tuple[Tensor, ...], stride: float) -> tuple[Tensor, ...]:
        box, score, turned = raw
        angle = self.angle(turned)
        return self.turned_boxes(box, angle, stride).flatten(2), score.flatten(2), angle.flatten(2)

    def turned_boxes(self, raw: Tensor, angle: Tensor, stride: float) -> Tensor:
        """Decode one level to boxes `f32[N, 4, h, w]`: centre, width and height in pixels."""
        h, w = raw.shape[-2:]
        before, after = torch.chunk(self.distances(raw, stride), 2, 1)  # left, top; right, bottom
        along, across = torch.chunk((after - before) * 0.5, 2, 1)
        cos, sin = torch.cos(angle), torch.sin(angle)
        x = along * cos - across * sin + cell_centres(w, stride, 0.5)
        y = along * sin + across * cos + cell_centres(h, stride, 0.5)[:, None]
        return torch.cat((x, y, before + after), 1)


class Oriented26Head(OrientedHead):
    """YOLO26's OBB26: the branches give the angle itself."""

    given: ClassVar[Literal["sigmoid", "radians"]] = "radians"

    def angle(self, raw: Tensor) -> Tensor:
        return raw
