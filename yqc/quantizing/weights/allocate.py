"""Choose a scheme for each layer: the least damage within a number of bytes.

The damage of rounding a layer is measured: the squared error of each output channel, by the second
moments of its inputs on calibration images, times that channel's mean relevance
(`yqc.quant.weights.sampling`), over all positions. Damages of layers add up, to second order, so
the choice is

    least  sum of damage[layer][choice]    with    sum of bytes[layer][choice] <= budget

With a price on bytes each layer chooses for itself (Lagrange; Shoham and Gersho 1988); the price is
found by bisection. The rest of the budget then goes where it lowers the damage most a byte.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from yqc.errors import OptionError
from yqc.quant.weights.layer import round_weight, storage_bytes
from yqc.quant.weights.rounding import InputMoments
from yqc.quant.weights.scheme import SCHEME_KINDS, Rounding, Scheme
from yqc.quantizing.weights.rounder import positions_of
from yqc.registered import SCHEMES

BISECTIONS = 60
"""Halvings of the price's interval, enough for every bit of a float; a few more cost nothing."""
CHOICES = (
    *(Scheme("affine", bits) for bits in (2, 3, 4, 5, 6, 8)),
    *(Scheme("codebook", bits) for bits in (3, 4)),
    *(Scheme("affine", 4, "block", block) for block in (32, 64, 128)),
    Scheme("symmetric", 4),
)
"""Schemes that a layer may have."""
WIDE = 8
"""Bits at which rounding is so fine that clipping is not searched."""
PLAN = re.compile(
    r"(?P<kind>[a-z][a-z0-9-]*)\.(?P<bits>[234568])"
    r"\.(?P<granularity>tensor|channel|kernel|block\.(?P<block>[1-9]\d*))"
    r"(\.rows\.(?P<rows>[1-9]\d*))?"
)
ROWS = (16, 4)
"""Numbers of channels that share a table, tried where one table a layer is too coarse: fewer
channels a table take more bytes for tables."""


@dataclass(frozen=True)
class SchemeChoice:
    """One scheme for one layer, with its bytes and damage."""

    scheme: Scheme
    size: int
    damage: float


@dataclass(frozen=True)
class LayerOptions:
    """The choices of one layer: none is both larger and worse than another."""

    node: fx.Node
    choices: tuple[SchemeChoice, ...]
    """From the smallest to the largest."""


def measure_schemes(
    node: fx.Node,
    conv: nn.Conv2d,
    covariance: Tensor,
    moments: InputMoments,
    relevance: Tensor | None,
    schemes: Sequence[Scheme] = CHOICES,
) -> LayerOptions:
    """Measure the damage that each scheme does to a layer's outputs.

    Inputs have the covariance [B, C, C], and damped moments; output channels count with their mean
    relevance, [R], if it is known.
    """
    w, shape = conv.weight.detach().flatten(1), tuple(conv.weight.shape)
    weight = positions_of(node) * (torch.ones(len(w)) if relevance is None else relevance)
    plain = InputMoments(covariance)
    found = []
    for scheme in schemes:
        how: Rounding = "nearest" if scheme.bits == WIDE else "mse"
        rounded = round_weight(w, moments, scheme, how, shape, relevance)
        error = plain.errors(rounded.grid.values(rounded.levels) - w).clamp(min=0)
        found.append(
            SchemeChoice(scheme, storage_bytes(scheme, shape), float((error * weight).sum()))
        )
    return LayerOptions(node, pareto_front(found))


def finer_schemes(scheme: Scheme) -> tuple[Scheme, ...]:
    """List a scheme and finer ones, which take more bytes for less damage.

    These have finer scales or tables at the same number of bits, or eight bits.
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


def pareto_front(choices: Sequence[SchemeChoice]) -> tuple[SchemeChoice, ...]:
    """Return the choices that no other one beats in both size and damage, by rising size."""
    kept: list[SchemeChoice] = []
    for choice in sorted(choices, key=lambda c: (c.size, c.damage)):
        if not kept or choice.damage < kept[-1].damage:
            kept.append(choice)
    return tuple(kept)


def allocate_bytes(layers: Sequence[LayerOptions], budget: int) -> list[SchemeChoice]:
    """Choose one scheme a layer so that the damage is least within a budget of bytes.

    If not even the smallest fit the budget, these are chosen.
    """
    low, high = 0.0, 1.0
    while total_bytes(choose_at_price(layers, high)) > budget and high < 1e30:  # noqa: PLR2004  # nothing is dearer
        high *= 10
    for _ in range(BISECTIONS):
        price = (low + high) / 2
        low, high = (
            (low, price) if total_bytes(choose_at_price(layers, price)) <= budget else (price, high)
        )
    return spend_remainder(layers, choose_at_price(layers, high), budget)


def choose_at_price(layers: Sequence[LayerOptions], price: float) -> list[SchemeChoice]:
    """Return each layer's best choice at a price, the damage that a byte is traded for."""
    return [min(one.choices, key=lambda c: c.damage + price * c.size) for one in layers]


def total_bytes(choices: Sequence[SchemeChoice]) -> int:
    """Return the sum of the choices' bytes."""
    return sum(choice.size for choice in choices)


def spend_remainder(
    layers: Sequence[LayerOptions], chosen: list[SchemeChoice], budget: int
) -> list[SchemeChoice]:
    """Spend the rest of the budget on the steps that lower the damage most a byte."""
    chosen = list(chosen)
    left = budget - total_bytes(chosen)
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


def write_plan_line(path: str, scheme: Scheme) -> str:
    """Return one line of a plan: `model.0.conv:affine.4.channel`.

    A block's length follows `block`; `rows.8` at the end means that eight channels share a table.
    """
    parts = [scheme.kind, str(scheme.bits), scheme.granularity]
    parts += [str(scheme.block)] if scheme.granularity == "block" else []
    parts += ["rows", str(scheme.rows)] if scheme.rows else []
    return f"{path}:{'.'.join(parts)}"


def plan_differences(plan: Sequence[str], base: Scheme) -> tuple[str, ...]:
    """Return the lines of a plan whose scheme differs from a base scheme."""
    return tuple(line for line in plan if read_plan_line(line)[1] != base)


def read_plan_line(line: str) -> tuple[str, Scheme]:
    """Undo `write_plan_line`; an OptionError for anything else."""
    path, _, rest = line.partition(":")
    found = PLAN.fullmatch(rest)
    kinds = (*SCHEME_KINDS, *SCHEMES.names())
    if (
        found is None
        or found["kind"] not in kinds
        or (found["kind"] != "codebook" and found["rows"])
    ):
        raise OptionError(f"a plan has lines such as model.0.conv:affine.4.channel, not {line}")
    numbers = {name: int(found[name] or default) for name, default in (("block", 64), ("rows", 0))}
    granularity = found["granularity"].partition(".")[0]
    return path, Scheme(found["kind"], int(found["bits"]), granularity, **numbers)  # type: ignore[arg-type]
