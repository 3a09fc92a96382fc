"""Statistics of a tensor over many images in one pass, in memory that does not grow.

A histogram of fixed length covers a range that widens by powers of two: when values fall outside,
neighbouring bins are merged, so no count is lost or made twice.
"""

import math

import torch
from torch import Tensor

from yqc.graph.memory import flat

BINS = 4096
"""Bins of a histogram: 16 for each of the 256 levels that a range is rounded to, so that the bins'
width adds little to the rounding error. Half of them doubles that share, double costs memory."""
SAMPLE = 1 << 14
"""Values of a tensor that are counted for an image, about. Extremes are taken of all values; half
as many make the counts noisier, double as many cost twice the time."""
AT_ONCE = 1 << 17
"""Values that are gathered before they are counted together: counting costs a fixed time a call,
and gathered values take memory."""


class Histogram:
    """Counts of values between `-bound` and `bound`, sums of their weights, the exact extremes."""

    def __init__(self, *, weighed: bool = False) -> None:
        self._table = torch.zeros(1 + weighed, BINS, dtype=torch.float64)
        self._kept: list[tuple[Tensor, ...]] = []
        self._times = 0.0
        self.bound = 0.0
        self.smallest, self.largest = math.inf, -math.inf

    def add(self, values: Tensor, weights: Tensor | None = None, *, sample: int = SAMPLE) -> None:
        """Count float32 values: all of them for the extremes, an even sample for the counts.

        If one is not finite, the extremes become NaN and nothing is counted. Weights have the
        shape of the values; about `sample` values are counted.
        """
        vectors = flat(values.detach(), *(() if weights is None else (weights.detach(),)))
        low, high = (float(v) for v in vectors[0].aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.smallest, self.largest = math.nan, math.nan
            return
        self.smallest, self.largest = min(self.smallest, low), max(self.largest, high)
        self.widen(max(abs(low), abs(high)))
        count = values.numel()
        step = max(1, count // sample) | 1  # odd: no lockstep with widths, which are even
        taken = tuple(vector[::step].float().clone() for vector in vectors)
        times = count / len(taken[0])
        if times != self._times:
            self._count_kept()
            self._times = times
        self._kept.append(taken)
        if sum(len(first) for first, *_ in self._kept) >= AT_ONCE:
            self._count_kept()

    @torch.inference_mode()
    def _count_kept(self) -> None:
        """Count the samples that were kept so far, each value `_times` times."""
        if not self._kept:
            return
        values, *weights = (torch.cat(vectors) for vectors in zip(*self._kept, strict=True))
        self._kept = []
        place = values.add_(self.bound).mul_(BINS / (2 * self.bound)).int().clamp_(0, BINS - 1)
        self._table[0].add_(torch.bincount(place, minlength=BINS), alpha=self._times)
        for one in weights:
            self._table[1].add_(torch.bincount(place, one.double(), BINS), alpha=self._times)

    def state(self) -> tuple[Tensor, list[float]]:
        """Return the table, float64 [1 or 2, BINS], and plain numbers, for `restore`."""
        self._count_kept()
        return self._table, [self.bound, self.smallest, self.largest, self._times]

    def restore(self, table: Tensor, numbers: list[float]) -> None:
        """Undo `state`."""
        self._table = table
        self.bound, self.smallest, self.largest, self._times = numbers

    @property
    def counts(self) -> Tensor:
        """How many values are in each bin, float64 [BINS]."""
        self._count_kept()
        return self._table[0]

    @property
    def sums(self) -> Tensor:
        """Sum of the weights in each bin, float64 [BINS]; only where values are weighed."""
        self._count_kept()
        return self._table[1]

    @property
    def finite(self) -> bool:
        """Whether all values were finite."""
        return not math.isnan(self.smallest)

    def widen(self, reach: float) -> None:
        """Widen the range until it holds values up to `reach` in size."""
        needed = 2.0 ** math.ceil(math.log2(max(reach, 1e-30)))
        if self.bound == 0.0:
            self.bound = needed
        while self.bound < needed:
            inner = self._table.view(len(self._table), -1, 2).sum(2)
            self._table = torch.zeros_like(self._table)
            self._table[:, BINS // 4 : BINS // 4 + BINS // 2] = inner
            self.bound *= 2

    def widened(self, reach: float) -> "Histogram":
        """Return a copy whose range holds values up to `reach` in size."""
        self._count_kept()
        copy = Histogram()
        copy._table, copy.bound = self._table.clone(), self.bound
        copy.smallest, copy.largest = self.smallest, self.largest
        copy.widen(reach)
        return copy

    @property
    def centres(self) -> Tensor:
        """Middle of every bin, float32 [BINS]; 0 for the two next to 0, since many values are 0."""
        width = 2 * self.bound / BINS
        middle = torch.arange(BINS) * width + (width / 2 - self.bound)
        return torch.where(middle.abs() < width, 0.0, middle)

    @staticmethod
    def merged(parts: "list[Histogram]") -> "Histogram":
        """Return the sum of histograms; each counts with its number of values."""
        result = Histogram()
        result.widen(max((one.bound for one in parts), default=0.0))
        for one in parts:
            result.counts.add_(one.widened(result.bound).counts)
            result.smallest = min(result.smallest, one.smallest)
            result.largest = max(result.largest, one.largest)
        return result
