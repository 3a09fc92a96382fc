"""The activation that alone reads a tensor, such as the SiLU behind a convolution."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from yqc.graph import call, is_function
from yqc.quantizing.placement import ACTIVATIONS

Elementwise: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OnlyActivation:
    """An activation that alone reads a tensor."""

    function: Elementwise
    node: fx.Node


def find_only_activation(gm: fx.GraphModule, node: fx.Node) -> OnlyActivation | None:
    """Find the activation through which all readers of a tensor see it, or None.

    It is a module of `ACTIVATIONS`, or the product x * sigmoid(x). An error in the tensor matters
    as far as it is left behind the activation: where SiLU is flat, clipping costs nothing.
    """
    users = list(node.users)
    if len(users) == 1 and (found := call(gm, users[0], ACTIVATIONS)) is not None:
        return OnlyActivation(found.module, users[0])
    product = next((u for u in users if is_silu_product(u, node)), None)
    if product is not None and all(u is product or is_function(u, torch.sigmoid) for u in users):
        return OnlyActivation(F.silu, product)
    return None


def is_silu_product(node: fx.Node, x: fx.Node) -> bool:
    """Return whether a node computes x * sigmoid(x), perhaps with observers in between."""
    if not is_function(node, operator.mul) or x not in node.all_input_nodes:
        return False
    other = [n for n in node.all_input_nodes if n is not x]
    while len(other) == 1 and other[0].op == "call_module" and len(other[0].all_input_nodes) == 1:
        other = other[0].all_input_nodes
    return len(other) == 1 and is_function(other[0], torch.sigmoid) and other[0].args == (x,)
