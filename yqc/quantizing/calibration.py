"""What calibration images tell of the tensors that observers mark, gathered in one pass.

The first few images go through the graph with gradients, so that they also tell how much values
matter; all are counted.
"""

from collections.abc import Collection, Iterable, Mapping, Sized
from itertools import islice

import torch
from torch import Tensor, fx

from yqc.errors import PassError
from yqc.graph.calls import Call
from yqc.graph.edit import upto
from yqc.graph.memory import as_weights, channels_last
from yqc.pipeline.base import Context
from yqc.quant.observer import Observer
from yqc.quant.relevance import relevance
from yqc.quant.value_relevance import Worth
from yqc.quantizing.bias_error import Outputs


def gather(
    gm: fx.GraphModule,
    observers: Collection[Call[Observer]],
    images: Iterable[Tensor],
    ctx: Context,
    *,
    with_gradients: int = 0,
    worth: Mapping[fx.Node, tuple[Worth, fx.Node]] | None = None,
    outputs: Mapping[fx.Node, Outputs] | None = None,
) -> None:
    """Send images through the graph while the observers keep statistics.

    Args:
        gm: the graph.
        observers: those that are to keep statistics; they begin from nothing.
        images: float32 [1, 3, H, W] each.
        ctx: tells the layout of the graph's output; shows progress.
        with_gradients: how many images tell how much values matter, too.
        worth: nodes whose values' worth is wanted: where it is kept, and the node at whose place
            the values matter.
        outputs: convolutions whose relevant outputs are wanted, and where they are kept.

    Raises:
        PassError: a tensor holds values that are not finite; the message names its node.
    """
    worth, outputs = worth or {}, outputs or {}
    read = {*worth, *(place for _, place in worth.values()), *outputs}
    for each in observers:
        each.module.start()
    count = len(images) if isinstance(images, Sized) else 0
    with channels_last(gm), ctx.progress.task("calibrating", count) as advance:
        laid = (as_weights(image, gm) for image in images)
        first = islice(laid, with_gradients)
        for found in relevance(gm, read, first, ctx.layout, ctx.seed):
            finite(observers)
            for node, (kept, place) in worth.items():
                kept.add(found[node][0], found[place][1])
            for node, output in outputs.items():
                output.add(*found[node])
            advance(1)
        with torch.inference_mode():
            part = upto(gm, (each.node for each in observers))
            for image in laid:
                part(image)
                finite(observers)
                advance(1)


def finite(observers: Iterable[Call[Observer]]) -> None:
    """Raise if an observer has met values that are not finite."""
    for each in observers:
        histogram = each.module.histogram
        if histogram is not None and not histogram.finite:
            source = each.node.all_input_nodes[0]
            raise PassError(
                f"node {source} computes values that are not finite on the calibration images; "
                "the checkpoint is damaged, or its training diverged"
            )
