"""flatten-cat: turn a concat of concats into one.

    cat(cat(a, b), c) = cat(a, b, c)        along one dimension

which copies a and b once instead of twice.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import fx

from yqc import Context, Pass, is_function, shape


@dataclass(frozen=True)
class FlattenCat(Pass):
    """Turn a concat of concats into one."""

    name: ClassVar[str] = "flatten-cat"
    keeps_numbers: ClassVar[bool] = True

    max_inputs: int = 16
    """Leave a concat alone that would get more inputs than this."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        """Draw inner concats into outer ones, the first in graph order first."""
        for outer in [n for n in gm.graph.nodes if is_function(n, torch.cat)]:
            for inner in [n for n in outer.all_input_nodes if is_function(n, torch.cat)]:
                if why := self.obstacle(outer, inner):
                    ctx.skipped(inner, why)
                    continue
                parts = [
                    p for one in joined(outer) for p in (joined(inner) if one is inner else [one])
                ]
                outer.args = (parts, dimension(outer))
                outer.kwargs = {}
                if not inner.users:
                    gm.graph.erase_node(inner)
                ctx.rewrote(inner, f"drawn into {outer}")

    def obstacle(self, outer: fx.Node, inner: fx.Node) -> str | None:
        """Why these two must stay as they are, or None."""
        if dimension(outer) != dimension(inner):
            return f"{outer} joins along another dimension"
        if set(inner.users) != {outer}:
            return f"{inner} has other users"
        if len(joined(outer)) + len(joined(inner)) - 1 > self.max_inputs:
            return f"{outer} would get more than {self.max_inputs} inputs"
        return None


def joined(cat: fx.Node) -> list[fx.Node]:
    """Return what a concat joins, in order."""
    return list(cast("list[fx.Node]", cat.args[0]))


def dimension(cat: fx.Node) -> int:
    """Return the dimension that a concat joins along, counted from 0."""
    given = cat.args[1] if len(cat.args) > 1 else cat.kwargs.get("dim", 0)
    return int(str(given)) % len(shape(cat))
