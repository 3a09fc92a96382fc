"""Scales and zero points from ranges, and weights from floats to integers.

    symmetric    scale = max|x| / qmax                       zero point 0
    affine       scale = (max - min) / (qmax - qmin)         zero point = round(qmin - min / scale)

Ranges are widened to hold zero, so that padding and the zero of an activation stay exact
(Jacob et al., Quantization and Training of Neural Networks, CVPR 2018).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from yqc.quant.ops import LIMITS

TINY = torch.finfo(torch.float32).tiny
FULL_RANGE, REDUCED_RANGE = 127, 63
"""Largest integer of a symmetric weight of eight bits, and of seven.

Two products of seven-bit weights with uint8 stay within int16 (2 * 255 * 63 < 32768), in which x86
CPUs without VNNI add them.
"""


@dataclass(frozen=True)
class QParams:
    """Scale, float32, and integer zero point of one quantization, of equal shapes."""

    scale: Tensor
    zero_point: Tensor


def integer_limits(dtype: torch.dtype, *, symmetric: bool) -> tuple[int, int]:
    """Return the smallest and largest integer used; symmetric int8 leaves -128 out."""
    low, high = LIMITS[dtype]
    return (-high, high) if symmetric and low < 0 else (low, high)


def qparams_from_range(
    low: Tensor, high: Tensor, dtype: torch.dtype, *, symmetric: bool
) -> QParams:
    """Return scale and zero point for the range `low`..`high`, float32 of one shape.

    With `symmetric` the zero point is 0 (for unsigned types: the middle).
    """
    qmin, qmax = integer_limits(dtype, symmetric=symmetric)
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    if symmetric:
        middle = 0 if qmin < 0 else (qmax + 1) // 2
        scale = torch.maximum(-low, high) / (qmax - middle)
        zero = torch.full(scale.shape, middle, dtype=dtype)
        return QParams(_positive(scale), zero)
    scale = _positive((high - low) / (qmax - qmin))
    zero = (qmin - low / scale).round().clamp(qmin, qmax).to(dtype)
    return QParams(scale, zero)


def _positive(scale: Tensor) -> Tensor:
    """Replace scales that are zero or denormal by one: all values there are zero."""
    return torch.where(scale > TINY, scale, torch.ones_like(scale))


def minmax_channel_scale(weight: Tensor, most: int = FULL_RANGE) -> Tensor:
    """Return the symmetric min-max scale of each output channel: float32 [O] of [O, ...]."""
    return _positive(weight.detach().flatten(1).abs().amax(1) / most)


def mse_channel_scale(weight: Tensor, most: int = FULL_RANGE, steps: int = 40) -> Tensor:
    """Return the symmetric scale of each output channel with the least squared error: float32 [O].

    Candidates shrink the min-max scale by up to a half; all channels are searched at once.
    """
    flat, full = weight.detach().flatten(1), minmax_channel_scale(weight, most)
    best, least = full, torch.full_like(full, torch.inf)
    for shrink in torch.linspace(1.0, 0.5, steps).tolist():
        scale = (full * shrink).unsqueeze(1)
        error = ((flat / scale).round().clamp(-most, most) * scale - flat).square().sum(1)
        best = torch.where(error < least, scale.squeeze(1), best)
        least = torch.minimum(error, least)
    return best


def quantize_weight(weight: Tensor, scale: Tensor, most: int = FULL_RANGE) -> Tensor:
    """Round a weight [O, ...] to int8 in -most..most, with one symmetric scale [O] a channel."""
    flat = weight.detach().flatten(1) / scale.unsqueeze(1)
    return flat.round().clamp(-most, most).to(torch.int8).view(weight.shape)


def fake_quantize_weight(weight: Tensor, scale: Tensor, most: int = FULL_RANGE) -> Tensor:
    """Round a weight [O, ...] as `quantize_weight` does and return it in float32."""
    shape = (-1, *[1] * (weight.ndim - 1))
    return quantize_weight(weight, scale, most) * scale.view(shape)
