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
from yqc.graph.metadata import has_large_marks
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
        self.done = [pack_step(step) for step in steps]

    def after(self, step: Step) -> None:
        """Keep the graph once passes took long."""
        self.done.append(pack_step(step))
        self.unkept += step.record.seconds or 0.0
        if self.unkept < LONG or not self.wanted():
            return
        if has_large_marks(step.gm):  # the next pass needs them, and takes them away
            return
        ctx = step.ctx
        info = pack_run(self.done, ctx, self.warned) | {"fingerprint": fingerprint(step.gm)}
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
        steps = unpack_run(info, gm, ctx, self.passes)
        ctx.progress.note(f"kept from an earlier run: {', '.join(one.name for one in steps)}")
        return steps


def pack_step(step: Step) -> dict[str, Any]:
    """Return what is kept of a step, plain JSON values."""
    chosen = None if step.chosen is None else str(step.chosen)
    return {"pass": str(step.action), "record": to_plain(step.record), "chosen": chosen}


def pack_run(done: Sequence[dict[str, Any]], ctx: Context, warned: int = 0) -> dict[str, Any]:
    """Return the steps so far and what passes recorded, plain JSON values.

    The first `warned` warnings are not of passes, and left out.
    """
    return {
        "steps": list(done),
        "rewrites": [asdict(rewrite) for rewrite in ctx.rewrites],
        "skips": ctx.skips,
        "says": ctx.records.says,
        "values": ctx.values,
        "warnings": ctx.warnings[warned:],
    }


def unpack_run(
    info: dict[str, Any], gm: fx.GraphModule, ctx: Context, passes: Sequence[Pass]
) -> list[Step]:
    """Undo `pack_run`: put the records into a context, and return the steps of the first passes.

    Raises:
        KeyError, TypeError, ValueError, DataError: something is missing, or of another form.
    """
    records = ctx.records
    records.rewrites[:] = [Rewrite(**{**r, "made": tuple(r["made"])}) for r in info["rewrites"]]
    records.skips[:] = [(node, why) for node, why in info["skips"]]
    records.says[:] = info["says"]
    records.values[:] = [(node, dict(found)) for node, found in info.get("values", [])]
    for sentence in info["warnings"]:
        ctx.warn(sentence)
    return [
        _restored(index, action, gm, ctx, found)
        for index, (action, found) in enumerate(zip(passes, info["steps"], strict=False), start=1)
    ]


def _restored(
    index: int, action: Pass, gm: fx.GraphModule, ctx: Context, found: dict[str, Any]
) -> Step:
    """Make the step of a pass that ran before the interruption."""
    text = found["chosen"]
    chosen = None if text is None else build_options(type(action), split(text)[0], text)
    return Step(index, action, gm, ctx, gm, from_json(PassRecord, to_json(found["record"])), chosen)
