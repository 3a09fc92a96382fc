"""AdaRound: learning for each weight whether it is rounded up or down.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020: with l and
u the levels below and above a weight, and

    h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1)         w(v) = l + h(v) (u - l)

v is learned with Adam to lower the error of the layer's output plus sum of 1 - |2 h(v) - 1|^b,
whose b falls, so that h ends at 0 or 1. The error is the expectation over all samples, computed
exactly from the second moments of the inputs; so a step uses all data, and fewer steps are needed
than with batches.
"""

import math

import torch
from torch import Tensor

from yqc.quant.weights.grid import Grid
from yqc.quant.weights.rounding import InputMoments

STEPS = 400
"""Steps of Adam; the paper takes 10,000 with batches. Time grows in proportion."""
WARMUP = 0.2
"""Share of the steps without the regulariser, as in the paper's code."""
RATE = 0.05
"""Learning rate of Adam. v runs from -2.2 at h = 0 to 2.2 at h = 1, which 400 steps of this size
cross about four times. A much smaller rate leaves weights undecided."""
LAMBDA = 0.2
"""Weight of the regulariser, with the error in units of the error of rounding one weight. Less of
it leaves weights undecided until the end, more rounds them before the error has decided."""
STRETCH = 0.1
"""Of the sigmoid beyond 0 and 1, as in the paper (zeta = 1.1, gamma = -0.1)."""
FIRST, LAST = 20.0, 2.0
"""The exponent b at the end of the warm-up and at the last step, from 20 to 2 as in the paper."""


def learn_rounding(w: Tensor, moments: InputMoments, grid: Grid, steps: int = STEPS) -> Tensor:
    """Learn for each weight [R, C] whether it is rounded up or down.

    Returns:
        Levels [R, C]: float32 for uniform grids, int64 for tables.
    """
    low = level_below(w, grid)
    floor, ceiling = grid.values(low), grid.values(low + 1)
    gap = (ceiling - floor).clamp(min=1e-12)
    share = ((w - floor) / gap).clamp(0.01, 0.99)
    v = torch.logit((share + STRETCH) / (1 + 2 * STRETCH))
    unit = (moments.by_row(len(w)) * gap.square()).mean().clamp(min=1e-30)
    first, second = torch.zeros_like(v), torch.zeros_like(v)
    for step in range(1, steps + 1):
        soft = v.sigmoid()
        stretched = soft * (1 + 2 * STRETCH) - STRETCH
        h = stretched.clamp(0, 1)
        slope = 2 * moments.product(floor + h * gap - w) * gap / unit
        done = (step / steps - WARMUP) / (1 - WARMUP)
        if done > 0:
            slope += LAMBDA * regulariser_slope(h, LAST + (FIRST - LAST) * (1 - done))
        inside = (stretched > 0) & (stretched < 1)
        slope *= inside * (1 + 2 * STRETCH) * soft * (1 - soft)
        first.lerp_(slope, 0.1)
        second.lerp_(slope.square(), 0.001)
        size = RATE * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        v -= size * first / (second.sqrt() + 1e-12)
    return low + (v > 0).to(low.dtype)


def level_below(w: Tensor, grid: Grid) -> Tensor:
    """Return the level at or below each weight [R, C], at most the last but one."""
    near = grid.nearest(w)
    return (near - (grid.values(near) > w).to(near.dtype)).clamp(0, grid.levels - 2)


def regulariser_slope(h: Tensor, exponent: float) -> Tensor:
    """Return the derivative of 1 - |2 h - 1|^exponent."""
    x = 2 * h - 1
    return -2 * exponent * x.sign() * x.abs().pow(exponent - 1)
