"""Observers: visible nodes that let a tensor pass and, while calibrating, keep its statistics."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn, zeros

from yqc.graph.optable import allow_module
from yqc.quant.histogram import Histogram
from yqc.quant.ops import LIMITS
from yqc.registered import OBSERVERS

DTYPES = {str(d).removeprefix("torch."): d for d in LIMITS}
"""Integer types that ONNX quantizes to, by name."""


class Statistics(Protocol):
    """Statistics of a tensor that a user registered as an observer."""

    def add(self, values: Tensor) -> None:
        """See the values of the tensor for one image, float32 [1, C, ...]."""
        ...

    def range(self) -> tuple[float, float]:
        """Return the range to quantize, low <= 0 <= high."""
        ...


C = TypeVar("C", bound=Callable[[], Statistics])


def register_observer(name: str) -> Callable[[C], C]:
    """Register the decorated class as an observer: `int8{observer=NAME}`.

    An object of it is made for each tensor, without arguments; it has the methods of `Statistics`.

    Raises:
        PipelineError: the name is taken, or is none.
    """
    return lambda kind: OBSERVERS.register(name, kind)


class Observer(nn.Module):
    """Marks a tensor that is to be quantized; returns it as it is.

    Args:
        dtype: integer type to quantize to, by name: `uint8` or `int8`.
        symmetric: whether the zero point is to be zero.
        group: observers of one group get one scale and zero point.
        records: whether this tensor's values count for the group's range. Those of a concat or a
            pooling do not: they are values of its inputs.
        channels: length of dimension 1.
    """

    scale: Tensor
    zero_point: Tensor
    damage: Tensor
    """Damage an image that rounding the group does: its squared error weighted by relevance; 0
    where it was not measured."""
    mean: Tensor
    """Mean of every channel, float32 [channels], where batch norms give it; else 0."""

    def __init__(
        self, *, dtype: str, symmetric: bool, group: str, records: bool, channels: int
    ) -> None:
        super().__init__()
        self.dtype, self.symmetric, self.group = dtype, symmetric, group
        self.records, self.channels = records, channels
        self.register_buffer("scale", zeros(()))
        self.register_buffer("zero_point", zeros((), dtype=DTYPES[dtype]))
        self.register_buffer("damage", zeros(()))
        self.register_buffer("mean", zeros(channels))
        self.histogram: Histogram | None = None
        self.statistics: Statistics | None = None
        """Further statistics, which a user registered, to be kept beside the histogram."""
        self.rounding = False
        """While set, what goes through is quantized and dequantized."""

    def start(self) -> None:
        """Begin to keep statistics, from nothing."""
        self.histogram = Histogram()

    def stop(self) -> None:
        """Drop the statistics and keep no more."""
        self.histogram = self.statistics = None

    @property
    def calibrated(self) -> bool:
        """Whether it has a scale."""
        return bool(self.scale > 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return x, float32 [N, channels, ...]; while started, keep statistics; see `rounding`."""
        if self.histogram is not None and self.records:
            self.histogram.add(x)
            if self.statistics is not None:
                self.statistics.add(x.detach())
        return self.rounded(x) if self.rounding else x

    def rounded(self, x: Tensor) -> Tensor:
        """Return x, float32 [N, channels, ...], quantized and dequantized, without gradients.

        Equal to the two operators, number for number, but without integers in between.
        """
        low, high = LIMITS[DTYPES[self.dtype]]
        offset = int(self.zero_point)
        steps = torch.div(x, self.scale).round_().clamp_(low - offset, high - offset)
        return steps.mul_(self.scale)

    def extra_repr(self) -> str:
        """Return dtype, group and, once calibrated, the scale."""
        known = f", scale={float(self.scale):.6g}" if self.calibrated else ""
        return f"{self.dtype}, group={self.group}{known}"

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        *rest: Any,  # noqa: ANN401  # as nn.Module has it
    ) -> None:
        """Load buffers; in graphs of earlier versions `damage` is named `harm`."""
        if f"{prefix}harm" in state_dict:
            state_dict[f"{prefix}damage"] = state_dict.pop(f"{prefix}harm")
        super()._load_from_state_dict(state_dict, prefix, *rest)


allow_module(Observer, "dtype", "symmetric", "group", "records", "channels")
