"""Stages: graphs behind passes that took long, kept for any later run that begins in the same way.

The graph behind such a pass is kept together with what was recorded until then, in one entry, so
that both always fit each other. It is found by the passes that led to it: a pipeline that was
interrupted, and another one that shares its first passes, start there and run what follows.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import fx

from yqc.errors import CheckpointError, OutputError
from yqc.graph.compare import fingerprint
from yqc.graph.edit import replace_graph
from yqc.graph.metadata import is_whole_in_files
from yqc.graph.serial import load_graph, save_graph
from yqc.pipeline.base import Context, Pass
from yqc.pipeline.grammar import split
from yqc.pipeline.options import build_options
from yqc.pipeline.records import Rewrite
from yqc.pipeline.step import Step, Watcher
from yqc.report.contract import from_json, to_json, to_plain
from yqc.report.parts import PassRecord

LONG = 2.0
"""Seconds that passes must have taken since the last graph that was kept; quicker ones run again.

Writing a graph file takes 0.1 to 0.3 s for a nano model. Half of it writes twice as often and saves
a second at most; double loses up to 4 s of work at a kill.
"""
STAGE = "stage.yqc"


class StageFiles(Protocol):
    """Keeps bytes by the passes that led to them, whole or not at all; see `yqc.job.work`."""

    def load_stage(self, passes: Sequence[Pass], count: int) -> bytes | None:
        """Return what is kept behind the first `count` of these passes, or None."""
        ...

    def save_stage(self, passes: Sequence[Pass], count: int, content: bytes) -> None:
        """Keep bytes behind the first `count` of these passes."""
        ...


class Stages(Watcher):
    """Keeps graphs between passes, and restores the one behind most passes.

    Args:
        files: where they are kept.
        passes: all that are run.
        wanted: returns, after each pass, whether a later run may start there.
    """

    def __init__(
        self, files: StageFiles, passes: Sequence[Pass], wanted: Callable[[], bool] = lambda: True
    ) -> None:
        self.files, self.passes, self.wanted = files, tuple(passes), wanted
        self.done = list[dict[str, Any]]()
        self.warned = 0
        """Warnings that are not of passes."""
        self.unkept = 0.0
        """Seconds of passes since the graph was last kept."""

    def begin_behind(self, steps: Sequence[Step]) -> None:
        """Count steps that ran before the first one that is seen."""
        self.done = [_entry(step) for step in steps]

    def after(self, step: Step) -> None:
        """Keep the graph once passes took long."""
        self.done.append(_entry(step))
        self.unkept += step.record.seconds or 0.0
        if self.unkept < LONG or not self.wanted():
            return
        if not is_whole_in_files(step.gm):  # the next pass would measure anew, rounded otherwise
            return
        ctx = step.ctx
        info = {
            "steps": self.done,
            "rewrites": [asdict(rewrite) for rewrite in ctx.rewrites],
            "skips": ctx.skips,
            "says": ctx.records.says,
            "warnings": ctx.warnings[self.warned :],
            "fingerprint": fingerprint(step.gm),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, STAGE)
            try:
                save_graph(step.gm, path, info)
            except OutputError as error:  # such as a module of a pass's own, which no table knows
                ctx.progress.note(f"--resume cannot start after {step.name}: {error}")
                return
            self.files.save_stage(self.passes, step.index, path.read_bytes())
            self.unkept = 0.0

    def restore(self, gm: fx.GraphModule, ctx: Context) -> list[Step]:
        """Put `gm` and the records behind as many passes as are kept; return their steps."""
        self.warned = len(ctx.warnings)
        for count in range(len(self.passes), 0, -1):
            content = self.files.load_stage(self.passes, count)
            if content is not None and (steps := self._start_behind(content, gm, ctx)):
                return steps
        return []

    def _start_behind(self, content: bytes, gm: fx.GraphModule, ctx: Context) -> list[Step]:
        """Restore one stage; return its steps, or none if it is damaged."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, STAGE)
            path.write_bytes(content)
            try:
                kept, info, _ = load_graph(path)
            except CheckpointError:
                return []
        if fingerprint(kept) != info["fingerprint"]:
            return []
        replace_graph(gm, kept)
        self.done, records = info["steps"], ctx.records
        records.rewrites[:] = [Rewrite(**{**r, "made": tuple(r["made"])}) for r in info["rewrites"]]
        records.skips[:] = [(node, why) for node, why in info["skips"]]
        records.says[:] = info["says"]
        for sentence in info["warnings"]:
            ctx.warn(sentence)
        names = ", ".join(one["record"]["name"] for one in self.done)
        ctx.progress.note(f"kept from an earlier run: {names}")
        return [
            _restored(i, action, gm, ctx, found)
            for i, (action, found) in enumerate(zip(self.passes, self.done, strict=False), start=1)
        ]


def _entry(step: Step) -> dict[str, Any]:
    """Return what is kept of a step."""
    chosen = None if step.chosen is None else str(step.chosen)
    return {"record": to_plain(step.record), "chosen": chosen}


def _restored(
    index: int, action: Pass, gm: fx.GraphModule, ctx: Context, found: dict[str, Any]
) -> Step:
    """Make the step of a pass that ran before the interruption."""
    text = found["chosen"]
    chosen = None if text is None else build_options(type(action), split(text)[0], text)
    return Step(index, action, gm, ctx, gm, from_json(PassRecord, to_json(found["record"])), chosen)
