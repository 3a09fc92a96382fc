"""Rules: what keeps nodes of a quantized file off onnxruntime's integer kernels on a CPU.

Its optimiser puts an operator between DequantizeLinear and QuantizeLinear onto an integer kernel if
every data input comes out of the one and all that reads the result is the other (documentation
"Quantize ONNX models", section "Quantization on QDQ format"; selectors of `qdq_transformer`). The
figures in the texts were measured with onnxruntime 1.31 on yolov5n at 640 x 640, one thread.
"""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from yqc.linting import shared
from yqc.linting.advice import compile_for, leave_in_float, steps_of, target_of, undo_float_inputs
from yqc.linting.finding import Finding, Severity
from yqc.linting.graph import DEQUANTIZE, QUANTIZE, Graph, same_scale, zero_type
from yqc.targets import find_target

INTEGER = {
    "Sigmoid": "QLinearSigmoid",
    "LeakyRelu": "QLinearLeakyRelu",
    "Add": "QLinearAdd",
    "Mul": "QLinearMul",
    "Concat": "QLinearConcat",
    "AveragePool": "QLinearAveragePool",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
    "Softmax": "QLinearSoftmax",
    "MatMul": "QLinearMatMul",
}
"""Operators with an integer kernel of their own."""
MOVERS = {"MaxPool", "Resize", "Transpose", "Reshape", "Split", "Squeeze", "Unsqueeze", "Slice"}
"""Operators that run on integers as they are, if the scale is the same on both sides."""
FLOAT_ONLY = {"HardSwish", "HardSigmoid", "Mish", "Gelu", "Erf", "Softplus", "Tanh", "Elu", "PRelu"}
"""Operators without an integer kernel."""
SAFE = 64
"""Weights up to this cannot saturate: two products with uint8 stay within int16 (255 * 2 * 64)."""
HERE = "onnxruntime"


def float_results(g: Graph) -> Iterator[Finding]:
    """Find convolutions of integers whose result is a float, so that they run in float."""
    for node, _ in g.quantized("Conv"):
        result = node.output[0]
        if not g.reads_integers(node.input[0]) or g.is_quantized(result):
            continue
        after = ", ".join(sorted({r.op_type for r in g.readers.get(result, [])}))
        severity, fix = _advise(g, result, "quantize between it and its activation")
        yield Finding.at(
            node, "conv-output-float", severity,
            f"its output goes to {after or 'the outputs'} unquantized, so it runs in float behind"
            " DequantizeLinear",
            fix,
        )  # fmt: skip


def float_neighbours(g: Graph) -> Iterator[Finding]:
    """Find operators with an integer kernel that get integers and hand on floats."""
    for node in g.nodes:
        inputs = g.data_inputs(node)
        if not inputs or not any(g.is_activation(name) for name in inputs):
            continue
        if not g.leads_to(node.output[0], "Conv"):
            continue  # the decoding
        if node.op_type in FLOAT_ONLY:
            yield Finding.at(
                node, "no-integer-kernel", "warning",
                f"onnxruntime has no integer kernel for {node.op_type}: it runs in float",
                "compile with --passes relu,int8, or train with ReLU, LeakyReLU or SiLU",
            )  # fmt: skip
        elif node.op_type in INTEGER | dict.fromkeys(MOVERS):
            yield from _around(g, node, inputs)


def _around(g: Graph, node: NodeProto, inputs: list[str]) -> Iterator[Finding]:
    """Find what keeps a node with an integer kernel from it."""
    kernel = INTEGER.get(node.op_type, f"{node.op_type} of integers")
    bare = [name for name in inputs if not g.is_activation(name)]
    if bare:
        what, fix = f"its input {bare[0]} is not quantized", f"quantize {bare[0]}"
    elif not all(g.is_quantized(out) for out in node.output if out):
        what, fix = "its result is not quantized", "quantize its result"
    elif node.op_type in MOVERS and _rescales(g, node):
        what = "its input and its result have different scales"
        fix = "give both one scale and zero point"
    else:
        return
    severity, fix = _advise(g, node.output[0], fix)
    yield Finding.at(
        node, "not-fused", severity, f"{what}, so it runs in float and not as {kernel}", fix
    )


