"""Rules: what TensorRT refuses or does not fuse in a file with explicit quantization.

After the developer guide, "Working with Quantized Types": symmetric quantization only, int8, int4
and fp8; scales are constants; weights of a convolution per tensor or per channel along axis 0
(axis 1 for transposed convolutions); Q/DQ on the inputs of a residual addition except where the
convolution is to take it in; all inputs of a concat quantized alike; no Q/DQ where float is wanted.
"""

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from yqc.linting import shared
from yqc.linting.finding import Finding
from yqc.linting.graph import DEQUANTIZE, QUANTIZE, Graph, zero_points

TYPES = {
    TensorProto.INT8,
    TensorProto.INT4,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT4E2M1,
    TensorProto.INT32,
    TensorProto.UNDEFINED,
}
WEIGHT_AXIS = {"Conv": 0, "ConvTranspose": 1}


def symmetric(g: Graph) -> Iterator[Finding]:
    """Find zero points and element types that TensorRT does not take."""
    for node in g.nodes:
        if node.op_type not in {QUANTIZE, DEQUANTIZE}:
            continue
        zeros = zero_points(g, node)
        kinds = {g.kind(node.input[2]) if len(node.input) > 2 else TensorProto.UNDEFINED}  # noqa: PLR2004
        if node.op_type == DEQUANTIZE:
            kinds.add(g.kind(node.input[0]))
        if bad := kinds - TYPES:
            name = TensorProto.DataType.Name(min(bad)).lower()
            yield Finding.at(
                node, "type", "error",
                f"TensorRT does not quantize to {name}, only to int8, int4 and fp8",
                "compile with --target tensorrt",
            )  # fmt: skip
        elif zeros is not None and zeros.astype(np.float32).any():
            yield Finding.at(
                node, "zero-point", "error",
                "it has a zero point other than 0, and TensorRT quantizes symmetrically only",
                "compile with --target tensorrt",
            )  # fmt: skip
        elif node.input[1] not in g.constants:
            yield Finding.at(
                node, "computed-scale", "error",
                "its scale is computed by the graph; TensorRT wants a constant",
                "fold the scale into an initialiser, with onnxsim for example",
            )  # fmt: skip


def axes(g: Graph) -> Iterator[Finding]:
    """Find scales along an axis that TensorRT does not take."""
    what = "it quantizes an activation with a scale a channel; only weights may be"
    yield from shared.per_channel_activations(g, "error", what)
    yield from shared.weight_axis(g, WEIGHT_AXIS, "error", ", and TensorRT wants {}")


def half_quantized(g: Graph) -> Iterator[Finding]:
    """Find convolutions of which only one input is quantized."""
    for node in g.nodes:
        if node.op_type not in WEIGHT_AXIS:
            continue
        weight, image = g.weight(node), g.is_activation(node.input[0])
        if image != (weight is not None):
            missing = "weights are" if image else "input is"
            yield Finding.at(
                node, "half-quantized", "warning",
                f"its {missing} not quantized, so it runs in float",
                "quantize both or neither (the pass int8)",
            )  # fmt: skip


def residuals(g: Graph) -> Iterator[Finding]:
    """Find additions that no convolution can take in, since both summands are quantized."""
    for node in g.before("Add", "Conv"):
        if all(g.is_activation(name) for name in node.input):
            yield Finding.at(
                node, "residual", "warning",
                "both its summands are quantized, so it stays a layer of its own",
                "quantize only the summand that skips the convolution: --target tensorrt",
            )  # fmt: skip


def mixed_concats(g: Graph) -> Iterator[Finding]:
    """Find concats of tensors that are scaled differently, or only partly quantized."""
    what = "its inputs are not all quantized with one scale, so some are copied and converted"
    yield from shared.concat_scales(g, what, floats=True)


def decode(g: Graph) -> Iterator[Finding]:
    """Find quantization behind the last convolution: it loses accuracy and gains nothing."""
    for node in g.nodes:
        if node.op_type == QUANTIZE and not any(
            g.leads_to(node.output[0], kind) for kind in (*WEIGHT_AXIS, "MatMul", "Gemm")
        ):
            yield Finding.at(
                node, "decode", "warning",
                "nothing that multiplies follows: it quantizes the decoding, where boxes of up to"
                " the image's size share a scale with scores",
                "leave the decoding in float (the pass int8 does)",
            )  # fmt: skip


RULES = (symmetric, axes, half_quantized, residuals, mixed_concats, decode)
