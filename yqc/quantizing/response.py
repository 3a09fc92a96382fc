"""What is made of a tensor before anything else reads it: the activation behind a convolution."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc.graph import call, is_function
from yqc.quantizing.placement import ACTIVATIONS

Function: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Response:
    """What is made of a tensor."""

    function: Function
    """Elementwise."""
    node: fx.Node
    """Computes it."""


def response(gm: fx.GraphModule, node: fx.Node) -> Response | None:
    """Return the elementwise function of a tensor that all its readers compute, or None.

    An error in the tensor matters as far as it is left behind that function: where SiLU is flat,
    values can be clipped for nothing.
    """
    users = list(node.users)
    if len(users) == 1 and (found := call(gm, users[0], ACTIVATIONS)) is not None:
        return Response(found.module, users[0])
    product = next((u for u in users if is_product(u, node)), None)
    if product is not None and all(u is product or is_function(u, torch.sigmoid) for u in users):
        return Response(F.silu, product)
    return None


def is_product(node: fx.Node, x: fx.Node) -> bool:
    """Tell whether a node computes x * sigmoid(x), perhaps with observers in between."""
    if not is_function(node, operator.mul) or x not in node.all_input_nodes:
        return False
    other = [n for n in node.all_input_nodes if n is not x]
    while len(other) == 1 and other[0].op == "call_module" and len(other[0].all_input_nodes) == 1:
        other = other[0].all_input_nodes
    return len(other) == 1 and is_function(other[0], torch.sigmoid) and other[0].args == (x,)


def take_apart(gm: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Rewrite a SiLU as x * sigmoid(x), in place.

    Returns:
        The new node, the sigmoid; None if `node` is no SiLU.
    """
    if call(gm, node, nn.SiLU) is None:
        return None
    (x,) = node.all_input_nodes
    with gm.graph.inserting_before(node):
        name = f"{node.name}_sigmoid"
        sigmoid = gm.graph.create_node("call_function", torch.sigmoid, (x,), name=name)
    sigmoid.meta |= {key: node.meta[key] for key in ("yqc.value", "yqc.role") if key in node.meta}
    node.op, node.target, node.args, node.kwargs = "call_function", operator.mul, (x, sigmoid), {}
    return sigmoid
