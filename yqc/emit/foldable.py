"""Write weights in a form that runtimes fold to constants when they load the file.

onnxruntime's kernels for blocked tensors (NCHWc), two to three times as fast as the others, need a
weight that is a constant. It folds constants when it loads a file, but not DequantizeLinear, which
it keeps for its integer kernels; OpenVINO then dequantizes int8 at every inference, too. So packed
weights, their biases, and int8 weights of convolutions that read or make floats, stand behind one
decoder of other operators. A convolution on integers gets its packed weight rounded to int8.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper

from yqc.emit.decoder import Decoder
from yqc.emit.kernels import DEQUANTIZE, makes_integers, reads_integers
from yqc.emit.products import is_product
from yqc.emit.rice_streams import decode_rice
from yqc.emit.stored import StoredRice, StoredValues, StoredWeight
from yqc.emit.streams import decode_biases, decode_weights
from yqc.emit.wiring import Wiring
from yqc.targets import Target


def write_foldable(model: onnx.ModelProto, stored: StoredValues, rules: Target) -> None:
    """Write the decoder of stored weights in front of a graph whose inputs they are, in place.

    Int8 weights of float convolutions join them. Where `rules.integer_results`, a convolution whose
    own result is not quantized is a float one, too, unless it becomes a product of matrices.
    """
    w = Wiring(model.graph)
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    integer = {
        conv.output[0]
        for conv in convs
        if (reads_integers(conv, w) and (not rules.integer_results or makes_integers(conv, w)))
        or (rules.products and is_product(conv, w, stored.weights))
    }
    weights: dict[str, StoredWeight | StoredRice] = {}
    for name in dict.fromkeys(conv.input[1] for conv in convs):
        of_integers = [reader.output[0] in integer for reader in w.readers[name]]
        if name in stored.weights and all(of_integers):
            weights[name] = replace(stored.weights[name], integers=True)
        elif name in w.made and is_plain_int8(w.made[name], w) and not any(of_integers):
            weights[name] = _stored_int8(w.made[name], w)
    values = StoredValues(weights=stored.weights | weights, biases=stored.biases)
    _put_in_front(model, values, seeded=_is_seeded(stored, rules))


def _is_seeded(stored: StoredValues, rules: Target) -> bool:
    """Return whether a seed stands before the decoder; codes of variable length have it always."""
    return rules.weights == "seed" or any(
        isinstance(w, StoredRice) for w in stored.weights.values()
    )


def is_plain_int8(node: NodeProto, w: Wiring) -> bool:
    """Return whether a node scales stored int8 by float32: one scale a row, or one for all."""
    if node.op_type != DEQUANTIZE or any(name not in w.held for name in node.input):
        return False
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    blocked = any(a.name == "block_size" and a.i for a in node.attribute)
    values, scale = w.held[node.input[0]], w.held[node.input[1]]
    types = (values.data_type, scale.data_type) == (TensorProto.INT8, TensorProto.FLOAT)
    zeros = len(node.input) < 3 or not w.array(node.input[2]).any()  # noqa: PLR2004
    return types and zeros and not blocked and (not len(scale.dims) or axis == 0)


def _stored_int8(node: NodeProto, w: Wiring) -> StoredWeight:
    """Return the weight that a node of DequantizeLinear makes."""
    values, scale = (torch.tensor(w.array(name)) for name in node.input[:2])
    codes = (values.to(torch.int16) + 128).to(torch.uint8).reshape(-1)
    return StoredWeight(node.output[0], tuple(values.shape), 8, codes, scale)


def _put_in_front(model: onnx.ModelProto, values: StoredValues, *, seeded: bool) -> None:
    """Put the decoder of values in front of a graph, in place of what made or declared them."""
    graph = model.graph
    before = _read(graph)
    made = {name for name in values.shapes() if name in before}
    nodes = [node for node in graph.node if node.output[0] not in made]
    inputs = [value for value in graph.input if value.name not in values.shapes()]
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    d = Decoder(taken | {t.name for t in graph.initializer}, _opset(model), seeded=seeded)
    weights = [w for name, w in values.weights.items() if name in made]
    decode_weights(d, [w for w in weights if isinstance(w, StoredWeight)])
    decode_rice(d, [w for w in weights if isinstance(w, StoredRice)])
    decode_biases(d, [b for name, b in values.biases.items() if name in made])
    _replace(graph.node, [*d.nodes, *nodes])
    _replace(graph.input, inputs)
    gone = before - _read(graph)
    kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
    _replace(graph.initializer, [*d.tensors.values(), *kept])


def halve_scales(model: onnx.ModelProto) -> None:
    """Store the float32 scales of packed weights in half where that is exact, behind a Cast.

    Simplifiers fold the Cast, so this comes after them.
    """
    w = Wiring(model.graph)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        scale = w.held.get(node.input[1]) if node.op_type == DEQUANTIZE else None
        if scale is not None and node.input[0] in w.held and len(scale.dims):
            values = w.array(node.input[1])
            half = values.astype(np.float16)
            if scale.data_type == TensorProto.FLOAT and (half == values).all():
                wide = node.input[1]
                scale.CopyFrom(onnx.numpy_helper.from_array(half, f"{wide}_half"))
                kind = TensorProto.FLOAT
                nodes.append(helper.make_node("Cast", [scale.name], [wide], name=wide, to=kind))
        nodes.append(node)
    _replace(model.graph.node, nodes)


def _read(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.input}


def _replace(items: Any, kept: list[Any]) -> None:  # noqa: ANN401  # repeated fields of protobuf
    copies = [type(item).FromString(item.SerializeToString()) for item in kept]
    del items[:]
    items.extend(copies)


def _opset(model: onnx.ModelProto) -> int:
    return max(int(o.version) for o in model.opset_import if o.domain in {"", "ai.onnx"})
