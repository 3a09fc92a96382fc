"""conv-for-linear: write a linear layer on vectors as a 1x1 convolution on images of one pixel.

    %flat = flatten(%x, 1)            %fc_conv = Conv2d(%x)            x: [N, C, 1, 1]
    %fc = Linear(%flat)        ->     %fc = flatten(%fc_conv, 1)

The weight [O, C] becomes [O, C, 1, 1]. Where no image of one pixel was flattened to the vector, it
is reshaped to one. A product with a constant matrix [C, O] is a linear layer without bias.
"""

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx, nn

from yqc import Call, Context, Pass, State, call, callers, is_function, shape
from yqc.graph import get_attribute

VECTORS = 2
"""Dimensions of [N, C]."""


@dataclass(frozen=True)
class ConvForLinear(Pass):
    """Write a linear layer on vectors as a 1x1 convolution."""

    name: ClassVar[str] = "conv-for-linear"
    requires: ClassVar[frozenset[str]] = frozenset({State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8, State.PACKED})
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for node in list(gm.graph.nodes):
            layer = call(gm, node, nn.Linear)
            if layer is None and not is_function(node, operator.matmul, torch.matmul):
                continue
            if why := self.obstacle(gm, node, layer):
                ctx.skipped(node, why)
                continue
            self.convolve(gm, node, layer)
            ctx.rewrote(node, "became a 1x1 convolution")

    def obstacle(
        self, gm: fx.GraphModule, node: fx.Node, layer: Call[nn.Linear] | None
    ) -> str | None:
        """Return why a layer must stay, or None."""
        if layer is None and (node.args[1].op != "get_attr" or len(shape(node.args[1])) != VECTORS):  # type: ignore[union-attr, arg-type]
            return "it multiplies by no constant matrix"
        if len(shape(node.all_input_nodes[0])) != VECTORS:
            return "it works on something else than one vector an image"
        if layer is not None and callers(gm, layer.target) > 1:
            return f"{layer.target} is called from more than one place"
        return None

    def convolve(self, gm: fx.GraphModule, node: fx.Node, layer: Call[nn.Linear] | None) -> None:
        """Insert the convolution; the node becomes the flattening behind it and keeps its name."""
        made, (vectors, *matrix) = make_convolution(gm, node, layer), node.all_input_nodes
        if layer is None:
            path = f"{node.name}_conv"
            gm.add_submodule(path, made)
        else:
            gm.set_submodule(path := layer.target, made)
        with gm.graph.inserting_before(node):
            image = find_image(gm, vectors) or gm.graph.create_node(
                "call_method", "unflatten", (vectors, 1, (made.in_channels, 1, 1)),
                name=f"{node.name}_image",
            )  # fmt: skip
            conv = gm.graph.create_node("call_module", path, (image,), name=f"{node.name}_conv")
        conv.meta["yqc.role"] = image.meta["yqc.role"] = node.meta.get("yqc.role", "backbone")
        node.op, node.target, node.args, node.kwargs = "call_method", "flatten", (conv, 1), {}
        for unread in (one for one in matrix if not one.users):
            gm.graph.erase_node(unread)
        while not vectors.users and vectors.op != "placeholder":
            before = vectors.all_input_nodes[0]
            gm.graph.erase_node(vectors)
            vectors = before


def make_convolution(gm: fx.GraphModule, node: fx.Node, layer: Call[nn.Linear] | None) -> nn.Conv2d:
    """Return the convolution of a linear layer, or of the constant matrix that a node reads."""
    if layer is not None:
        weight, bias = layer.module.weight, layer.module.bias
    else:
        matrix: Any = get_attribute(gm, str(node.args[1].target))  # type: ignore[union-attr]
        weight, bias = matrix.T, None
    made = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    made.weight = nn.Parameter(weight.detach().clone()[..., None, None].contiguous())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made.eval()


def find_image(gm: fx.GraphModule, vectors: fx.Node) -> fx.Node | None:
    """Return the images of one pixel that were flattened to vectors, or None."""
    node = vectors
    while call(gm, node, (nn.Dropout, nn.Identity)) is not None:
        node = node.all_input_nodes[0]
    is_method = node.op == "call_method" and node.target == "flatten"
    if not (is_method or is_function(node, torch.flatten) or call(gm, node, nn.Flatten)):
        return None
    image = node.all_input_nodes[0]
    return image if shape(image) == (*shape(vectors), 1, 1) else None
