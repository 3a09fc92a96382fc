"""bias-correct: measure the mean error of each convolution, to be subtracted from its bias.

1. With data, a few calibration images go through the graph twice: in float, which `calibrate` has
   done already as a rule, and with rounded weights and activations. At each convolution, in graph
   order, the mean error of every output channel is measured and subtracted at once, so that later
   layers see corrected inputs (empirical bias correction, Nagel et al., Data-Free Quantization,
   ICCV 2019, appendix D).
2. The mean weights every position by its relevance to the detections (`yqc.quant.relevance`): the
   plain mean is one over background, and moves the scores of objects the wrong way.
3. Where images disagree a correction is unreliable, so a correction b with variance v between
   images is shrunk to b * b^2 / (b^2 + v).
4. Weights that are packed already were corrected as they were rounded; with data, the error of
   rounding their inputs is subtracted as well.
5. Without data, from the input's means E[x] by the batch norms (section 4.2 there):

    E[W_q * x] - E[W * x] = (sum over the kernel of W_q - W) E[x]
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc import Call, Context, Pass, State, call, callers, calls
from yqc.graph import as_weights, channels_last, compute_node, run_graph
from yqc.pipeline import Count
from yqc.quant import FULL_RANGE, Int8Weights, Observer, fake_quantize_weight
from yqc.quantizing import (
    correctable_convolutions,
    is_packed,
    measure_outputs,
    stored_bias,
    take_outputs,
)


@dataclass(frozen=True)
class BiasCorrect(Pass):
    """Measure the mean error of each convolution, to be subtracted from its bias."""

    name: ClassVar[str] = "bias-correct"
    reads_images: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({State.CALIBRATED, State.FLOAT32})
    keeps_numbers: ClassVar[bool] = True

    images: Count = 8
    """Number of calibration images to measure on; all of them are in memory at once."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        chosen: dict[fx.Node, Int8Weights] = {}
        for conv in calls(gm, nn.Conv2d):
            if (mark := Int8Weights.on(conv.node)) is None or mark.scale is None:
                continue
            if why := self.obstacle(gm, conv):
                ctx.skipped(conv.node, why)
            else:
                chosen[conv.node] = mark
        if ctx.calibration:
            chosen |= {node: Int8Weights() for node in self.packed(gm, ctx)}
        if not chosen:
            return
        measure = self.measure_on_images if ctx.calibration else self.derive_from_batch_norms
        for node, error in measure(gm, ctx, chosen).items():
            replace(chosen[node], mean_error=error).put(node)
            ctx.rewrote(node, f"bias to move by up to {float(error.abs().max()):.3g}")

    def obstacle(self, gm: fx.GraphModule, conv: Call[nn.Conv2d]) -> str | None:
        """Why this convolution's bias must stay, or None if it may be corrected."""
        if callers(gm, conv.target) > 1:
            return f"{conv.target} is called from more than one place"
        return None

    def packed(self, gm: fx.GraphModule, ctx: Context) -> list[fx.Node]:
        """List the convolutions of packed weights whose inputs are to be rounded."""
        found = []
        for node in filter(is_packed, correctable_convolutions(gm)):
            if stored_bias(node) is None:
                ctx.skipped(node, "it has no bias to correct")
            else:
                found.append(node)
        return found

    def measure_on_images(
        self, gm: fx.GraphModule, ctx: Context, chosen: dict[fx.Node, Int8Weights]
    ) -> dict[fx.Node, Tensor]:
        """Measure the mean errors on calibration images: float32 [O] for each convolution."""
        count, errors = self.images, dict[fx.Node, Tensor]()
        with channels_last(gm), ctx.progress.task("correcting biases", count + 1) as advance:
            stream = ctx.calibration() if ctx.calibration else ()
            images = [as_weights(image, gm) for image in islice(stream, count)]
            wanted = take_outputs(gm, chosen, len(images))
            if wanted is None:
                wanted = measure_outputs(gm, chosen, images, ctx)
            advance(count)

            def correct(node: fx.Node, values: Mapping[fx.Node, Any]) -> Tensor:
                y = convolve_rounded(gm, node, chosen[node], values)
                errors[node] = wanted.pop(node).error(y)
                return y.sub_(errors[node].view(1, -1, 1, 1))

            with rounding(calls(gm, Observer)), torch.no_grad():
                run_graph(gm, [torch.cat(images)], replace=dict.fromkeys(chosen, correct))
            advance(1)
        return errors

    def derive_from_batch_norms(
        self, gm: fx.GraphModule, ctx: Context, chosen: dict[fx.Node, Int8Weights]
    ) -> dict[fx.Node, Tensor]:
        """Derive the mean errors from the means that batch norms gave the observers."""
        errors = {}
        for node, mark in chosen.items():
            observer = call(gm, node.all_input_nodes[0], Observer)
            conv = call(gm, node, nn.Conv2d)
            if conv is None or mark.scale is None:
                continue
            if observer is None or not observer.module.mean.any():
                ctx.skipped(node, "nothing is known of the mean of its input")
                continue
            errors[node] = mean_error(conv.module, mark.scale, observer.module.mean, mark.most)
        return errors


@contextmanager
def rounding(observers: Iterable[Call[Observer]]) -> Iterator[None]:
    """Let observers quantize what goes through them for a while."""
    modules = [observer.module for observer in observers]
    for module in modules:
        module.rounding = True
    try:
        yield
    finally:
        for module in modules:
            module.rounding = False


def convolve_rounded(
    gm: fx.GraphModule, node: fx.Node, mark: Int8Weights, values: Mapping[fx.Node, Any]
) -> Tensor:
    """Compute a convolution with rounded weights; packed ones are rounded already."""
    conv = call(gm, node, nn.Conv2d)
    if conv is None or mark.scale is None:
        packed: Tensor = compute_node(gm, node, values)
        return packed
    module, x = conv.module, values[node.all_input_nodes[0]]
    weight = fake_quantize_weight(module.weight, mark.scale, mark.most)
    return F.conv2d(
        x, weight, module.bias, module.stride, module.padding, module.dilation, module.groups
    )


def mean_error(conv: nn.Conv2d, scale: Tensor, mean: Tensor, most: int = FULL_RANGE) -> Tensor:
    """Return the mean error of each output channel, float32 [O], for input means [I].

    Padding is left out of the mean.
    """
    rounded = fake_quantize_weight(conv.weight, scale, most)
    error = (rounded - conv.weight.detach()).sum((2, 3))
    groups, per = conv.groups, conv.out_channels // conv.groups
    inputs = mean.view(groups, 1, -1).expand(-1, per, -1).reshape(error.shape)
    return (error * inputs).sum(1)
