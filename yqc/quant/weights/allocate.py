"""Which scheme for which layer: the least damage that some bytes can buy.

The damage that rounding a layer does is measured, not guessed from its name: the squared error of
each output channel, by the second moments of its inputs on calibration images, times what that
channel's changes are worth to the detections (`yqc.quant.weights.stakes`), over all positions.
Damages of layers add up, to second order, so the choice is

    least  sum of damage[layer][choice]    with    sum of bytes[layer][choice] <= budget

With a price on bytes each layer chooses for itself (Lagrange; Shoham and Gersho 1988); the price is
found by bisection. What is left of the budget then goes where it lowers the damage most a byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from yqc.graph.values import TensorSpec
from yqc.quant.weights.layer import round_layer, storage
from yqc.quant.weights.scheme import Scheme
from yqc.quant.weights.solve import Moments

BISECTIONS = 60
CHOICES = (
    *(Scheme("affine", bits) for bits in (2, 3, 4, 5, 6, 8)),
    *(Scheme("codebook", bits) for bits in (3, 4)),
    *(Scheme("affine", 4, "block", block) for block in (32, 64, 128)),
    Scheme("symmetric", 4),
)
"""What a layer may choose from."""


@dataclass(frozen=True)
class Choice:
    """One way to store one layer, and what it costs."""

    scheme: Scheme
    size: int
    """Bytes."""
    damage: float


@dataclass(frozen=True)
class Options:
    """What one layer may choose from: no choice is both larger and worse than another."""

    node: fx.Node
    choices: tuple[Choice, ...]
    """From the smallest to the largest."""


def measure(
    node: fx.Node,
    conv: nn.Conv2d,
    covariance: Tensor,
    moments: Moments,
    worth: Tensor | None,
    schemes: Sequence[Scheme] = CHOICES,
) -> Options:
    """Measure what each scheme does to a layer's outputs.

    Args:
        node: the layer.
        conv: its module.
        covariance: of its inputs, [B, C, C].
        moments: the same, damped.
        worth: mean squared derivative by each output channel, [R]; None counts all alike.
        schemes: to try.
    """
    w, shape = conv.weight.detach().flatten(1), tuple(conv.weight.shape)
    value = node.meta.get("yqc.value")
    places = value.shape[2] * value.shape[3] if isinstance(value, TensorSpec) else 1
    weight = places * (torch.ones(len(w)) if worth is None else worth)
    plain = Moments(covariance)
    found = []
    for scheme in schemes:
        rounded = round_layer(w, moments, scheme, "mse", shape)
        error = plain.errors(rounded.grid.values(rounded.levels) - w).clamp(min=0)
        found.append(Choice(scheme, storage(scheme, shape), float((error * weight).sum())))
    return Options(node, frontier(found))


def frontier(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """Drop choices that another one beats in size and damage; the rest by rising size."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.size, c.damage)):
        if not kept or choice.damage < kept[-1].damage:
            kept.append(choice)
    return tuple(kept)


def allocate(layers: Sequence[Options], budget: int) -> list[Choice]:
    """Choose for each layer so that the damage is least within the budget.

    Args:
        layers: what each may choose from.
        budget: bytes for all of them.

    Returns:
        One choice a layer; the smallest of each if the budget does not even hold these.
    """
    low, high = 0.0, 1.0
    while size(at_price(layers, high)) > budget and high < 1e30:  # noqa: PLR2004  # nothing is dearer
        high *= 10
    for _ in range(BISECTIONS):
        price = (low + high) / 2
        low, high = (low, price) if size(at_price(layers, price)) <= budget else (price, high)
    return spend(layers, at_price(layers, high), budget)


def at_price(layers: Sequence[Options], price: float) -> list[Choice]:
    """Return each layer's best choice where a byte costs so much damage."""
    return [min(one.choices, key=lambda c: c.damage + price * c.size) for one in layers]


def size(choices: Sequence[Choice]) -> int:
    """Return the bytes of choices."""
    return sum(choice.size for choice in choices)


def spend(layers: Sequence[Options], chosen: list[Choice], budget: int) -> list[Choice]:
    """Spend what is left on the steps that lower the damage most a byte, while one fits."""
    chosen = list(chosen)
    left = budget - size(chosen)
    while True:
        steps = [
            ((now.damage - c.damage) / (c.size - now.size), i, c)
            for i, (one, now) in enumerate(zip(layers, chosen, strict=True))
            for c in one.choices
            if 0 < c.size - now.size <= left and c.damage < now.damage
        ]
        if not steps:
            return chosen
        _, i, best = max(steps, key=lambda step: step[:2])
        left -= best.size - chosen[i].size
        chosen[i] = best


def write_plan(path: str, scheme: Scheme) -> str:
    """Print one line of a plan: `model.0.conv:affine.4.channel`, a block's length last."""
    parts = [scheme.kind, str(scheme.bits), scheme.granularity]
    parts += [str(scheme.block)] if scheme.granularity == "block" else []
    return f"{path}:{'.'.join(parts)}"


def read_plan(line: str) -> tuple[str, Scheme]:
    """Undo `write_plan`.

    Raises:
        ValueError: it is no such line.
    """
    path, _, rest = line.partition(":")
    parts = rest.split(".")
    for scheme in (*CHOICES, *_others()):
        if write_plan(path, scheme) == line:
            return path, scheme
    if len(parts) == 4 and parts[2] == "block" and parts[3].isdecimal():  # noqa: PLR2004
        _, scheme = read_plan(f"{path}:{parts[0]}.{parts[1]}.channel")
        return path, Scheme(scheme.kind, scheme.bits, "block", int(parts[3]))
    raise ValueError(f"a plan has lines such as model.0.conv:affine.4.channel, not {line}")


def _others() -> list[Scheme]:
    kinds = ("symmetric", "affine", "codebook", "pwlq", "pot")
    granularities = ("tensor", "channel", "kernel")
    return [
        Scheme(kind, bits, granularity)  # type: ignore[arg-type]  # from the lists above
        for kind in kinds
        for bits in (2, 3, 4, 5, 6, 8)
        for granularity in granularities
    ]
