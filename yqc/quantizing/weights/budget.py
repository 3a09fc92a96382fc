"""Choose a scheme for each layer within a budget, as a user gives it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import Call
from yqc.graph.compare import graph_bytes, parameter_count
from yqc.quant.weights.layer import storage_bytes
from yqc.quant.weights.rounded import RoundedLayer
from yqc.quant.weights.scheme import Scheme
from yqc.quant.weights.statistics import InputStatistics
from yqc.quantizing.weights.allocate import (
    CHOICES,
    LayerOptions,
    SchemeChoice,
    allocate_bytes,
    finer_schemes,
    measure_schemes,
    read_plan_line,
    total_bytes,
    write_plan_line,
)
from yqc.quantizing.weights.inputs import LayerInputs, NewWeight
from yqc.quantizing.weights.rounder import Rounder

TRIALS = 4
"""Budgets that are tried for `max_drop`; each rounds all layers and detects anew. One more halves
the step in bytes and takes as long as each before."""
SENSITIVITY_IMAGES = 16
"""Images on which sensitivities are measured: ranking layers takes fewer than rounding them. Time
grows in proportion."""


@dataclass(frozen=True)
class WeightBudget:
    """Limit of a compressed graph's weights; exactly one number is given, the others are 0."""

    ratio: float = 0.0
    """Least ratio of the float16 parameters' bytes to the bytes of all weights."""
    size: int = 0
    """Bytes of all weights, at most."""
    drop: float = 0.0
    """Largest loss of agreement with the float graph on calibration images."""
    spare: float = 0.0
    """Share of the bytes of the given plan that may be spent on top of it."""
    schemes: tuple[Scheme, ...] = CHOICES
    """What a layer may have; of `spare`, finer schemes than the plan's instead."""


def fixed_bytes(gm: fx.GraphModule, convs: Sequence[Call[nn.Conv2d]]) -> int:
    """Return the bytes that do not depend on the choice: biases, and tensors that stay."""
    whole = graph_bytes(gm)
    for conv in convs:
        tensors = [conv.module.weight, *([] if conv.module.bias is None else [conv.module.bias])]
        whole -= sum(t.numel() * t.element_size() for t in tensors)
        whole += 2 * conv.module.out_channels + 4
    return whole


def measure_sensitivities(
    rounder: Rounder, inputs: LayerInputs, budget: WeightBudget
) -> list[LayerOptions]:
    """Measure the damage that every scheme does to each layer alone, on the float graph.

    With a `spare` share of bytes, only finer schemes than those of the rounder's plan are tried.
    """
    found: list[LayerOptions] = []

    def measure(
        node: fx.Node, conv: nn.Conv2d, seen: InputStatistics, relevance: Tensor | None
    ) -> NewWeight | None:
        moments = seen.damped(rounder.settings.damp)
        schemes = budget.schemes
        if budget.spare:
            base, shape = rounder.plan[node], tuple(conv.weight.shape)
            least = storage_bytes(base, shape)
            schemes = tuple(
                s for s in finer_schemes(base) if s == base or storage_bytes(s, shape) > least
            )
        layer = measure_schemes(node, conv, seen.covariance, moments, relevance, schemes)
        found.append(layer)
        if rounder.cache:
            rows = [(write_plan_line("", c.scheme), c.size, c.damage) for c in layer.choices]
            rounder.cache.save(f"{prefix}-{node.name}", {}, {"choices": rows})
        return None

    def is_known(node: fx.Node) -> bool:
        """Take over a layer that was measured before an interruption."""
        kept = rounder.cache.load(f"{prefix}-{node.name}") if rounder.cache else None
        if kept is None:
            return False
        rows = kept[1]["choices"]
        choices = tuple(SchemeChoice(read_plan_line(line)[1], *rest) for line, *rest in rows)
        found.append(LayerOptions(node, choices))
        return True

    prefix = ""
    if rounder.cache:
        widths = "".join(str(s.bits) for s in budget.schemes)
        prefix = f"damage-{budget.spare}-{widths}-{rounder.cache_prefix()}"
    batches = max(1, SENSITIVITY_IMAGES // len(inputs.batches[0]))
    inputs.walk(measure, "measuring sensitivities", batches=batches, skip=is_known)
    return found


def choose_schemes(
    rounder: Rounder,
    options: Sequence[LayerOptions],
    budget: WeightBudget,
    original: fx.GraphModule | None,
    agreement: Callable[[fx.GraphModule], float | None] | None,
    inputs: LayerInputs,
) -> list[SchemeChoice]:
    """Choose a scheme for each layer, of its options, within a budget of all layers.

    For `budget.drop` the rounder rounds all layers a few times, and their `agreement` with the
    float graph is measured. A ratio refers to the parameters of `original`, by default the
    rounder's own graph.

    Raises:
        PassError: the budget is smaller than the smallest choices, or cannot be judged.
    """
    smallest = total_bytes([one.choices[0] for one in options])
    if budget.drop:
        return _by_drop(rounder, options, budget.drop, agreement, inputs)
    if budget.spare:
        return allocate_bytes(options, int(smallest * (1 + budget.spare)))
    fixed = fixed_bytes(rounder.gm, rounder.convs)
    total = budget.size or int(2 * parameter_count(original or rounder.gm) / budget.ratio)
    if total - fixed < smallest:
        raise PassError(
            f"the budget is {total} bytes, and the smallest choice takes {smallest + fixed}; allow "
            "more bytes, or prune first"
        )
    return allocate_bytes(options, total - fixed)


def _by_drop(
    rounder: Rounder,
    options: Sequence[LayerOptions],
    drop: float,
    agreement: Callable[[fx.GraphModule], float | None] | None,
    inputs: LayerInputs,
) -> list[SchemeChoice]:
    """Find the smallest budget whose graph agrees well enough, by bisection."""
    if agreement is None:
        raise PassError("max_drop is judged on calibration images; give --data, or a ratio")
    low = total_bytes([one.choices[0] for one in options])
    high = total_bytes([one.choices[-1] for one in options])
    best = allocate_bytes(options, high)
    for _ in range(TRIALS):
        middle = (low + high) // 2
        chosen = allocate_bytes(options, middle)
        rounder.plan = {o.node: c.scheme for o, c in zip(options, chosen, strict=True)}
        layers = rounder.with_data(inputs)
        reached = agreement(copy_with_rounded_weights(rounder, layers))
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


def copy_with_rounded_weights(
    rounder: Rounder, layers: dict[fx.Node, RoundedLayer]
) -> fx.GraphModule:
    """Return a copy of the graph with rounded weights in float."""
    trial = copy.deepcopy(rounder.gm)
    for conv in rounder.convs:
        module = trial.get_submodule(conv.target)
        done = layers[conv.node]
        module.weight = nn.Parameter(done.rounded.weight, requires_grad=False)
        if done.bias is not None:
            module.bias = nn.Parameter(done.bias.clone(), requires_grad=False)
    return trial


def format_plan(options: Sequence[LayerOptions], chosen: Sequence[SchemeChoice]) -> list[str]:
    """Return a plan as a text table, a line a layer: scheme, bits, granularity, bytes, damage."""
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
