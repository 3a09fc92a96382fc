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
from yqc.linting.finding import Finding
from yqc.linting.graph import DEQUANTIZE, QUANTIZE, Graph, scale_of

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
FEW_CHANNELS = 4
"""Input channels up to which a float convolution was faster (measured on yolov5n's first layer).

The next larger layers have 16 and more, so that half or double changes no finding on a YOLO file.
"""


def float_results(g: Graph) -> Iterator[Finding]:
    """Find convolutions of integers whose result is a float, so that they run in float."""
    for node, _ in g.quantized("Conv"):
        if g.is_activation(node.input[0]) and not g.is_quantized(node.output[0]):
            after = {r.op_type for r in g.readers.get(node.output[0], [])}
            decoded = not g.leads_to(node.output[0], "Conv")
            yield Finding.at(
                node, "conv-output-float", "note" if decoded else "warning",
                f"its output goes to {', '.join(sorted(after)) or 'the outputs'} unquantized, so"
                " it runs in float behind DequantizeLinear",
                "nothing, where the decoding is to stay in float" if decoded else
                "quantize between it and its activation: compile with --target onnxruntime",
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
                "train with ReLU, LeakyReLU or SiLU if the time matters",
            )  # fmt: skip
        elif node.op_type in INTEGER | dict.fromkeys(MOVERS):
            yield from _around(g, node, inputs)


def _around(g: Graph, node: NodeProto, inputs: list[str]) -> Iterator[Finding]:
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
    yield Finding.at(
        node, "not-fused", "warning",
        f"{what}, so it runs in float and not as {kernel}",
        f"{fix}: compile with --target onnxruntime",
    )  # fmt: skip


def _rescales(g: Graph, node: NodeProto) -> bool:
    before = g.dequantizer(node.input[0])
    after = g.readers[node.output[0]][0]
    if before is None:
        return False
    pairs = zip(scale_of(before), scale_of(after), strict=False)
    return any(a != b and not _same(g, a, b) for a, b in pairs)


def _same(g: Graph, a: str, b: str) -> bool:
    first, second = g.array(a), g.array(b)
    return first is not None and second is not None and np.array_equal(first, second)


def types(g: Graph) -> Iterator[Finding]:
    """Find element types that the fast kernels of x86 CPUs do not take."""
    for node in g.nodes:
        zero = node.input[2] if len(node.input) > 2 else ""  # noqa: PLR2004
        if node.op_type == QUANTIZE and g.kind(zero) == TensorProto.INT8:
            yield Finding.at(
                node, "int8-activations", "warning",
                "on x86 CPUs nothing around int8 activations is fused, unless the session option"
                " session.qdqisint8allowed is set",
                "use uint8 activations: compile with --target onnxruntime",
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
    for node, weight in integer_convolutions(g):
        dims = g.constants[weight.input[0]].dims
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if dims[1] <= FEW_CHANNELS and group == 1:
            yield Finding.at(
                node, "few-channels", "note",
                f"an integer convolution over {dims[1]} channels is slower than a float one",
                "leave it in float: int8{skip=...}",
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
    return ((n, weight) for n, weight in g.quantized("Conv") if g.is_activation(n.input[0]))


SATURATION = (saturation,)
RULES = (shared.float_input, float_results, float_neighbours, types, first_layer, saturation)
