"""Pack the convolutions of a graph: choose layers and schemes, round, replace modules."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice

from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import Call, callers, calls
from yqc.graph.compare import node_outputs, sqnr_db
from yqc.pipeline.base import Context
from yqc.quant.marks import QuantizedLayer
from yqc.quant.weights.rounded import RoundedLayer
from yqc.quant.weights.scheme import Scheme
from yqc.quantizing.as_convolutions import write_as_convolutions
from yqc.quantizing.placement import WEIGHTED, find_float_reason
from yqc.quantizing.weights.allocate import read_plan_line, write_plan_line
from yqc.quantizing.weights.budget import (
    WeightBudget,
    choose_schemes,
    format_plan,
    measure_sensitivities,
)
from yqc.quantizing.weights.inputs import LayerInputs, affordable_images
from yqc.quantizing.weights.rewrite import replace_by_packed
from yqc.quantizing.weights.rounder import Rounder, RoundingSettings


@dataclass(frozen=True)
class PackJob:
    """Options of a packing pass."""

    scheme: Scheme
    """Of the layers that the plan does not name."""
    settings: RoundingSettings
    images: int
    """Number of calibration images, at most."""
    skip: tuple[str, ...] = ()
    """Paths of modules to leave in float, with * as a wildcard."""
    plan: tuple[str, ...] = ()
    """Schemes of single layers, in the form of `write_plan_line`."""
    budget: WeightBudget | None = None
    """To choose the plan for; None takes the plan as given."""


def pack_layers(gm: fx.GraphModule, ctx: Context, job: PackJob) -> tuple[str, ...]:
    """Round and pack the convolutions of a graph whose batch norms are folded, in place.

    Returns:
        The plan: the scheme of each layer.

    Raises:
        PassError: the budget cannot be met, or there is no data to choose schemes with.
    """
    write_as_convolutions(gm, ctx, job.skip)
    convs = packable_convolutions(gm, ctx, job.skip)
    if not convs:
        return ()
    given = dict(map(read_plan_line, job.plan))
    plan = {c.node: given.get(c.target, job.scheme) for c in convs}
    rounder = Rounder(gm, convs, plan, job.settings, ctx.progress)
    if ctx.calibration is None:
        if job.budget and not job.budget.spare:
            raise PassError(
                "choosing schemes by their damage needs calibration images; give --data"
            )
        ctx.warn("no data was given: weights were rounded by what the batch norms tell of inputs")
        layers = rounder.without_data()
    else:
        layers = _with_data(rounder, ctx, job, ctx.calibration)
    names = [conv.node.name for conv in convs]
    before = node_outputs(gm, names, ctx.example_for(gm))
    for conv in convs:
        done = layers[conv.node]
        replace_by_packed(gm, conv, done, job.settings.rounding)
        kind = done.rounded.scheme
        cost = "" if done.damage is None else f", damage {done.damage:.2g}"
        made = f"{kind.kind}, {kind.bits} bits, {kind.granularity}; error {done.error:.2g}{cost}"
        ctx.rewrote(conv.node, made)
    gm.recompile()
    after = node_outputs(gm, names, ctx.example_for(gm))
    for conv in convs:
        name = conv.node.name
        if layer := QuantizedLayer.on(conv.node):
            replace(layer, sqnr_db=sqnr_db([before[name]], [after[name]])).put(conv.node)
    return tuple(write_plan_line(conv.target, rounder.plan[conv.node]) for conv in convs)


def _with_data(
    rounder: Rounder, ctx: Context, job: PackJob, images: Callable[[], Iterable[Tensor]]
) -> dict[fx.Node, RoundedLayer]:
    """Choose the plan if there is a budget, and round by it."""
    gm, convs = rounder.gm, rounder.convs
    some = [image.half() for image in islice(images(), min(job.images, affordable_images(gm)))]
    inputs = LayerInputs(gm, convs, some, ctx.form, ctx.progress, ctx.seed, ctx.cache)
    rounder.cache = ctx.cache
    if job.budget and not job.plan:
        options = measure_sensitivities(rounder, inputs, job.budget)
        chosen = choose_schemes(rounder, options, job.budget, ctx.original, ctx.agreement, inputs)
        rounder.plan = {o.node: c.scheme for o, c in zip(options, chosen, strict=True)}
        if not job.budget.spare:
            for line in format_plan(options, chosen):
                ctx.progress.note(line)
    return rounder.with_data(inputs)


def packable_convolutions(
    gm: fx.GraphModule, ctx: Context, skip: tuple[str, ...] = ()
) -> list[Call[nn.Conv2d]]:
    """List the convolutions to pack, in graph order; record why others stay in float."""
    found = []
    for each in calls(gm, WEIGHTED):
        if why := find_float_reason(each, skip):
            ctx.skipped(each.node, why)
        elif callers(gm, each.target) > 1:
            ctx.skipped(each.node, f"{each.target} is called from more than one place")
        else:
            found.append(each)
    return found
