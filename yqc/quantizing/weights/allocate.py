"""Which scheme for which layer: the least damage that some bytes can buy.

The damage that rounding a layer does is measured, not guessed from its name: the squared error of
each output channel, by the second moments of its inputs on calibration images, times what that
channel's changes are worth to the detections (`yqc.quant.weights.sampling`), over all positions.
Damages of layers add up, to second order, so the choice is

    least  sum of damage[layer][choice]    with    sum of bytes[layer][choice] <= budget

With a price on bytes each layer chooses for itself (Lagrange; Shoham and Gersho 1988); the price is
found by bisection. What is left of the budget then goes where it lowers the damage most a byte.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from yqc.quant.weights.layer import round_layer, storage
from yqc.quant.weights.rounding import Moments
from yqc.quant.weights.scheme import KINDS, Rounding, Scheme
from yqc.quantizing.weights.rounder import places

BISECTIONS = 60
CHOICES = (
    *(Scheme("affine", bits) for bits in (2, 3, 4, 5, 6, 8)),
    *(Scheme("codebook", bits) for bits in (3, 4)),
    *(Scheme("affine", 4, "block", block) for block in (32, 64, 128)),
    Scheme("symmetric", 4),
)
"""What a layer may choose from."""
WIDE = 8
"""Bits at which clipping is not worth a search."""
PLAN = re.compile(
    rf"(?P<kind>{'|'.join(KINDS)})\.(?P<bits>[234568])"
    r"\.(?P<granularity>tensor|channel|kernel|block\.(?P<block>[1-9]\d*))"
    r"(\.rows\.(?P<rows>[1-9]\d*))?"
)
ROWS = (16, 4)
"""Channels that share a table, where one for the whole layer is not enough."""


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
    weight = places(node) * (torch.ones(len(w)) if worth is None else worth)
    plain = Moments(covariance)
    found = []
    for scheme in schemes:
        how: Rounding = "nearest" if scheme.bits == WIDE else "mse"
        rounded = round_layer(w, moments, scheme, how, shape, worth)
        error = plain.errors(rounded.grid.values(rounded.levels) - w).clamp(min=0)
        found.append(Choice(scheme, storage(scheme, shape), float((error * weight).sum())))
    return Options(node, frontier(found))


def richer(scheme: Scheme) -> tuple[Scheme, ...]:
    """List what a layer may become where more bytes than the scheme takes lower the damage.

    Finer scales or tables at the same number of bits, and eight bits.
    """
    found = [scheme]
    if scheme.granularity == "channel":
        found += [replace(scheme, granularity="block", block=block) for block in (128, 64, 32)]
    if scheme.kind == "codebook" and not scheme.rows:
        found += [replace(scheme, rows=rows) for rows in ROWS]
    if scheme.bits < WIDE:
        kind = scheme.kind if scheme.uniform else "affine"
        found.append(Scheme(kind, WIDE))
    return tuple(found)


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
    """Print one line of a plan: `model.0.conv:affine.4.channel`.

    A block's length stands behind `block`; `rows.8` at the end has eight channels share a table.
    """
    parts = [scheme.kind, str(scheme.bits), scheme.granularity]
    parts += [str(scheme.block)] if scheme.granularity == "block" else []
    parts += ["rows", str(scheme.rows)] if scheme.rows else []
    return f"{path}:{'.'.join(parts)}"


def richer_than(plan: Sequence[str], base: Scheme) -> tuple[str, ...]:
    """Return the lines of a plan that say something else than one scheme for all layers."""
    return tuple(line for line in plan if read_plan(line)[1] != base)


def read_plan(line: str) -> tuple[str, Scheme]:
    """Undo `write_plan`.

    Raises:
        ValueError: it is no such line.
    """
    path, _, rest = line.partition(":")
    found = PLAN.fullmatch(rest)
    if found is None or (found["kind"] != "codebook" and found["rows"]):
        raise ValueError(f"a plan has lines such as model.0.conv:affine.4.channel, not {line}")
    numbers = {name: int(found[name] or default) for name, default in (("block", 64), ("rows", 0))}
    granularity = found["granularity"].partition(".")[0]
    return path, Scheme(found["kind"], int(found["bits"]), granularity, **numbers)  # type: ignore[arg-type]
