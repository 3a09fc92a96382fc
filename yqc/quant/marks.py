"""Marks that quantization writes on the nodes of a graph."""

from dataclasses import dataclass

import torch
from torch import Tensor

from yqc.graph.metadata import Mark
from yqc.graph.optable import allow_function
from yqc.quant import ops  # noqa: F401  # registers torch.ops.yqc
from yqc.quant.qparams import FULL_RANGE

allow_function("yqc.quantize_linear", torch.ops.yqc.quantize_linear)
allow_function("yqc.dequantize_linear", torch.ops.yqc.dequantize_linear)


@dataclass(frozen=True)
class Int8Weights(Mark, topic="int8"):
    """A convolution whose weights are to become int8, symmetric, one scale an output channel."""

    scale: Tensor | None = None
    """float32 [O]; None until calibration has chosen it."""
    mean_error: Tensor | None = None
    """Mean error that rounding adds to each output channel, float32 [O], if it is known."""
    most: int = FULL_RANGE
    """Largest integer that a weight becomes: 127, or 63 where two products must fit 16 bits."""


@dataclass(frozen=True)
class QuantizedLayer(Mark, topic="layer"):
    """A convolution that was quantized, as the report lists it."""

    name: str
    """Module path that it had."""
    op: str
    shape: tuple[int, ...]
    """Of its weight."""
    weight_bits: float
    """A whole number, but for codes of variable length: their mean."""
    activation_bits: int
    scheme: str
    granularity: str | None
    rounding: str
    weight_bytes: int
    """Of integers, scales and bias."""
    sqnr_db: float | None = None
    """Signal-to-noise ratio of its output on the example input, against the graph before; None
    where nothing differs."""
    sensitivity: float | None = None
    """Damage that rounding this layer does: mean squared change of the detections, estimated on
    calibration images."""
