"""Statistics of a tensor over many images in one pass, in memory that does not grow.

A histogram of fixed length covers a range that widens by whole factors: when values fall outside,
neighbouring bins are merged, so nothing counted is lost and nothing is counted twice.
"""

import torch
from torch import Tensor

BINS = 2048


class Histogram:
    """Counts of values between `low` and `high`, with the exact smallest and largest value.

    The range is symmetric around zero and a power of two wide, so that merging is exact.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.bound = 0.0
        self.smallest, self.largest = torch.inf, -torch.inf
        self.seen = 0
        """How many values were given, counted or not."""

    def add(self, values: Tensor, sample: int = 1 << 16) -> None:
        """Count a tensor: all of it for the extremes, an even sample of it for the counts.

        Args:
            values: float32, any shape, finite.
            sample: at most about so many values are counted.
        """
        low, high = (float(v) for v in values.aminmax())
        self.smallest, self.largest = min(self.smallest, low), max(self.largest, high)
        self._widen(max(abs(low), abs(high)))
        flat = values.reshape(-1)
        self.seen += flat.numel()
        step = max(1, flat.numel() // sample) | 1  # odd: no lockstep with widths, which are even
        self.counts += torch.histc(flat[::step].float(), BINS, -self.bound, self.bound).double()

    def _widen(self, reach: float) -> None:
        needed = 2.0 ** torch.tensor(max(reach, 1e-30)).log2().ceil().item()
        if self.bound == 0.0:
            self.bound = needed
        while self.bound < needed:
            inner = self.counts.view(-1, 2).sum(1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = inner
            self.bound *= 2

    @property
    def centres(self) -> Tensor:
        """Middle of every bin: float64 [BINS]."""
        width = 2 * self.bound / BINS
        return torch.arange(BINS, dtype=torch.float64) * width + (width / 2 - self.bound)

    def merged(self, others: list["Histogram"]) -> "Histogram":
        """Return the histogram of this tensor and others together, each value counting alike."""
        result = Histogram()
        for one in (self, *others):
            part = Histogram()
            part.counts = one.counts * (one.seen / one.counts.sum().clamp(min=1))
            part.bound, result.seen = one.bound, result.seen + one.seen
            result._widen(one.bound)  # noqa: SLF001  # its own class
            part._widen(result.bound)  # noqa: SLF001
            result.counts += part.counts
            result.smallest = min(result.smallest, one.smallest)
            result.largest = max(result.largest, one.largest)
        return result
