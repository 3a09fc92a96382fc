"""An ONNX graph as the rules read it: makers and readers of tensors, and constants."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from itertools import zip_longest

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
PASSING = frozenset({"Concat", "Split", "MaxPool", "Resize", "Slice"})
"""Operators that hand on values of their input, or of all inputs of a Concat."""


class Graph:
    """Producers, readers and constants of a model's main graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self.opset = max((one.version for one in model.opset_import if not one.domain), default=1)
        self.nodes = list(model.graph.node)
        self.about = {entry.key: entry.value for entry in model.metadata_props}
        self.outputs = {value.name for value in model.graph.output}
        self.constants: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        self.inputs = [value for value in model.graph.input if value.name not in self.constants]
        self.maker: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        self._read_before: dict[str, set[str]] = {}
        for node in self.nodes:
            self.maker.update(dict.fromkeys(node.output, node))
            for name in node.input:
                self.readers[name].append(node)
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t

    def array(self, name: str) -> NDArray[np.generic] | None:
        """Return a constant's values, or None if the tensor is computed."""
        found = self.constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def kind(self, name: str) -> int:
        """Return a constant's element type, `TensorProto.UNDEFINED` if it is none."""
        found = self.constants.get(name)
        return TensorProto.UNDEFINED if found is None else found.data_type

    @cached_property
    def _inferred(self) -> dict[str, onnx.TypeProto.Tensor]:
        """Types and shapes of computed tensors, as ONNX infers them."""
        found = onnx.shape_inference.infer_shapes(self._model, data_prop=True).graph
        values = (*found.input, *found.value_info, *found.output)
        return {value.name: value.type.tensor_type for value in values}

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, with 0 for sides that vary; None if it is not known."""
        if name in self.constants:
            return tuple(self.constants[name].dims)
        kind = self._inferred.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        return tuple(side.dim_value for side in kind.shape.dim)

    def dtype(self, name: str) -> str:
        """Return the element type of a tensor in numpy's words, empty if it is not known."""
        kind = self.kind(name)
        if kind == TensorProto.UNDEFINED and name in self._inferred:
            kind = self._inferred[name].elem_type
        known = kind not in {TensorProto.UNDEFINED, TensorProto.STRING}
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind)) if known else ""

    def dequantizer(self, name: str) -> NodeProto | None:
        """Return the DequantizeLinear that makes a tensor, if one does."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type == DEQUANTIZE else None

    def is_activation(self, name: str) -> bool:
        """Return whether a tensor is a dequantized activation, no dequantized constant."""
        node = self.dequantizer(name)
        return node is not None and node.input[0] not in self.constants

    def reads_integers(self, name: str) -> bool:
        """Return whether a tensor is a dequantized activation, handed on by any PASSING nodes."""
        todo = [name]
        while todo:
            node = self.maker.get(name := todo.pop())
            if node is None or (node.op_type not in PASSING and not self.is_activation(name)):
                return False
            if node.op_type in PASSING:
                todo += node.input if node.op_type == "Concat" else node.input[:1]
        return True

    def is_quantized(self, name: str) -> bool:
        """Return whether everything that reads a tensor quantizes it first."""
        readers = self.readers.get(name, [])
        return (
            name not in self.outputs
            and bool(readers)
            and all(node.op_type == QUANTIZE for node in readers)
        )

    def data_inputs(self, node: NodeProto) -> list[str]:
        """Return the inputs of a node that are computed: no constants, no absent ones."""
        return [
            name
            for name in node.input
            if name
            and name not in self.constants
            and not (self.dequantizer(name) is not None and not self.is_activation(name))
        ]

    def weight(self, conv: NodeProto) -> NodeProto | None:
        """Return the DequantizeLinear of a convolution's constant weight, if it has one."""
        node = self.dequantizer(conv.input[1])
        return node if node is not None and node.input[0] in self.constants else None

    def quantized(self, *kinds: str) -> Iterator[tuple[NodeProto, NodeProto]]:
        """Yield every node of some kinds with constant dequantized weights, and what makes them."""
        for node in self.nodes:
            if node.op_type in kinds and (weight := self.weight(node)) is not None:
                yield node, weight

    def quantizers(self) -> Iterator[NodeProto]:
        """Yield every QuantizeLinear of an activation."""
        for node in self.nodes:
            if node.op_type == QUANTIZE and node.input[0] not in self.constants:
                yield node

    def scales(self, concat: NodeProto) -> set[tuple[str, ...] | None]:
        """Return what names the scales of a concat's inputs, with None if one has none."""
        made = [self.dequantizer(name) for name in concat.input]
        return {None if dq is None else scale_of(dq) for dq in made}

    def before(self, op_type: str, kind: str) -> Iterator[NodeProto]:
        """Yield every node of a kind that a node of another kind depends on."""
        for node in self.nodes:
            if node.op_type == op_type and self.leads_to(node.output[0], kind):
                yield node

    def leads_to(self, name: str, op_type: str) -> bool:
        """Return whether some node of a kind depends on a tensor."""
        if op_type not in self._read_before:
            found = self._read_before[op_type] = set[str]()
            for node in reversed(self.nodes):  # nodes of ONNX stand behind those that they read
                if node.op_type == op_type or not found.isdisjoint(node.output):
                    found.update(node.input)
        return name in self._read_before[op_type]

    def float_reader(self, name: str) -> NodeProto | None:
        """Return the first convolution that a tensor reaches without being quantized, if any."""
        seen, todo = {name}, [name]
        while todo:
            for node in self.readers.get(todo.pop(0), []):
                if node.op_type == "Conv":
                    return node
                if node.op_type != QUANTIZE:
                    todo += [out for out in node.output if out not in seen]
                    seen.update(node.output)
        return None


def kernel_sides(graph: Graph, node: NodeProto) -> list[int]:
    """Return the sides of the kernel of a convolution or pooling; none if they are not known."""
    for each in node.attribute:
        if each.name == "kernel_shape":
            return list(each.ints)
    shape = graph.shape(node.input[1]) if len(node.input) > 1 else None
    return list((shape or ())[2:])


def axis(node: NodeProto, default: int = 1) -> int:
    """Return a node's attribute `axis`."""
    return next((a.i for a in node.attribute if a.name == "axis"), default)


def zero_points(graph: Graph, node: NodeProto) -> NDArray[np.generic] | None:
    """Return the zero points of a QuantizeLinear or DequantizeLinear; None for none."""
    return graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None  # noqa: PLR2004


def zero_type(graph: Graph, node: NodeProto) -> int:
    """Return the element type of the zero point of a QuantizeLinear or DequantizeLinear."""
    return graph.kind(node.input[2] if len(node.input) > 2 else "")  # noqa: PLR2004


def has_zero_points(graph: Graph, node: NodeProto) -> bool:
    """Return whether a QuantizeLinear or DequantizeLinear has zero points other than zero."""
    zeros = zero_points(graph, node)
    return zeros is not None and bool(zeros.astype(np.float32).any())


def same_scale(graph: Graph, one: NodeProto, other: NodeProto) -> bool:
    """Return whether two nodes have equal scales and zero points, in name or in value."""
    names = zip_longest(scale_of(one), scale_of(other), fillvalue="")
    return all(a == b or _equal(graph.array(a), graph.array(b)) for a, b in names)


def _equal(a: NDArray[np.generic] | None, b: NDArray[np.generic] | None) -> bool:
    return a is not None and b is not None and np.array_equal(a, b)


def scale_of(node: NodeProto) -> tuple[str, ...]:
    """Return what names a node's scale and zero point, to compare two nodes by."""
    return tuple(node.input[1:3])
