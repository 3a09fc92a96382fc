"""The history of nodes: which pass made each, or changed it, and out of what.

Kept in `node.meta["yqc.history"]` by the pipeline, after every pass; passes need not know of it. A
pass that calls `ctx.rewrote` right after each rewrite gets the exact answer: what is new since the
last call was made out of the node that it names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, fx, nn

from yqc.graph.calls import attribute
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
    """Names of the nodes that it was made out of, or that were drawn into it."""
    what: str
    """What the pass said of it, or nothing."""

    def __str__(self) -> str:
        source = f" out of {', '.join(self.out_of)}" if self.out_of else ""
        return f"{self.how} by {self.by}{source}" + (f": {self.what}" if self.what else "")


@dataclass(frozen=True)
class History(Mark, topic="history"):
    """What passes did to a node since it was traced, in order."""

    events: tuple[Event, ...] = ()


class Told(Protocol):
    """What a pass recorded of one rewrite; see `yqc.pipeline.base.Rewrite`."""

    @property
    def node(self) -> str: ...  # noqa: D102
    @property
    def what(self) -> str: ...  # noqa: D102
    @property
    def made(self) -> tuple[str, ...]: ...  # noqa: D102


def history(node: fx.Node) -> tuple[Event, ...]:
    """Return what passes did to a node; nothing for one that is as it was traced."""
    found = node.meta.get(KEY)
    return tuple(Event(*e) for e in found.events) if isinstance(found, History) else ()


def record(before: fx.GraphModule, gm: fx.GraphModule, by: str, told: Sequence[Told]) -> None:
    """Write into every node what a pass did to it.

    Args:
        before: a copy of the graph from before the pass.
        gm: the graph now.
        by: name of the pass.
        told: what the pass recorded, in order.
    """
    old = {n.name: n for n in before.graph.nodes}
    now = {n.name for n in gm.graph.nodes}
    makers = {name: one for one in told for name in one.made}
    about = {one.node: one for one in told}
    for node in gm.graph.nodes:
        was = old.get(node.name)
        if was is None:
            node.meta[KEY] = History((*history(node), _made(node, by, makers)))
        elif node.op != "output" and _changed(before, was, gm, node):
            said, drawn = about.get(node.name), tuple[str, ...]()
            if said is None:  # the pass spoke of a neighbour that is gone: it was drawn in
                gone = [n for n in (*was.users, *was.all_input_nodes) if n.name not in now]
                drawn = tuple(n.name for n in gone if n.name in about)
                said = next((about[name] for name in drawn), None)
            event = Event(by, "changed", drawn, said.what if said else "")
            node.meta[KEY] = History((*history(was), event))


def _made(node: fx.Node, by: str, makers: dict[str, Told]) -> Event:
    told = makers.get(node.name)
    return Event(by, "made", (told.node,) if told else (), told.what if told else "")


def _changed(before: fx.GraphModule, was: fx.Node, gm: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a node does something else than it did; to read another node is not that."""
    if _plain(before, was) != _plain(gm, node):
        return True
    if node.op == "get_attr":
        return not _equal(*(attribute(g, str(node.target)) for g in (before, gm)))
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
