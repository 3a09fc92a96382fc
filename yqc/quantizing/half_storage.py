"""Store in half what quantization left in float32: biases, scales of weights, weights of layers.

    %b = attr(conv.bias)        ->    %b = attr(conv.bias)             float16
                                      %b_float = to(%b, float32)

The arithmetic stays as it is: integers where there are some, else float32.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from yqc.graph import Call, callers, calls, get_attribute, is_function
from yqc.pipeline.base import Context
from yqc.quant.marks import QuantizedLayer
from yqc.quant.weights.ops import UNPACK
from yqc.quantizing.half import halve_attribute, insert_conversion
from yqc.quantizing.placement import WEIGHTED, find_float_reason
from yqc.quantizing.weights.rewrite import BIAS, DEQUANTIZE, call_conv2d, hold_tensors

EXACT = 2.0**-8
"""Largest relative error of a stored scale, and of stored weights and biases on average.

It is half a step of an int8 weight. Half rounds by at most 2^-11 of a value, but by more below
6e-5. At half of it a few more scales of nearly dead channels stay in float32; double lets weights
move by a step.
"""
LOSES = "it loses digits in half"


def computes_from_integers(gm: fx.GraphModule) -> bool:
    """Return whether a graph makes weights or activations of integers."""
    return any(is_function(node, DEQUANTIZE, *UNPACK) for node in gm.graph.nodes)


def store_in_half(gm: fx.GraphModule, ctx: Context, skip: tuple[str, ...]) -> int:
    """Store biases, scales of weights and weights of layers in half, in place; return how many.

    What loses digits in half stays in float32 and is recorded, and so are layers that cannot read
    a stored weight.
    """
    count = 0
    for layer in calls(gm, WEIGHTED):
        weight: Tensor = layer.module.weight
        if weight.dtype != torch.float32:
            continue
        why = find_float_reason(layer, skip)
        if why is None and callers(gm, layer.target) > 1:
            why = f"{layer.target} is called from more than one place"
        if why is None and not keeps_size(weight):
            why = LOSES
        if why is not None:
            ctx.skipped(layer.node, why)
        else:
            _store_layer(gm, layer)
            count += 1
            ctx.rewrote(layer.node, "weight stored in half")
    for source, fits in dict(_vectors(gm)).items():
        if not fits:
            ctx.skipped(source, LOSES)
            continue
        halve_attribute(gm, str(source.target))
        insert_conversion(gm, source, list(source.users), torch.float32)
        ctx.rewrote(source, "stored in half")
        count += 1
    return count


def keeps_size(value: Tensor) -> bool:
    """Return whether half keeps a tensor, but for an error that is small beside all of it."""
    exact = value.detach().double()
    error = exact - exact.half().double()
    return bool(error.isfinite().all() and error.norm() <= EXACT * exact.norm())


def keeps_each(value: Tensor) -> bool:
    """Return whether half keeps every value of a tensor, but for a small share of it."""
    exact = value.detach().double()
    return bool(((exact - exact.half().double()).abs() <= EXACT * exact.abs()).all())


def _store_layer(gm: fx.GraphModule, layer: Call[Any]) -> None:
    """Turn a convolution's module into a function of a weight that is stored in half."""
    module, node = layer.module, layer.node
    held = {"weight": module.weight.detach().half()}
    if module.bias is not None:
        held["bias"] = module.bias.detach()  # of the vectors, which come next
    at = hold_tensors(gm, layer, held, parameters=tuple(held))
    weight = insert_conversion(gm, at["weight"], [], torch.float32)
    call_conv2d(layer, weight, at.get("bias"))
    QuantizedLayer(
        name=layer.target,
        op="Conv2d",
        shape=tuple(module.weight.shape),
        weight_bits=16,
        activation_bits=32,
        scheme="float",
        granularity=None,
        rounding="nearest",
        weight_bytes=sum(2 * tensor.numel() for tensor in held.values()),
    ).put(node)


def _vectors(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, bool]]:
    """Yield the nodes that read float32 biases and scales of weights, and whether half keeps them.

    A number that stands for a whole tensor is left as it is.
    """
    for node in gm.graph.nodes:
        if not is_function(node, F.conv2d):
            continue
        weight, bias = (node.args[i] if len(node.args) > i else None for i in (1, BIAS))
        if isinstance(bias, fx.Node) and (value := _float_vector(gm, bias)) is not None:
            yield bias, keeps_size(value)
        if isinstance(weight, fx.Node) and is_function(weight, DEQUANTIZE):
            scale = weight.all_input_nodes[1]
            if (value := _float_vector(gm, scale)) is not None:
                yield scale, keeps_each(value)


def _float_vector(gm: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """Return the float32 vector that a node reads from the graph, or None."""
    value = get_attribute(gm, str(node.target)) if node.op == "get_attr" else None
    is_vector = isinstance(value, Tensor) and value.dtype == torch.float32 and value.ndim > 0
    return value if is_vector and isinstance(value, Tensor) else None
