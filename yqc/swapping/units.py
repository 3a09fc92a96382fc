"""Find the activations to swap, and the layers before them whose scale and bias can be changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.graph import call, callers, is_function, role
from yqc.graph.channels.rules import SPATIAL
from yqc.quantizing import is_addition
from yqc.swapping.forms import SMOOTH, SMOOTH_FUNCTIONS, Form

SCALABLE: tuple[type[Any], ...] = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
"""Layers whose outputs can be scaled and shifted channel by channel."""
SHIFTED: tuple[type[Any], ...] = (*SCALABLE, nn.Linear)
"""Layers whose biases can take up a constant in their inputs."""
PASSING = (
    *(torch.cat, torch.concat, torch.chunk, torch.split, F.max_pool2d, F.avg_pool2d),
    *(F.adaptive_avg_pool2d, F.interpolate, torch.flatten, torch.permute, torch.mean),
)
PASSING_METHODS = {
    *("chunk", "split", "contiguous", "flatten", "view", "reshape", "permute", "transpose"),
    *("unflatten", "mean", "unsqueeze", "squeeze"),
}
"""Operations that keep a constant per channel a constant."""


@dataclass(frozen=True)
class Unit:
    """An activation that can be swapped, or layers whose bias can be shifted."""

    node: fx.Node
    """What the layers compute together: the input of the activation."""
    layers: tuple[fx.Node, ...]
    """The layers whose sum it is; mostly one."""
    activation: fx.Node | None = None
    constant: bool = True
    """Whether what reads the activation takes up a constant in each channel."""


def is_activation(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node calls an activation of `SMOOTH`, as a module or function."""
    return call(gm, node, SMOOTH) is not None or is_function(node, *SMOOTH_FUNCTIONS)


def computes(gm: fx.GraphModule, node: fx.Node, form: Form) -> bool:
    """Return whether an activation is that form already."""
    found = call(gm, node, nn.Module)
    if found is not None:
        return repr(found.module).replace("inplace=True", "") == repr(form.make())
    return getattr(node.target, "__name__", "") == getattr(form.function, "__name__", None)


def find_unit(gm: fx.GraphModule, activation: fx.Node) -> Unit | str:
    """Find the layers before an activation, or return why it must stay."""
    node = activation.all_input_nodes[0]
    if len(activation.all_input_nodes) > 1:
        return "it has weights of its own"
    if role(activation) == "head.decode":
        return "the decoding stays as it is"
    if len(node.users) > 1:
        return f"its input {node} has other users"
    layers = affine_layers(gm, node)
    if isinstance(layers, str):
        return layers
    return Unit(node, layers, activation, takes_up_constants(gm, activation))


def affine_layers(gm: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, ...] | str:
    """List the layers whose sum a node is, or return why their outputs cannot be scaled."""
    if is_addition(node):
        found: list[fx.Node] = []
        for source in node.all_input_nodes:
            if len(source.users) > 1:
                return f"{source} before it has other users"
            layers = affine_layers(gm, source)
            if isinstance(layers, str):
                return layers
            found += layers
        return tuple(found)
    layer = call(gm, node, SCALABLE)
    if layer is None:
        return f"its input {node} is not computed by a convolution"
    if callers(gm, layer.target) > 1:
        return f"{layer.target} is called from more than one place"
    if layer.module.weight is None:
        return f"{layer.target} has no scale of its own"
    return (node,)


def takes_up_constants(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether all readers of a tensor can take up a constant per channel in a bias."""
    todo, seen = list(node.users), set[fx.Node]()
    while todo:
        user = todo.pop()
        if user in seen:
            continue
        seen.add(user)
        layer = call(gm, user, SHIFTED)
        if layer is not None:
            if callers(gm, layer.target) > 1:
                return False
            continue
        if not passes_constants(gm, user):
            return False
        todo += user.users
    return True


def passes_constants(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether an operation keeps a constant per channel of its inputs a constant."""
    if node.op == "call_method":
        return node.target in PASSING_METHODS
    if is_function(node, *PASSING) or is_addition(node):
        return True
    if node.op == "call_function":
        return getattr(node.target, "__name__", "") == "getitem"
    return call(gm, node, (*SPATIAL, nn.Identity, nn.Dropout, nn.Flatten)) is not None


def find_shifted(gm: fx.GraphModule, units: Iterable[Unit]) -> list[Unit]:
    """List the layers that stand before no swapped activation, and whose bias can be shifted."""
    taken = {layer for unit in units for layer in unit.layers}
    found = []
    for node in gm.graph.nodes:
        layer = call(gm, node, SHIFTED)
        if layer is None or node in taken or callers(gm, layer.target) > 1:
            continue
        if role(node) != "head.decode" and layer.module.weight is not None:
            found.append(Unit(node, (node,)))
    return found
