"""What keeps nodes of a quantized file off OpenVINO's integer kernels on a CPU.

OpenVINO turns each QuantizeLinear and DequantizeLinear pair into a FakeQuantize, and its low
precision transformations move the dequantization behind convolutions (OpenVINO documentation, "Low
Precision Transformations": quantized per tensor on the input, per output channel on the weights).
"""

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from yqc.lint.finding import Finding
from yqc.lint.graph import DEQUANTIZE, QUANTIZE, Graph, axis, scale_of, zero_points

FOUR_BITS = {TensorProto.INT4, TensorProto.UINT4}


def pairs(g: Graph) -> Iterator[Finding]:
    """Find QuantizeLinear whose DequantizeLinear differs: no FakeQuantize stands for them."""
    for node in g.nodes:
        if node.op_type != QUANTIZE:
            continue
        readers = g.readers.get(node.output[0], [])
        if any(r.op_type != DEQUANTIZE or scale_of(r) != scale_of(node) for r in readers):
            yield Finding(
                node.name, QUANTIZE, "no-fake-quantize", "warning",
                "what reads it is no DequantizeLinear of the same scale and zero point, so the two"
                " are no FakeQuantize and stay operators of their own",
                "put a DequantizeLinear with the same scale and zero point right behind it",
            )  # fmt: skip
        scale = g.array(node.input[1])
        if scale is not None and scale.size > 1 and node.input[0] not in g.constants:
            yield Finding(
                node.name, QUANTIZE, "per-channel-activation", "warning",
                "an activation with a scale a channel keeps the convolution behind it in float",
                "quantize activations with one scale",
            )  # fmt: skip


def convolutions(g: Graph) -> Iterator[Finding]:
    """Find convolutions whose weights are integers and which run in float."""
    for node in g.nodes:
        weight = g.weight(node) if node.op_type == "Conv" else None
        if weight is None:
            continue
        zeros = zero_points(g, weight)
        if g.kind(weight.input[0]) in FOUR_BITS:
            yield Finding(
                node.name, "Conv", "four-bits", "note",
                "4-bit weights of convolutions are unpacked to float when the model is compiled:"
                " the file is small, the speed is that of float",
                "use int8 where speed matters",
            )  # fmt: skip
        elif not g.is_activation(node.input[0]):
            yield Finding(
                node.name, "Conv", "conv-input-float", "warning",
                "its weights are integers and its input is not, so it runs in float",
                "quantize its input too (the pass int8)",
            )  # fmt: skip
        elif zeros is not None and zeros.astype(np.int64).any():
            yield Finding(
                node.name, "Conv", "weight-zero-point", "warning",
                "its weights have zero points, which cost a correction of every sum",
                "use symmetric weights",
            )  # fmt: skip
        elif (scale := g.array(weight.input[1])) is not None and scale.size > 1 and axis(weight):
            yield Finding(
                node.name, "Conv", "weight-axis", "warning",
                f"its weights have scales along axis {axis(weight)}; only those of the output"
                " channels, axis 0, pass behind the convolution",
                "quantize the weights along axis 0",
            )  # fmt: skip


def zero_point(g: Graph) -> Iterator[Finding]:
    """Find activations with a zero point that a convolution reads."""
    for node in g.nodes:
        if node.op_type != "Conv" or g.weight(node) is None:
            continue
        source = g.dequantizer(node.input[0])
        zeros = None if source is None else zero_points(g, source)
        if zeros is not None and zeros.astype(np.int64).any():
            yield Finding(
                node.name, "Conv", "activation-zero-point", "note",
                "its input has a zero point: correct, and some 15 % slower than without",
                "use symmetric int8 activations, as --target tensorrt has them",
            )  # fmt: skip


def concats(g: Graph) -> Iterator[Finding]:
    """Find concats of differently scaled tensors: each one is requantized."""
    for node in g.nodes:
        found = [g.dequantizer(name) for name in node.input] if node.op_type == "Concat" else []
        scales = {scale_of(dq) for dq in found if dq is not None}
        if len(scales) > 1 and g.leads_to(node.output[0], "Conv"):
            yield Finding(
                node.name, "Concat", "concat-scales", "warning",
                f"its inputs have {len(scales)} different scales, and all but one are converted",
                "give all its inputs one scale (the pass int8 does)",
            )  # fmt: skip


RULES = (pairs, convolutions, zero_point, concats)
