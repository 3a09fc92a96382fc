"""Rules: which nodes of a file are outside of what a device takes.

The limits are those of the device's own file (`yqc.targets.device`). Of each node one limit is
reported, the first that it is beyond in the order of that file. QuantizeLinear and DequantizeLinear
state the types of tensors: `dtypes` limits them, and `operators` does not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto

from yqc.linting.finding import Finding
from yqc.linting.graph import DEQUANTIZE, QUANTIZE, Graph, kernel_sides
from yqc.linting.remedies import CONVOLUTIONS, NAMES, NOTHING, Surroundings, find_remedy, find_swap
from yqc.targets import Target

POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
QUANTIZERS = frozenset({QUANTIZE, DEQUANTIZE})
LOWEST = 13
"""The lowest opset that a compile writes."""
IMAGE = 4
"""Dimensions of tensors whose second one are channels."""


@dataclass(frozen=True)
class Misfit(Finding):
    """A node that a device does not take, the limit, and the pass that removes it."""

    limit: str
    """The key of the device's file: `operators`, `limits.kernel`."""
    remedy: str
    """Pipeline text of the pass that removes the node; empty if there is none."""

    @property
    def group(self) -> tuple[str, ...]:
        """What findings that are shown together have in common."""
        return (self.severity, self.rule, self.what, self.fix)


def list_misfits(model: onnx.ModelProto, target: Target) -> list[Misfit]:
    """List the nodes of a model that a device does not take, or not at its full speed."""
    return list(DeviceRules(target)(Graph(model)))


@dataclass(frozen=True)
class DeviceRules:
    """The limits of a device, as a rule of `yqc.linting.check`."""

    target: Target

    def __call__(self, g: Graph) -> Iterator[Misfit]:
        """Yield the nodes of a graph that the device does not take."""
        most, place = self.target.limits.opset, Surroundings(g)
        if most is not None and g.opset > most:
            what = f"it is of opset {g.opset}, and the device takes {most}"
            lower = f"compile with --opset {most}"
            fix = lower if most >= LOWEST else "convert the file with ONNX's version converter"
            yield Misfit("the file", "", "opset", "error", what, fix, "limits.opset", "")
        for node in g.nodes:
            found = None if node.op_type == "Constant" else self._find_excess(g, node)
            if found is not None:
                key, what = found
                remedy, fix = find_remedy(place, node, key, self.target)
                rule = key.removeprefix("limits.").removesuffix("s").replace("_", "-")
                yield Misfit(node.name, node.op_type, rule, "error", what, fix, key, remedy)
            elif self._is_slow(place, node):
                what, remedy = "the device does not name it as fast", find_swap(self.target)
                fix = f"the recipe {remedy} puts in one that is" if remedy else NOTHING
                about = "fast_activations", remedy
                yield Misfit(node.name, node.op_type, "activation", "note", what, fix, *about)

    def _is_slow(self, place: Surroundings, node: NodeProto) -> bool:
        """Return whether a node is an activation that is not among the device's fast ones."""
        fast = self.target.fast_activations
        if fast is None or not place.is_activation(node) or place.is_decoding(node):
            return False
        return NAMES.get(node.op_type, "") not in {*fast, "-"}

    def _find_excess(self, g: Graph, node: NodeProto) -> tuple[str, str] | None:
        """Return the key of the first limit that a node is beyond, and what that means."""
        operators, limits = self.target.operators, self.target.limits
        is_notation = node.op_type in QUANTIZERS  # of element types, which `dtypes` limits
        known = operators is None or (node.op_type in operators and not node.domain)
        if not (known or is_notation):
            return "operators", f"the device has no {node.op_type}"
        for key, (what, values) in measure_node(g, node).items():
            most = getattr(limits, key)
            if most is not None and max(values, default=0) > most:
                return f"limits.{key}", f"{what} {most}"
        if limits.dtypes is not None:
            strange = {g.dtype(name) for name in node_tensors(g, node)} - {*limits.dtypes, ""}
            if strange:
                return "limits.dtypes", f"the device has no tensors of {min(strange)}"
        return None


def node_tensors(g: Graph, node: NodeProto) -> list[str]:
    """Name what a node reads and computes, without constants of shapes, axes and places."""
    names = filter(None, (*node.input, *node.output))
    return [name for name in names if g.kind(name) != TensorProto.INT64]


def measure_node(g: Graph, node: NodeProto) -> dict[str, tuple[str, list[int]]]:
    """Return, for each limit of a number, what it says of a node, and the node's numbers."""
    shapes = {name: g.shape(name) or () for name in node_tensors(g, node)}
    images = [s for n, s in shapes.items() if len(s) == IMAGE and n not in g.constants]
    is_pool, is_conv = node.op_type in POOLS, node.op_type in CONVOLUTIONS
    sides = kernel_sides(g, node) if is_pool or is_conv else []
    strides = [each.ints for each in node.attribute if each.name == "strides"]
    return {
        "kernel": ("its kernel is larger than", sides if is_conv else []),
        "pool_kernel": ("its window is larger than", sides if is_pool else []),
        "stride": ("its stride is larger than", [step for each in strides for step in each]),
        "channels": ("its tensors have more channels than", [shape[1] for shape in images]),
        "rank": ("its tensors have more dimensions than", [len(s) for s in shapes.values()]),
    }
