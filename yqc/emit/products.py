"""Write 1x1 convolutions of integers with float results as products of matrices.

onnxruntime has an integer kernel for a convolution only if the result is quantized, too; those of
a head are not. For a MatMul it has one with a float result (MatMulIntegerToFloat), and the result
has the channels last, as its convolutions of integers have them, so that transposes vanish:

    DequantizeLinear(x), Conv, [Sigmoid], Reshape
        ->  Transpose(x), DequantizeLinear, MatMul, Add, [Sigmoid], Reshape, Transpose

The bias has four dimensions: with one, onnxruntime would fuse Add and MatMul to a Gemm in float.
"""

from collections.abc import Container, Iterator, Mapping

import numpy as np
import onnx
from onnx import NodeProto, helper

from yqc.emit.kernels import makes_integers
from yqc.emit.wiring import Wiring

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Permutations of [N,C,H,W] to channels last, and back."""
WITHOUT_ZERO = 2
"""Inputs of a DequantizeLinear without a zero point."""


def write_products(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write the 1x1 convolutions of integers with float results as MatMul, in place.

    `shapes` are those of weights that a decoder in the file makes, by their names.
    """
    w = Wiring(model.graph)
    written: dict[str, list[NodeProto]] = {}
    for conv in model.graph.node:
        if conv.op_type == "Conv" and is_product(conv, w, shapes):
            channels = shapes.get(conv.input[1], (0,))[0]
            written |= _product(conv, w, channels or w.held[w.made[conv.input[1]].input[1]].dims[0])
    w.replace(written)


def is_product(conv: NodeProto, w: Wiring, decoded: Container[str]) -> bool:
    """Return whether a convolution is a product of integer matrices whose result stays in float.

    `decoded` are the weights that a decoder makes, dequantized with a scale for each row.
    """
    of = {a.name: list(a.ints) or [a.i] for a in conv.attribute}
    ones = {*of["kernel_shape"], *of["strides"], *of["group"]}
    x, weight = w.made.get(conv.input[0]), w.made.get(conv.input[1])
    if ones != {1} or any(of["pads"]) or not _dequantizes(x) or makes_integers(conv, w):
        return False
    if conv.input[1] in decoded:
        return all(len(w.readers[name]) == 1 for name in conv.input[1:])
    if weight is None or not _dequantizes(weight) or len(weight.input) != WITHOUT_ZERO:
        return False
    integers, scale = weight.input
    rows = scale in w.held and len(w.held[scale].dims) == 1
    private = (weight.output[0], integers, *conv.input[2:])
    alone = all(len(w.readers[name]) == 1 for name in private)
    return rows and alone


def _product(conv: NodeProto, w: Wiring, channels: int) -> dict[str, list[NodeProto]]:
    """Return what stands for a convolution, its weight and what follows, by first outputs."""
    name = conv.name
    x, weight = w.made[conv.input[0]], w.made[conv.input[1]]
    product = f"{name}.product"
    nodes = [
        _node("Transpose", [x.input[0]], f"{name}.last", perm=LAST),
        _node("DequantizeLinear", [f"{name}.last", *x.input[1:]], f"{name}.last_dq"),
        *_columns(weight, w, channels),
        helper.make_node("MatMul", [f"{name}.last_dq", weight.output[0]], [product], name=name),
    ]
    if len(conv.input) > 2:  # noqa: PLR2004
        bias = conv.input[2]
        if bias in w.held:
            w.hold(bias, w.array(bias).reshape(1, 1, 1, channels))
        else:
            wide = w.hold("int64s.1_1_1_-1", np.array([1, 1, 1, -1], dtype=np.int64))
            nodes.append(_node("Reshape", [bias, wide], f"{name}.bias"))
            bias = f"{name}.bias"
        nodes.append(_node("Add", [product, bias], f"{name}.sum"))
        product = f"{name}.sum"
    found: dict[str, list[NodeProto]] = {weight.output[0]: []}
    value = conv.output[0]
    while (reader := w.only_reader(value)) is not None and reader.op_type == "Sigmoid":
        found[reader.output[0]], value = [], reader.output[0]
        nodes.append(
            helper.make_node("Sigmoid", [product], [f"{reader.name}.last"], name=reader.name)
        )
        product = f"{reader.name}.last"
    shaped = None if reader is None else _reshaped(reader, product, channels, w)
    if reader is None or shaped is None:
        shaped = [
            helper.make_node("Transpose", [product], [value], name=f"{name}.first", perm=FIRST)
        ]
    else:
        found[reader.output[0]] = []
    return found | {conv.output[0]: [*nodes, *shaped]}


def _columns(weight: NodeProto, w: Wiring, rows: int) -> Iterator[NodeProto]:
    """Yield what dequantizes a weight [O,I,1,1] as a matrix [I,O]."""
    integers, scale = weight.input
    if integers in w.held:
        values = w.array(integers)
        w.hold(integers, values.reshape(values.shape[:2]).T)
    else:  # decoded from few bits
        shape = w.hold(f"int64s.{rows}_-1", np.array([rows, -1], dtype=np.int64))
        yield _node("Reshape", [integers, shape], f"{weight.name}.rows")
        yield _node("Transpose", [f"{weight.name}.rows"], f"{weight.name}.columns", perm=(1, 0))
        integers = f"{weight.name}.columns"
    yield helper.make_node(
        "DequantizeLinear", [integers, scale], weight.output, name=weight.name, axis=1
    )


def _reshaped(reader: NodeProto, product: str, channels: int, w: Wiring) -> list[NodeProto] | None:
    """Return a Reshape of [N,C,H,W] in terms of [N,H,W,C], or None if it is no known one.

    It flattens height and width, or splits the channels, as the decoding of heads does.
    """
    if reader.op_type != "Reshape" or reader.input[1] not in w.held:
        return None
    match w.array(reader.input[1]).tolist():
        case [0, c, -1] if c in {0, channels}:
            shape, perm = (0, -1, channels), (0, 2, 1)
        case [0, -1, c, height, width] if height > 0 and width > 0 and c > 0:
            shape, perm = (0, height, width, -1, c), (0, 3, 4, 1, 2)  # type: ignore[assignment]
        case _:
            return None
    held = w.hold(f"int64s.{'_'.join(map(str, shape))}", np.array(shape, dtype=np.int64))
    last = f"{reader.name}.last"
    return [
        helper.make_node("Reshape", [product, held], [last], name=reader.name),
        helper.make_node(
            "Transpose", [last], reader.output, name=f"{reader.name}.first", perm=perm
        ),
    ]


def _node(
    kind: str, inputs: list[str], name: str, perm: tuple[int, ...] | None = None
) -> NodeProto:
    """Make a node whose output has its name."""
    return helper.make_node(kind, inputs, [name], name=name, perm=perm)


def _dequantizes(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"
