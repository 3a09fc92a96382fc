"""Bytes of an ONNX file's weights, by cause and by layer; a tensor is judged by what reads it."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from yqc.emit.tensors import initializers, tensor_bytes, weight_bytes

PLAIN = ("Conv", "ConvTranspose", "ConvInteger", "Gemm", "MatMul")
WEIGHTED = dict.fromkeys(PLAIN, 1) | {"QLinearConv": 3}
"""Ops with a weight, and at which of their inputs it is."""
WITH_BIAS = {"Conv", "ConvTranspose", "Gemm"}
BIAS = 2
"""At which input of these the bias is."""


@dataclass(frozen=True)
class StoredTensor:
    """An initialiser that belongs to a layer; one that several layers share counts for the first.

    `cause` is `weights` (codes, integers or floats), `scales` (with zero points), `codebooks` or
    `biases` (with their scales). `layer` is the name of the fx node that the layer was emitted for.
    """

    name: str
    layer: str
    cause: str
    bytes: int


def layer_tensors(model: onnx.ModelProto) -> tuple[StoredTensor, ...]:
    """List the initialisers that weights and biases are computed from, in graph order."""
    held = {tensor.name: tensor for tensor in initializers(model.graph)}
    made = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, StoredTensor] = {}
    for node in model.graph.node:
        layer = node.name.partition(".")[0]
        for name, cause in _tensors_of(node, made, held):
            if name not in found:
                found[name] = StoredTensor(name, layer, cause, tensor_bytes(held[name]))
    return tuple(found.values())


def size_parts(model: onnx.ModelProto) -> dict[str, int]:
    """Split the bytes that `weight_bytes` counts by cause; `rest` is what belongs to no layer."""
    sizes = dict.fromkeys(("weights", "scales", "codebooks", "biases", "rest"), 0)
    for tensor in layer_tensors(model):
        sizes[tensor.cause] += tensor.bytes
    return sizes | {"rest": weight_bytes(model) - sum(sizes.values())}


def layer_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Count the bytes that each layer stores, by the name of its fx node."""
    sizes: dict[str, int] = {}
    for tensor in layer_tensors(model):
        sizes[tensor.layer] = sizes.get(tensor.layer, 0) + tensor.bytes
    return sizes


def _tensors_of(
    node: onnx.NodeProto, made: dict[str, onnx.NodeProto], held: dict[str, TensorProto]
) -> Iterator[tuple[str, str]]:
    """Yield the initialisers that the weight and the bias of a node are computed from."""
    if node.op_type in WEIGHTED:
        yield from _sources(node.input[WEIGHTED[node.op_type]], made, held)
    bias = ""
    if node.op_type in WITH_BIAS and len(node.input) > BIAS:
        bias = node.input[BIAS]
    elif node.op_type == "Add" and (product := made.get(node.input[0])) is not None:
        # A linear layer over more than two dimensions is MatMul and Add.
        with_weight = product.op_type == "MatMul" and any(_sources(product.input[1], made, held))
        bias = node.input[1] if with_weight else ""
    if bias:
        yield from ((name, "biases") for name, _ in _sources(bias, made, held))


def _sources(
    name: str, made: dict[str, onnx.NodeProto], held: dict[str, TensorProto]
) -> Iterator[tuple[str, str]]:
    """Yield the initialisers that a weight is computed from, each with its cause.

    Nothing is yielded of a value that depends on the graph's input.
    """
    found: list[tuple[str, str]] = []
    todo, seen = [(name, "weights")], set[str]()
    while todo:
        one, cause = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        if one in held:
            found.append((one, cause))
            continue
        node = made.get(one)
        if node is None:
            return
        for at, each in enumerate(node.input):
            own = _cause(node, at, given=each in held and bool(held[each].dims))
            todo += [(each, cause if own == "weights" else own)] if each else []
    yield from (pair for pair in found if pair[1] != "rest")


def _cause(node: onnx.NodeProto, at: int, *, given: bool) -> str:
    """Return what input number `at` holds; `given`: it is an initialiser with a dimension."""
    if node.op_type == "Gather":
        return "weights" if at else "codebooks"
    if at == 0:
        return "weights"
    if node.op_type in {"DequantizeLinear", "Sub"} or (node.op_type == "Mul" and given):
        return "scales"
    return "weights" if node.op_type in {"Add", "Concat"} and not given else "rest"
