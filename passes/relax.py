"""relax: leave the inputs of a few convolutions in float, where rounding them does most damage.

1. The damage of rounding a tensor was measured as its range was chosen: its squared error, each
   value weighted by relevance (`yqc.quant.value_relevance`).
2. Tensors that share a scale are left in float together. The groups are chosen whose damage is
   largest in total while at most `share` of all convolution inputs stay in float (a 0/1 knapsack).
3. Their observers are removed; weights become int8 all the same. Without data no damage was
   measured, and nothing is done.

Mixed precision by second-order sensitivity is that of HAWQ-V3 (Yao et al., ICML 2021).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import fx, nn

from yqc import Context, Pass, call, calls
from yqc.graph import drop_unread
from yqc.quant import Observer
from yqc.quantizing import is_packed


@dataclass(frozen=True)
class Relax(Pass):
    """Leave the inputs of a few convolutions in float, where rounding them does most damage."""

    name: ClassVar[str] = "relax"
    requires: ClassVar[frozenset[str]] = frozenset({"calibrated", "float32"})
    keeps_numbers: ClassVar[bool] = True

    share: float = 0.1
    """At most this share of convolutions read float."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be between 0 and 1, not {self.share:g}")

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        readers = count_readers(gm)
        damage = {o.module.group: float(o.module.damage) for o in calls(gm, Observer)}
        total = sum(damage.values())
        room = int(self.share * sum(readers.values()))
        chosen = most_damage({g: damage[g] for g in readers if damage[g] > 0}, readers, room)
        for each in calls(gm, Observer):
            if (group := each.module.group) in chosen:
                source = each.node.all_input_nodes[0]
                each.node.replace_all_uses_with(source)
                gm.graph.erase_node(each.node)
                ctx.rewrote(source, f"stays in float; {damage[group] / total:.1%} of the damage")
        drop_unread(gm)
        gm.recompile()


def count_readers(gm: fx.GraphModule) -> Counter[str]:
    """Count the convolutions that read a tensor of each group of observers."""
    found: Counter[str] = Counter()
    for node in gm.graph.nodes:
        if call(gm, node, nn.Conv2d) is not None or is_packed(node):
            observer = call(gm, node.all_input_nodes[0], Observer)
            if observer is not None:
                found[observer.module.group] += 1
    return found


def most_damage(
    damage: Mapping[str, float], readers: Mapping[str, int], room: int
) -> frozenset[str]:
    """Choose the groups of most damage in total that fit; ties go to the first.

    Damages are positive, and at most `room` readers, of one or more each, are chosen in total.
    """
    best: list[tuple[float, frozenset[str]]] = [(0.0, frozenset())] * (room + 1)
    for name, amount in damage.items():
        for left in range(room, readers[name] - 1, -1):
            before, taken = best[left - readers[name]]
            if before + amount > best[left][0]:
                best[left] = (before + amount, taken | {name})
    return best[room][1]
