"""Round a layer to integers that are stored in codes of variable length.

With relevance v of an output channel (times the positions of its map), d_j the variance of input j
given the inputs that are rounded after it, and b(q) the bits of the code of q, a weight costs

    v step^2 d_j (x - q)^2 + price b(q)        x = w / step

A fine uniform quantizer has the damage v step^2 d / 12, which falls by 2 ln 2 of itself a bit. All
layers have the same slope, the price, if

    step^2 = price / (2 ln 2 / 12 * mean of v d)

So one price is for the whole network, and it is found for a number of bytes (equal slope; Shoham
and Gersho 1988). Within a layer the step of a channel is the layer's times 2^(e / 2), with e from
the channel's relevance in four bits.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from yqc.quant.weights.grid import legal_scale
from yqc.quant.weights.packing import pack
from yqc.quant.weights.rice import (
    LARGEST_LEVEL,
    Planes,
    choose_low,
    code_lengths,
    encode_levels,
    rank_levels,
)
from yqc.quant.weights.rounding import (
    InputMoments,
    descend_coordinates,
    inverse_factor,
    round_with_feedback,
)

SLOPE = 2 * math.log(2) / 12
"""Loss of damage a bit, as a share of v step^2 d: derived above."""
EXPONENTS = (-8, 7)
"""Range of a channel's exponent, four bits: steps from 1/16 to 11 times the layer's."""
FLOOR = 1e-3
"""Least relevance of a channel, as a share of the layer's mean: channels that were irrelevant on
the calibration images are not free. Ten times as much or as little was not measured; exponents end
at 1/256 of the mean anyway."""


def channel_factors(exponents: Tensor) -> Tensor:
    """Return the factors 2^(e / 2) for exponents e, of any shape: float32."""
    return factor_table()[(exponents.long() - EXPONENTS[0])]


def factor_table() -> Tensor:
    """Return the factors of all exponents, ascending: float32 [16]."""
    return torch.pow(2.0, torch.arange(EXPONENTS[0], EXPONENTS[1] + 1).double() / 2).float()


@dataclass(frozen=True)
class RiceGrid:
    """Integers, of weights in units of their steps, rounded to with the length of codes in view."""

    per_bit: Tensor
    """Added error, in squared steps, that a saved bit is traded for: float32 [R or 1, C]."""
    saved: Tensor
    """Half the bits that the next smaller magnitude saves, by magnitude: float32 [L + 1]."""
    table: None = None
    """None: levels are floats, as of uniform grids."""

    def nearest_in(self, w: Tensor, column: int) -> Tensor:
        """Round one column [R], to the nearest integer or its neighbour towards zero.

        The neighbour adds 1 + 2 (|x| - n) squared steps to the error of the nearest magnitude n.
        """
        size = w.abs()
        near = size.round().clamp_(max=len(self.saved) - 1)
        threshold = self.saved[near.long()].mul_(self.per_bit[:, column]).add_(near).sub_(0.5)
        return near.sub_((size < threshold).float()).clamp_(min=0).copysign_(w)

    def value_in(self, level: Tensor, column: int) -> Tensor:
        """Return the values of one column of levels [R]: the levels."""
        del column
        return level

    def values(self, level: Tensor) -> Tensor:
        """Return the values of levels [R, C]: the levels."""
        return level


@dataclass(frozen=True)
class RiceWeight:
    """A weight as integers, with what scales them."""

    shape: tuple[int, ...]
    levels: Tensor
    """int16 [R, C]."""
    scale: Tensor
    """float32 [], a value of float16: the step of the layer."""
    exponents: Tensor
    """int8 [R]; the step of a channel is the layer's times 2^(e / 2)."""

    @property
    def step(self) -> Tensor:
        """The step of each channel, float32 [R]."""
        return self.scale * channel_factors(self.exponents)

    @property
    def weight(self) -> Tensor:
        """The dequantized weight: float32, of `shape`."""
        return (self.levels.float() * self.step.unsqueeze(1)).view(self.shape)

    @property
    def counts(self) -> Tensor:
        """How often each rank occurs, [largest rank + 1]."""
        return torch.bincount(rank_levels(self.levels).reshape(-1))

    def tensors(self, low: int, planes: Planes) -> dict[str, Tensor]:
        """Return the tensors to store, with the layer's Rice parameter and the network's planes."""
        return {
            "packed": encode_levels(self.levels, low, planes),
            "scale": self.scale.half(),
            "exponents": pack(self.exponents.to(torch.int16) - EXPONENTS[0], 4),
        }


