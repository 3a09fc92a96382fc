"""Resuming an interrupted pipeline after the last pass that took long.

The graph behind such a pass is kept together with what was recorded until then, in one entry, so
that both always fit each other. A later run starts from it and repeats what follows.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from torch import fx

from yqc.errors import CheckpointError, OutputError
from yqc.graph.compare import fingerprint
from yqc.graph.edit import replace_graph
from yqc.graph.serial import load_graph, save_graph
from yqc.pipeline.base import Context, Pass
from yqc.pipeline.grammar import split
from yqc.pipeline.options import build_options
from yqc.pipeline.records import Rewrite
from yqc.pipeline.step import Step, Watcher
from yqc.report.contract import from_json, to_json, to_plain
from yqc.report.parts import PassRecord

LONG = 2.0
"""Seconds that a pass must have taken for its graph to be kept; quicker ones are run again.

Writing a graph file takes 0.1 to 0.3 s for a nano model. Half of it writes twice as often and saves
a second at most; double loses up to 4 s of work at a kill.
"""
STAGE = "stage.yqc"


class Files(Protocol):
    """Keeps bytes by name, whole or not at all; see `yqc.job.work`."""

    def load_bytes(self, name: str) -> bytes | None:
        """Return what is kept under a name, or None."""
        ...

    def save_bytes(self, name: str, content: bytes) -> None:
        """Keep bytes under a name, in place of what was kept before."""
        ...


class Stages(Watcher):
    """Keeps graphs between passes, and restores the last one.

    Args:
        files: where they are kept.
        wanted: returns, after each pass, whether a later run may start there.
    """

    def __init__(self, files: Files, wanted: Callable[[], bool] = lambda: True) -> None:
        self.files, self.wanted, self.done = files, wanted, list[dict[str, Any]]()

    def begin_behind(self, steps: Sequence[Step]) -> None:
        """Count steps that ran before the first one that is seen."""
        self.done = [_entry(step) for step in steps]

    def after(self, step: Step) -> None:
        """Keep the graph after a pass that took long."""
        if self.done:  # a graph that was read from a file no longer shares tensors between modules
            before = self.done[-1]["record"]["weight_bytes_after"]
            step.record = replace(step.record, weight_bytes_before=before)
        self.done.append(_entry(step))
        if (step.record.seconds or 0.0) < LONG or not self.wanted():
            return
        ctx = step.ctx
        info = {
            "steps": self.done,
            "rewrites": [asdict(rewrite) for rewrite in ctx.rewrites],
            "skips": ctx.skips,
            "says": ctx.records.says,
            "warnings": ctx.warnings,
            "fingerprint": fingerprint(step.gm),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, STAGE)
            try:
                save_graph(step.gm, path, info)
            except OutputError as error:  # such as a module of a pass's own, which no table knows
                ctx.progress.note(f"--resume cannot start after {step.name}: {error}")
                return
            self.files.save_bytes(STAGE, path.read_bytes())

    def restore(self, gm: fx.GraphModule, ctx: Context, passes: Sequence[Pass]) -> list[Step]:
        """Put `gm` and the records into the state of the last stage; return its steps."""
        content = self.files.load_bytes(STAGE)
        if content is None:
            return []
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
        records.says[:], records.warnings[:] = info["says"], info["warnings"]
        return [
            _restored(i, action, gm, ctx, found)
            for i, (action, found) in enumerate(zip(passes, self.done, strict=False), start=1)
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
