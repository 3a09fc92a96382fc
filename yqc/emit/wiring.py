"""What makes, reads and holds the values of an ONNX graph, for rewriting it."""

import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Wiring:
    """Makers, readers and initialisers of a graph, by the names of values, as it was read."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.made = {name: node for node in graph.node for name in node.output}
        self.held: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def only_reader(self, name: str) -> NodeProto | None:
        """Return the one node that reads a value which is no output of the graph, or None."""
        found = self.readers[name]
        if len(found) != 1 or any(output.name == name for output in self.graph.output):
            return None
        return found[0]

    def array(self, name: str) -> NDArray[np.generic]:
        """Return an initialiser's values."""
        return numpy_helper.to_array(self.held[name])

    def hold(self, name: str, values: NDArray[np.generic]) -> str:
        """Add an initialiser, or replace the values of that name; return the name."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        if name in self.held:
            self.held[name].CopyFrom(tensor)
        else:
            self.graph.initializer.append(tensor)
            self.held[name] = self.graph.initializer[-1]
        return name

    def replace(self, written: dict[str, list[NodeProto]]) -> None:
        """Put nodes in the place of those whose first output is a key."""
        nodes = [n for node in self.graph.node for n in written.get(node.output[0], [node])]
        del self.graph.node[:]
        self.graph.node.extend(nodes)


def take_name(taken: set[str], name: str) -> str:
    """Add a name to those taken, with a number if it is one of them; return it."""
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique


DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def shorten_values(graph: onnx.GraphProto) -> None:
    """Give the values between nodes names of one to three letters; nodes keep theirs.

    Inputs, outputs and initialisers keep their names, too. Without this, names take 2 % of the file
    of a nano detector whose weights take 1 MB.
    """
    fixed = {info.name for info in (*graph.input, *graph.output, *graph.initializer)}
    short = (
        "".join(digits)
        for length in range(1, 9)
        for digits in itertools.product(DIGITS, repeat=length)
        if "".join(digits) not in fixed
    )
    made = (name for node in graph.node for name in node.output if name and name not in fixed)
    names = dict(zip(made, short, strict=False))
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]


OUTPUT = "output0"
NONE = "nms_none"
"""The constant 0: the score of no box."""


class GraphWriter:
    """Appends nodes to a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph

    def constant(self, name: str, value: object, dtype: type[np.generic]) -> str:
        """Hold a constant and return its name."""
        self.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def op(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401  # as ONNX takes them
        """Append a node of one output, which is called as the node is; return its name."""
        self.ops(op_type, inputs, [output], output, **attributes)
        return output

    def ops(
        self,
        op_type: str,
        inputs: list[str],
        outputs: list[str],
        name: str,
        **attributes: Any,  # noqa: ANN401
    ) -> None:
        """Append a node of several outputs."""
        node = helper.make_node(op_type, inputs, outputs, name=name, **attributes)
        self.graph.node.append(node)

    def ints(self, name: str, *values: int) -> str:
        """Hold a vector of int64 and return its name."""
        return self.constant(name, list(values), np.int64)


def rename(graph: onnx.GraphProto, old: str, new: str, *, outputs: bool = True) -> None:
    """Rename a value wherever nodes read it, and where one makes it."""
    for node in graph.node:
        if outputs and old in node.output and node.name == old:
            node.name = new
        for names in (node.input, node.output) if outputs else (node.input,):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
