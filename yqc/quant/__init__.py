"""Quantization mathematics: pure tensor functions, the ops, and the observers that use them."""

from yqc.quant.histogram import Histogram
from yqc.quant.marks import Int8, QuantizedLayer
from yqc.quant.observer import DTYPES, Observer
from yqc.quant.ops import dequantize_linear, quantize_linear
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
from yqc.quant.value_relevance import Worth

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
    "QParams",
    "QuantizedLayer",
    "Worth",
    "best_channel_scale",
    "channel_scale",
    "choose",
    "dequantize_linear",
    "error",
    "from_range",
    "quantize_linear",
    "relevance",
    "to_integers",
]
