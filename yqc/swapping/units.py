"""Find the activations to swap, and the layers before them whose scale and bias can be changed.

A constant that is added to a channel passes concatenations, additions, pools and upsampling, and
the next layer's bias takes it up. So an activation may be off by a constant per channel wherever
only such operations read it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from yqc.graph import call, callers, is_function, role
from yqc.graph.channels.rules import SPATIAL
from yqc.quantizing import is_addition
from yqc.swapping.forms import Form

MODULES: tuple[type[Any], ...] = (
    *(nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.ELU, nn.CELU, nn.SELU, nn.Softplus),
    *(nn.LeakyReLU, nn.PReLU, nn.ReLU, nn.ReLU6),
)
"""Activations. Gates such as Sigmoid are none: what they compute is a factor of something."""
FUNCTIONS = (
    *(F.silu, F.gelu, F.mish, F.hardswish, F.elu, F.celu, F.selu, F.softplus),
    *(F.leaky_relu, F.prelu, F.relu, torch.relu, F.relu6),
)
STRAIGHT = ("ReLU", "relu")
"""The activations that cost nothing already: they are swapped for nothing else."""
SCALABLE: tuple[type[Any], ...] = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
"""Layers whose outputs can be scaled and shifted channel by channel."""
SHIFTED: tuple[type[Any], ...] = (*SCALABLE, nn.Linear)
"""Layers whose biases take up a constant in their inputs."""
PASSING = (
    *(torch.cat, torch.concat, torch.chunk, torch.split, F.max_pool2d, F.avg_pool2d),
    *(F.adaptive_avg_pool2d, F.interpolate, torch.flatten, torch.permute, torch.mean),
)
PASSING_METHODS = {
    *("chunk", "split", "contiguous", "flatten", "view", "reshape", "permute", "transpose"),
    *("unflatten", "mean", "unsqueeze", "squeeze"),
}


@dataclass(frozen=True)
class SwapUnit:
    """An activation with the layers before it, or a layer alone; nodes stand by their names."""

    node: str
    """The input of the activation, or the layer."""
    layers: tuple[str, ...]
    """The layers whose sum `node` is; mostly `node` alone."""
    path: str
    """Of the first layer's module."""
    activation: str | None = None
    constant: bool = True
    """Whether all that reads the activation takes up a constant per channel."""
    last: bool = False
    """Whether channels are on the last axis, and not on axis 1."""


def is_activation(gm: fx.GraphModule, node: fx.Node, form: Form) -> bool:
    """Return whether a node calls an activation that is neither free nor the form already."""
    found = call(gm, node, MODULES)
    if found is not None:
        plain = nn.Module() if form.is_gate else form.make()
        alike = type(found.module) is type(plain) and vars_of(found.module) == vars_of(plain)
        return not alike and type(found.module).__name__ not in STRAIGHT
    if not is_function(node, *FUNCTIONS):
        return False
    name = str(getattr(node.target, "__name__", ""))
    return name not in STRAIGHT and node.target is not form.function


def vars_of(module: nn.Module) -> dict[str, object]:
    """Return the settings of a module."""
    return {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "inplace"}


def find_unit(gm: fx.GraphModule, activation: fx.Node) -> SwapUnit | str:
    """Find the layers before an activation, or return why it must stay."""
    if role(activation) == "head.decode":
        return "the decoding stays as it is"
    if len(activation.all_input_nodes) > 1:
        return "it has weights of its own"
    node = activation.all_input_nodes[0]
    if len(node.users) > 1:
        return f"its input {node} has other users"
    layers = affine_layers(gm, node)
    if isinstance(layers, str):
        return layers
    names, path = tuple(n.name for n in layers), str(layers[0].target)
    return SwapUnit(node.name, names, path, activation.name, takes_up_constants(gm, activation))


def affine_layers(gm: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, ...] | str:
    """List the layers whose sum a node is, or return why their outputs cannot be scaled."""
    if call(gm, node, nn.Identity) is not None and len(node.all_input_nodes[0].users) == 1:
        return affine_layers(gm, node.all_input_nodes[0])
    if not is_addition(node):
        return find_obstacle(gm, node) or (node,)
    found: list[fx.Node] = []
    for source in node.all_input_nodes:
        if len(source.users) > 1:
            return f"{source} before it has other users"
        layers = affine_layers(gm, source)
        if isinstance(layers, str):
            return layers
        found += layers
    return tuple(found)


def find_obstacle(gm: fx.GraphModule, node: fx.Node) -> str | None:
    """Return why the outputs of a layer cannot be scaled, or None if they can."""
    layer = call(gm, node, SCALABLE)
    if layer is None:
        return f"its input {node} is not computed by a convolution"
    if callers(gm, layer.target) > 1:
        return f"{layer.target} is called from more than one place"
    if layer.module.weight is None:
        return f"{layer.target} has no scale of its own"
    if isinstance(layer.module, nn.ConvTranspose2d) and layer.module.groups > 1:
        return f"{layer.target} is a grouped transposed convolution"
    return None


def takes_up_constants(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether all readers of a tensor can take up a constant per channel in a bias."""
    todo, seen = list(node.users), set[fx.Node]()
    while todo:
        user = todo.pop()
        if user in seen:
            continue
        seen.add(user)
        if call(gm, user, SHIFTED) is not None:
            if not can_be_shifted(gm, user):
                return False
        elif passes_constants(gm, user):
            todo += user.users
        else:
            return False
    return True


def can_be_shifted(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node calls a layer whose bias can be changed."""
    layer = call(gm, node, SHIFTED)
    return (
        layer is not None
        and layer.module.weight is not None
        and callers(gm, layer.target) == 1
        and role(node) != "head.decode"
    )


def passes_constants(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether an operation keeps a constant per channel of its inputs a constant."""
    if node.op == "call_method":
        return node.target in PASSING_METHODS
    if node.op == "call_function":
        is_choice = getattr(node.target, "__name__", "") == "getitem"
        return is_choice or is_function(node, *PASSING) or is_addition(node)
    return call(gm, node, (*SPATIAL, nn.Identity, nn.Dropout, nn.Flatten)) is not None


def find_shifted(gm: fx.GraphModule, units: Iterable[SwapUnit]) -> list[SwapUnit]:
    """List the other layers whose bias can be shifted, each as a unit without activation."""
    taken = {name for unit in units for name in unit.layers}
    return [
        SwapUnit(
            node.name,
            (node.name,),
            str(node.target),
            last=call(gm, node, nn.Linear) is not None,
        )
        for node in gm.graph.nodes
        if node.name not in taken and can_be_shifted(gm, node)
    ]