@dataclass(frozen=True)
class RiceSteps:
    """What decides the steps of a layer but for the price."""

    relevance: Tensor
    """Of each channel, times positions, with the floor applied: float32 [R]."""
    exponents: Tensor
    """int8 [R]."""
    mean: float
    """Mean over all weights of relevance, squared factor of the channel and variance of the
    input."""
    largest: float
    """Largest magnitude of a weight in steps of the layer 1."""

    @classmethod
    def of(cls, w: Tensor, relevance: Tensor, variance: Tensor) -> "RiceSteps":
        """Choose them for weights [R, C].

        Args:
            w: the weights.
            relevance: of each channel times the positions of its map, [R].
            variance: conditional variance of each input, [B, C], B groups.
        """
        least = FLOOR * float(relevance.mean())
        v = relevance.clamp(min=max(least, 1e-30))
        exponents = (-torch.log2(v / v.mean())).round().clamp(*EXPONENTS).to(torch.int8)
        factors = channel_factors(exponents)
        by_group = (v * factors.square()).view(len(variance), -1).mean(1)
        mean = float((by_group * variance.mean(1)).mean())
        largest = float((w.abs().amax(1) / factors).max())
        return cls(v, exponents, max(mean, 1e-30), largest)

    def step(self, price: float) -> float:
        """Return the layer's step for a price."""
        return math.sqrt(price / (SLOPE * self.mean))

    def nearest(self, w: Tensor, step: float) -> RiceWeight:
        """Round weights [R, C] to the nearest integers with a step of the layer."""
        scale = legal_scale(torch.tensor(max(step, self.largest / LARGEST_LEVEL)))
        x = w / (scale * channel_factors(self.exponents)).unsqueeze(1)
        levels = x.round().clamp(-LARGEST_LEVEL, LARGEST_LEVEL).to(torch.int16)
        return RiceWeight(tuple(w.shape), levels, scale, self.exponents)


def conditional_variance(moments: InputMoments) -> Tensor:
    """Return the variance of each input given those with smaller moments: float32 [B, C]."""
    order = moments.diagonal.mean(0).argsort(descending=True)
    factor = inverse_factor(moments.h[:, order][:, :, order])
    found = torch.empty_like(moments.diagonal)
    found[:, order] = factor.diagonal(dim1=1, dim2=2).square().reciprocal()
    return found


def round_rice(
    w: Tensor,
    moments: InputMoments,
    relevance: Tensor,
    price: float,
    scale: float,
    planes: Planes,
    shape: tuple[int, ...],
) -> RiceWeight:
    """Round weights [R, C] of a layer's `shape` for the least damage plus price times bits.

    Args:
        w: the weights, or those that make up for the errors of earlier layers.
        moments: of the layer's inputs, damped.
        relevance: of each channel times the positions of its map, [R].
        price: damage that a bit is traded for.
        scale: step of the layer.
        planes: those of the network, for the lengths of codes.
        shape: of the weight.
    """
    variance = conditional_variance(moments)
    steps = RiceSteps.of(w, relevance, variance)
    first = steps.nearest(w, scale)
    x = w / first.step.unsqueeze(1)
    unit = (price / (steps.relevance * first.step.square())).unsqueeze(1)
    saved = _saved_bits(first.counts, planes)
    levels = round_with_feedback(x, moments, RiceGrid(unit / by_row(variance, len(w)), saved))
    grid = RiceGrid(unit / moments.by_row(len(w)), saved)
    levels = descend_coordinates(x, moments, grid, levels, 1)
    return RiceWeight(shape, levels.to(torch.int16), first.scale, steps.exponents)


def by_row(values: Tensor, rows: int) -> Tensor:
    """Repeat values of groups [B, C] for their rows: [rows, C], or [1, C] for one group."""
    return values if len(values) == 1 else values.repeat_interleave(rows // len(values), 0)


def _saved_bits(counts: Tensor, planes: Planes) -> Tensor:
    """Return half the bits that the next smaller magnitude saves: float32 [L + 1].

    Args:
        counts: how often each rank occurs, as far as it is known.
        planes: those of the network.
    """
    low, _ = choose_low(counts, planes)
    lengths = code_lengths(planes, low).clamp(max=1e4)
    by_size = torch.cat([lengths[:1], (lengths[1::2] + lengths[2::2]) / 2])
    return torch.diff(by_size, prepend=by_size[:1]) / 2
