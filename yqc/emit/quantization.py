"""Lowerings of quantize and dequantize: one ONNX operator each."""

# ruff: noqa: D103  # the decorator says what is lowered, the arguments are the op's

import torch
from torch import fx

from yqc.emit.emitter import Constant, Emitter
from yqc.emit.stored import StoredBias
from yqc.emit.table import lowering
from yqc.quant.ops import dequantize_linear, quantize_linear

BLOCKED = 21
"""The first opset in which several values along an axis share a scale."""


@lowering(quantize_linear)
def quantize(
    e: Emitter,
    _: fx.Node,
    x: fx.Node,
    scale: fx.Node | Constant,
    zero_point: fx.Node | Constant,
    axis: int = 1,
    block_size: int = 0,
) -> str:
    return _linear(e, "QuantizeLinear", x, scale, zero_point, axis, block_size)


@lowering(dequantize_linear)
def dequantize(
    e: Emitter,
    node: fx.Node,
    x: fx.Node,
    scale: fx.Node | Constant,
    zero_point: fx.Node | Constant | None = None,
    axis: int = 1,
    block_size: int = 0,
) -> str:
    if e.stored is not None and (bias := _two_byte_bias(e, node, x, scale)):
        return e.stored.add(bias)
    return _linear(e, "DequantizeLinear", x, scale, zero_point, axis, block_size)


def _two_byte_bias(
    e: Emitter, node: fx.Node, x: fx.Node, scale: fx.Node | Constant
) -> StoredBias | None:
    """Return a vector of int16 that the graph holds with one scale; None for anything else."""
    steps, factor = e.constant(x), e.constant(scale)
    if steps is None or factor is None or factor.shape or len(steps.shape) != 1:
        return None
    if steps.value.dtype != torch.int16:
        return None
    return StoredBias(node.name, steps.value, factor.value)


def _linear(
    e: Emitter,
    op_type: str,
    x: fx.Node,
    scale: fx.Node | Constant,
    zero_point: fx.Node | Constant | None,
    axis: int,
    block_size: int,
) -> str:
    if block_size:
        e.require(BLOCKED, "scales in blocks")
    whole = len(e.shape(scale)) == 0
    return e.op(
        op_type,
        *(x, scale, zero_point),
        axis=None if whole else e.axis(x, axis),
        block_size=block_size or None,
    )
