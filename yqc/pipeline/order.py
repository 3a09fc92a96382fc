"""The order of passes: what each finds the graph to be, and whether it can run there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from yqc.errors import PipelineError
from yqc.pipeline.base import Pass, Recipe
from yqc.pipeline.registry import Registry
from yqc.pipeline.state import TRACED, State


def check_end(passes: Iterable[Pass]) -> None:
    """Raise a PipelineError if passes leave a traced graph in a state that no file can hold."""
    state = TRACED
    for action in passes:
        state = (state - action.removes) | action.provides
    if State.OBSERVED in state:
        missing = "quantize" if State.CALIBRATED in state else "calibrate,quantize"
        raise PipelineError(
            f"the graph is left '{State.OBSERVED}', which no file can hold; "
            f"put {missing} at the end"
        )


@dataclass(frozen=True)
class Planned:
    """A pass, and the step of the pipeline that it comes from."""

    action: Pass
    step: Pass | Recipe
    place: int
    """Index of the step."""

    def find_later(self, others: "Sequence[Planned]") -> "Planned | None":
        """Return a later pass of the same name, where a recipe's pass needs to run once only."""
        if self.action is self.step or not self.action.once:
            return None
        return next((o for o in others if o.action.name == self.action.name), None)

    def __str__(self) -> str:
        own = self.action.name
        return own if own == self.step.name else f"{own} (of {self.step.name})"


@dataclass
class Order:
    """The states of a graph along a sequence of passes, and which pass made and ended each."""

    registry: Registry
    state: frozenset[str]
    made: dict[str, Planned] = field(default_factory=dict)
    ended: dict[str, Planned] = field(default_factory=dict)

    def why_provided(self, one: Planned) -> str:
        """Say that the graph has what a recipe's pass provides; empty if it must run."""
        provides = one.action.provides
        if one.action is one.step or not provides or not provides <= self.state:
            return ""
        state = min(provides)
        by = f", by {self.made[state]}" if state in self.made else ""
        return f"a graph that is '{state}' already{by}"

    def add(self, one: Planned) -> None:
        """Go on behind a pass.

        Raises:
            PipelineError: it cannot run on the graph as it is.
        """
        for state in sorted(one.action.needs() - self.state):
            raise PipelineError(self._explain_missing(one, state))
        for state in sorted(one.action.excludes & self.state):
            raise PipelineError(
                f"{one} cannot work on a graph that is '{state}'"
                + self._advise_order(one, self.made.get(state), "makes it that")
            )
        removed = one.action.removes & self.state
        self.ended |= dict.fromkeys(removed, one)
        self.made |= dict.fromkeys(one.action.provides, one)
        self.state = (self.state - removed) | one.action.provides

    def _explain_missing(self, one: Planned, state: str) -> str:
        """Say why a pass cannot run here, and what to do."""
        needs = f"{one} needs a graph that is '{state}'"
        if state in self.ended:
            return needs + self._advise_order(one, self.ended[state], "ends that")
        makers = self.registry.makers(state)
        advice = f"put {' or '.join(makers)} before it" if makers else "no pass provides that"
        return f"{needs}; {advice}"

    @staticmethod
    def _advise_order(one: Planned, other: Planned | None, does: str) -> str:
        """Say which pass before is in the way, and what to do, in the words of the pipeline."""
        if other is None:
            return ""
        names = [(p.action if one.place == other.place else p.step).name for p in (one, other)]
        twice = f"leave one {names[0]} out"
        advice = twice if names[0] == names[1] else f"put {names[0]} before {names[1]}"
        return f", and {other} before it {does}; {advice}"
