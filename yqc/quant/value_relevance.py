"""Mean relevance of a tensor's values, by their size.

Nearly all values of a detector belong to background, and the large ones belong to objects. A range
chosen by the plain mean squared error clips what is rare. So each value counts with the mean
relevance (`yqc.quant.relevance`) of values of its size, measured on a few images.
"""

import torch
from torch import Tensor

from yqc.quant.histogram import Histogram

POOL = 128
"""Neighbouring bins, of 4096, whose relevance is averaged. Half of it: half as many values a mean,
more noise; double: values of unlike size share a mean."""
SAMPLE = 1 << 17
"""Values of a tensor that are counted for an image, about. Fewer make the means noisier, more cost
time in proportion."""


class ValueRelevance:
    """Mean relevance of a tensor's values, by their size."""

    def __init__(self) -> None:
        self.seen = Histogram(weighed=True)

    def add(self, values: Tensor, relevance: Tensor) -> None:
        """Count finite float32 values of any shape, with the relevance of each, not negative."""
        self.seen.add(values, relevance, sample=SAMPLE)

    def weigh(self, histogram: Histogram, *, rising: bool = True) -> Histogram:
        """Return a histogram in which every value counts with the mean relevance of its size.

        With `rising`, a value counts no less than one that is nearer to zero on its side: a few
        images hold few rare values, and none beyond their own extremes. Without, it counts as
        measured, and as the nearest size that was measured: that suits outputs of the head, whose
        values of the largest size belong to background.
        """
        bound = max(histogram.bound, self.seen.bound)
        result, seen = histogram.widened(bound), self.seen.widened(bound)
        count, total = (one.view(-1, POOL).sum(1) for one in (seen.counts, seen.sums))
        if not float(total.sum()) > 0:
            return result
        known = count > 0
        mean = total / count.clamp(min=1)
        if rising:
            mean = torch.where(known, mean, mean[known].min())
            below, above = mean.chunk(2)
            mean = torch.cat([below.flip(0).cummax(0).values.flip(0), above.cummax(0).values])
        else:
            places = known.nonzero().squeeze(1)
            away = (torch.arange(len(mean)).unsqueeze(1) - places).abs()
            mean = mean[places[away.argmin(1)]]
        result.counts.mul_(mean.repeat_interleave(POOL))
        return result
