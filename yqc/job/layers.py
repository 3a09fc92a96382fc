"""The layers of a compiled graph, as the report lists them."""

import torch
from torch import fx, nn

from yqc.graph import Call, call, is_function, role
from yqc.quant import QuantizedLayer
from yqc.report import Layer

Weighted = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
KINDS: tuple[type[Weighted], ...] = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def layers(gm: fx.GraphModule) -> tuple[Layer, ...]:
    """List convolutions and linear layers, quantized or not, in graph order."""
    found: list[Layer] = []
    for node in gm.graph.nodes:
        quantized = node.meta.get("yqc.layer")
        if isinstance(quantized, QuantizedLayer):
            found.append(_quantized(node, quantized))
        elif (layer := call(gm, node, KINDS)) is not None:
            found.append(_float(layer))
    return tuple(found)


def _float(layer: Call[Weighted]) -> Layer:
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
        weight_bytes=sum(p.numel() * p.element_size() for p in layer.module.parameters()),
        sqnr_db=None,
        sensitivity=None,
    )


def _quantized(node: fx.Node, layer: QuantizedLayer) -> Layer:
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
        weight_bytes=layer.weight_bytes,
        sqnr_db=layer.sqnr_db,
        sensitivity=layer.sensitivity,
    )


def rounds(gm: fx.GraphModule) -> bool:
    """Tell whether the graph rounds activations to integers."""
    return any(is_function(node, torch.ops.yqc.quantize_linear) for node in gm.graph.nodes)
