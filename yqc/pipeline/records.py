"""What passes record while they run: kept by the pipeline, written through `Context`."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from yqc.errors import PassError

if TYPE_CHECKING:  # torch takes seconds to import, and listing passes must not
    from torch import fx


@dataclass(frozen=True)
class Rewrite:
    """One rewrite that a pass made."""

    node: str
    """Name of the node that was rewritten."""
    what: str
    """What became of it."""
    where: str
    """File name and line that recorded it, `fold_bn.py:34`."""
    by: str = ""
    """Name of the pass that was running."""
    made: tuple[str, ...] = ()
    """Names of the nodes that are new since the rewrite before: what this one made."""


@dataclass
class Records:
    """The records of all passes of one run, in order."""

    rewrites: list[Rewrite] = field(default_factory=list)
    skips: list[tuple[str, str]] = field(default_factory=list)
    """Near-matches that were refused: name of the node at fault, and why."""
    says: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    values: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    """Numbers by name that passes recorded of nodes, each with the name of the node."""
    dropped: list[str] = field(default_factory=list)
    """Steps of recipes that the pipeline left out, each with the reason."""
    running: str = ""
    """Name of the pass that is running."""
    chosen: Any = None
    """The running pass (a `Pass`) with the options that it chose itself, or None."""
    _graph: "fx.Graph | None" = None
    _known: "set[fx.Node]" = field(default_factory=set)

    def copied(self) -> "Records":
        """Return the records so far, apart from what is recorded later."""
        return Records(
            [*self.rewrites], [*self.skips], [*self.says], [*self.warnings], [*self.values]
        )

    def begin(self, name: str, graph: "fx.Graph") -> None:
        """Start the records of one pass, and note which nodes its graph has."""
        self.running, self.chosen = name, None
        self._graph, self._known = graph, set(graph.nodes)

    def rewrote(self, node: "fx.Node", what: str) -> None:
        """Record a rewrite, where in the pass's source it was made, and the nodes that are new."""
        self.rewrites.append(
            Rewrite(node.name, what, _where(), self.running, self._made(node.graph))
        )

    def measured(self, node: "fx.Node", numbers: Mapping[str, float]) -> None:
        """Record named numbers of a node.

        Raises:
            PassError: one is not finite, or no number.
        """
        found = dict[str, float]()
        for name, number in numbers.items():
            try:
                found[name] = int(number) if isinstance(number, int) else float(number)
            except (TypeError, ValueError):
                found[name] = math.nan
            if not math.isfinite(found[name]):
                raise PassError(f"{node.name}: {name} must be a finite number, not {number!r}")
        self.values.append((node.name, found))

    def _made(self, graph: "fx.Graph") -> tuple[str, ...]:
        """Name the nodes that were not there at the last call."""
        if self._graph is not graph:
            return ()
        new = [node for node in graph.nodes if node not in self._known]
        self._known.update(new)
        return tuple(node.name for node in new)


def _where() -> str:
    """Return file name and line of the pass's call, past the frames of yqc's own machinery."""
    frame = sys._getframe(3)  # noqa: SLF001  # inspect.stack reads source files: too slow here
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith("yqc.rewrite"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
