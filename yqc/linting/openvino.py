"""Rules: what keeps nodes of a quantized file off OpenVINO's integer kernels on a CPU.

OpenVINO turns each QuantizeLinear and DequantizeLinear pair into a FakeQuantize, and its low
precision transformations move the dequantization behind convolutions (OpenVINO documentation, "Low
Precision Transformations": quantized per tensor on the input, per output channel on the weights).
"""

from collections.abc import Iterator
from functools import partial

from onnx import NodeProto, TensorProto

from yqc.linting import shared
from yqc.linting.advice import compile_for
from yqc.linting.finding import Finding
from yqc.linting.graph import (
    DEQUANTIZE,
    PASSING,
    QUANTIZE,
    Graph,
    has_zero_points,
    same_scale,
    scale_of,
    zero_type,
)

FOUR_BITS = {TensorProto.INT4, TensorProto.UINT4}


def int8_concats(g: Graph) -> Iterator[Finding]:
    """Find concats with int8-typed activations on either side, and a convolution behind.

    Measured with OpenVINO 2026.4 on graphs of two branches, a concat and a convolution: int8 before
    or right behind the concat, with zero point 0 or another, comes out at 28 dB and below; uint8
    with any zero point at 126 dB and above, and so does int8 if it is quantized once more behind a
    split, pooling or resize that follows the concat.
    """
    for node in g.nodes:
        if node.op_type != "Concat":
            continue
        before = [made for name in node.input if (made := _passed_on_by(g, name)) is not None]
        behind = [r for r in g.readers.get(node.output[0], []) if r.op_type == QUANTIZE]
        typed = any(zero_type(g, q) == TensorProto.INT8 for q in (*before, *behind))
        if typed and _reaches_convolution(g, node, behind):
            yield Finding.at(
                node, "int8-concat", "error",
                "int8 activations meet this concat in front of a convolution, which OpenVINO's CPU"
                " plugin then computes wrong",
                compile_for(g, "openvino", "quantize to uint8 with zero point 128"),
            )  # fmt: skip


def pairs(g: Graph) -> Iterator[Finding]:
    """Find QuantizeLinear whose DequantizeLinear differs: no FakeQuantize stands for them."""
    for node in g.nodes:
        if node.op_type != QUANTIZE:
            continue
        readers = g.readers.get(node.output[0], [])
        if any(r.op_type != DEQUANTIZE or scale_of(r) != scale_of(node) for r in readers):
            yield Finding.at(
                node, "no-fake-quantize", "warning",
                "what reads it is no DequantizeLinear of the same scale and zero point, so the two"
                " are no FakeQuantize and stay operators of their own",
                "put a DequantizeLinear with the same scale and zero point right behind it",
            )  # fmt: skip


def repeated_scales(g: Graph) -> Iterator[Finding]:
    """Find QuantizeLinear of values that have its scale and zero point already."""
    for node in g.quantizers():
        maker = g.maker.get(node.input[0])
        if maker is None or maker.op_type not in PASSING:
            continue
        names = maker.input if maker.op_type == "Concat" else maker.input[:1]
        made = [_passed_on_by(g, name) for name in names]
        if all(one is not None and same_scale(g, one, node) for one in made):
            yield Finding.at(
                node, "repeated-scale", "warning",
                f"it repeats the scale of what {maker.op_type} hands on, an operation of its own",
                compile_for(g, "openvino", "leave out this QuantizeLinear and DequantizeLinear"),
            )  # fmt: skip


def weight_forms(g: Graph) -> Iterator[Finding]:
    """Find convolutions whose weights are integers, and not as its integer kernels want them."""
    for node, weight in g.quantized("Conv"):
        if g.kind(weight.input[0]) in FOUR_BITS:
            yield Finding.at(
                node, "four-bits", "note",
                "4-bit weights of convolutions are unpacked to float when the model is compiled:"
                " the file is small, the speed is that of float",
                "use int8 where speed matters",
            )  # fmt: skip
        elif has_zero_points(g, weight):
            yield Finding.at(
                node, "weight-zero-point", "warning",
                "its weights have zero points, so every sum needs a correction",
                "use symmetric weights",
            )  # fmt: skip


def _passed_on_by(g: Graph, name: str) -> NodeProto | None:
    """Return the DequantizeLinear whose values a tensor holds, handed on by any PASSING nodes.

    Of a concat that is the one of its first input.
    """
    while (node := g.maker.get(name)) is not None and node.op_type in PASSING:
        name = node.input[0]
    return g.dequantizer(name)


def _reaches_convolution(g: Graph, concat: NodeProto, quantizers: list[NodeProto]) -> bool:
    """Return whether an integer convolution reads a concat, or it behind its own quantizers.

    Any PASSING nodes may be between, and no further QuantizeLinear.
    """
    todo = [concat.output[0]]
    todo += [dq.output[0] for q in quantizers for dq in g.readers.get(q.output[0], [])]
    while todo:
        for reader in g.readers.get(todo.pop(), []):
            if reader.op_type == "Conv" and g.weight(reader) is not None:
                return True
            todo += reader.output if reader.op_type in PASSING else []
    return False


RULES: tuple[shared.LintRule, ...] = (
    int8_concats,
    pairs,
    repeated_scales,
    partial(
        shared.per_channel_activations,
        severity="warning",
        what="an activation with a scale a channel keeps the convolution behind it in float",
    ),
    shared.float_input,
    weight_forms,
    partial(
        shared.weight_axis,
        wanted={"Conv": 0},
        severity="warning",
        what="; only those of the output channels, axis {}, pass behind the convolution",
    ),
    partial(
        shared.concat_scales,
        what="its inputs have {} different scales, and all but one are converted",
        floats=False,
    ),
)
