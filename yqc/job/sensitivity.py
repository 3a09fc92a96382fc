"""Measure sensitivity: the effect on the detections of quantizing one layer alone.

One calibration serves all layers. Then every image goes through the float graph once, and for each
convolution only what depends on it is computed again, with that one convolution's weights and
input rounded to eight bits. It is measured at the head's outputs (SQNR) and in the
detections (agreement with the float model's). Both show which layers mixed precision should spare
(the criterion of Wu et al., 2020, "Integer quantization for deep learning inference", section 5).
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.facts import OutputForm
from yqc.graph import calls, role
from yqc.job.layer_runs import LayerRuns
from yqc.models.source import Source
from yqc.pipeline.base import Context
from yqc.pipeline.pipeline import Pipeline
from yqc.quant import Int8Weights
from yqc.report import Sensitivity

IMAGES = 16
"""Most calibration images that are used: with more, time grows and the SQNR scatters less."""
PREPARATION = "reparam,fold-bn,dce,observe,calibrate"


@dataclass(frozen=True)
class LayerSensitivity:
    """Sensitivity of one layer."""

    name: str
    """Path of its module."""
    node: str
    role: str
    sqnr_db: float
    """At the head's outputs, over all images; infinite where nothing changes."""
    agreement: float | None
    """AP at IoU 0.5 with the float detections as the truth; None without data or detector."""


def measure_sensitivity(
    original: fx.GraphModule,
    ctx: Context,
    *,
    form: OutputForm | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Rank the convolutions by sensitivity to eight bits, the most sensitive first.

    Args:
        original: a float graph, folded or not; it is not changed.
        ctx: calibration data, whose first images are looked at, or without data the example;
            target, seed and cache; nothing is recorded in it.
        form: of the graph's output, for a detector: then detections are compared too.

    Raises:
        PassError: nothing in the graph can be quantized.
    """
    gm = copy.deepcopy(original)
    own = Context(  # the real one records nothing of this
        ctx.example,
        ctx.calibration,
        cache=ctx.cache,
        seed=ctx.seed,
        target=ctx.target,
        progress=ctx.progress,
    )
    needed = PREPARATION if calls(gm, nn.BatchNorm2d) else "observe,calibrate"
    Pipeline.parse(needed).run(gm, own, known=frozenset({"bn-folded"}))
    layers = [
        c for c in calls(gm, nn.Conv2d) if isinstance(c.node.meta.get("yqc.int8"), Int8Weights)
    ]
    if not layers:
        raise PassError("the graph has no convolution that can be quantized")
    runs = LayerRuns(gm, layers, form, ctx.cache)
    samples = list(islice(_images(ctx, gm), IMAGES))
    with torch.inference_mode(), ctx.progress.task("sensitivity", len(samples)) as advance:
        runs.measure(samples, advance)
    found = []
    with ctx.progress.task("agreement", len(layers)) as advance:
        for layer in layers:
            node = layer.node
            agreed = runs.agreement(node) if form else None
            found.append(
                LayerSensitivity(layer.target, node.name, role(node), runs.sqnr(node), agreed)
            )
            advance(1)
    return tuple(sorted(found, key=lambda one: one.sqnr_db))


def most_sensitive(gm: fx.GraphModule, ctx: Context, count: int) -> tuple[str, ...]:
    """Return the paths of the most sensitive convolutions, the most sensitive first."""
    return tuple(one.name for one in measure_sensitivity(gm, ctx)[:count])


def sensitivity_rows(source: Source, ctx: Context) -> tuple[Sensitivity, ...]:
    """Return the ranking of a detector's layers as the report has it."""
    form = source.form if ctx.calibration is not None else None
    return tuple(
        Sensitivity(
            name=one.name,
            role=one.role,
            sqnr_db=one.sqnr_db if math.isfinite(one.sqnr_db) else None,
            agreement=one.agreement,
        )
        for one in measure_sensitivity(source.gm, ctx, form=form)
    )


def _images(ctx: Context, gm: fx.GraphModule) -> Iterator[Tensor]:
    if ctx.calibration is not None:
        yield from ctx.calibration()
    else:
        yield ctx.example_for(gm)
