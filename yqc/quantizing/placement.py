"""Where an int8 graph quantizes: which tensors, and which of them share one scale.

A *unit* is a convolution with its activation. A tensor is quantized if a convolution reads it, or
an operation that can work on integers (add, concat, pooling, upsampling, split) whose own result is
quantized. The outputs of the head's last convolutions, the decoding, and the products and softmaxes
of attention stay in float, since nothing of the kind reads them.
"""

import operator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.graph import Call, TensorSpec, call, is_function, role
from yqc.graph.compare import is_matmul
from yqc.graph.values import KEY

WEIGHTED: tuple[type[Any], ...] = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers with weights, of which convolutions can be quantized."""
PASSING_MODULES = (nn.MaxPool2d, nn.Upsample, nn.PixelShuffle, nn.ZeroPad2d, nn.Identity)
PASSING_FUNCTIONS = (
    *(F.max_pool2d, F.interpolate, F.pixel_shuffle, torch.cat),
    *(torch.chunk, torch.split, operator.getitem),
)
PASSING_METHODS = {"chunk", "split", "contiguous"}
"""Operations whose results hold values of their inputs only."""
RESHAPING = {"flatten", "unflatten", "reshape", "view", "permute", "transpose"}
"""Methods that hand on all values in another shape, as around the products of attention."""
ADDITIONS = (operator.add, torch.add)
ACTIVATIONS = (nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Sigmoid, nn.Mish, nn.GELU)
FUSED_ACTIVATIONS = (nn.ReLU, nn.ReLU6)
"""Those that onnxruntime computes inside an integer convolution."""


def find_float_reason(layer: Call[Any], skip: tuple[str, ...]) -> str | None:
    """Return why a layer of `WEIGHTED` stays in float, or None if it may be quantized."""
    if not isinstance(layer.module, nn.Conv2d):
        return f"{type(layer.module).__name__} stays in float"
    if any(fnmatch(layer.target, pattern) for pattern in skip):
        return "asked to skip it"
    if role(layer.node) == "head.decode":
        return "the decoding stays in float"
    padding = layer.module.padding_mode
    return None if padding == "zeros" else f"it pads with {padding}"


def is_tensor(node: fx.Node) -> bool:
    """Return whether a node computes one float tensor."""
    value = node.meta.get(KEY)
    return isinstance(value, TensorSpec) and value.dtype.is_floating_point


def passes_values_through(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether every value that a node computes is a value of one of its inputs."""
    return (
        repeats_pixels(gm, node)
        or call(gm, node, PASSING_MODULES) is not None
        or is_function(node, *PASSING_FUNCTIONS)
        or (node.op == "call_method" and node.target in PASSING_METHODS)
    )


def repeats_pixels(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node is nearest upsampling that is written as a transposed convolution."""
    found = call(gm, node, nn.ConvTranspose2d)
    if found is None:
        return False
    conv = found.module
    each = conv.in_channels == conv.out_channels == conv.groups and conv.bias is None
    tiles = tuple(conv.kernel_size) == tuple(conv.stride) and not any(
        (*conv.padding, *conv.output_padding)
    )
    return each and tiles and bool((conv.weight == 1).all())


def is_reshaped(node: fx.Node) -> bool:
    """Return whether a node hands on all values of its input in another shape."""
    return node.op == "call_method" and node.target in RESHAPING


def find_products(gm: fx.GraphModule) -> list[fx.Node]:
    """List the products of two computed matrices, those of attention; the decoding has its own."""
    return [
        node
        for node in gm.graph.nodes
        if is_matmul(node)
        and role(node) != "head.decode"
        and len(node.all_input_nodes) == 2  # noqa: PLR2004
        and all(is_tensor(n) and n.op != "get_attr" for n in node.all_input_nodes)
    ]


def keeps_values(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node passes values through exactly: it computes no means of them."""
    if (upsampling := call(gm, node, nn.Upsample)) is not None:
        return str(upsampling.module.mode).startswith("nearest")
    if is_function(node, F.interpolate):
        return str(node.kwargs.get("mode", "nearest")).startswith("nearest")
    return passes_values_through(gm, node)


def is_addition(node: fx.Node) -> bool:
    """Return whether a node adds two tensors that the graph computes."""
    return (
        is_function(node, *ADDITIONS)
        and len(node.all_input_nodes) == 2  # noqa: PLR2004
        and all(is_tensor(n) and n.op != "get_attr" for n in node.all_input_nodes)
    )


@dataclass
class ObserverPlacement:
    """Which tensors are quantized, in graph order, and which share a scale."""

    points: list[fx.Node] = field(default_factory=list)
    leader: dict[fx.Node, fx.Node] = field(default_factory=dict)
    """Parent links of a union-find over the points."""

    def find(self, node: fx.Node) -> fx.Node:
        """Return the node that stands for all that share a scale with this one."""
        while self.leader.get(node, node) is not node:
            node = self.leader[node]
        return node

    def unite(self, a: fx.Node, b: fx.Node) -> None:
        """Let two tensors, and all that share with them, share one scale."""
        first, second = sorted((self.find(a), self.find(b)))
        self.leader[second] = first


def place_observers(
    gm: fx.GraphModule, convolutions: list[fx.Node], products: list[fx.Node] | None = None
) -> ObserverPlacement:
    """Choose the tensors to quantize for the given convolutions, and products of matrices if any.

    Every tensor that a convolution reads is quantized; so are, backwards, the inputs of additions
    and of operations that pass values through. The inputs and results of a concat, a pooling, an
    upsampling or a split share one scale. With products, tensors of another shape do so, too.
    """
    placement, wanted = ObserverPlacement(), set[fx.Node]()
    todo = [node.all_input_nodes[0] for node in convolutions]
    todo += [source for node in products or () for source in node.all_input_nodes]
    while todo:
        node = todo.pop()
        if node in wanted or node.op == "get_attr" or role(node) == "head.decode":
            continue
        wanted.add(node)
        passes = passes_values_through(gm, node) or (bool(products) and is_reshaped(node))
        if passes or is_addition(node):
            todo += node.all_input_nodes
        if passes:
            for source in node.all_input_nodes:
                placement.unite(source, node)
    placement.points = [n for n in gm.graph.nodes if n in wanted and is_tensor(n)]
    return placement
