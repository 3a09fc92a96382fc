"""Going on with an interrupted pipeline after the last pass that took long.

The graph behind such a pass is kept in the cache, together with what was recorded until then; a
rerun starts from it and does the same again from there on. The graph file holds both, so they
always fit each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from torch import fx

from yqc.errors import CheckpointError, OutputError
from yqc.graph.compare import fingerprint
from yqc.graph.edit import adopt
from yqc.graph.serial import load_graph, save_graph
from yqc.job.cache import FolderCache
from yqc.pipeline.base import Context, Pass
from yqc.pipeline.grammar import split
from yqc.pipeline.options import build
from yqc.pipeline.pipeline import Step
from yqc.pipeline.records import Rewrite
from yqc.pipeline.watchers import Watcher

LONG = 2.0
"""Seconds that a pass must have taken for its graph to be kept; quicker ones are run again."""
NUMBERS = (
    *("seconds", "rewrites", "changed", "nodes_before", "nodes_after"),
    *("weight_bytes_before", "weight_bytes_after", "max_abs_error", "sqnr_db"),
)


class Stages(Watcher):
    """Keeps graphs between passes, and finds the last one again.

    Args:
        cache: where they are kept.
        wanted: asked after each pass whether a rerun may start there.
    """

    def __init__(self, cache: FolderCache, wanted: Callable[[], bool] = lambda: True) -> None:
        self.cache, self.wanted, self.done = cache, wanted, list[dict[str, Any]]()

    def after(self, step: Step) -> None:
        """Keep the graph after a pass that took long."""
        if self.done:  # a graph that was read from a file no longer shares tensors between modules
            step.weight_bytes_before = self.done[-1]["weight_bytes_after"]
        record = {name: getattr(step, name) for name in NUMBERS}
        record["skips"] = step.skips
        record["chosen"] = None if step.chosen is None else str(step.chosen)
        self.done.append(record)
        if step.seconds < LONG or not self.wanted():
            return
        ctx = step.ctx
        info = {
            "steps": self.done,
            "rewrites": [asdict(rewrite) for rewrite in ctx.rewrites],
            "skips": ctx.skips,
            "warnings": ctx.warnings,
            "fingerprint": fingerprint(step.gm),
        }
        try:
            with self.cache.file("stage.yqc") as path:
                save_graph(step.gm, path, info)
        except OutputError as error:  # such as a module of a pass's own, which no table knows
            ctx.progress.note(f"--resume cannot start after {step.name}: {error}")

    def restore(self, gm: fx.GraphModule, ctx: Context, passes: Sequence[Pass]) -> list[Step]:
        """Put `gm` and what was recorded into the state of the last stage; returns its steps."""
        path = self.cache.found("stage.yqc")
        if path is None:
            return []
        try:
            kept, info, _ = load_graph(path)
        except CheckpointError:
            return []
        if fingerprint(kept) != info["fingerprint"]:
            return []
        adopt(gm, kept)
        self.done = info["steps"]
        ctx.records.rewrites[:] = [
            Rewrite(**{**r, "made": tuple(r["made"])}) for r in info["rewrites"]
        ]
        ctx.skips[:] = [(node, why) for node, why in info["skips"]]
        ctx.warnings[:] = info["warnings"]
        return [
            _step(i, action, gm, ctx, record)
            for i, (action, record) in enumerate(zip(passes, self.done, strict=False), start=1)
        ]


def _step(
    index: int, action: Pass, gm: fx.GraphModule, ctx: Context, record: dict[str, Any]
) -> Step:
    step = Step(index, action, gm, ctx, before=gm)
    for name in NUMBERS:
        setattr(step, name, record[name])
    step.skips = tuple((node, why) for node, why in record["skips"])
    if (text := record["chosen"]) is not None:
        step.chosen = build(type(action), split(text)[0], text)
    return step
