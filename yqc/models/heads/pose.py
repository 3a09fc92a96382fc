"""Heads that find keypoints: Pose and Pose26 of Ultralytics.

A keypoint has x and y, relative to its cell and in strides, and perhaps a visibility, of which the
sigmoid is given.
"""

# ruff: noqa: D102 - what `DetectionHead` says of a method holds for its subclasses

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from yqc.facts import HeadFacts, Task
from yqc.models.blocks.conv import Conv
from yqc.models.heads.base import cell_centres
from yqc.models.heads.dfl import DistanceHead, extra_branch


class PoseHead(DistanceHead):
    """Ultralytics' Pose: branches `cv4` for keypoints.

    With (col, row) the cell and t its stride: x = (2 k_x + col) t, y = (2 k_y + row) t.
    """

    task: Task = "pose"
    branches_of: ClassVar[tuple[str, ...]] = (*DistanceHead.branches_of, "cv4")
    factor: ClassVar[float] = 2.0
    """What a raw coordinate is multiplied by."""
    offset: ClassVar[float] = 0.0
    """Where in its cell a keypoint of raw 0 lies, 0.5 the middle."""
    kpt_shape: tuple[int, ...]
    """How many keypoints, and how many numbers each has: 2, or 3 with visibility."""

    def __init__(
        self,
        nc: int,
        ch: Sequence[int],
        kpt_shape: Sequence[int] = (17, 3),
        *,
        reg_max: int = 16,
        end2end: bool = False,
        legacy: bool = False,
    ) -> None:
        super().__init__(nc, ch, reg_max, end2end, legacy)
        self.kpt_shape = tuple(kpt_shape)
        self.add_keypoints(ch, ["", "one2one_"] if end2end else [""])

    def add_keypoints(self, ch: Sequence[int], kinds: Sequence[str]) -> None:
        """Add the branches for keypoints, whose names begin with each of `kinds`."""
        for kind in kinds:
            self.add_module(f"{kind}cv4", extra_branch(ch, self.numbers))

    @property
    def numbers(self) -> int:
        """Numbers of a detection's keypoints."""
        return self.kpt_shape[0] * self.kpt_shape[1]

    def facts(self) -> HeadFacts:
        return replace(super().facts(), keypoints=(self.factor, self.offset))

    @property
    def keypoints(self) -> tuple[int, int] | None:
        return self.kpt_shape[0], self.kpt_shape[1]

    def finish(self) -> None:
        super().finish()
        if len(self.kpt_shape) != 2 or self.kpt_shape[0] < 1 or self.kpt_shape[1] not in {2, 3}:  # noqa: PLR2004
            raise ValueError(f"kpt_shape is {list(self.kpt_shape)}, not [keypoints, 2 or 3]")

    def channels_of(self) -> dict[str, int]:
        return {**super().channels_of(), "cv4": self.numbers}

    def decode(self, raw: tuple[Tensor, ...], stride: float) -> tuple[Tensor, ...]:
        box, score, points = raw
        return *super().decode((box, score), stride), self.decode_keypoints(points, stride)

    def decode_keypoints(self, raw: Tensor, stride: float) -> Tensor:
        """Decode one level to `f32[N, K * D, A]`, x and y in pixels, visibility in 0..1."""
        h, w = raw.shape[-2:]
        parts = torch.unflatten(raw, 1, self.kpt_shape)  # [N, K, D, h, w]
        x, y, *seen = torch.split(parts, 1, 2)
        x = x * (self.factor * stride) + cell_centres(w, stride, self.offset)
        y = y * (self.factor * stride) + cell_centres(h, stride, self.offset)[:, None]
        joined = torch.cat((x, y, *map(torch.sigmoid, seen)), 2)
        return joined.flatten(1, 2).flatten(2)


class Pose26Head(PoseHead):
    """YOLO26's Pose26: `cv4_kpts` gives keypoints of what `cv4` computes.

    With (col, row) the cell and t its stride: x = (k_x + col + 0.5) t, y = (k_y + row + 0.5) t.
    `cv4_sigma` and `flow_model`, which estimate how sure a keypoint is, serve training only.
    """

    branches_of: ClassVar[tuple[str, ...]] = (*PoseHead.branches_of, "cv4_kpts")
    left_out: ClassVar[frozenset[str]] = frozenset({"cv4_sigma", "one2one_cv4_sigma", "flow_model"})
    factor: ClassVar[float] = 1.0
    offset: ClassVar[float] = 0.5

    def add_keypoints(self, ch: Sequence[int], kinds: Sequence[str]) -> None:
        hidden = max(ch[0] // 4, self.numbers + 2 * self.kpt_shape[0])  # beside them, two sigmas
        for kind in kinds:
            shared = (nn.Sequential(Conv(c, hidden, 3), Conv(hidden, hidden, 3)) for c in ch)
            self.add_module(f"{kind}cv4", nn.ModuleList(shared))
            last = (nn.Conv2d(hidden, self.numbers, 1) for _ in ch)
            self.add_module(f"{kind}cv4_kpts", nn.ModuleList(last))

    def channels_of(self) -> dict[str, int]:
        return {**DistanceHead.channels_of(self), "cv4_kpts": self.numbers}

    def raw(self, xs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        box, score, shared, last = map(self.branch, self.branches_of)
        return [(box[i](xs[i]), score[i](xs[i]), last[i](shared[i](xs[i]))) for i in range(self.nl)]
