"""The time of one node of a file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NodeCost:
    """One kernel as a runtime ran it, after its own optimisation."""

    name: str
    """Of the node; fused ones bear the name that the runtime gave them."""
    op: str
    kind: str
    """`int8`, `float`, `convert` between the two, or `other`."""
    ms: float
    """Mean over the runs, wall time."""
