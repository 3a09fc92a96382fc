"""One pass at work, and what watches it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yqc.pipeline.base import Context, Pass
from yqc.report.parts import PassRecord

if TYPE_CHECKING:  # torch takes seconds to import, and parsing a pipeline must not
    from torch import fx


@dataclass
class Step:
    """One pass of a pipeline while it runs, and its record afterwards."""

    index: int
    """Position in the pipeline, from 1."""
    action: Pass
    gm: "fx.GraphModule"
    ctx: Context
    before: "fx.GraphModule"
    """A copy of the graph from before the pass."""
    record: PassRecord
    """What the report says of the pass; complete once it ran."""
    chosen: Pass | None = None
    """The pass with the options that it chose itself, where it chose any."""

    def __str__(self) -> str:
        found = self.record
        time = "" if found.seconds is None else f", {1000 * found.seconds:.0f} ms"
        return (
            f"{self.index} {self.action}: {found.rewrites} rewrites, {len(found.skips)} skips, "
            f"{found.nodes_before} -> {found.nodes_after} nodes{time}"
        )

    @property
    def name(self) -> str:
        """The pass's name."""
        return self.action.name


class Watcher:
    """Base of what observes a pipeline without being a pass. Override the methods you need."""

    def begin_behind(self, steps: Sequence[Step]) -> None:
        """See the steps that ran before, in an interrupted or earlier run; none as a rule."""

    def start(self, gm: "fx.GraphModule", ctx: Context) -> None:
        """See the graph before the first pass."""

    def before(self, step: Step) -> None:
        """See a step before its pass runs; `step.gm` is the graph as it is."""

    def after(self, step: Step) -> None:
        """See a step after its pass ran and its record was made. Raise to fail the pass."""

    def failed(self, step: Step, error: Exception) -> str | None:
        """See a step that failed; a returned sentence becomes part of the error."""
        return None
