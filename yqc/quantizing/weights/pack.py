"""What the packing passes share: choose the layers, round them, put them into the graph."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import islice
from typing import Any, Protocol

from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import Call, callers, calls, role
from yqc.graph.compare import fingerprint, node_outputs, sqnr_db
from yqc.progress import Progress
from yqc.quant.relevance import Layout
from yqc.quant.weights.rounded import Keeper, Outcome
from yqc.quant.weights.scheme import Scheme
from yqc.quantizing.weights.allocate import read_plan, write_plan
from yqc.quantizing.weights.budget import Budget, choose, sensitivities, table
from yqc.quantizing.weights.inputs import Sight, affordable
from yqc.quantizing.weights.rewrite import put
from yqc.quantizing.weights.rounder import Rounder, Settings

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class Cache(Protocol):
    """Keeps what an interrupted compile needs to go on."""

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was kept under a name."""
        ...

    def save(self, name: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Keep something under a name."""
        ...


class Surroundings(Protocol):
    """The part of a pass's context that packing needs."""

    calibration: Callable[[], Iterable[Tensor]] | None
    original: fx.GraphModule | None
    agreement: Callable[[fx.GraphModule], float | None] | None
    layout: Layout | None
    cache: Cache | None
    seed: int
    progress: Progress

    def example_for(self, gm: fx.GraphModule) -> Tensor:
        """Return an example input."""
        ...

    def rewrote(self, node: fx.Node, what: str) -> None:
        """Record a rewrite."""
        ...

    def skipped(self, node: fx.Node, why: str) -> None:
        """Record a refusal."""
        ...

    def warn(self, message: str) -> None:
        """Record a sentence for the user."""
        ...


@dataclass(frozen=True)
class Job:
    """What a packing pass asks for."""

    scheme: Scheme
    """How weights are stored, where the plan says nothing."""
    settings: Settings
    images: int
    """How many calibration images to look at, at most."""
    skip: tuple[str, ...] = ()
    """Module paths to leave alone, with * as a wildcard."""
    plan: tuple[str, ...] = ()
    """Schemes of single layers, as `write_plan` prints them."""
    budget: Budget | None = None
    """Choose the plan for this budget."""


def pack_layers(gm: fx.GraphModule, ctx: Surroundings, job: Job) -> tuple[str, ...]:
    """Round and pack the convolutions of a graph, in place.

    Args:
        gm: the graph, batch norms folded.
        ctx: calibration images, and where to record what is done.
        job: how.

    Returns:
        The plan: the scheme of each layer.

    Raises:
        PassError: the budget cannot be kept, or there is no data to choose with.
    """
    convs = packable(gm, ctx, job.skip)
    if not convs:
        return ()
    given = dict(map(read_plan, job.plan))
    plan = {c.node: given.get(c.target, job.scheme) for c in convs}
    rounder = Rounder(gm, convs, plan, job.settings, ctx.progress)
    if ctx.calibration is None:
        if job.budget and not job.budget.spare:
            raise PassError(
                "choosing schemes by what they cost needs calibration images; give --data"
            )
        ctx.warn("no data was given: weights were rounded by what the batch norms tell of inputs")
        outcomes = rounder.without_data()
    else:
        outcomes = _with_data(rounder, ctx, job, ctx.calibration)
    names = [conv.node.name for conv in convs]
    before = node_outputs(gm, names, ctx.example_for(gm))
    for conv in convs:
        done = outcomes[conv.node]
        put(gm, conv, done, job.settings.rounding)
        kind = done.rounded.scheme
        cost = "" if done.damage is None else f", damage {done.damage:.2g}"
        made = f"{kind.kind}, {kind.bits} bits, {kind.granularity}; error {done.error:.2g}{cost}"
        ctx.rewrote(conv.node, made)
    gm.recompile()
    after = node_outputs(gm, names, ctx.example_for(gm))
    for conv in convs:
        name, layer = conv.node.name, conv.node.meta["yqc.layer"]
        ratio = sqnr_db([before[name]], [after[name]])
        conv.node.meta["yqc.layer"] = replace(layer, sqnr_db=ratio)
    return tuple(write_plan(conv.target, rounder.plan[conv.node]) for conv in convs)


def _with_data(
    rounder: Rounder, ctx: Surroundings, job: Job, images: Callable[[], Iterable[Tensor]]
) -> dict[fx.Node, Outcome]:
    """Choose the plan, if there is a budget, and round by it."""
    gm, convs = rounder.gm, rounder.convs
    some = [image.half() for image in islice(images(), min(job.images, affordable(gm)))]
    sight = Sight(gm, convs, some, ctx.layout, ctx.progress, ctx.seed)
    if job.budget and not job.plan:
        options = sensitivities(rounder, sight, job.budget)
        chosen = choose(rounder, options, job.budget, ctx.original, ctx.agreement, sight)
        rounder.plan = {o.node: c.scheme for o, c in zip(options, chosen, strict=True)}
        if not job.budget.spare:
            for line in table(options, chosen):
                ctx.progress.note(line)
    rounder.keeper = keeper(gm, rounder.plan, job.settings, ctx)
    return rounder.with_data(sight)


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


def keeper(
    gm: fx.GraphModule, plan: dict[fx.Node, Scheme], settings: Settings, ctx: Surroundings
) -> Keeper | None:
    """Return what keeps rounded layers over a kill, or None if that was not asked for."""
    if ctx.cache is None:
        return None
    about = f"{fingerprint(gm)} {sorted((n.name, str(s)) for n, s in plan.items())} {settings}"
    return CachedLayers(ctx.cache, hashlib.blake2b(about.encode(), digest_size=8).hexdigest())


class CachedLayers:
    """Keeps rounded layers in a compile's cache, one file each.

    Args:
        cache: of the compile.
        key: tells one rounding of one graph from others.
    """

    def __init__(self, cache: Cache, key: str) -> None:
        self.cache, self.key = cache, key

    def load(self, node: fx.Node, scheme: Scheme, shape: tuple[int, ...]) -> Outcome | None:
        """Return a layer that was rounded before the kill."""
        kept = self.cache.load(f"rounded-{self.key}-{node.name}")
        return None if kept is None else Outcome.restored(*kept, scheme, shape)

    def save(self, node: fx.Node, outcome: Outcome) -> None:
        """Keep a rounded layer."""
        self.cache.save(f"rounded-{self.key}-{node.name}", *outcome.parts())
