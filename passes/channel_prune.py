"""channel-prune: remove the channels that matter least, and correct the weights that read them.

1. Channels that additions, concatenations, splits and depthwise convolutions tie together are
   removed together (`yqc.graph.channel_groups`); those whose number is fixed stay, with a reason.
2. A criterion scores each group over all its members. `auto` takes `reconstruction` or `l2`,
   whichever comes closer to the graph after correction: on calibration images, or without data on
   seeded noise, where the first does far less damage to real images, too.
3. `ratio` is the share to remove. Without it, the largest share is searched for that keeps the
   agreement with the float model; without data, only channels are removed that weights and batch
   norms show to be nearly free.
4. After removal the weights that read the changed tensors are corrected by least squares on
   calibration images, or on seeded noise without data, and the means of batch norms with them.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import fx

from yqc import Context, Pass, State
from yqc.errors import PassError
from yqc.graph import channel_groups
from yqc.pipeline import Stage, Workload
from yqc.pruning import (
    FREE_SHARE,
    PruningChoice,
    PruningOptions,
    PruningTask,
    choose_channels,
    describe_removal,
    needs_images,
)

if TYPE_CHECKING:
    import networkx as nx

FORESEEN_TRIALS = 6
"""Removals that are tried in a search: the most there are; half of them end it where all agree."""


@dataclass(frozen=True)
class ChannelPrune(PruningOptions, Pass):
    """Remove the channels that matter least."""

    name: ClassVar[str] = "channel-prune"
    reads_images: ClassVar[bool] = True
    reads_upcoming: ClassVar[frozenset[str]] = frozenset({"recover"})

    requires: ClassVar[frozenset[str]] = frozenset({State.FLOAT32})
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8, State.PACKED})

    def needs(self) -> frozenset[str]:
        return self.requires | ({State.BATCH_NORM} if self.criterion == "bn-scale" else set())

    def foresee(self, work: Workload) -> tuple[Stage, ...]:
        trial = work.forward * (1.1 * work.judged + 0.3 * work.images)
        trials = FORESEEN_TRIALS if self.ratio is None and work.images else 0
        return (Stage("choosing how much to prune", trials * trial),)

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        require_float(gm)
        if needs_images(self.criterion) and ctx.calibration is None:
            raise PassError(f"criterion={self.criterion} needs images; give some with --data")
        task = PruningTask(gm, ctx, self)
        for node, pin in task.pinned():
            ctx.skipped(node, pin)
        choice = choose_channels(task)
        why, is_problem = self.reason(choice, ctx)
        if choice.trial is None:
            ctx.warn(f"prune: nothing was removed: {why}")
            return
        for node, what in task.adopt(choice.trial):
            ctx.rewrote(node, what)
        if choice.ratio is not None and choice.criterion != "variance":
            criterion = self.criterion if ctx.calibration is None else choice.criterion
            same = replace(self, ratio=choice.ratio, criterion=criterion)
            if same != self:
                ctx.chose(same)
        removed = f"{choice.trial.removed:.1%} of {self.of} removed by {choice.criterion}"
        ctx.says(f"{removed}: {why}")
        if is_problem:
            ctx.warn(f"prune: {why}")

    def explain(self, gm: fx.GraphModule, ctx: Context) -> list[str]:
        """List what `ratio` removes, then the dependencies of channels, one a line.

        The reason stands beside what is pinned.
        """
        task = PruningTask(gm, ctx, self)
        for node, pin in task.pinned():
            ctx.skipped(node, pin)
        if self.ratio is None:  # the search for one takes minutes
            return task.dependencies()
        criterion = task.best_criterion(self.ratio) if self.criterion == "auto" else self.criterion
        keep = task.select(criterion, self.ratio)
        return [*describe_removal(task, keep, criterion), *task.dependencies()]

    def drawing(self, gm: fx.GraphModule, ctx: Context) -> "nx.Graph[str]":
        """Return the groups of channels as a networkx graph."""
        return channel_groups(gm)

    def reason(self, choice: PruningChoice, ctx: Context) -> tuple[str, bool]:
        """Explain the amount removed and its damage; also whether the user should act on that."""
        if self.ratio is None and ctx.calibration is None:
            return (
                "without data, only channels go that by weights and batch norms carry at most "
                f"{FREE_SHARE:.1%} of what reads them; give --data to remove more safely"
            ), True
        if self.ratio is None:
            reached = "" if choice.agreement is None else f", reached {choice.agreement:.3f}"
            return f"the most that keeps the agreement at {self.agreement:g}{reached}", False
        if choice.agreement is None:
            noisy = choice.trial is not None and choice.trial.error is not None
            where = "on seeded noise" if noisy else "by batch norms"
            return f"corrected {where}, the damage is not measured; give --data", True
        measured = f"the agreement with the float model is {choice.agreement:.3f} after correction"
        if choice.agreement < self.agreement and "recover" not in ctx.upcoming:
            return f"{measured} (below {self.agreement:g}: add recover)", True
        return measured, False


def require_float(gm: fx.GraphModule) -> None:
    """Raise a PassError if a graph is quantized or about to be."""
    for node in gm.graph.nodes:
        kind = type(gm.get_submodule(str(node.target))).__name__ if node.op == "call_module" else ""
        if kind == "Observer" or str(node.target).startswith("yqc."):
            raise PassError(f"{node} belongs to a quantized graph; put prune before int8")
