"""From a budget, as a user gives it, to a scheme for each layer."""

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import Call
from yqc.graph.compare import parameter_count, tensor_bytes
from yqc.quant.weights.layer import storage
from yqc.quant.weights.rounded import Outcome
from yqc.quantizing.weights.allocate import (
    CHOICES,
    Choice,
    Options,
    allocate,
    measure,
    richer,
    size,
)
from yqc.quantizing.weights.inputs import New, Sight
from yqc.quantizing.weights.rounder import Rounder
from yqc.quantizing.weights.walk import Statistics

TRIALS = 4
"""How many budgets are tried for `max_drop`; each rounds all layers and detects anew."""
LOOKED_AT = 16
"""Images that sensitivities are measured on: they rank layers, which takes fewer than rounding."""
UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}


@dataclass(frozen=True)
class Budget:
    """What a compressed graph may cost; exactly one of these is given, the others are 0."""

    ratio: float = 0.0
    """Least ratio of the float16 parameters' bytes to the bytes of all weights."""
    size: int = 0
    """Bytes of all weights, at most."""
    drop: float = 0.0
    """Largest loss of agreement with the float graph on calibration images."""
    spare: float = 0.0
    """Share of what all layers take by the plan that may be spent on top of that."""


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


def sensitivities(rounder: Rounder, sight: Sight, budget: Budget) -> list[Options]:
    """Measure what every scheme does to every layer, each for itself, on the float graph.

    Args:
        rounder: knows the layers, and the plan that a spare share of bytes comes on top of.
        sight: of a few calibration images.
        budget: says which schemes come into question.
    """
    found: list[Options] = []

    def look(node: fx.Node, conv: nn.Conv2d, seen: Statistics, worth: Tensor | None) -> New | None:
        moments = seen.damped(rounder.settings.damp)
        schemes = CHOICES
        if budget.spare:
            base, shape = rounder.plan[node], tuple(conv.weight.shape)
            least = storage(base, shape)
            schemes = tuple(s for s in richer(base) if s == base or storage(s, shape) > least)
        found.append(measure(node, conv, seen.covariance, moments, worth, schemes))
        return None

    batches = max(1, LOOKED_AT // len(sight.batches[0]))
    sight.walk(look, "measuring sensitivities", batches=batches)
    return found


def choose(
    rounder: Rounder,
    options: Sequence[Options],
    budget: Budget,
    original: fx.GraphModule | None,
    agreement: Callable[[fx.GraphModule], float | None] | None,
    sight: Sight,
) -> list[Choice]:
    """Choose a scheme for each layer.

    Args:
        rounder: of the graph; rounds all layers a few times for `budget.drop`.
        options: what each layer may choose from.
        budget: what all may cost.
        original: the graph whose parameters the ratio is against; None for the rounder's own.
        agreement: judges a graph against the float one.
        sight: to round with.

    Raises:
        PassError: the budget is smaller than the smallest choices, or cannot be judged.
    """
    smallest = size([one.choices[0] for one in options])
    if budget.drop:
        return _by_drop(rounder, options, budget.drop, agreement, sight)
    if budget.spare:
        return allocate(options, int(smallest * (1 + budget.spare)))
    fixed = fixed_bytes(rounder.gm, rounder.convs)
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
    sight: Sight,
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
        outcomes = rounder.with_data(sight)
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


def table(options: Sequence[Options], chosen: Sequence[Choice]) -> list[str]:
    """Print a plan for people, a line a layer: scheme, bits, granularity, bytes, damage."""
    rows: list[tuple[str, ...]] = [("layer", "scheme", "bits", "granularity", "bytes", "damage")]
    for one, choice in zip(options, chosen, strict=True):
        how = choice.scheme
        grain = how.granularity + (f" {how.block}" if how.granularity == "block" else "")
        cost = (str(choice.size), f"{choice.damage:.3g}")
        rows.append((str(one.node.target), how.kind, str(how.bits), grain, *cost))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
