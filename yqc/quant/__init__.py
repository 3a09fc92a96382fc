"""Quantization mathematics: pure tensor functions, the ops, and the observers that use them."""

from yqc.quant.histogram import Histogram
from yqc.quant.observer import DTYPES, Observer
from yqc.quant.ops import dequantize_linear, quantize_linear
from yqc.quant.placement import Placement, before_activations, hands_on, is_addition, place
from yqc.quant.qparams import (
    FULL,
    REDUCED,
    QParams,
    best_channel_scale,
    channel_scale,
    from_range,
    to_integers,
)
from yqc.quant.ranges import METHODS, Method, choose, error
from yqc.quant.relevance import Layout, relevance
from yqc.quant.response import Response, response, take_apart
from yqc.quant.spec import Int8, QuantizedLayer
from yqc.quant.worth import Worth

__all__ = [
    "DTYPES",
    "FULL",
    "METHODS",
    "REDUCED",
    "Histogram",
    "Int8",
    "Layout",
    "Method",
    "Observer",
    "Placement",
    "QParams",
    "QuantizedLayer",
    "Response",
    "Worth",
    "before_activations",
    "best_channel_scale",
    "channel_scale",
    "choose",
    "dequantize_linear",
    "error",
    "from_range",
    "hands_on",
    "is_addition",
    "place",
    "quantize_linear",
    "relevance",
    "response",
    "take_apart",
    "to_integers",
]
