"""Calibration: images through the graph once, for the statistics of all observed tensors.

The first few images run with gradients, for the relevance of values; all of them are counted.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sized
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, fx

from yqc.errors import PassError
from yqc.graph.calls import Call
from yqc.graph.compare import fingerprint
from yqc.graph.edit import extract_up_to
from yqc.graph.memory import as_weights, channels_last
from yqc.pipeline.base import Cache, Context, Pause
from yqc.quant.histogram import Histogram
from yqc.quant.observer import Observer
from yqc.quant.value_relevance import ValueRelevance
from yqc.quantizing.bias_error import ReferenceOutputs
from yqc.quantizing.relevance import measure_node_relevance

SETTLED = 8
"""Images after which histograms count what they have gathered: so many fill what they count at a
time, so it costs nothing. A calibration can be resumed there; double loses twice as many images."""


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
        ctx: has the form of the graph's outputs and the seed; shows progress.
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
    state = CalibrationState(
        {each.node.name: each.module.histogram for each in observers if each.module.histogram},
        {node.name: found.seen for node, (found, _) in relevance.items()},
        {node.name: found for node, found in outputs.items()},
        torch.Generator().manual_seed(ctx.seed),
    )
    name = state.name(gm, with_gradients) if ctx.cache else ""
    done, pause = state.load(ctx.cache, name) if ctx.cache else 0, Pause()

    def count(step: int) -> None:
        """Count an image; at some, all statistics are counted, and kept for a resumed compile."""
        nonlocal done
        check_observed_finite(observers)
        done += 1
        advance(1)
        if ctx.cache and done % step == 0:
            state.settle()
            if pause.is_over():
                with pause.measured():
                    state.save(ctx.cache, name, done)

    total = len(images) if isinstance(images, Sized) else 0
    with channels_last(gm), ctx.progress.task("calibrating", total) as advance:
        advance(done)
        laid = (as_weights(image, gm) for image in islice(images, done, None))
        first = islice(laid, max(0, with_gradients - done))
        measured = measure_node_relevance(gm, read, first, ctx.form, generator=state.generator)
        for found in measured:
            for node, (kept, place) in relevance.items():
                kept.add(found[node][0], found[place][1])
            for node, output in outputs.items():
                output.add(*found[node])
            count(1)
        with torch.inference_mode():
            part = extract_up_to(gm, (each.node for each in observers))
            for image in laid:
                part(image)
                count(SETTLED)


@dataclass
class CalibrationState:
    """What a calibration has gathered, as it is kept for a resumed compile."""

    observed: Mapping[str, Histogram]
    relevance: Mapping[str, Histogram]
    outputs: Mapping[str, ReferenceOutputs]
    generator: torch.Generator
    """Of the projections that relevance is measured with."""

    def name(self, gm: fx.GraphModule, with_gradients: int) -> str:
        """Name the entry in the cache."""
        parts = [sorted(one) for one in (self.observed, self.relevance, self.outputs)]
        about = f"{fingerprint(gm)} {with_gradients} {parts}"
        return f"calibration-{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}"

    def settle(self) -> None:
        """Count what histograms have gathered: sums are then the same with and without a kill."""
        for histogram in (*self.observed.values(), *self.relevance.values()):
            histogram.state()

    def save(self, cache: Cache, name: str, done: int) -> None:
        """Keep the statistics of the first `done` images."""
        tensors = {"generator": self.generator.get_state()}
        numbers: dict[str, list[float]] = {}
        for prefix, part in (("observed", self.observed), ("relevance", self.relevance)):
            for key, histogram in part.items():
                tensors[f"{prefix}.{key}"], numbers[f"{prefix}.{key}"] = histogram.state()
        for key, output in self.outputs.items():
            for i, (weight, total) in enumerate(zip(output.weights, output.sums, strict=True)):
                tensors |= {f"weights.{key}.{i}": weight, f"sums.{key}.{i}": total}
        cache.save(name, tensors, {"done": done, "numbers": numbers})

    def load(self, cache: Cache, name: str) -> int:
        """Undo `save`; return the number of images, 0 if nothing is kept."""
        if (kept := cache.load(name)) is None:
            return 0
        tensors, about = kept
        self.generator.set_state(tensors["generator"])
        for prefix, part in (("observed", self.observed), ("relevance", self.relevance)):
            for key, histogram in part.items():
                histogram.restore(tensors[f"{prefix}.{key}"], about["numbers"][f"{prefix}.{key}"])
        for key, output in self.outputs.items():
            count = sum(name.startswith(f"sums.{key}.") for name in tensors)
            output.weights[:] = [tensors[f"weights.{key}.{i}"] for i in range(count)]
            output.sums[:] = [tensors[f"sums.{key}.{i}"] for i in range(count)]
        return int(about["done"])


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
