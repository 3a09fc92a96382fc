"""Base class of all heads: feature maps in, decoded detections out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from yqc.errors import CheckpointError
from yqc.facts import HeadFacts, Layout, Task
from yqc.models.blocks.base import Block

HeadBranch = Literal["one2one", "one2many"]


class DetectionHead(Block, ABC):
    """The last layer of a model: feature maps in, decoded detections or class scores out."""

    task: Task = "detect"
    nc: int
    """How many classes."""
    nl: int
    """How many feature maps (levels)."""
    stride: tuple[float, ...] = ()
    """Input pixels a cell, one number a level; empty until it is known."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """How the output is laid out."""

    @property
    def coefficients(self) -> int:
        """Mask coefficients of a detection; 0 for other tasks than segment."""
        return 0

    @property
    def keypoints(self) -> tuple[int, int] | None:
        """Keypoints of a detection and numbers of each; None for other tasks than pose."""
        return None

    def facts(self) -> HeadFacts | None:
        """Return how raw outputs are decoded; None where only the module itself knows."""
        return None

    @property
    def preferred(self) -> HeadBranch | None:
        """Which branches the file wants to be used; None where it does not matter."""
        return None

    def ignored(self) -> list[str]:
        """Say which settings that the file records have no effect on the output."""
        return []

    @property
    def training_only(self) -> frozenset[str]:
        """Names of children that are kept and not used at inference."""
        return frozenset()

    @property
    def inputs(self) -> int:
        """How many of the maps that the model sends to the head are used."""
        return self.nl

    def used(self, sources: tuple[int, ...]) -> tuple[int, ...]:
        """Return those of the layers whose maps are sent to the head that its output depends on."""
        return sources[: self.inputs]

    def choose_branch(self, branch: HeadBranch) -> None:
        """Keep one of the two kinds of branches of an end-to-end head and drop the other.

        Raises:
            CheckpointError: one-to-one branches were asked of a head that has none.
        """
        if branch == "one2one":
            raise CheckpointError("the model has no one-to-one head; leave --head out")

    @abstractmethod
    def check(self) -> None:
        """Raise a CheckpointError unless classes, levels and convolutions fit together."""

    def strides_of(self, maps: Sequence[Tensor], side: int) -> tuple[float, ...]:
        """Return the pixels a cell of the maps of an image that is `side` pixels wide."""
        return tuple(side / x.shape[-1] for x in maps)

    @abstractmethod
    def raw(self, xs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Return the last convolutions' outputs, level by level, as training wants them."""

    @abstractmethod
    def forward(self, xs: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Map feature maps, float32 [N,C,h,w] each, to the decoded output.

        Where masks are found, the prototypes follow, float32 [N,`coefficients`,h,w].
        """


def cell_centres(size: int, stride: float, offset: float) -> Tensor:
    """Return `f32[size]`: (i + offset) * stride for each cell i."""
    return (torch.arange(size, dtype=torch.float32) + offset) * stride


def check_outputs(branches: nn.Module | None, levels: int, channels: int, path: str) -> None:
    """Raise a CheckpointError unless each of `levels` branches ends in `channels` channels."""
    if branches is None:
        raise CheckpointError(f"the head has no branches {path}: the checkpoint is damaged")
    found = [list(m.modules())[-1] for m in branches.children()]
    outputs = [m.out_channels if isinstance(m, nn.Conv2d) else None for m in found]
    if outputs != [channels] * levels:
        raise CheckpointError(
            f"the head's branches {path} give {outputs} channels, not {channels} on each of"
            f" {levels} levels: the checkpoint is damaged"
        )
