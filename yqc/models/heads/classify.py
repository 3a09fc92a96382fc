"""Heads that classify whole images: Classify of Ultralytics and of YOLOv5's project."""

# ruff: noqa: D102 - what `DetectionHead` says of a method holds for its subclasses

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from yqc.errors import CheckpointError
from yqc.facts import HeadFacts, Layout, Task
from yqc.models.blocks.base import run_module
from yqc.models.blocks.conv import Conv
from yqc.models.heads.base import DetectionHead

HIDDEN = 1280
"""Channels that are averaged: those of EfficientNet-B0's last convolution (Tan and Le 2019), which
both projects took over. A fact of their checkpoints, read from them; used to build new models."""


class ClassifyHead(DetectionHead):
    """Convolution, mean over the map, linear layer; the softmax of it is the output."""

    task: Task = "classify"
    nc: int = 0
    nl: int = 1
    linear: nn.Module
    conv: nn.Module
    pool: nn.Module

    def __init__(self, c1: int, nc: int) -> None:
        super().__init__()
        self.nc = nc
        self.conv = Conv(c1, HIDDEN)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.0)
        self.linear = nn.Linear(HIDDEN, nc)

    @property
    def layout(self) -> Layout:
        return "classes"

    def facts(self) -> HeadFacts:
        return HeadFacts()

    @property
    def inputs(self) -> int:
        return 1

    def used(self, sources: tuple[int, ...]) -> tuple[int, ...]:
        return sources

    def finish(self) -> None:
        """Read the number of classes; drop what acts in training only."""
        self.nc = getattr(self.linear, "out_features", 0)
        if self.child("drop") is not None:
            del self.drop

    def check(self) -> None:
        if not isinstance(self.linear, nn.Linear) or self.nc < 1:
            raise CheckpointError("the head's linear layer gives no classes")

    def strides_of(self, maps: Sequence[Tensor], side: int) -> tuple[float, ...]:
        """Return 1: images of any size fit, since the map is averaged."""
        return (1.0,)

    def raw(self, xs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Return the logits, `f32[N, nc]`."""
        x = torch.cat(list(xs), 1) if len(xs) > 1 else xs[0]
        mean = run_module(self.pool, self.conv(x)).flatten(1)
        return [(run_module(self.linear, mean),)]

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        ((logits,),) = self.raw(xs)
        return torch.softmax(logits, 1)
