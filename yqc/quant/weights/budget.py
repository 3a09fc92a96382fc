"""From a budget, as a user gives it, to a scheme for each layer."""

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import Call
from yqc.graph.compare import parameter_count, tensor_bytes
from yqc.quant.weights.allocate import Choice, Options, allocate, size
from yqc.quant.weights.driver import Outcome, Rounder
from yqc.quant.weights.scheme import Scheme

TRIALS = 4
"""How many budgets are tried for `max_drop`; each rounds all layers and detects anew."""
UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}


@dataclass(frozen=True)
class Budget:
    """What a compressed graph may cost; exactly one of the three is given, the others are 0."""

    ratio: float = 0.0
    """Least ratio of the float16 parameters' bytes to the bytes of all weights."""
    size: int = 0
    """Bytes of all weights, at most."""
    drop: float = 0.0
    """Largest loss of agreement with the float graph on calibration images."""


def read_bytes(text: str) -> int:
    """Read a number of bytes: `950KB`, `1.2MB`, `950000`.

    Raises:
        ValueError: it is no such number.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KM]?I?B?)", text.upper())
    if match is None or match[2] not in UNITS:
        raise ValueError(f"bytes must be a number such as 950KB, 1.2MB or 950000, not {text}")
    return int(float(match[1]) * UNITS[match[2]])


def fixed_bytes(gm: fx.GraphModule, convs: Sequence[Call[nn.Conv2d]]) -> int:
    """Return the bytes that do not depend on the choice: biases, and what is not packed."""
    whole = tensor_bytes(gm)
    for conv in convs:
        tensors = [conv.module.weight, *([] if conv.module.bias is None else [conv.module.bias])]
        whole -= sum(t.numel() * t.element_size() for t in tensors)
        whole += 2 * conv.module.out_channels + 4
    return whole


def choose(
    rounder: Rounder,
    options: Sequence[Options],
    budget: Budget,
    original: fx.GraphModule | None,
    agreement: Callable[[fx.GraphModule], float | None] | None,
    images: Sequence[Tensor],
) -> list[Choice]:
    """Choose a scheme for each layer.

    Args:
        rounder: of the graph; rounds all layers a few times for `budget.drop`.
        options: what each layer may choose from.
        budget: what all may cost.
        original: the graph whose parameters the ratio is against; None for the rounder's own.
        agreement: judges a graph against the float one.
        images: to round with.

    Raises:
        PassError: the budget is smaller than the smallest choices, or cannot be judged.
    """
    fixed = fixed_bytes(rounder.gm, rounder.convs)
    smallest = size([one.choices[0] for one in options])
    if budget.drop:
        return _by_drop(rounder, options, budget.drop, agreement, images)
    total = budget.size or int(2 * parameter_count(original or rounder.gm) / budget.ratio)
    if total - fixed < smallest:
        raise PassError(
            f"the budget is {total} bytes, and the smallest choice takes {smallest + fixed}; allow "
            "more bytes, or prune first"
        )
    return allocate(options, total - fixed)


def _by_drop(
    rounder: Rounder,
    options: Sequence[Options],
    drop: float,
    agreement: Callable[[fx.GraphModule], float | None] | None,
    images: Sequence[Tensor],
) -> list[Choice]:
    """Find the smallest budget whose graph agrees well enough, by bisection."""
    if agreement is None:
        raise PassError("max_drop is judged on calibration images; give --data, or a ratio")
    low = size([one.choices[0] for one in options])
    high = size([one.choices[-1] for one in options])
    best = allocate(options, high)
    for _ in range(TRIALS):
        middle = (low + high) // 2
        chosen = allocate(options, middle)
        rounder.plan = {o.node: c.scheme for o, c in zip(options, chosen, strict=True)}
        outcomes = rounder.with_data(images)
        reached = agreement(rounded_copy(rounder, outcomes))
        if reached is None:
            raise PassError(
                "max_drop cannot be judged: the float model finds nothing in the calibration "
                "images; give other images, or a ratio"
            )
        if 1.0 - reached <= drop:
            best, high = chosen, middle
        else:
            low = middle
    return best


def rounded_copy(rounder: Rounder, outcomes: dict[fx.Node, Outcome]) -> fx.GraphModule:
    """Return the graph with rounded weights in float, to be judged."""
    trial = copy.deepcopy(rounder.gm)
    for conv in rounder.convs:
        module = trial.get_submodule(conv.target)
        done = outcomes[conv.node]
        module.weight = nn.Parameter(done.rounded.weight, requires_grad=False)
        if done.bias is not None:
            module.bias = nn.Parameter(done.bias.clone(), requires_grad=False)
    return trial


def table(chosen: Sequence[tuple[str, Scheme, int, float]]) -> str:
    """Print a plan for people: layer, scheme, bits, granularity, bytes, damage."""
    rows: list[tuple[str, ...]] = [
        (
            path,
            s.kind,
            str(s.bits),
            s.granularity + (f" {s.block}" if s.granularity == "block" else ""),
            str(size),
            f"{damage:.3g}",
        )
        for path, s, size, damage in chosen
    ]
    rows = [("layer", "scheme", "bits", "granularity", "bytes", "damage"), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
