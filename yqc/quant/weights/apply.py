"""What the packing passes share: choose the layers, round them, put them into the graph."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from itertools import islice
from typing import Protocol

from torch import Tensor, fx, nn

from yqc.graph import Call, callers, calls, role
from yqc.progress import Progress
from yqc.quant.weights.driver import Rounder, Settings, affordable
from yqc.quant.weights.rewrite import put
from yqc.quant.weights.scheme import Scheme

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class Surroundings(Protocol):
    """The part of a pass's context that packing needs."""

    calibration: Callable[[], Iterable[Tensor]] | None
    seed: int
    progress: Progress

    def rewrote(self, node: fx.Node, what: str) -> None:
        """Record a rewrite."""
        ...

    def skipped(self, node: fx.Node, why: str) -> None:
        """Record a refusal."""
        ...

    def warn(self, message: str) -> None:
        """Record a sentence for the user."""
        ...


def pack_layers(
    gm: fx.GraphModule,
    ctx: Surroundings,
    scheme: Scheme,
    settings: Settings,
    *,
    images: int,
    skip: tuple[str, ...] = (),
) -> None:
    """Round and pack the convolutions of a graph, in place.

    Args:
        gm: the graph, batch norms folded.
        ctx: calibration images, and where to record what is done.
        scheme: how weights are stored.
        settings: how they are rounded.
        images: how many calibration images to look at, at most.
        skip: module paths to leave alone, with * as a wildcard.
    """
    convs = packable(gm, ctx, skip)
    if not convs:
        return
    plan = dict.fromkeys((c.node for c in convs), scheme)
    rounder = Rounder(gm, convs, plan, settings, ctx.progress, ctx.seed)
    if ctx.calibration is None:
        ctx.warn("no data was given: weights were rounded by what the batch norms tell of inputs")
        outcomes = rounder.without_data()
    else:
        count = min(images, affordable(gm))
        outcomes = rounder.with_data(list(islice(ctx.calibration(), count)))
    for conv in convs:
        done = outcomes[conv.node]
        put(gm, conv, done.rounded, done.bias, settings.rounding, None)
        ctx.rewrote(conv.node, f"{scheme.kind}, {scheme.bits} bits; error {done.error:.2g}")


def packable(
    gm: fx.GraphModule, ctx: Surroundings, skip: tuple[str, ...] = ()
) -> list[Call[nn.Conv2d]]:
    """List the convolutions to pack, in graph order; record why others stay as they are."""
    found = []
    for each in calls(gm, WEIGHTED):
        module = each.module
        if not isinstance(module, nn.Conv2d):
            ctx.skipped(each.node, f"{type(module).__name__} stays in float")
        elif any(fnmatch(each.target, pattern) for pattern in skip):
            ctx.skipped(each.node, "asked to skip it")
        elif role(each.node) == "head.decode":
            ctx.skipped(each.node, "the decoding stays in float")
        elif module.padding_mode != "zeros":
            ctx.skipped(each.node, f"it pads with {module.padding_mode}")
        elif callers(gm, each.target) > 1:
            ctx.skipped(each.node, f"{each.target} is called from more than one place")
        else:
            found.append(Call(each.node, each.target, module))
    return found
