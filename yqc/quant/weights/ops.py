"""Packed weights as PyTorch ops, `torch.ops.yqc.*`: codes and scales in, float32 weights out.

    unpack_uniform    w = scale * (code - zero)
    unpack_table      w = scale * table[code]
    unpack_rice       w = scale * 2^(exponent / 2) * integer, in codes of variable length

Products are computed in float32. Weights are laid out as rows (`yqc.quant.weights.grid`).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from yqc.graph.operators import operator
from yqc.graph.optable import allow_function
from yqc.quant.weights.grid import scales_per_row
from yqc.quant.weights.packing import signed, unpack
from yqc.quant.weights.rice import decode_levels, read_planes
from yqc.quant.weights.rice_layer import EXPONENTS, channel_factors


def _of_shape(packed: Tensor, *settings: Any) -> Tensor:  # noqa: ANN401  # as the operators take them
    """Return an empty weight of the operators' argument `shape`, the fourth."""
    return torch.empty(list(settings[2]), dtype=torch.float32, device=packed.device)


@operator("yqc::unpack_uniform", _of_shape)
def unpack_uniform(
    packed: Tensor, scale: Tensor, zero: Tensor | None, shape: Sequence[int], bits: int, block: int
) -> Tensor:
    """Dequantize packed uniform weights.

    Args:
        packed: uint8, the codes of `shape` in order; two's complement where `zero` is None.
        scale: float16 [] for the tensor, [R] for each row, or [R, G] for each block of a row.
        zero: packed codes that stand for zero, one a scale; None for symmetric weights.
        shape: of the weight; R = shape[0].
        bits: of a code.
        block: consecutive weights of a row that share a scale; 0 if it is one a row or tensor.

    Returns:
        float32, of `shape`.
    """
    codes = unpack(packed, math.prod(shape), bits).view(shape[0], -1)
    if zero is None:
        level = signed(codes, bits).float()
    else:
        offset = unpack(zero, scale.numel(), bits).view(scale.shape).float()
        level = codes.float() - expand_scales(offset, codes.shape[1], block)
    value = level * expand_scales(scale.float(), codes.shape[1], block)
    return value.view(list(shape))


@operator("yqc::unpack_table", _of_shape)
def unpack_table(
    packed: Tensor, table: Tensor, scale: Tensor, shape: Sequence[int], bits: int, block: int
) -> Tensor:
    """Look up packed weights in their tables: float32, of `shape`.

    Each table, a row of float16 [T, 2^bits], is for shape[0] / T rows; other arguments as of
    `unpack_uniform`.
    """
    codes = unpack(packed, math.prod(shape), bits).long().view(len(table), -1)
    units = table.float().gather(1, codes).view(shape[0], -1)
    value = units * expand_scales(scale.float(), units.shape[1], block)
    return value.view(list(shape))


@operator("yqc::unpack_rice", _of_shape)
def unpack_rice(
    packed: Tensor,
    scale: Tensor,
    exponents: Tensor,
    shape: Sequence[int],
    low: int,
    planes: Sequence[int],
) -> Tensor:
    """Decode weights of variable length.

    Args:
        packed: uint8, as `yqc.quant.weights.rice.encode_levels` makes it.
        scale: float16 [], the step of the layer.
        exponents: uint8, four bits a channel: the channel's step is scale * 2^((code - 8) / 2).
        shape: of the weight.
        low: the layer's Rice parameter.
        planes: bits and escapes of each plane by turns.

    Returns:
        float32, of `shape`.

    Raises:
        ValueError: the stream is cut off, or longer than the weight's codes.
    """
    levels = decode_levels(packed, math.prod(shape), low, read_planes(planes))
    codes = unpack(exponents, shape[0], 4).to(torch.int16) + EXPONENTS[0]
    step = scale.float() * channel_factors(codes)
    return (levels.float().view(shape[0], -1) * step.unsqueeze(1)).view(list(shape))


def expand_scales(value: Tensor, columns: int, block: int) -> Tensor:
    """Reshape values of a tensor, [], of rows, [R], or of blocks, [R, G], to fit [R, columns]."""
    if value.ndim < 2:  # noqa: PLR2004  # of the tensor or of rows
        return value.reshape(-1, 1)
    if value.shape[1] != scales_per_row(columns, block):
        raise ValueError(
            f"{columns} weights a row in blocks of {block} need another number of scales"
        )
    return value.repeat_interleave(block, 1)[:, :columns]


allow_function("yqc.unpack_uniform", torch.ops.yqc.unpack_uniform)
allow_function("yqc.unpack_table", torch.ops.yqc.unpack_table)
allow_function("yqc.unpack_rice", torch.ops.yqc.unpack_rice, check=unpack_rice)
UNPACK = (
    torch.ops.yqc.unpack_uniform,
    torch.ops.yqc.unpack_table,
    torch.ops.yqc.unpack_rice,
)
"""The operators that compute a weight from packed codes."""
