"""Bytes of an ONNX file's weights, by cause and by layer; a tensor is judged by what reads it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx
from onnx import numpy_helper

from yqc.emit.tensors import initializers, tensor_bytes, weight_bytes

PLAIN = ("Conv", "ConvTranspose", "ConvInteger", "Gemm", "MatMul")
WEIGHTED = dict.fromkeys(PLAIN, 1) | {"QLinearConv": 3}
"""Ops with a weight, and at which of their inputs it is."""
WITH_BIAS = {"Conv", "ConvTranspose", "Gemm"}
LOOKUPS = ("Gather", "GatherElements")
"""Ops that look values up in their first input."""
RICE = "rice."
"""What the names of streams of variable length begin with."""
BIAS = 2
"""At which input of these the bias is."""


@dataclass(frozen=True)
class StoredTensor:
    """The part of an initialiser that belongs to a layer.

    Where the values of several layers stand in one tensor that a Split cuts, each counts for its
    share; of one that layers share as a whole, the first counts for what is left.

    `cause` is `weights` (codes, integers or floats), `scales` (with zero points), `codebooks` or
    `biases` (with their scales). `layer` is the name of the fx node that the layer was emitted for.
    """

    name: str
    layer: str
    cause: str
    bytes: int


def layer_tensors(model: onnx.ModelProto) -> tuple[StoredTensor, ...]:
    """List the initialisers that weights and biases are computed from, in graph order."""
    view = _View(model)
    left: dict[str, float] = {}
    found: dict[tuple[str, str, str], StoredTensor] = {}
    for node in model.graph.node:
        layer = node.name.partition(".")[0]
        for source in view.tensors_of(node):
            name, key = source.value, (source.value, layer, source.cause)
            rest = left.setdefault(name, 1.0)
            if rest <= 0 or key in found:
                continue
            size = tensor_bytes(view.held[name])
            left[name] = max(0.0, rest - source.share)
            # Rounded as a running total, so that the shares of a tensor add up to it.
            own = round(size * (1 - left[name])) - round(size * (1 - rest))
            found[key] = StoredTensor(name, layer, source.cause, own)
    return tuple(found.values())


def size_parts(model: onnx.ModelProto) -> dict[str, int]:
    """Split the bytes that `weight_bytes` counts by cause; `rest` is what belongs to no layer."""
    sizes = dict.fromkeys(("weights", "scales", "codebooks", "biases", "rest"), 0)
    for tensor in layer_tensors(model):
        sizes[tensor.cause] += 0 if tensor.name.startswith(RICE) else tensor.bytes
    for held in initializers(model.graph):  # whole streams of all layers
        if held.name.startswith(RICE):
            sizes[_cause_in_rice(held.name)] += tensor_bytes(held)
    return sizes | {"rest": weight_bytes(model) - sum(sizes.values())}


def layer_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Count the bytes that each layer stores, by the name of its fx node."""
    sizes: dict[str, int] = {}
    for tensor in layer_tensors(model):
        sizes[tensor.layer] = sizes.get(tensor.layer, 0) + tensor.bytes
    return sizes


@dataclass(frozen=True)
class _Source:
    """A value that a weight or bias is computed from."""

    value: str
    cause: str
    share: float = 1.0
    """How much of it is for that weight."""


def _in_rice(source: _Source) -> _Source:
    """Give what `yqc.emit.rice_streams` stores its cause, which its operators do not show."""
    if source.cause == "biases" or not source.value.startswith(RICE):
        return source
    return replace(source, cause=_cause_in_rice(source.value))


def _cause_in_rice(name: str) -> str:
    steps = name.removeprefix(RICE) in {"exponent", "scale", "factor"}
    return "scales" if steps else "weights"


class _View:
    """The nodes and initialisers of a model, by the names of their values."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.held = {tensor.name: tensor for tensor in initializers(model.graph)}
        self.made = {name: node for node in model.graph.node for name in node.output}

    def tensors_of(self, node: onnx.NodeProto) -> Iterator[_Source]:
        """Yield the initialisers that the weight and the bias of a node are computed from."""
        if node.op_type in WEIGHTED:
            yield from self.sources(_Source(node.input[WEIGHTED[node.op_type]], "weights"))
        bias = ""
        if node.op_type in WITH_BIAS and len(node.input) > BIAS:
            bias = node.input[BIAS]
        elif node.op_type == "Add" and (product := self.made.get(node.input[0])) is not None:
            # A linear layer over more than two dimensions is MatMul and Add.
            matrix = product.op_type == "MatMul"
            weighted = matrix and any(self.sources(_Source(product.input[1], "weights")))
            bias = node.input[1] if weighted else ""
        if bias:
            found = self.sources(_Source(bias, "weights"))
            yield from (replace(source, cause="biases") for source in found)

    def sources(self, wanted: _Source) -> Iterator[_Source]:
        """Yield the initialisers that a weight is computed from.

        Nothing is yielded of a value that depends on the graph's input.
        """
        found: list[_Source] = []
        todo, seen = [wanted], set[tuple[str, str]]()
        while todo:
            one = todo.pop()
            if (one.value, one.cause) in seen:
                continue
            seen.add((one.value, one.cause))
            if one.value in self.held:
                found.append(one)
                continue
            node = self.made.get(one.value)
            if node is None:
                return
            share = one.share * self._share(node, one.value)
            for at, name in enumerate(node.input):
                own = self._cause(node, at)
                cause = one.cause if own == "weights" else own
                todo += [_Source(name, cause, share)] if name else []
        yield from (_in_rice(source) for source in found if source.cause != "rest")

    def _share(self, node: onnx.NodeProto, value: str) -> float:
        """Return how much of a node's first input goes into one of its outputs."""
        if node.op_type != "Split" or len(node.input) == 1 or node.input[1] not in self.held:
            return 1.0
        sizes = numpy_helper.to_array(self.held[node.input[1]])
        return float(sizes[list(node.output).index(value)] / sizes.sum())

    def _cause(self, node: onnx.NodeProto, at: int) -> str:
        """Return what input number `at` of a node is."""
        name = node.input[at]
        given = name in self.held and bool(self.held[name].dims)
        if node.op_type in LOOKUPS:
            if self._is_seed(node.input[1]):
                return "rest" if at else "weights"
            return "weights" if at else "codebooks"
        if at == 0:
            return "rest" if node.op_type == "Equal" else "weights"
        if node.op_type in {"DequantizeLinear", "Sub"}:
            return "scales"
        if node.op_type == "Mul":
            return "scales" if given or name in self.made else "rest"
        return "weights" if node.op_type in {"Add", "Concat", "BitwiseOr"} and not given else "rest"

    def _is_seed(self, name: str) -> bool:
        """Return whether a value is the index behind which simplifiers fold nothing."""
        cast = self.made.get(name)
        source = self.made.get(cast.input[0]) if cast is not None else None
        return source is not None and source.op_type == "QuantizeLinear"
