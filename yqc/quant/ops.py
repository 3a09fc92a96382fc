"""ONNX's QuantizeLinear and DequantizeLinear as PyTorch ops, `torch.ops.yqc.*`, number for number.

    quantize:    q = saturate(round_half_to_even(x / scale) + zero_point)
    dequantize:  x = (q - zero_point) * scale

Scale and zero point are scalars (one for the tensor), one-dimensional (one for each index along
`axis`), or of the tensor's rank with `block_size` values along `axis` sharing one (opset 21).
Gradients pass straight through the rounding, where nothing saturates (Bengio et al. 2013).

Source: ONNX operator specification, QuantizeLinear-21 and DequantizeLinear-21.
"""

import torch
from torch import Tensor

from yqc.graph.operators import operator

LIMITS = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int16: (-32768, 32767),
    torch.uint16: (0, 65535),
    torch.int32: (-(2**31), 2**31 - 1),
}
"""Smallest and largest value of each type that ONNX quantizes to, four-bit types aside."""


def broadcast_along(value: Tensor, like: Tensor, axis: int, block_size: int) -> Tensor:
    """Reshape a scale or zero point so that it broadcasts against `like` along an axis."""
    if value.ndim == 0 or value.numel() == 1:
        return value.reshape(())
    if block_size:
        wide = value.repeat_interleave(block_size, dim=axis)
        return wide.narrow(axis, 0, like.shape[axis])
    shape = [1] * like.ndim
    shape[axis] = -1
    return value.reshape(shape)


def _like_zero_point(x: Tensor, _: Tensor, zero_point: Tensor, *_settings: int) -> Tensor:
    return torch.empty(x.shape, dtype=zero_point.dtype, device=x.device)


@operator("yqc::quantize_linear", _like_zero_point)
def quantize_linear(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int = 1, block_size: int = 0
) -> Tensor:
    """Quantize as ONNX's QuantizeLinear does.

    Args:
        x: float32, any shape.
        scale: float32, positive; a scalar, [x.shape[axis]], or blocked.
        zero_point: of the scale's shape; its dtype is the result's (uint8, int8, int16, ...).
        axis: the dimension that a one-dimensional or blocked scale runs along.
        block_size: how many values along `axis` share one scale; 0 if the scale is not blocked.

    Returns:
        A tensor of x's shape and zero_point's dtype.
    """
    low, high = LIMITS[zero_point.dtype]
    divisor = broadcast_along(scale, x, axis, block_size)
    offset = broadcast_along(zero_point, x, axis, block_size).to(x.dtype)
    steps = torch.div(x, divisor).round_().add_(offset).clamp_(low, high)
    return steps.to(zero_point.dtype)


def _like_scale(x: Tensor, scale: Tensor, *_settings: object) -> Tensor:
    return torch.empty(x.shape, dtype=scale.dtype, device=x.device)


@operator("yqc::dequantize_linear", _like_scale)
def dequantize_linear(
    x: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int = 1, block_size: int = 0
) -> Tensor:
    """Dequantize integers as ONNX's DequantizeLinear does: a float32 tensor of x's shape.

    Arguments as of `quantize_linear`; the zero point has x's dtype, None stands for zero.
    """
    value = x.to(scale.dtype, copy=True)
    if zero_point is not None:
        value.sub_(broadcast_along(zero_point, x, axis, block_size).to(scale.dtype))
    return value.mul_(broadcast_along(scale, x, axis, block_size))
