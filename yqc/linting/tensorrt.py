"""Rules: what TensorRT refuses or does not fuse in a file with explicit quantization.

After the developer guide, "Working with Quantized Types": symmetric quantization only, int8, int4
and fp8; scales are constants; weights of a convolution per tensor or per channel along axis 0
(axis 1 for transposed convolutions); Q/DQ on the inputs of a residual addition except where the
convolution is to take it in; all inputs of a concat quantized alike; no Q/DQ where float is wanted.
"""

from collections.abc import Iterator
from functools import partial

from onnx import TensorProto

from yqc.linting import shared
from yqc.linting.advice import compile_by_int8, compile_for, steps_of
from yqc.linting.finding import Finding
from yqc.linting.graph import DEQUANTIZE, QUANTIZE, Graph, has_zero_points, zero_type

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
    fix = compile_for(g, "tensorrt", "quantize to int8 with zero point 0")
    made_by = {item.name for item in steps_of(g)}
    if made_by and not made_by & {"int8", "quantize"}:  # weights of four bits, for any target
        fix = "compile with --passes int8 --target tensorrt"
    for node in g.nodes:
        if node.op_type not in {QUANTIZE, DEQUANTIZE}:
            continue
        kinds = {zero_type(g, node)}
        if node.op_type == DEQUANTIZE:
            kinds.add(g.kind(node.input[0]))
        if bad := kinds - TYPES:
            name = TensorProto.DataType.Name(min(bad)).lower()
            yield Finding.at(
                node, "type", "error",
                f"TensorRT does not quantize to {name}, only to int8, int4 and fp8",
                fix,
            )  # fmt: skip
        elif has_zero_points(g, node):
            yield Finding.at(
                node, "zero-point", "error",
                "it has a zero point other than 0, and TensorRT quantizes symmetrically only",
                fix,
            )  # fmt: skip
        elif node.input[1] not in g.constants:
            yield Finding.at(
                node, "computed-scale", "error",
                "its scale is computed by the graph; TensorRT wants a constant",
                "fold the scale into an initialiser, with onnxsim for example",
            )  # fmt: skip


def float_weights(g: Graph) -> Iterator[Finding]:
    """Find convolutions of a quantized input whose weights are floats."""
    for node in g.nodes:
        if node.op_type in WEIGHT_AXIS and g.reads_integers(node.input[0]) and not g.weight(node):
            yield Finding.at(
                node, "half-quantized", "warning",
                "its weights are not quantized, so it runs in float",
                compile_for(g, "tensorrt", "quantize both its input and its weights, or neither"),
            )  # fmt: skip


def residuals(g: Graph) -> Iterator[Finding]:
    """Find additions that no convolution can take in, since both summands are quantized."""
    for node in g.before("Add", "Conv"):
        if all(g.is_activation(name) for name in node.input):
            yield Finding.at(
                node, "residual", "warning",
                "both its summands are quantized, so it stays a layer of its own",
                compile_for(g, "tensorrt", "quantize only the summand that skips the convolution"),
            )  # fmt: skip


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
                compile_by_int8(g, "leave the decoding in float"),
            )  # fmt: skip


RULES: tuple[shared.LintRule, ...] = (
    symmetric,
    partial(
        shared.per_channel_activations,
        severity="error",
        what="it quantizes an activation with a scale a channel; only weights may be",
    ),
    partial(
        shared.weight_axis, wanted=WEIGHT_AXIS, severity="error", what=", and TensorRT wants {}"
    ),
    partial(shared.float_input, kinds=WEIGHT_AXIS, rule="half-quantized"),
    float_weights,
    residuals,
    partial(
        shared.concat_scales,
        what="its inputs are not all quantized with one scale, so some are copied and converted",
        floats=True,
    ),
    decode,
)
