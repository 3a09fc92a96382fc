"""Calibration: images through the graph once, for the statistics of all observed tensors.

The first few images run with gradients, for the relevance of values; all of them are counted.
"""

from collections.abc import Collection, Iterable, Mapping, Sized
from itertools import islice

import torch
from torch import Tensor, fx

from yqc.errors import PassError
from yqc.graph.calls import Call
from yqc.graph.edit import extract_up_to
from yqc.graph.memory import as_weights, channels_last
from yqc.pipeline.base import Context
from yqc.quant.observer import Observer
from yqc.quant.value_relevance import ValueRelevance
from yqc.quantizing.bias_error import ReferenceOutputs
from yqc.quantizing.relevance import measure_node_relevance


def gather_statistics(
    gm: fx.GraphModule,
    observers: Collection[Call[Observer]],
    images: Iterable[Tensor],
    ctx: Context,
    *,
    with_gradients: int = 0,
    relevance: Mapping[fx.Node, tuple[ValueRelevance, fx.Node]] | None = None,
    outputs: Mapping[fx.Node, ReferenceOutputs] | None = None,
) -> None:
    """Run images through the graph while the observers keep statistics.

    Args:
        gm: the graph.
        observers: those that keep statistics; they begin from nothing.
        images: float32 [1, 3, H, W] each.
        ctx: has the layout of the graph's output and the seed; shows progress.
        with_gradients: number of images, the first ones, that relevance and outputs are measured
            on.
        relevance: for nodes whose values' relevance is wanted, where it is added up, and the node
            whose gradient counts for it.
        outputs: for convolutions whose outputs are wanted, where they are kept.

    Raises:
        PassError: a tensor holds values that are not finite; the message names its node.
    """
    relevance, outputs = relevance or {}, outputs or {}
    read = {*relevance, *(place for _, place in relevance.values()), *outputs}
    for each in observers:
        each.module.start()
    count = len(images) if isinstance(images, Sized) else 0
    with channels_last(gm), ctx.progress.task("calibrating", count) as advance:
        laid = (as_weights(image, gm) for image in images)
        first = islice(laid, with_gradients)
        for found in measure_node_relevance(gm, read, first, ctx.layout, ctx.seed):
            check_observed_finite(observers)
            for node, (kept, place) in relevance.items():
                kept.add(found[node][0], found[place][1])
            for node, output in outputs.items():
                output.add(*found[node])
            advance(1)
        with torch.inference_mode():
            part = extract_up_to(gm, (each.node for each in observers))
            for image in laid:
                part(image)
                check_observed_finite(observers)
                advance(1)


def check_observed_finite(observers: Iterable[Call[Observer]]) -> None:
    """Raise a PassError if an observer has met values that are not finite."""
    for each in observers:
        histogram = each.module.histogram
        if histogram is not None and not histogram.finite:
            source = each.node.all_input_nodes[0]
            raise PassError(
                f"node {source} computes values that are not finite on the calibration images; "
                "the checkpoint is damaged, or its training diverged"
            )
