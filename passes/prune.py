"""prune: remove channels that matter least, and correct what reads them.

1. Channels that additions, concatenations, splits and depthwise convolutions tie together go
   together (`yqc.graph.channel_groups`); those whose number is fixed stay, with a reason.
2. A criterion scores each group over all its members. `auto` takes `reconstruction` or `l2`,
   whichever comes closer to the graph after correction: on calibration images, or without data on
   seeded noise, where the first does far less damage to real pictures, too.
3. `ratio` says how much goes. Without it, prune takes the most that keeps the agreement with the
   float model; without data, only what weights and batch norms show to be nearly free.
4. After removal the weights that read the changed tensors are corrected by least squares on
   calibration images, or on seeded noise without data, and the means of batch norms with them.
5. With data, and no `recover` later in the pipeline, a bounded recovery ends it.
"""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import fx

from yqc import Context, Pass
from yqc.errors import PassError
from yqc.graph.channels.groups import channel_groups, dependencies
from yqc.graph.channels.sets import Block, Channels
from yqc.pipeline.options import Duration
from yqc.pruning.search import FIRST, FREE, Choice, most, nearly_free
from yqc.pruning.solve import Limits
from yqc.pruning.surgery import remove
from yqc.pruning.trials import DATA, Criterion, Job, Trial, Wishes
from yqc.training import Plan, distill

if TYPE_CHECKING:
    import networkx as nx

RECOVERY = Duration(300)