def _advise(g: Graph, result: str, otherwise: str) -> tuple[Severity, str]:
    """Return how severe it is that a tensor is a float or made of one, and what helps.

    In files that yqc compiled for onnxruntime it is mostly a choice: of `relax` or the user, or of
    `int8`, which leaves the decoding and the products of attention in float.
    """
    if not g.leads_to(result, "Conv"):
        return "note", "nothing, where the decoding is to stay in float"
    if target_of(g) != HERE:
        return "warning", f"compile with --target {HERE}"
    steps = {item.name for item in steps_of(g)}
    if "observe" in steps and "decompose-silu" not in steps:
        return "warning", "put decompose-silu before observe"
    if g.leads_to(result, "MatMul"):
        otherwise = f"nothing, where it belongs to attention; else {otherwise}"
    return "note", undo_float_inputs(g) or otherwise


def _rescales(g: Graph, node: NodeProto) -> bool:
    before = g.dequantizer(node.input[0])
    return before is not None and not same_scale(g, before, g.readers[node.output[0]][0])


def types(g: Graph) -> Iterator[Finding]:
    """Find element types that the fast kernels of x86 CPUs do not take."""
    for node in g.nodes:
        if node.op_type == QUANTIZE and zero_type(g, node) == TensorProto.INT8:
            yield Finding.at(
                node, "int8-activations", "warning",
                "on x86 CPUs nothing around int8 activations is fused, unless the session option"
                " session.qdqisint8allowed is set",
                compile_for(g, HERE, "use uint8 activations"),
            )  # fmt: skip
        if node.op_type == DEQUANTIZE and g.kind(node.input[0]) == TensorProto.UINT8:
            users = g.readers.get(node.output[0], [])
            if any(user.op_type == "Conv" for user in users):
                yield Finding.at(
                    node, "uint8-weights", "warning",
                    "convolutions with uint8 weights run on a kernel some three times slower",
                    "store the weights as int8 with zero point 0",
                )  # fmt: skip


def first_layer(g: Graph) -> Iterator[Finding]:
    """Find integer convolutions over so few channels that float ones are faster."""
    few = {
        node.name: (node, channels)
        for node, weight in integer_convolutions(g)
        if (channels := g.constants[weight.input[0]].dims[1]) <= find_target(HERE).few_channels
        and next((a.i for a in node.attribute if a.name == "group"), 1) == 1
    }
    fix = leave_in_float(g, (node for node, _ in few.values()))
    for node, channels in few.values():
        yield Finding.at(
            node, "few-channels", "note",
            f"an integer convolution over {channels} channels is slower than a float one",
            fix if target_of(g) == HERE else f"{fix}; --target {HERE} does that",
        )  # fmt: skip


def saturation(g: Graph) -> Iterator[Finding]:
    """Find full-range weights, which saturate on CPUs without VNNI (uint8 times int8 in int16)."""
    for node, weight in integer_convolutions(g):
        values = g.array(weight.input[0])
        if values is None or values.dtype != np.int8 or not values.size:
            continue
        most = int(np.abs(values.astype(np.int16)).max())
        if most > SAFE:
            yield Finding.at(
                node, "saturation", "note",
                f"weights up to {most} can saturate on x86 CPUs without VNNI: two products of"
                " uint8 and int8 are added in int16",
                "for such a CPU, use weights of 7 bits: int8{reduce_range=true}",
            )  # fmt: skip


def integer_convolutions(g: Graph) -> Iterator[tuple[NodeProto, NodeProto]]:
    """Yield the convolutions of integers by integers, with what dequantizes their weights."""
    return ((n, weight) for n, weight in g.quantized("Conv") if g.reads_integers(n.input[0]))


SATURATION = (saturation,)
RULES = (shared.float_input, float_results, float_neighbours, types, first_layer, saturation)
