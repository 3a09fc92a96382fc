"""Rewrite int8 weights of float convolutions to a form that onnxruntime folds to floats.

onnxruntime's kernels for blocked tensors (NCHWc), two to three times as fast as the others, need a
weight that is a constant. It folds constants when it loads a file, but not DequantizeLinear, which
it keeps for its integer kernels. So where no such kernel can be, because a convolution reads or
makes floats, the same integers stand behind Cast and Mul instead: the file is as small as before.
"""

from collections import defaultdict

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

ACROSS = frozenset({"Relu", "Clip"})
"""What onnxruntime takes into an integer convolution on the way to QuantizeLinear."""


def write_foldable(model: onnx.ModelProto) -> None:
    """Write the int8 weights of float convolutions as Cast and Mul, in place."""
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    held = {tensor.name: tensor for tensor in graph.initializer}
    floats = [n for n in graph.node if n.op_type == "Conv" and not on_integers(n, made, readers)]
    outputs = {name for conv in floats for name in conv.output}
    written: dict[str, list[NodeProto]] = {}
    for conv in floats:
        source = made.get(conv.input[1])
        if source is None or not is_plain_int8(source, held):
            continue
        weight, users = source.output[0], len(readers[source.input[1]])
        if all(reader.output[0] in outputs for reader in readers[weight]):
            written[weight] = _unfolded(source, graph, held, users)
    nodes = [n for node in graph.node for n in written.get(node.output[0], [node])]
    del graph.node[:]
    graph.node.extend(nodes)


def on_integers(
    conv: NodeProto, made: dict[str, NodeProto], readers: dict[str, list[NodeProto]]
) -> bool:
    """Return whether a convolution can become an integer kernel: quantized on both sides."""
    source = made.get(conv.input[0])
    if source is None or source.op_type != "DequantizeLinear":
        return False
    behind = readers[conv.output[0]]
    while len(behind) == 1 and behind[0].op_type in ACROSS:
        behind = readers[behind[0].output[0]]
    return bool(behind) and all(node.op_type == "QuantizeLinear" for node in behind)


def is_plain_int8(node: NodeProto, held: dict[str, TensorProto]) -> bool:
    """Return whether a node scales stored int8 by float32: one scale a row, or one for all."""
    if node.op_type != "DequantizeLinear" or any(name not in held for name in node.input):
        return False
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    blocked = any(a.name == "block_size" and a.i for a in node.attribute)
    values, scale = held[node.input[0]], held[node.input[1]]
    types = (values.data_type, scale.data_type) == (TensorProto.INT8, TensorProto.FLOAT)
    zeros = len(node.input) < 3 or not numpy_helper.to_array(held[node.input[2]]).any()  # noqa: PLR2004
    return types and zeros and not blocked and (not len(scale.dims) or axis == 0)


def _unfolded(
    node: NodeProto, graph: onnx.GraphProto, held: dict[str, TensorProto], users: int
) -> list[NodeProto]:
    """Return what stands for a node of DequantizeLinear; its scale gets the weight's rank."""
    (values, name), result = node.input[:2], node.output[0]
    scale = numpy_helper.to_array(held[name])
    if scale.ndim:
        wide = scale.reshape([-1] + [1] * (len(held[values].dims) - 1))
        if users > 1:
            name = f"{result}_own_scale"
            graph.initializer.append(numpy_helper.from_array(wide, name))
        else:
            held[name].CopyFrom(numpy_helper.from_array(wide, name))
    cast = helper.make_node(
        "Cast", [values], [f"{result}_float"], name=f"{result}_float", to=TensorProto.FLOAT
    )
    return [cast, helper.make_node("Mul", [cast.output[0], name], [result], name=result)]
