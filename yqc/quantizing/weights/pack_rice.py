"""Pack the convolutions of a graph in codes of variable length, within a budget."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from torch import fx, nn

from yqc.errors import PassError
from yqc.graph import Call, propagate
from yqc.graph.compare import node_outputs, parameter_count, sqnr_db
from yqc.pipeline.base import Context
from yqc.quant.marks import QuantizedLayer
from yqc.quantizing.as_convolutions import write_as_convolutions
from yqc.quantizing.weights.inputs import LayerInputs, affordable_images
from yqc.quantizing.weights.options import RiceOptions
from yqc.quantizing.weights.pack import packable_convolutions
from yqc.quantizing.weights.rewrite import replace_by_rice
from yqc.quantizing.weights.rice import RiceRounder
from yqc.quantizing.weights.rice_coding import RiceCoding
from yqc.quantizing.weights.rounder import RoundingSettings

RATIO = 4.0
"""Ratio to float16 where no budget is given: that of four bits with all overheads."""
PRUNED_RATIO = 5.5
"""The same of a graph without half of its parameters or more, against those that are left. Pruned
to an eighth and then packed at 5.3x, yolov8n has 0.570 mAP on BCCD (320 px) and 0.564 before it was
packed, 0.573 unpruned; not measured at half and double."""
DRAFTS = (0.5, 10.0)
"""Mean bits between which the draft is, by which the bytes beside the codes are counted."""
ROUNDS = 3
"""Times that all layers are rounded for a number of bytes, at most: what is stored beside the codes
depends a little on them, and the second time is rarely needed."""
BITS = (2.0, 8.0)
"""Mean bits between which `max_drop` is searched: at two the detections are gone, at eight a file
is no smaller than an int8 one."""
TRIALS = 4
"""Mean bits that are tried for `max_drop`; each rounds all layers and detects anew. One more halves
the step in bytes and takes as long as each before."""


@dataclass(frozen=True)
class RiceJob:
    """What the packing pass was asked for."""

    options: RiceOptions
    settings: RoundingSettings
    images: int
    """Number of calibration images, at most."""
    measure: Callable[[fx.GraphModule], int]
    """Counts the bytes that the budget limits, of the file that a graph becomes."""


def pack_rice_layers(gm: fx.GraphModule, ctx: Context, job: RiceJob) -> None:
    """Round and pack the convolutions of a graph whose batch norms are folded, in place.

    Raises:
        PassError: the budget cannot be met, or there is no data to judge it by.
    """
    options = job.options
    if options.max_drop and (ctx.calibration is None or ctx.agreement is None):
        raise PassError("max_drop is judged on calibration images; give --data, or a ratio")
    write_as_convolutions(gm, ctx, options.skip)
    convs = packable_convolutions(gm, ctx, options.skip)
    if not convs:
        return
    rounder = _make_rounder(gm, ctx, job, convs)
    rounder.estimate()
    weights = sum(conv.module.weight.numel() for conv in convs)
    if options.max_drop:
        coding = _by_drop(rounder, ctx, options.max_drop, weights)
    elif options.bits:
        coding = rounder.round(int(options.bits * weights / 8))
    else:
        coding = _by_size(rounder, ctx, job, weights)
    _replace_layers(gm, ctx, convs, coding)
    mean = 8 * coding.bytes / weights
    ctx.says(f"{weights} weights in {mean:.2f} bits each in the mean, in codes of variable length")


def _make_rounder(
    gm: fx.GraphModule, ctx: Context, job: RiceJob, convs: Sequence[Call[nn.Conv2d]]
) -> RiceRounder:
    inputs = None
    if ctx.calibration is None:
        ctx.warn("no data was given: weights were rounded by what the batch norms tell of inputs")
    else:
        count = min(job.images, affordable_images(gm))
        images = [image.half() for image in islice(ctx.calibration(), count)]
        inputs = LayerInputs(gm, convs, images, ctx.form, ctx.progress, ctx.seed, ctx.cache)
    return RiceRounder(gm, convs, job.settings, ctx.progress, inputs, ctx.cache)


def _by_size(rounder: RiceRounder, ctx: Context, job: RiceJob, weights: int) -> RiceCoding:
    """Round for a budget of bytes, of which a draft measures those beside the codes."""
    options, gm = job.options, rounder.gm
    total = options.bytes or _bytes_by_ratio(gm, ctx.original or gm, options.ratio_vs_fp16)
    low, high = (int(bits * weights / 8) for bits in DRAFTS)
    coding = rounder.nearest(min(max(low, total), high))
    for _ in range(ROUNDS):
        beside = job.measure(_packed_copy(rounder, coding, options.skip)) - coding.bytes
        if coding.rounded and coding.bytes + beside <= total:
            return coding
        if total - beside < low:
            break
        coding = rounder.round(total - beside)
    beside = job.measure(_packed_copy(rounder, coding, options.skip)) - coding.bytes
    if coding.rounded and coding.bytes + beside <= total:
        return coding
    raise PassError(
        f"the budget is {total} bytes, and what is stored beside the codes takes {beside}; "
        "allow more bytes, or prune first"
    )


def _bytes_by_ratio(gm: fx.GraphModule, original: fx.GraphModule, ratio: float) -> int:
    """Return the bytes that a ratio to float16 allows; the default one if it is 0."""
    before, left = parameter_count(original), parameter_count(gm)
    if not ratio and 2 * left <= before:
        return int(2 * left / PRUNED_RATIO)
    return int(2 * before / (ratio or RATIO))


def _packed_copy(rounder: RiceRounder, coding: RiceCoding, skip: tuple[str, ...]) -> fx.GraphModule:
    """Return a copy of the graph with packed weights."""
    trial = copy.deepcopy(rounder.gm)
    by_name = {node.name: (layer, coding.low[node]) for node, layer in coding.layers.items()}
    for conv in packable_convolutions(trial, Context(), skip):
        layer, low = by_name[conv.node.name]
        replace_by_rice(trial, conv, layer.weight, (low, coding.planes), layer.bias, None)
    trial.recompile()
    propagate(trial)
    return trial


def _by_drop(rounder: RiceRounder, ctx: Context, drop: float, weights: int) -> RiceCoding:
    """Find the fewest bits whose graph agrees well enough with the float one, by bisection.

    Where not even the most bits do, these are taken, with a warning.
    """
    low, high = BITS
    best: RiceCoding | None = None
    for _ in range(TRIALS):
        middle = (low + high) / 2
        coding = rounder.round(int(middle * weights / 8))
        if _lost_agreement(rounder, ctx, coding) <= drop:
            best, high = coding, middle
        else:
            low = middle
    if best is not None:
        return best
    finest = rounder.round(int(BITS[1] * weights / 8))
    lost = _lost_agreement(rounder, ctx, finest)
    if lost > drop:
        ctx.warn(
            f"max_drop is {drop:.2%}, and at {BITS[1]:g} bits a weight, the most that are tried, "
            f"the agreement with the float model still falls by {lost:.2%}"
        )
    return finest


def _lost_agreement(rounder: RiceRounder, ctx: Context, coding: RiceCoding) -> float:
    """Return by how much the rounded graph's agreement with the float one is below 1.

    Raises:
        PassError: the float graph finds nothing that could be compared.
    """
    reached = ctx.agreement(_with_rounded(rounder, coding)) if ctx.agreement else None
    if reached is None:
        raise PassError(
            "max_drop cannot be judged: the float model finds nothing in the calibration "
            "images; give other images, or a ratio"
        )
    return 1.0 - reached


def _with_rounded(rounder: RiceRounder, coding: RiceCoding) -> fx.GraphModule:
    """Return a copy of the graph with rounded weights in float."""
    trial = copy.deepcopy(rounder.gm)
    for conv in rounder.convs:
        module, layer = trial.get_submodule(conv.target), coding.layers[conv.node]
        module.weight = nn.Parameter(layer.weight.weight, requires_grad=False)
        if layer.bias is not None:
            module.bias = nn.Parameter(layer.bias.clone(), requires_grad=False)
    return trial


def _replace_layers(
    gm: fx.GraphModule, ctx: Context, convs: Sequence[Call[nn.Conv2d]], coding: RiceCoding
) -> None:
    """Replace the convolutions by packed ones; record what each stores and how it changed."""
    names = [conv.node.name for conv in convs]
    before = node_outputs(gm, names, ctx.example_for(gm))
    for conv in convs:
        layer, low = coding.layers[conv.node], coding.low[conv.node]
        code = (low, coding.planes)
        replace_by_rice(gm, conv, layer.weight, code, layer.bias, layer.damage)
        ctx.rewrote(conv.node, _describe(conv.node, layer.error, layer.damage))
    gm.recompile()
    after = node_outputs(gm, names, ctx.example_for(gm))
    for conv in convs:
        name = conv.node.name
        if layer_mark := QuantizedLayer.on(conv.node):
            replace(layer_mark, sqnr_db=sqnr_db([before[name]], [after[name]])).put(conv.node)


def _describe(node: fx.Node, error: float, damage: float | None) -> str:
    """Return what became of a layer: its mean bits, error and damage."""
    mark = QuantizedLayer.on(node)
    bits = 0.0 if mark is None else mark.weight_bits
    cost = "" if damage is None else f", damage {damage:.2g}"
    return f"rice, {bits:g} bits; error {error:.2g}{cost}"
