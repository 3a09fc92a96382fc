"""How much the values of a tensor matter, by their size.

Nearly all values of a detector are those of background, and the large ones are those of objects. A
range that is chosen by the plain mean squared error clips what is seldom. So each value counts with
the mean relevance (`yqc.quant.relevance`) of values like it, which a few images tell.
"""

import torch
from torch import Tensor

from yqc.quant.histogram import Histogram

POOL = 128
"""So many neighbouring bins have one mean."""
SAMPLE = 1 << 17
"""About so many values of a tensor are looked at, an image."""


class Worth:
    """Mean relevance of a tensor's values, by their size."""

    def __init__(self) -> None:
        self.seen = Histogram(weighed=True)

    def add(self, values: Tensor, relevance: Tensor) -> None:
        """Look at a tensor.

        Args:
            values: float32 of any shape, finite.
            relevance: of each, float32 in the same shape, not negative.
        """
        self.seen.add(values, relevance, sample=SAMPLE)

    def weigh(self, histogram: Histogram) -> Histogram:
        """Count every value of a histogram with the mean relevance of values like it.

        A value counts no less than one that is nearer to zero on its side: a few images tell
        little of what is seldom, and nothing of what is beyond all they hold.
        """
        bound = max(histogram.bound, self.seen.bound)
        result, seen = histogram.widened(bound), self.seen.widened(bound)
        count, total = (one.view(-1, POOL).sum(1) for one in (seen.counts, seen.sums))
        if not float(total.sum()) > 0:
            return result
        known = count > 0
        mean = total / count.clamp(min=1)
        mean = torch.where(known, mean, mean[known].min())
        below, above = mean.chunk(2)
        rising = torch.cat([below.flip(0).cummax(0).values.flip(0), above.cummax(0).values])
        result.counts.mul_(rising.repeat_interleave(POOL))
        return result
