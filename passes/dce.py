"""dce: erase nodes that nothing reads, and calls that return their input as it is.

1. A node without users and side effects is erased, and then what only it read.
2. An `Identity`, or a `Dropout` (which does nothing at inference), is replaced by its input.
3. Modules and tensors that no node reads any more leave the graph module.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx, nn

from yqc import Context, Pass, State, has_effect
from yqc.rewrite import module, rewrite_all, var

IDENTITY = module((nn.Identity, nn.Dropout, nn.Dropout2d), var("x"))


@dataclass(frozen=True)
class DeadCodeElimination(Pass):
    """Erase nodes that nothing reads, and calls that do nothing."""

    name: ClassVar[str] = "dce"
    provides: ClassVar[frozenset[str]] = frozenset({State.CLEAN})
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        rewrite_all(gm, ctx, IDENTITY, lambda _, x: x, what="replaced by its input {x}")
        for node in reversed(list(gm.graph.nodes)):
            if node.op not in {"placeholder", "output"} and not node.users:
                if has_effect(node):
                    ctx.skipped(node, "it has side effects")
                    continue
                ctx.rewrote(node, "dropped: nothing reads it")
                gm.graph.erase_node(node)
