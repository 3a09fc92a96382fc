"""Replace convolutions' modules in a graph by functions of packed weights."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc.graph import Call, is_function
from yqc.quant.marks import QuantizedLayer
from yqc.quant.weights.ops import UNPACK
from yqc.quant.weights.rice import Planes, write_planes
from yqc.quant.weights.rice_layer import RiceWeight
from yqc.quant.weights.rounded import RoundedLayer

DEQUANTIZE = torch.ops.yqc.dequantize_linear
BIAS_STEPS = 32767
"""Largest int16, that of the largest bias."""
BIAS = 2
"""Position of the bias among the arguments of conv2d."""


def is_packed(node: object) -> bool:
    """Return whether a node is a convolution of packed weights."""
    return isinstance(node, fx.Node) and is_function(node, F.conv2d) and unpacking(node) is not None


def unpacking(node: fx.Node) -> fx.Node | None:
    """Return the node that unpacks the weight which a convolution reads, if there is one."""
    weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
    return weight if isinstance(weight, fx.Node) and is_function(weight, *UNPACK) else None


def stored_bias(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return the nodes that read the two-byte bias of a packed convolution and its scale."""
    bias = node.args[2] if len(node.args) > BIAS else node.kwargs.get("bias")
    if not isinstance(bias, fx.Node) or not is_function(bias, DEQUANTIZE):
        return None
    steps, scale = bias.all_input_nodes[:2]
    return (steps, scale) if steps.op == scale.op == "get_attr" else None


def move_bias(gm: fx.GraphModule, node: fx.Node, by: Tensor) -> None:
    """Add [R] to the bias of a packed convolution, in place; a ValueError if it has none."""
    found = stored_bias(node)
    if found is None:
        raise ValueError(f"{node} has no bias of two bytes")
    paths = [str(each.target) for each in found]
    steps, scale = (gm.get_buffer(path) for path in paths)
    for path, tensor in zip(paths, bias_in_two_bytes(steps * scale + by), strict=True):
        owner, _, name = path.rpartition(".")
        gm.get_submodule(owner).register_buffer(name, tensor)


