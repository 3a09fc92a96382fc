"""The layers of a compiled graph, as the report lists them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from yqc.graph import TensorSpec, call, is_function, role
from yqc.graph.metadata import Swapped
from yqc.quant import QuantizedLayer
from yqc.report import Layer, Swap

Weighted = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
KINDS: tuple[type[Weighted], ...] = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def list_layers(gm: fx.GraphModule, stored: Mapping[str, int]) -> tuple[Layer, ...]:
    """List convolutions and linear layers, quantized or not, in graph order.

    Args:
        gm: the graph that was emitted.
        stored: bytes in the file by name of the node (`yqc.emit.layer_bytes`). A layer whose
            weights the file already stores for an earlier one has 0.
    """
    found: list[Layer] = []
    for node in gm.graph.nodes:
        stands: dict[str, Any] = {"role": role(node), "weight_bytes": stored.get(node.name, 0)}
        if (quantized := QuantizedLayer.on(node)) is not None:
            if quantized.scheme == "rice":  # layers share streams in the file
                stands["weight_bytes"] = quantized.weight_bytes
            found.append(Layer(**vars(quantized) | stands))
        elif (layer := call(gm, node, KINDS)) is not None:
            weight = layer.module.weight
            found.append(
                Layer(
                    name=layer.target,
                    op=type(layer.module).__name__,
                    shape=tuple(weight.shape),
                    weight_bits=8 * weight.element_size(),
                    activation_bits=_activation_bits(node),
                    scheme="float",
                    **stands,
                )
            )
    return tuple(found)


def _activation_bits(node: fx.Node) -> int:
    """Count the bits of a value that a layer computes."""
    value = node.meta.get("yqc.value")
    return 8 * value.dtype.itemsize if isinstance(value, TensorSpec) else 32


def list_swaps(gm: fx.GraphModule) -> tuple[Swap, ...]:
    """List the activations that were put in the place of others, in graph order."""
    found = ((node, Swapped.on(node)) for node in gm.graph.nodes)
    return tuple(Swap(node=node.name, **vars(mark)) for node, mark in found if mark is not None)


def rounds_activations(gm: fx.GraphModule) -> bool:
    """Return whether the graph rounds activations to integers."""
    return any(is_function(node, torch.ops.yqc.quantize_linear) for node in gm.graph.nodes)
