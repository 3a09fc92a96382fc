"""The history of nodes: which pass made or changed each, and out of which nodes.

The pipeline keeps it in `node.meta["yqc.history"]`, after every pass. It is exact for a pass
that calls `ctx.rewrote` right after each rewrite: nodes that are new since the last call were made
out of the node that the call names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, fx, nn

from yqc.graph.calls import get_attribute
from yqc.graph.metadata import Mark
from yqc.graph.text import expression

KEY = "yqc.history"


class Event(NamedTuple):
    """What one pass did to one node."""

    by: str
    """Name of the pass."""
    how: str
    """`made` or `changed`."""
    out_of: tuple[str, ...]
    """Names of the nodes that it was made out of, or that were merged into it."""
    what: str
    """What the pass recorded of it, or an empty text."""

    def __str__(self) -> str:
        source = f" out of {', '.join(self.out_of)}" if self.out_of else ""
        return f"{self.how} by {self.by}{source}" + (f": {self.what}" if self.what else "")


@dataclass(frozen=True)
class History(Mark, topic="history"):
    """What passes did to a node since it was traced, in order."""

    events: tuple[Event, ...] = ()


class RewriteRecord(Protocol):
    """One recorded rewrite of a pass: a `yqc.pipeline.records.Rewrite`."""

    @property
    def node(self) -> str: ...  # noqa: D102
    @property
    def what(self) -> str: ...  # noqa: D102
    @property
    def made(self) -> tuple[str, ...]: ...  # noqa: D102


def history(node: fx.Node) -> tuple[Event, ...]:
    """Return what passes did to a node; empty for one that is as it was traced."""
    found = node.meta.get(KEY)
    return tuple(Event(*e) for e in found.events) if isinstance(found, History) else ()


def record_history(
    before: fx.GraphModule, gm: fx.GraphModule, by: str, rewrites: Sequence[RewriteRecord]
) -> None:
    """Write into every node what the pass `by` did to it since `before`, a copy of the graph."""
    old = {n.name: n for n in before.graph.nodes}
    now = {n.name for n in gm.graph.nodes}
    makers = {name: one for one in rewrites for name in one.made}
    about = {one.node: one for one in rewrites}
    for node in gm.graph.nodes:
        was = old.get(node.name)
        if was is None:
            node.meta[KEY] = History((*history(node), _made(node, by, makers)))
        elif node.op != "output" and _changed(before, was, gm, node):
            said, merged = about.get(node.name), tuple[str, ...]()
            if said is None:  # the pass named a neighbour that is gone: it was merged in
                gone = [n for n in (*was.users, *was.all_input_nodes) if n.name not in now]
                merged = tuple(n.name for n in gone if n.name in about)
                said = next((about[name] for name in merged), None)
            event = Event(by, "changed", merged, said.what if said else "")
            node.meta[KEY] = History((*history(was), event))


def _made(node: fx.Node, by: str, makers: dict[str, RewriteRecord]) -> Event:
    rewrite = makers.get(node.name)
    return Event(by, "made", (rewrite.node,) if rewrite else (), rewrite.what if rewrite else "")


def _changed(before: fx.GraphModule, was: fx.Node, gm: fx.GraphModule, node: fx.Node) -> bool:
    """Check whether a node computes something else than before, apart from its inputs' names."""
    if _plain(before, was) != _plain(gm, node):
        return True
    if node.op == "get_attr":
        return not _equal(*(get_attribute(g, str(node.target)) for g in (before, gm)))
    if node.op != "call_module":
        return False
    one, two = before.get_submodule(str(was.target)), gm.get_submodule(str(node.target))
    return one.extra_repr() != two.extra_repr() or not _same_tensors(one, two)


def _plain(gm: fx.GraphModule, node: fx.Node) -> str:
    """Print what a node does, without the names of its inputs."""
    return re.sub(r"%\w+", "%", expression(gm, node))


def _same_tensors(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)


def _equal(a: object, b: object) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
