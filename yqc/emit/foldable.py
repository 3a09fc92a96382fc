"""Rewrite int8 weights of float convolutions to a form that runtimes fold to floats at load.

onnxruntime's kernels for blocked tensors (NCHWc), two to three times as fast as the others, need a
weight that is a constant. It folds constants when it loads a file, but not DequantizeLinear, which
it keeps for its integer kernels; OpenVINO then dequantizes at every inference, too. So where no
such kernel can be, because a convolution reads or makes floats, the same integers stand behind Cast
and Mul instead: the file is as small as before.
"""

import onnx
from onnx import NodeProto, TensorProto, helper

from yqc.emit.wiring import Wiring

ACROSS = frozenset({"Relu", "Clip"})
"""What onnxruntime takes into an integer convolution on the way to QuantizeLinear."""

PASSING = frozenset({"Concat", "Split", "MaxPool", "Resize"})
"""What may stand between DequantizeLinear and an integer convolution: it hands on values."""


def write_foldable(model: onnx.ModelProto, *, integer_results: bool) -> None:
    """Write the int8 weights of float convolutions as Cast and Mul, in place.

    If `integer_results`, a convolution whose own result is not quantized is a float one, too.
    """
    w = Wiring(model.graph)
    floats = [
        n
        for n in model.graph.node
        if n.op_type == "Conv"
        and not (reads_integers(n, w) and (not integer_results or makes_integers(n, w)))
    ]
    outputs = {name for conv in floats for name in conv.output}
    written: dict[str, list[NodeProto]] = {}
    for conv in floats:
        source = w.made.get(conv.input[1])
        if source is None or not is_plain_int8(source, w):
            continue
        weight = source.output[0]
        if all(reader.output[0] in outputs for reader in w.readers[weight]):
            written[weight] = _unfolded(source, w)
    w.replace(written)


def reads_integers(conv: NodeProto, w: Wiring) -> bool:
    """Return whether a convolution reads dequantized values, directly or passed through."""
    todo = [conv.input[0]]
    while todo:
        node = w.made.get(todo.pop())
        if node is None or node.op_type not in {"DequantizeLinear", *PASSING}:
            return False
        if node.op_type == "Concat":
            todo += node.input
        elif node.op_type in PASSING:
            todo.append(node.input[0])
    return True


def makes_integers(conv: NodeProto, w: Wiring) -> bool:
    """Return whether the result of a convolution is quantized by all that read it."""
    behind = w.readers[conv.output[0]]
    while len(behind) == 1 and behind[0].op_type in ACROSS:
        behind = w.readers[behind[0].output[0]]
    return bool(behind) and all(node.op_type == "QuantizeLinear" for node in behind)


def is_plain_int8(node: NodeProto, w: Wiring) -> bool:
    """Return whether a node scales stored int8 by float32: one scale a row, or one for all."""
    if node.op_type != "DequantizeLinear" or any(name not in w.held for name in node.input):
        return False
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    blocked = any(a.name == "block_size" and a.i for a in node.attribute)
    values, scale = w.held[node.input[0]], w.held[node.input[1]]
    types = (values.data_type, scale.data_type) == (TensorProto.INT8, TensorProto.FLOAT)
    zeros = len(node.input) < 3 or not w.array(node.input[2]).any()  # noqa: PLR2004
    return types and zeros and not blocked and (not len(scale.dims) or axis == 0)


def _unfolded(node: NodeProto, w: Wiring) -> list[NodeProto]:
    """Return what stands for a node of DequantizeLinear; its scale gets the weight's rank."""
    (values, name), result = node.input[:2], node.output[0]
    scale = w.array(name)
    if scale.ndim:
        shared = len(w.readers[name]) > 1
        wide = scale.reshape([-1] + [1] * (len(w.held[values].dims) - 1))
        name = w.hold(f"{result}_own_scale" if shared else name, wide)
    cast = helper.make_node(
        "Cast", [values], [f"{result}_float"], name=f"{result}_float", to=TensorProto.FLOAT
    )
    return [cast, helper.make_node("Mul", [cast.output[0], name], [result], name=result)]
