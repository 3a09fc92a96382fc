"""Rules: what keeps nodes of a quantized file off OpenVINO's integer kernels on a CPU.

OpenVINO turns each QuantizeLinear and DequantizeLinear pair into a FakeQuantize, and its low
precision transformations move the dequantization behind convolutions (OpenVINO documentation, "Low
Precision Transformations": quantized per tensor on the input, per output channel on the weights).
"""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from yqc.linting import shared
from yqc.linting.finding import Finding
from yqc.linting.graph import DEQUANTIZE, QUANTIZE, Graph, scale_of, zero_points

FOUR_BITS = {TensorProto.INT4, TensorProto.UINT4}


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
    what = "an activation with a scale a channel keeps the convolution behind it in float"
    yield from shared.per_channel_activations(g, "warning", what)


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
    what = "; only those of the output channels, axis {}, pass behind the convolution"
    yield from shared.weight_axis(g, {"Conv": 0}, "warning", what)


def zero_point(g: Graph) -> Iterator[Finding]:
    """Find activations with a zero point that a convolution reads."""
    for node, _ in g.quantized("Conv"):
        source = g.dequantizer(node.input[0])
        if source is not None and has_zero_points(g, source):
            yield Finding.at(
                node, "activation-zero-point", "note",
                "its input has a zero point: correct, and some 15 % slower than without",
                "use symmetric int8 activations, as --target tensorrt has them",
            )  # fmt: skip


def rescaled_concats(g: Graph) -> Iterator[Finding]:
    """Find concats of differently scaled tensors: each one is requantized."""
    what = "its inputs have {} different scales, and all but one are converted"
    yield from shared.concat_scales(g, what, floats=False)


def has_zero_points(g: Graph, node: NodeProto) -> bool:
    """Return whether a DequantizeLinear has zero points other than zero."""
    zeros = zero_points(g, node)
    return zeros is not None and bool(zeros.astype(np.int64).any())


RULES = (pairs, shared.float_input, weight_forms, zero_point, rescaled_concats)
