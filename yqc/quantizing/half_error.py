"""Measure what half precision does to each node of a graph: largest values, and rounding errors.

A node is judged by itself: from float32 inputs it is computed in float32 and, with inputs and
parameters rounded, in half (products add up in float32, as half kernels do).
"""

import copy
import math
from collections.abc import Collection, Iterable, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from yqc.graph import compute_node, make_noise, run_graph
from yqc.graph.half import HalfByFloat
from yqc.graph.run import NodeValues
from yqc.graph.values import list_tensors
from yqc.pipeline.base import Context
from yqc.quantizing.distribution import follow_distributions

LARGEST = torch.finfo(torch.float16).max / 4
"""Largest value met on calibration images that still counts as safe: a quarter of the largest half.

Trained detectors reach 20 to 150 (yolov8n-bccd, yolov5n-coco). Half of it leaves more margin for
unseen images and moves attention scores of random weights (19,000) into float32; double leaves a
margin of two only.
"""
LOSS = 4e-3
"""Largest relative error, root mean square, of a node that is computed in half.

Rounding alone gives 2e-4; met were at most 1.9e-3 in trained detectors (a first convolution, whose
weights cancel each other) and 2.0e-3 in random ones (a softmax). Half of it would leave those in
float32; double lets a fifth of 1 % of each value's size be lost twice over.
"""


@dataclass
class HalfError:
    """What half precision does to the values of one node, over some images."""

    largest: float = 0.0
    """Largest size of a value in float32."""
    noise: float = 0.0
    """Sum of squared differences of both computations."""
    signal: float = 0.0
    """Sum of squared values in float32."""
    failure: str = ""
    """Why PyTorch cannot compute it in half, if it cannot."""

    def add(self, exact: list[Tensor], rounded: list[Tensor]) -> None:
        """Add what the node computed of one image, in float32 and in half."""
        for x, y in zip(exact, rounded, strict=True):
            if x.is_floating_point() and x.numel():
                self.largest = max(self.largest, *(abs(float(end)) for end in x.aminmax()))
                self.noise += float(torch.linalg.vector_norm(x - y)) ** 2
                self.signal += float(torch.linalg.vector_norm(x)) ** 2

    @property
    def relative(self) -> float:
        """Root mean square of the differences over that of the values; 0 where all are 0."""
        return math.sqrt(self.noise / self.signal) if self.signal else 0.0

    @property
    def obstacle(self) -> str | None:
        """Why the node must stay in float32, or None."""
        if self.failure:
            return self.failure
        if not self.largest <= LARGEST:
            return f"its values reach {self.largest:.4g}, and half ends at 65504"
        if not math.isfinite(self.noise):
            return "it overflows in half"
        if self.relative > LOSS:
            return f"it loses {self.relative:.2%} of its values' size in half"
        return None


def measure_half_errors(
    gm: fx.GraphModule, nodes: Collection[fx.Node], ctx: Context, count: int
) -> dict[fx.Node, HalfError]:
    """Measure what half precision does to nodes of a float32 graph.

    On at most `count` calibration images; without data on seeded noise, and then the values that
    the batch norms make likely count for the largest ones, too.
    """
    halves = copy.deepcopy(gm).half()
    found = {node: HalfError() for node in nodes}

    def compute(node: fx.Node, values: NodeValues) -> Any:  # noqa: ANN401  # any result
        rounded = _compute_half(halves, node, values, found[node])  # first: `gm` may write in place
        exact = compute_node(gm, node, values)
        if rounded is not None:
            found[node].add(list_tensors(exact), list_tensors(rounded))
        return exact

    images: Iterable[Tensor] = ctx.calibration() if ctx.calibration else make_noise(gm, ctx.seed)
    total = min(count, len(images)) if isinstance(images, Sized) else count
    with torch.inference_mode(), ctx.progress.task("measuring half precision", total) as advance:
        for _, image in zip(range(count), images, strict=False):
            run_graph(gm, [image], replace=dict.fromkeys(nodes, compute))
            advance(1)
    if ctx.calibration is None:
        for node, likely in follow_distributions(gm).items():
            if node in found:
                ends = (float(end.abs().max()) for end in (likely.low, likely.high))
                found[node].largest = max(found[node].largest, *ends)
    return found


def _compute_half(
    halves: fx.GraphModule, node: fx.Node, values: NodeValues, found: HalfError
) -> object:
    """Compute a node in half from float32 values; None, and a record, where PyTorch cannot."""
    inputs = {source: tree_map(_halve, values[source]) for source in node.all_input_nodes}
    try:
        with HalfByFloat():
            computed: object = compute_node(halves, node, inputs)
            return computed
    except (RuntimeError, TypeError) as error:
        found.failure = f"PyTorch does not compute it in half: {str(error).splitlines()[0]}"
    return None


def _halve(value: object) -> object:
    if isinstance(value, Tensor):
        return value.half() if value.dtype == torch.float32 else value.clone()
    return value
