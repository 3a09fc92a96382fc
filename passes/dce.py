"""dce: drop what nothing reads, and calls that return their input as it is.

1. A node without users and side effects goes, and then what only it read.
2. An `Identity`, or a `Dropout` (which does nothing at inference), is replaced by its input.
3. Modules and tensors that no node reads any more leave the graph module.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx, nn

from yqc import Context, Pass, calls, has_effect

NOTHING: tuple[type[nn.Module], ...] = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True)
class DeadCodeElimination(Pass):
    """Drop nodes that nothing reads, and calls that do nothing."""

    name: ClassVar[str] = "dce"
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for idle in calls(gm, NOTHING):
            source = idle.node.all_input_nodes[0]
            idle.node.replace_all_uses_with(source)
            ctx.rewrote(idle.node, f"replaced by its input {source}")
            gm.graph.erase_node(idle.node)
        for node in reversed(list(gm.graph.nodes)):
            if node.op not in {"placeholder", "output"} and not node.users:
                if has_effect(node):
                    ctx.skipped(node, "it has side effects")
                    continue
                ctx.rewrote(node, "dropped: nothing reads it")
                gm.graph.erase_node(node)
