"""Where an int8 graph quantizes: which tensors, and which of them share one scale.

A *unit* is a convolution with its activation. A tensor is wanted in int8 if a convolution reads
it, or an operation that can work on integers (add, concat, pooling, upsampling, split) whose own
result is wanted. What the head's last convolutions compute, the decoding, and the products and
softmaxes of attention stay in float: nothing wants them.
"""

import operator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.graph import TensorSpec, call, is_function, role
from yqc.graph.values import KEY

POOLS = (nn.MaxPool2d, nn.Upsample, nn.ZeroPad2d, nn.Identity)
POOL_FUNCTIONS = (F.max_pool2d, F.interpolate, torch.cat)
PARTS = (torch.chunk, torch.split, operator.getitem)
PART_METHODS = {"chunk", "split", "contiguous"}
ADDITIONS = (operator.add, torch.add)
ACTIVATIONS = (nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Sigmoid, nn.Mish, nn.GELU)


def is_tensor(node: fx.Node) -> bool:
    """Tell whether a node computes one float tensor."""
    value = node.meta.get(KEY)
    return isinstance(value, TensorSpec) and value.dtype.is_floating_point


def hands_on(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether every value that a node computes is a value of one of its inputs."""
    return (
        call(gm, node, POOLS) is not None
        or is_function(node, *POOL_FUNCTIONS, *PARTS)
        or (node.op == "call_method" and node.target in PART_METHODS)
    )


def is_addition(node: fx.Node) -> bool:
    """Tell whether a node adds two tensors that the graph computes."""
    return (
        is_function(node, *ADDITIONS)
        and len(node.all_input_nodes) == 2  # noqa: PLR2004
        and all(is_tensor(n) and n.op != "get_attr" for n in node.all_input_nodes)
    )


@dataclass
class Placement:
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


def place(gm: fx.GraphModule, convolutions: list[fx.Node]) -> Placement:
    """Decide which tensors to quantize for the given convolutions.

    Every tensor that a convolution reads is quantized; so are, backwards, the inputs of additions
    and of operations that hand values on. What a concat, a pooling, an upsampling or a split
    takes and gives shares one scale.
    """
    placement, wanted = Placement(), set[fx.Node]()
    todo = [node.all_input_nodes[0] for node in convolutions]
    while todo:
        node = todo.pop()
        if node in wanted or node.op == "get_attr" or role(node) == "head.decode":
            continue
        wanted.add(node)
        if hands_on(gm, node) or is_addition(node):
            todo += node.all_input_nodes
        if hands_on(gm, node):
            for source in node.all_input_nodes:
                placement.unite(source, node)
    placement.points = [n for n in gm.graph.nodes if n in wanted and is_tensor(n)]
    return placement


def before_activations(gm: fx.GraphModule, convolutions: list[fx.Node]) -> list[fx.Node]:
    """List the convolutions whose result only an activation reads that a runtime does not fuse."""
    kinds = tuple(kind for kind in ACTIVATIONS if kind not in {nn.ReLU, nn.ReLU6})
    return [
        node
        for node in convolutions
        if len(node.users) == 1 and call(gm, next(iter(node.users)), kinds) is not None
    ]