@dataclass(frozen=True)
class Prune(Pass):
    """Remove the channels that matter least."""

    name: ClassVar[str] = "prune"
    trains: ClassVar[bool] = True

    ratio: float | None = None
    """Share to remove, above 0 and below 1; by default as much as keeps the agreement."""
    of: Literal["params", "channels", "macs"] = "params"
    """What the ratio is a share of; of macs, groups keep multiples of 16 channels if they can."""
    criterion: Criterion = "auto"
    """How channels are scored; auto takes reconstruction or l2, whichever measures better."""
    scope: Literal["global", "layer"] = "global"
    """Compare channels over the whole graph, or take the same share of every group."""
    agreement: float = 0.97
    """What is kept, where no ratio is given: AP50 against the float model's detections."""
    round_to: int = 8
    """What stays of a group is a multiple of this; less in groups under 32 channels."""
    max_per_layer: float = 0.9
    """At most this share of a group goes."""
    min_channels: int = 4
    """At least so many channels of a group stay."""
    keep: tuple[str, ...] = ()
    """Modules whose channels stay: their paths, with * as a wildcard."""
    only: tuple[str, ...] = ()
    """Modules whose channels may go: their paths, with * as a wildcard; all by default."""
    recover: Duration = RECOVERY
    """How long to train afterwards, where data is given and no recover follows; 0 for not."""
    recover_steps: int | None = None
    """Batches of 4 of that training instead of a time; the same on every machine."""

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise ValueError(f"ratio must be above 0 and below 1, not {self.ratio:g}")
        if not 0 < self.agreement <= 1:
            raise ValueError(f"agreement must be above 0 and at most 1, not {self.agreement:g}")
        if not 0 < self.max_per_layer <= 1:
            raise ValueError(
                f"max_per_layer must be above 0 and at most 1, not {self.max_per_layer:g}"
            )
        for name in ("round_to", "min_channels", "recover_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or above, not {value}")

    def needs(self) -> frozenset[str]:
        return frozenset({"batch-norm"}) if self.criterion == "bn-scale" else frozenset()

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        require_float(gm)
        if self.criterion in DATA and ctx.calibration is None:
            raise PassError(f"criterion={self.criterion} needs images; give some with --data")
        job = self.job(gm, ctx)
        for block in job.channels.blocks:
            if block.pin:
                ctx.skipped(maker(gm, job.channels, block), block.pin)
        choice = self.decide(job)
        if choice.trial is None:
            ctx.warn(f"prune: nothing was removed: {self.reason(choice, ctx)}")
            return
        adopt(gm, choice.trial, job.channels, ctx)
        if choice.ratio is not None and choice.criterion != "variance":
            criterion = self.criterion if ctx.calibration is None else choice.criterion
            ctx.chose(replace(self, ratio=choice.ratio, criterion=criterion))
        trained = self.train(gm, choice, ctx)
        removed = f"{choice.trial.removed:.1%} of {self.of} removed by {choice.criterion}"
        ctx.warn(f"prune: {removed}: {self.reason(choice, ctx)}{trained}")

    def explain(self, gm: fx.GraphModule, ctx: Context) -> list[str]:
        """List the dependencies of channels, one a line; the reason beside what is pinned."""
        job = self.job(gm, ctx)
        for block in job.channels.blocks:
            if block.pin:
                ctx.skipped(maker(gm, job.channels, block), block.pin)
        return dependencies(job.channels)

    def drawing(self, gm: fx.GraphModule, ctx: Context) -> "nx.Graph[str]":  # noqa: ARG002
        """Return the groups of channels as a networkx graph."""
        return channel_groups(gm)

    def job(self, gm: fx.GraphModule, ctx: Context) -> Job:
        """Look at a graph's channels under the options."""
        limits = Limits(self.round_to, self.max_per_layer, self.min_channels)
        return Job(gm, ctx, Wishes(self.of, self.scope, limits, self.keep, self.only))

    def decide(self, job: Job) -> Choice:
        """Choose what goes, and by which criterion."""
        ratio, criterion = self.ratio, self.criterion
        if ratio is not None:
            if criterion == "auto":
                criterion = job.best(ratio)
            trial = job.trial(job.choose(criterion, ratio))
            return Choice(trial, criterion, job.agreement(trial), ratio)
        if job.ctx.calibration is None:
            return nearly_free(job)
        criterion = job.best(FIRST) if criterion == "auto" else criterion
        return most(job, criterion, self.agreement)

    def reason(self, choice: Choice, ctx: Context) -> str:
        """Say why so much, and what it did."""
        if self.ratio is None and ctx.calibration is None:
            return (
                "without data, only channels go that by weights and batch norms carry at most "
                f"{FREE:.1%} of what reads them; give --data to remove more safely"
            )
        if self.ratio is None:
            reached = "" if choice.agreement is None else f", reached {choice.agreement:.3f}"
            return f"the most that keeps the agreement at {self.agreement:g}{reached}"
        if choice.agreement is None:
            noisy = choice.trial is not None and choice.trial.error is not None
            where = "on seeded noise" if noisy else "by batch norms"
            return f"corrected {where}, the damage is not measured; give --data"
        said = f"the agreement with the float model is {choice.agreement:.3f} after correction"
        low = choice.agreement < self.agreement and "recover" not in ctx.upcoming
        return f"{said} (below {self.agreement:g}: add recover)" if low else said

    def train(self, gm: fx.GraphModule, choice: Choice, ctx: Context) -> str:
        """End with a bounded recovery, unless the pipeline names one; say what it did."""
        if "recover" in ctx.upcoming or ctx.original is None or not ctx.train:
            return ""
        if not self.recover and self.recover_steps is None:
            return ""
        before = copy.deepcopy(gm.state_dict())
        seconds = None if self.recover_steps else float(self.recover)
        plan = Plan(steps=self.recover_steps, seconds=seconds, seed=ctx.seed)
        done = distill(gm, ctx.original, ctx.train, plan, ctx)
        chosen = ctx.records.chosen
        own = chosen if isinstance(chosen, Prune) else self
        ctx.chose(replace(own, recover_steps=done.planned, recover=RECOVERY))
        if done.problem:
            return f"; {done.steps} steps of recovery: {done.problem}"
        after = None if ctx.agreement is None else ctx.agreement(gm)
        if after is None or choice.agreement is None:
            return f", {done.steps} steps of recovery followed"
        if after < min(choice.agreement, self.agreement):
            gm.load_state_dict(before)
            return f"; {done.steps} steps of recovery brought it to {after:.3f} and were undone"
        return f", {after:.3f} after {done.steps} steps of recovery"


def require_float(gm: fx.GraphModule) -> None:
    """Raise a PassError if a graph is quantized or about to be."""
    for node in gm.graph.nodes:
        kind = type(gm.get_submodule(str(node.target))).__name__ if node.op == "call_module" else ""
        if kind == "Observer" or str(node.target).startswith("yqc."):
            raise PassError(f"{node} belongs to a quantized graph; put prune before int8")


def maker(gm: fx.GraphModule, channels: Channels, block: Block) -> fx.Node:
    """Return a node that makes the channels of a group."""
    targets = {channels.slots[place].target for place, _ in block.places}
    found = (n for n in gm.graph.nodes if n.op == "call_module" and str(n.target) in targets)
    return next(found, gm.graph.output_node())


def adopt(gm: fx.GraphModule, trial: Trial, channels: Channels, ctx: Context) -> None:
    """Make a graph what a trial is."""
    remove(gm, channels, trial.keep)
    for path in {str(n.target) for n in gm.graph.nodes if n.op == "call_module"}:
        gm.set_submodule(path, trial.gm.get_submodule(path))
    for block in channels.blocks:
        stay = int(trial.keep[block.first : block.first + block.count].sum())
        if stay < block.count:
            ctx.rewrote(maker(gm, channels, block), f"{block.count} channels -> {stay}")
