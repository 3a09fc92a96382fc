"""split-pools: write a large max pool as a chain of small ones.

The maximum over a window of k is that over the last k2 of the maxima over k1, for k = k1 + k2 - 1:

    max_pool(k=5, p=2)(x)  =  max_pool(k=3, p=1)(max_pool(k=3, p=1)(x))

The padding, which is by minus infinity, is shared out among the small pools in any way: a position
behind the edge that one of them leaves out holds no value that its neighbour lacks. The last pool
has the stride. Chains of one input share their beginnings, so that the windows of 5, 9 and 13 in
YOLOv7 take six pools of 3 and not twelve.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from torch import fx, nn

from yqc import Call, Context, Pass, State, calls
from yqc.pipeline import Bounds

WindowSize = tuple[int, int]
Stage = tuple[WindowSize, WindowSize, WindowSize]
"""Window, stride and padding of a pool, height and width each."""


@dataclass(frozen=True)
class SplitPools(Pass):
    """Write a large max pool as a chain of small ones."""

    name: ClassVar[str] = "split-pools"
    excludes: ClassVar[frozenset[str]] = frozenset({State.OBSERVED, State.INT8})
    keeps_numbers: ClassVar[bool] = True

    kernel: Annotated[int, Bounds(least=2)] = 3
    """The largest window that stays."""

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        made: dict[tuple[fx.Node, Stage], fx.Node] = {}
        for pool in calls(gm, nn.MaxPool2d):
            if max(pair_sides(pool.module.kernel_size)) <= self.kernel:
                continue
            if why := self.obstacle(pool):
                ctx.skipped(pool.node, why)
                continue
            stages = self.stages(pool.module)
            self.chain(gm, pool, stages, made)
            ctx.rewrote(pool.node, f"became a chain of {len(stages)} pools")

    def obstacle(self, pool: Call[nn.MaxPool2d]) -> str | None:
        """Return why a pool must stay as it is, or None."""
        if max(pair_sides(pool.module.dilation)) > 1:
            return "its window is dilated"
        if pool.module.ceil_mode:
            return "it rounds its size up"
        return "it returns indices" if pool.module.return_indices else None

    def stages(self, pool: nn.MaxPool2d) -> list[Stage]:
        """List the pools of a chain, the first one first."""
        sizes, paddings = pair_sides(pool.kernel_size), pair_sides(pool.padding)
        axes = [self.split(*one) for one in zip(sizes, paddings, strict=True)]
        count = max(map(len, axes))
        high, wide = ([(1, 0)] * (count - len(axis)) + axis for axis in axes)
        strides = [(1, 1)] * (count - 1) + [pair_sides(pool.stride)]
        return [
            ((h, w), stride, (top, left))
            for (h, top), (w, left), stride in zip(high, wide, strides, strict=True)
        ]

    def split(self, size: int, padding: int) -> list[tuple[int, int]]:
        """Split a window along one axis into windows and their paddings."""
        found = list[tuple[int, int]]()
        while size > 1:
            part = min(self.kernel, size)
            own = min(part // 2, padding)
            found.append((part, own))
            size, padding = size - part + 1, padding - own
        return found

    def chain(
        self,
        gm: fx.GraphModule,
        pool: Call[nn.MaxPool2d],
        stages: list[Stage],
        made: dict[tuple[fx.Node, Stage], fx.Node],
    ) -> None:
        """Turn a pool's node into the last of a chain; reuse pools that are `made` already."""
        node, before = pool.node, pool.node.all_input_nodes[0]
        paths = [f"{pool.target}_{place}" for place in range(len(stages))]
        for path, (size, stride, padding) in zip(paths, stages, strict=True):
            gm.add_submodule(path, nn.MaxPool2d(size, stride, padding))
        for place, (path, after) in enumerate(pairwise(paths)):
            key = before, stages[place]
            if key not in made:
                with gm.graph.inserting_before(node):
                    made[key] = gm.graph.create_node(
                        "call_module", path, (before,), name=f"{node.name}_{place}"
                    )
                made[key].meta["yqc.role"] = node.meta.get("yqc.role", "backbone")
            before, node.target = made[key], after
        node.args, node.kwargs = (before,), {}
        made.setdefault((before, stages[-1]), node)


def pair_sides(value: int | WindowSize) -> WindowSize:
    """Return a size of height and width."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
