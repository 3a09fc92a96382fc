"""Graphs behind the passes that several pipelines begin with, kept in memory."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from yqc.graph.compare import graph_bytes
from yqc.graph.edit import replace_graph
from yqc.pipeline.base import Context, Pass
from yqc.pipeline.records import Records
from yqc.pipeline.step import Step, Watcher

KEPT = 256 << 20
"""Bytes of weights that are kept. Those of a nano model behind three passes take 40 MB; half of the
bound keeps less of large models, double takes more memory."""


@dataclass
class Prefixes(Watcher):
    """Keeps the graphs behind first passes that keep the numbers and read no images.

    What these do depends on the graph alone, so a pipeline that begins with the same passes starts
    behind them; its report has their records, times included.
    """

    kept: dict[tuple[str, ...], tuple[fx.GraphModule, Records, list[Any]]] = field(
        default_factory=dict
    )
    bytes: int = 0
    _steps: list[Step] = field(default_factory=list)

    def begin_behind(self, steps: Sequence[Step]) -> None:
        """Count steps that ran before the first one that is seen."""
        self._steps = [*steps]

    def after(self, step: Step) -> None:
        """Keep the graph behind a step, if all steps so far are such passes."""
        self._steps = [*self._steps[: step.index - 1], step]
        actions = [one.action for one in self._steps]
        key, size = tuple(map(str, actions)), graph_bytes(step.gm)
        plain = all(one.keeps_numbers and not one.reads_images for one in actions)
        if not plain or key in self.kept or self.bytes + size > KEPT:
            return
        self.bytes += size
        done = [(one.record, one.chosen) for one in self._steps]
        self.kept[key] = copy.deepcopy(step.gm), step.ctx.records.copied(), done

    def restore(self, gm: fx.GraphModule, ctx: Context, passes: Sequence[Pass]) -> list[Step]:
        """Put `gm` and the records behind as many passes as are kept; return their steps."""
        self._steps = []
        for count in range(len(passes), 0, -1):
            found = self.kept.get(tuple(map(str, passes[:count])))
            if found is not None:
                graph, records, done = found
                replace_graph(gm, copy.deepcopy(graph))
                ctx.records.rewrites[:], ctx.records.skips[:] = records.rewrites, records.skips
                ctx.records.says[:], ctx.records.values[:] = records.says, records.values
                for sentence in records.warnings:
                    ctx.warn(sentence)
                self._steps = [
                    Step(index, action, gm, ctx, gm, record, chosen)
                    for index, (action, (record, chosen)) in enumerate(
                        zip(passes, done, strict=False), start=1
                    )
                ]
                break
        return self._steps
