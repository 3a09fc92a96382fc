"""Reference outputs of convolutions of the float graph, and the mean error against them.

`calibrate` runs the float graph with gradients anyway, so it keeps these outputs for `bias-correct`
as marks; `bias-correct` measures them itself where there are none, such as in a resumed compile.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from yqc.graph.calls import call, calls
from yqc.graph.compare import fingerprint
from yqc.graph.metadata import Mark
from yqc.pipeline.base import Context
from yqc.quant.marks import Int8Weights
from yqc.quant.observer import Observer
from yqc.quantizing.relevance import measure_node_relevance
from yqc.quantizing.weights.rewrite import is_packed


@dataclass
class ReferenceOutputs:
    """Outputs of one convolution on a few images, as sums weighted by relevance."""

    weights: list[Tensor] = field(default_factory=list)
    """For each image the relevance of its outputs, bfloat16 [1, O, h, w]."""
    sums: list[Tensor] = field(default_factory=list)
    """For each image its outputs summed with these weights, float32 [1, O]."""

    def add(self, y: Tensor, weight: Tensor) -> None:
        """Add an image: outputs and their relevance, float32 [1, O, h, w] each."""
        self.weights.append(weight.bfloat16())
        self.sums.append((self.weights[-1] * y).sum((2, 3)))

    def error(self, y: Tensor) -> Tensor:
        """Return the mean error of each channel, float32 [O], of outputs [N, O, h, w]."""
        # One image at a time: temporaries of a whole batch would be new memory for every layer.
        sums = [(w * one).sum((2, 3)) for w, one in zip(self.weights, y, strict=True)]
        totals = [w.sum((2, 3), dtype=torch.float32) for w in self.weights]
        return shrink_mean(torch.cat(sums) - torch.cat(self.sums), torch.cat(totals))


def shrink_mean(surplus: Tensor, total: Tensor) -> Tensor:
    """Return the weighted mean error over images, shrunk as far as the images disagree.

    `surplus` is the weighted sum of the errors in each image, `total` that of the weights, float32
    [N, O]. The result, [O], is b * b^2 / (b^2 + v) for a mean b with the variance v between images.
    """
    tiny = torch.finfo(torch.float32).tiny
    all_images = total.sum(0).clamp(min=tiny)
    mean = surplus.sum(0) / all_images
    share = total / all_images
    variance = (share * (surplus / total.clamp(min=tiny) - mean)).square().sum(0)
    return mean * mean.square() / (mean.square() + variance).clamp(min=tiny)


def correctable_convolutions(gm: fx.GraphModule) -> list[fx.Node]:
    """List the convolutions whose biases may be corrected: to be quantized, or packed already."""
    quantized = [c.node for c in calls(gm, nn.Conv2d) if Int8Weights.on(c.node) is not None]
    return quantized + [
        node
        for node in gm.graph.nodes
        if is_packed(node) and call(gm, node.all_input_nodes[0], Observer) is not None
    ]


def measure_outputs(
    gm: fx.GraphModule, nodes: Iterable[fx.Node], images: Iterable[Tensor], ctx: Context
) -> dict[fx.Node, ReferenceOutputs]:
    """Run images, float32 [1, 3, H, W] each, through the graph and keep the nodes' outputs."""
    kept = {node: ReferenceOutputs() for node in nodes}
    for found in measure_node_relevance(gm, kept, images, ctx.form, ctx.seed):
        for node, output in kept.items():
            output.add(*found[node])
    return kept


@dataclass(frozen=True)
class FloatOutputs(Mark, topic="float-outputs", large=True):
    """The outputs of a convolution that `calibrate` kept for `bias-correct`."""

    weights: Tensor
    """Relevance of the outputs, bfloat16 [N, O, h, w] of N images."""
    sums: Tensor
    """Outputs summed with these weights, float32 [N, O]."""
    graph: str
    """Fingerprint of the graph that computed them."""


def put_outputs(gm: fx.GraphModule, outputs: Mapping[fx.Node, ReferenceOutputs]) -> None:
    """Mark nodes with their outputs, for a later pass."""
    graph = _fingerprint_without_observers(gm)
    for node, output in outputs.items():
        FloatOutputs(torch.cat(output.weights), torch.cat(output.sums), graph).put(node)


def take_outputs(
    gm: fx.GraphModule, nodes: Iterable[fx.Node], images: int
) -> dict[fx.Node, ReferenceOutputs] | None:
    """Remove the marks of `put_outputs`, and return the outputs.

    None if they are missing, of another number of images, or of another graph.
    """
    marks = {node: FloatOutputs.drop(node) for node in nodes}
    graph, found = _fingerprint_without_observers(gm), dict[fx.Node, ReferenceOutputs]()
    for node, mark in marks.items():
        if mark is None or mark.graph != graph or len(mark.sums) != images:
            return None
        found[node] = ReferenceOutputs(
            list(mark.weights.unsqueeze(1).unbind()), list(mark.sums.unsqueeze(1).unbind())
        )
    return found


def _fingerprint_without_observers(gm: fx.GraphModule) -> str:
    """Hash a graph but for its observers, which change nothing while they do not round."""
    return fingerprint(gm, without=[each.node for each in calls(gm, Observer)])
