"""Sample output positions of convolutions by their relevance.

A position of an output counts with its relevance to the detections (`yqc.quant.relevance`): only
few positions decide what is detected, so they are sampled more often and weighted more. Of each
channel the mean relevance is kept, to choose between layers. With all positions weighted alike it
would be the diagonal of the Gauss-Newton matrix of BRECQ (Li et al., ICLR 2021).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

FLOOR = 0.1
"""Share of the weight that is spread evenly over all positions. With none of it, background is not
sampled and its errors grow without limit; with all of it, relevance has no effect."""


@dataclass
class OutputSamples:
    """Sampled positions of one convolution's outputs, and the relevance of its channels."""

    relevance: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Mean relevance of each output channel, float32 [O]."""
    seen: int = 0
    """Number of batches that it is the mean of."""
    positions: list[Tensor] = field(default_factory=list)
    """Of each batch: the sampled flat output positions, int64 [N, K]."""
    weights: list[Tensor] = field(default_factory=list)
    """Of each batch: weight of each sample, float32 [N, K]; their mean is about one."""

    def add(self, relevance: Tensor, count: int, generator: torch.Generator) -> None:
        """Add a batch: relevance, [N, O, H * W]; sample `count` positions an image at most."""
        self.seen += 1
        self.relevance = self.relevance + (relevance.mean((0, 2)) - self.relevance) / self.seen
        relative = (relevance / self.relevance.clamp(min=1e-30).view(1, -1, 1)).mean(1)
        weight = (1 - FLOOR) * relative + FLOOR
        chance = 0.5 * weight / weight.mean(1, keepdim=True) + 0.5
        at = torch.multinomial(chance, min(count, weight.shape[1]), generator=generator)
        self.positions.append(at)
        self.weights.append(weight.gather(1, at) / chance.gather(1, at))
