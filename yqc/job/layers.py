"""The layers of a compiled graph, as the report lists them."""

from collections.abc import Mapping

import torch
from torch import fx, nn

from yqc.graph import Call, call, is_function, role
from yqc.quant import QuantizedLayer
from yqc.report import Layer

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
        quantized = QuantizedLayer.on(node)
        if quantized is not None:
            found.append(_quantized_layer(node, quantized, stored.get(node.name, 0)))
        elif (layer := call(gm, node, KINDS)) is not None:
            found.append(_float_layer(layer, stored.get(node.name, 0)))
    return tuple(found)


def _float_layer(layer: Call[Weighted], stored: int) -> Layer:
    return Layer(
        name=layer.target,
        role=role(layer.node),
        op=type(layer.module).__name__,
        shape=tuple(layer.module.weight.shape),
        weight_bits=8 * layer.module.weight.element_size(),
        activation_bits=32,
        scheme="float",
        granularity=None,
        rounding=None,
        weight_bytes=stored,
        sqnr_db=None,
        sensitivity=None,
    )


def _quantized_layer(node: fx.Node, layer: QuantizedLayer, stored: int) -> Layer:
    return Layer(
        name=layer.name,
        role=role(node),
        op=layer.op,
        shape=layer.shape,
        weight_bits=layer.weight_bits,
        activation_bits=layer.activation_bits,
        scheme=layer.scheme,
        granularity=layer.granularity,
        rounding=layer.rounding,
        weight_bytes=stored,
        sqnr_db=layer.sqnr_db,
        sensitivity=layer.sensitivity,
    )


def rounds_activations(gm: fx.GraphModule) -> bool:
    """Return whether the graph rounds activations to integers."""
    return any(is_function(node, torch.ops.yqc.quantize_linear) for node in gm.graph.nodes)
