"""The layers of a compiled graph, as the report lists them."""

from collections.abc import Mapping

from torch import fx, nn

from yqc.graph import Call, calls, role
from yqc.report import Layer

Weighted = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def layers(gm: fx.GraphModule, sqnr_db: Mapping[str, float] | None = None) -> tuple[Layer, ...]:
    """List convolutions and linear layers in graph order.

    Args:
        gm: the graph as it is emitted.
        sqnr_db: signal-to-quantization-noise ratio of a node's output, by node name, in dB.
    """
    return tuple(
        Layer(
            name=found.target,
            role=role(found.node),
            op=type(found.module).__name__,
            shape=tuple(found.module.weight.shape),
            weight_bits=8 * found.module.weight.element_size(),
            activation_bits=32,
            scheme="float",
            granularity=None,
            rounding=None,
            weight_bytes=sum(p.numel() * p.element_size() for p in found.module.parameters()),
            sqnr_db=(sqnr_db or {}).get(found.node.name),
        )
        for found in weighted(gm)
    )


def weighted(gm: fx.GraphModule) -> list[Call[Weighted]]:
    """List the calls of modules with a weight, in graph order."""
    kinds: tuple[type[Weighted], ...] = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return calls(gm, kinds)
