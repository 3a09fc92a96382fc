"""What convolutions in float cost in a runtime, as a share of the time of the int8 graph.

The model has three rates of one thread of an x86 CPU with VNNI: multiply-accumulates in float and
in int8, measured as plain matrix products, and elements that are converted between layouts or
types, measured at the head of yolov5n in onnxruntime 1.32 (a Transpose of 2.1 M elements 1.6 ms, a
ReorderOutput of 1.6 M 1.0 ms). Only their ratios matter. A CPU without VNNI adds less time, so that
more may stay in float there than the model lets.
"""

import math
from collections.abc import Iterable

from torch import fx

from yqc.graph import shape
from yqc.graph.compare import node_macs
from yqc.targets import Target

FLOAT, INTEGER = 45e9, 215e9
"""Multiply-accumulates a second in float32 and in int8."""
MOVED = 1.5e9
"""Elements converted a second."""


class FloatTime:
    """The time that single convolutions add to an int8 graph if they run in float."""

    def __init__(self, gm: fx.GraphModule, target: Target) -> None:
        self.macs = {node: node_macs(gm, node) for node in gm.graph.nodes}
        self.target = target
        passes = 3 if target.integer_silu else 1  # what reads and writes a result, once or thrice
        self.total = sum(
            macs / INTEGER + passes * _elements(node) / MOVED
            for node, macs in self.macs.items()
            if macs
        )

    def added(self, convolutions: Iterable[fx.Node]) -> float:
        """Return the time that these add in float, as a share of that of the whole graph.

        Their input is converted to float, and their result back to integers.
        """
        return sum(
            self.macs[node] * (1 / FLOAT - 1 / INTEGER)
            + (_elements(node.all_input_nodes[0]) + _elements(node)) / MOVED
            for node in convolutions
        ) / max(self.total, 1e-12)


def _elements(node: fx.Node) -> int:
    return math.prod(shape(node))
