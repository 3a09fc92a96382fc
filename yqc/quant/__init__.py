"""Quantization of tensors: pure functions, ONNX's two operators, and the nodes that observe.

In reading order:

    ops              QuantizeLinear and DequantizeLinear as PyTorch operators
    qparams          scales and zero points from ranges; weights to int8
    histogram        statistics of a tensor over many images, in fixed memory
    ranges           the range of a tensor from its histogram: minmax, percentile, mse, entropy
    relevance        what a change of a model's outputs counts, as one scalar to differentiate
    task_relevance   the same of masks, keypoints and angles
    value_relevance  mean relevance of a tensor's values, by their size
    observer         the module that marks a tensor to quantize and keeps its histogram
    marks            what quantization writes on nodes: `Int8Weights`, `QuantizedLayer`
    linear           the Cholesky factor of a covariance with a ridge
    weights          few-bit weights: schemes, grids, rounding, packing
"""

from yqc.quant.histogram import Histogram
from yqc.quant.linear import cholesky_with_ridge
from yqc.quant.marks import Int8Weights, QuantizedLayer
from yqc.quant.observer import DTYPES, Observer, register_observer
from yqc.quant.ops import dequantize_linear, quantize_linear
from yqc.quant.qparams import (
    FULL_RANGE,
    REDUCED_RANGE,
    QParams,
    fake_quantize_weight,
    minmax_channel_scale,
    mse_channel_scale,
    qparams_from_range,
    quantize_weight,
)
from yqc.quant.ranges import (
    RANGE_METHODS,
    RangeMethod,
    check_range,
    choose_range,
    register_range,
    rounding_error,
)
from yqc.quant.relevance import weight_outputs
from yqc.quant.value_relevance import ValueRelevance
from yqc.quant.weights.scheme import Granularity, Rounding, Scheme, register_scheme

__all__ = [
    "DTYPES",
    "FULL_RANGE",
    "RANGE_METHODS",
    "REDUCED_RANGE",
    "Granularity",
    "Histogram",
    "Int8Weights",
    "Observer",
    "QParams",
    "QuantizedLayer",
    "RangeMethod",
    "Rounding",
    "Scheme",
    "ValueRelevance",
    "check_range",
    "cholesky_with_ridge",
    "choose_range",
    "dequantize_linear",
    "fake_quantize_weight",
    "minmax_channel_scale",
    "mse_channel_scale",
    "qparams_from_range",
    "quantize_linear",
    "quantize_weight",
    "register_observer",
    "register_range",
    "register_scheme",
    "rounding_error",
    "weight_outputs",
]
