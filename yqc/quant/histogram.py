"""Statistics of a tensor over many images in one pass, in memory that does not grow.

A histogram of fixed length covers a range that widens by powers of two: when values fall outside,
neighbouring bins are merged, so nothing counted is lost and nothing is counted twice.
"""

import math

import torch
from torch import Tensor

BINS = 1024


class Histogram:
    """Counts of values between `-bound` and `bound` for every channel, and the exact extremes.

    Args:
        channels: length of dimension 1 of what will be added.
    """

    def __init__(self, channels: int = 1) -> None:
        self.counts = torch.zeros(channels, BINS, dtype=torch.float64)
        self.bound = 0.0
        self.smallest, self.largest = math.inf, -math.inf
        self.seen = 0
        """How many values were given, counted or not."""

    def add(self, values: Tensor, sample: int = 1 << 16) -> None:
        """Count a tensor: all of it for the extremes, an even sample of it for the counts.

        Args:
            values: float32 [N, channels, ...], or any shape where there is one channel. If a value
                is not finite, the extremes become NaN and nothing is counted.
            sample: at most about so many values are counted.
        """
        low, high = (float(v) for v in values.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.smallest, self.largest = math.nan, math.nan
            return
        self.smallest, self.largest = min(self.smallest, low), max(self.largest, high)
        self.widen(max(abs(low), abs(high)))
        channels = len(self.counts)
        flat = values.detach().reshape(1, 1, -1) if channels == 1 else values.detach().flatten(2)
        self.seen += flat.numel()
        step = max(1, flat.numel() // sample) | 1  # odd: no lockstep with widths, which are even
        taken = flat[..., ::step].float()
        index = ((taken + self.bound) * (BINS / (2 * self.bound))).long().clamp_(0, BINS - 1)
        index += torch.arange(channels).view(1, -1, 1) * BINS
        found = torch.bincount(index.reshape(-1), minlength=channels * BINS)
        self.counts += found.view(channels, BINS)

    def widen(self, reach: float) -> None:
        """Let the range hold values up to `reach` in size."""
        needed = 2.0 ** math.ceil(math.log2(max(reach, 1e-30)))
        if self.bound == 0.0:
            self.bound = needed
        while self.bound < needed:
            inner = self.counts.view(len(self.counts), -1, 2).sum(2)
            self.counts = torch.zeros_like(self.counts)
            self.counts[:, BINS // 4 : BINS // 4 + BINS // 2] = inner
            self.bound *= 2

    @property
    def centres(self) -> Tensor:
        """Middle of every bin: float64 [BINS]."""
        width = 2 * self.bound / BINS
        return torch.arange(BINS, dtype=torch.float64) * width + (width / 2 - self.bound)

    def weighted(self, importance: Tensor | None = None) -> "Histogram":
        """Return one histogram over all channels, each value counting as its channel does.

        Args:
            importance: float [channels], not negative; None counts all channels alike.
        """
        result = Histogram()
        weights = torch.ones(len(self.counts)) if importance is None else importance
        factor = self.seen / max(float(self.counts.sum()), 1.0)
        result.counts = (weights.double().unsqueeze(1) * self.counts).sum(0, keepdim=True) * factor
        result.bound, result.seen = self.bound, self.seen
        result.smallest, result.largest = self.smallest, self.largest
        return result

    @staticmethod
    def merged(parts: "list[Histogram]") -> "Histogram":
        """Add up histograms of one channel each."""
        result = Histogram()
        for one in parts:
            part = Histogram()
            part.counts, part.bound = one.counts.clone(), one.bound
            reach = max(result.bound, one.bound)
            result.widen(reach)
            part.widen(reach)
            result.counts += part.counts
            result.seen += one.seen
            result.smallest = min(result.smallest, one.smallest)
            result.largest = max(result.largest, one.largest)
        return result
