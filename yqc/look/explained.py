"""The explanation of one pass: its rewrites and refusals, grouped by their texts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from yqc.report import Shown
from yqc.report.contract import Json, to_plain
from yqc.report.parts import NodeNumbers


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rewrites or refusals that are alike: what was done or why it was not, and the nodes.

    Names and numbers that vary are left out of `what` (`..`).
    """

    what: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What one pass would do."""

    name: str
    text: str
    """The pass with its options."""
    after: str
    """What ran before it, as pipeline text."""
    lines: tuple[str, ...]
    """The pass's own explanation, if it has one (`explain`)."""
    rewrites: tuple[Group, ...]
    skips: tuple[Group, ...]
    values: tuple[NodeNumbers, ...] = ()
    """Numbers that it recorded of single nodes."""
    drawing: str | None = None
    """In Graphviz's language, or None where no drawing was requested.

    The pass's own (`drawing`), or the graph with rewritten and refused nodes marked.
    """
    groups: Mapping[str, Any] | None = None
    """What the pass itself draws, as networkx's node-link data; None if it draws nothing."""

    @property
    def counts(self) -> tuple[int, int]:
        """How many rewrites and how many refusals."""
        return tuple(sum(len(g.nodes) for g in gs) for gs in (self.rewrites, self.skips))  # type: ignore[return-value]


@dataclass(frozen=True)
class Explanation(Shown):
    """What a pass would do, or each of a recipe's passes."""

    passes: tuple[Explained, ...]

    def __iter__(self) -> Iterator[Explained]:
        """Go through the passes."""
        return iter(self.passes)

    def to_dict(self) -> Json:
        """Return a list, an object a pass."""
        return to_plain(self.passes)
