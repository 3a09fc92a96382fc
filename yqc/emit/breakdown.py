"""What the bytes of an ONNX file's weights are made of, told by what reads them."""

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from yqc.emit.tensors import initializers, tensor_bytes, weight_bytes

LAYERS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3, "Gemm": 1, "MatMul": 1}
"""Ops with a weight, and at which of their inputs it is."""
BIAS = 2


def size_parts(model: onnx.ModelProto) -> dict[str, int]:
    """Split the bytes that `weight_bytes` counts.

    Returns:
        Bytes of `weights` (of convolutions, linear layers and matrix products, whatever they are
        stored as), `scales` (with zero points), `codebooks`, `biases` (with their scales) and
        `rest`.
    """
    held = {tensor.name: tensor for tensor in initializers(model.graph)}
    made = {name: node for node in model.graph.node for name in node.output}
    kinds: dict[str, str] = {}
    for node in model.graph.node:
        at = LAYERS.get(node.op_type)
        if at is None:
            continue
        for name, kind in _behind(node.input[at], made, held):
            kinds.setdefault(name, kind)
        if node.op_type in {"Conv", "ConvTranspose", "Gemm"} and len(node.input) > BIAS:
            for name, _ in _behind(node.input[BIAS], made, held):
                kinds.setdefault(name, "biases")
    sizes = dict.fromkeys(("weights", "scales", "codebooks", "biases", "rest"), 0)
    for name, kind in kinds.items():
        sizes[kind] += tensor_bytes(held[name])
    return sizes | {"rest": weight_bytes(model) - sum(sizes.values())}


def _behind(
    name: str, made: dict[str, onnx.NodeProto], held: dict[str, TensorProto]
) -> Iterator[tuple[str, str]]:
    """Yield the initialisers that a weight is computed from, each with its kind.

    Nothing is yielded of a value that depends on the graph's input.
    """
    found: list[tuple[str, str]] = []
    todo, seen = [(name, "weights")], set[str]()
    while todo:
        one, kind = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        if one in held:
            found.append((one, kind))
            continue
        node = made.get(one)
        if node is None:
            return
        for at, each in enumerate(node.input):
            own = _kind(node, at, given=each in held and bool(held[each].dims))
            todo += [(each, kind if own == "weights" else own)] if each else []
    yield from (pair for pair in found if pair[1] != "rest")


def _kind(node: onnx.NodeProto, at: int, *, given: bool) -> str:
    """Tell what an input of a node on the way to a weight is; `given` is an initialised tensor."""
    if node.op_type == "Gather":
        return "weights" if at else "codebooks"
    if at == 0:
        return "weights"
    if node.op_type in {"DequantizeLinear", "Sub"} or (node.op_type == "Mul" and given):
        return "scales"
    return "weights" if node.op_type in {"Add", "Concat"} and not given else "rest"
