"""What each layer takes, and what damage is done to it, at the steps of a few prices.

Weights are rounded to nearest for this, so the choice of a price takes seconds for a whole network.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from yqc.quant.weights.rice import Planes, choose_low
from yqc.quant.weights.rice_layer import SLOPE, RiceSteps, by_row, channel_factors

GRID = torch.arange(-12.0, 12.0, 0.5).tolist()
"""Prices whose steps are tried for the estimate, in powers of two from the price of about four
bits: each is a quarter of a bit. Twice as far apart, layers end an eighth of a bit from the best
step, which costs less than 1 % of damage."""
SAMPLE = 1 << 16
"""Weights of a layer that the estimate looks at, whole rows, at most; time grows in proportion."""
FOUR_BITS = 4.0
"""Deviations of the weights in steps at four bits of entropy: log2(4) + 2 for a normal
distribution."""


@dataclass(frozen=True)
class StepChoices:
    """What the steps that are tried do to one layer, rounded to nearest."""

    steps: list[float]
    """From fine to coarse."""
    damage: Tensor
    """float64 [steps]."""
    counts: list[Tensor]
    """How often each rank occurs in the sampled rows."""
    share: float
    """Weights of the layer a sampled one stands for."""

    @classmethod
    def of(cls, w: Tensor, rule: RiceSteps, variance: Tensor, centre: float) -> "StepChoices":
        """Try steps on weights [R, C] whose inputs have conditional variances [B, C]."""
        stride = max(1, w.numel() // SAMPLE)
        weight = rule.relevance[::stride].unsqueeze(1) * by_row(variance, len(w))[::stride]
        steps, counts, damage = [rule.step(2.0 ** (centre + at)) for at in GRID], [], []
        share = w.numel() / w[::stride].numel()
        some = replace(rule, exponents=rule.exponents[::stride])
        for step in steps:
            made = some.nearest(w[::stride], step)
            counts.append(made.counts)
            error = (made.weight - w[::stride]).square_().mul_(weight)
            damage.append(share * float(error.sum()))
        return cls(steps, torch.tensor(damage).double(), counts, share)

    def bits(self, planes: Planes | None) -> Tensor:
        """Return the bits of the layer at each step: float64 [steps]; by entropy without planes."""
        sizes = [_entropy(c) if planes is None else choose_low(c, planes)[1] for c in self.counts]
        return self.share * torch.tensor(sizes).double()


def middle_price(steps: dict[fx.Node, RiceSteps], rows: dict[fx.Node, Tensor]) -> float:
    """Return the binary logarithm of the price at which weights take about four bits.

    Args:
        steps: rules of the layers.
        rows: their weights, [R, C] each.
    """
    total, weights = 0.0, 0
    for node, one in steps.items():
        w = rows[node]
        deviation = float((w / channel_factors(one.exponents).unsqueeze(1)).square().mean().sqrt())
        step = max(deviation, 1e-20) / FOUR_BITS
        total += w.numel() * math.log2(SLOPE * one.mean * step * step)
        weights += w.numel()
    return total / weights


def _entropy(counts: Tensor) -> float:
    """Return the bits of integers by the counts of their ranks, each on its own (order 0)."""
    counts = counts[counts > 0].double()
    return float((counts * (counts.sum() / counts).log2()).sum())