def bias_in_two_bytes(bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return a bias as int16 and one float32 scale: errors are at most 1 / 65534 of the largest."""
    scale = (bias.abs().amax() / BIAS_STEPS).clamp(min=1e-30).float()
    steps = (bias / scale).round().clamp(-BIAS_STEPS, BIAS_STEPS).to(torch.int16)
    return steps, scale


def hold_tensors(
    gm: fx.GraphModule,
    conv: Call[nn.Conv2d] | Call[nn.ConvTranspose2d],
    tensors: Mapping[str, Tensor],
    parameters: Collection[str] = (),
) -> dict[str, fx.Node]:
    """Replace a convolution's module by one that only holds tensors; return nodes that read them.

    Those that are not named in `parameters` become buffers.
    """
    holder, node = nn.Module(), conv.node
    for name, tensor in tensors.items():
        value = tensor.detach().clone()
        if name in parameters:
            holder.register_parameter(name, nn.Parameter(value, requires_grad=False))
        else:
            holder.register_buffer(name, value)
    gm.set_submodule(conv.target, holder)
    with gm.graph.inserting_before(node):
        return {
            name: gm.graph.create_node(
                "get_attr", f"{conv.target}.{name}", name=f"{node.name}_{name}"
            )
            for name in tensors
        }


def call_conv2d(conv: Call[nn.Conv2d], weight: fx.Node, bias: fx.Node | None) -> None:
    """Turn a convolution's call of a module into one of `F.conv2d` with a weight and a bias.

    The nodes that weight and bias are computed from get the convolution's role.
    """
    node, module = conv.node, conv.module
    for root in filter(None, (weight, bias)):
        for each in (root, *root.all_input_nodes):
            each.meta["yqc.role"] = node.meta["yqc.role"]
    settings = (module.stride, module.padding, module.dilation, module.groups)
    inputs = (node.all_input_nodes[0], weight, bias, *settings)
    node.op, node.target, node.args, node.kwargs = "call_function", F.conv2d, inputs, {}


def replace_by_packed(
    gm: fx.GraphModule, conv: Call[nn.Conv2d], done: RoundedLayer, rounding: str
) -> None:
    """Turn a convolution's module call into a function of packed weights, in place.

    Its module is replaced by one that holds only the packed tensors.
    """
    rounded = done.rounded
    shape, bits, block = list(rounded.shape), rounded.scheme.bits, rounded.block

    def unpack(at: Mapping[str, fx.Node]) -> tuple[Any, tuple[Any, ...]]:
        codes, scale = at["packed"], at["scale"]
        if rounded.scheme.uniform:
            zero = at.get("zero")
            return torch.ops.yqc.unpack_uniform, (codes, scale, zero, shape, bits, block)
        return torch.ops.yqc.unpack_table, (codes, at["table"], scale, shape, bits, block)

    size = _replace_by_stored(gm, conv, rounded.tensors(), done.bias, unpack)
    QuantizedLayer(
        name=conv.target,
        op="Conv2d",
        shape=rounded.shape,
        weight_bits=rounded.scheme.bits,
        activation_bits=32,
        scheme=rounded.scheme.kind,
        granularity=rounded.scheme.granularity,
        rounding=rounding,
        weight_bytes=size,
        sensitivity=done.damage,
    ).put(conv.node)


def replace_by_rice(
    gm: fx.GraphModule,
    conv: Call[nn.Conv2d],
    weight: RiceWeight,
    coding: tuple[int, Planes],
    bias: Tensor | None,
    damage: float | None,
) -> None:
    """Turn a convolution's module call into a function of a weight in Rice codes, in place.

    `coding` is the layer's Rice parameter and the network's planes.
    """
    low, planes = coding
    tensors = weight.tensors(low, planes)

    def unpack(at: Mapping[str, fx.Node]) -> tuple[Any, tuple[Any, ...]]:
        stored = (at["packed"], at["scale"], at["exponents"])
        return torch.ops.yqc.unpack_rice, (*stored, list(weight.shape), low, write_planes(planes))

    size = _replace_by_stored(gm, conv, tensors, bias, unpack)
    QuantizedLayer(
        name=conv.target,
        op="Conv2d",
        shape=weight.shape,
        weight_bits=round(8 * tensors["packed"].numel() / weight.levels.numel(), 2),
        activation_bits=32,
        scheme="rice",
        granularity="channel",
        rounding="gptq",
        weight_bytes=size,
        sensitivity=damage,
    ).put(conv.node)


def _replace_by_stored(
    gm: fx.GraphModule,
    conv: Call[nn.Conv2d],
    weight: Mapping[str, Tensor],
    bias: Tensor | None,
    unpack: Callable[[Mapping[str, fx.Node]], tuple[Any, tuple[Any, ...]]],
) -> int:
    """Hold the tensors of a weight, and call `F.conv2d` with what an operator makes of them.

    `unpack` takes the nodes that read the tensors, by name, and returns the operator with its
    arguments. Returns the bytes that are stored, those of the bias included.
    """
    node = conv.node
    stored = {f"weight_{name}": tensor for name, tensor in weight.items()}
    if bias is not None:
        stored["bias_q"], stored["bias_scale"] = bias_in_two_bytes(bias)
    at = hold_tensors(gm, conv, stored)
    target, args = unpack({name: at[f"weight_{name}"] for name in weight})
    with gm.graph.inserting_before(node):
        made = gm.graph.create_node("call_function", target, args, name=f"{node.name}_weight")
        b = None
        if bias is not None:
            held = (at["bias_q"], at["bias_scale"])
            b = gm.graph.create_node("call_function", DEQUANTIZE, held, name=f"{node.name}_bias")
    call_conv2d(conv, made, b)
    return sum(t.numel() * t.element_size() for t in stored.values())
