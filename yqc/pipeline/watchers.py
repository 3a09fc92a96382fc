"""Watchers: what looks on while passes run, and never is a pass itself."""

import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from yqc.errors import OutputError, PassError
from yqc.graph import text
from yqc.graph.compare import first_not_finite, head_outputs, max_abs_error, rounding_noise, sqnr_db
from yqc.graph.serial import save_graph
from yqc.pipeline.base import Context
from yqc.pipeline.resume import pack_run, pack_step
from yqc.pipeline.step import Step, Watcher

NOISE = 16.0
"""Largest error of a pass that keeps the numbers, as a multiple of the graph's rounding noise.

Measured for fold-bn, reparam and dce on the golden checkpoints of all families, at their own size
and at 320 px: 0 to 1.94. Half of it leaves a margin of four; double lets an error of 4e-6 of each
weight pass.
"""


ALWAYS = 1e-6
"""Errors that always pass, as a share of the largest output: eight units in its last place.

Rounding noise of trained models is 0.7e-6 to 2e-6 of the largest output. Half of it measures the
noise more often, at two forward passes each; double saves nothing more.
"""


class Verify(Watcher):
    """Runs the graph before and after a pass on the example input and measures the difference.

    A pass that declares `keeps_numbers` fails if the largest difference at the head's outputs is
    more than `NOISE` times what rounding the graph's numbers otherwise does there; one that has a
    `tolerance` fails beyond that share of the largest output. Any pass fails if it makes outputs
    that are not finite out of such that are.
    """

    def __init__(self) -> None:
        self.last: list[Tensor] = []
        self.example = torch.empty(0)

    def start(self, gm: fx.GraphModule, ctx: Context) -> None:
        """Keep what the untouched graph computes."""
        self.example = ctx.example_for(gm)
        self.last = head_outputs(gm, self.example)

    def after(self, step: Step) -> None:
        """Compare with what was computed before the pass."""
        if not step.record.changed:
            step.record = replace(step.record, max_abs_error=0.0)
            return
        was, now = self.last, head_outputs(step.gm, self.example)
        if [t.shape for t in was] != [t.shape for t in now]:
            shapes = [[list(t.shape) for t in side] for side in (was, now)]
            raise PassError(f"it changed the shapes of the outputs from {shapes[0]} to {shapes[1]}")
        if all(t.isfinite().all() for t in was) and not all(t.isfinite().all() for t in now):
            node = first_not_finite(step.gm, self.example)
            raise PassError(f"the outputs are no longer finite after it, first at {node}")
        error = max_abs_error(was, now)
        step.record = replace(step.record, max_abs_error=error, sqnr_db=sqnr_db(was, now))
        largest = max((float(t.abs().max()) for t in was if t.numel()), default=0.0)
        is_suspect = step.action.keeps_numbers and error > ALWAYS * largest
        if is_suspect and error > (noise := self.noise(step)):
            raise PassError(
                f"it declares that it keeps the numbers, and changes the outputs by {error:.3g} "
                f"where the largest is {largest:.3g} and rounding explains {noise:.3g}"
            )
        limit = step.action.tolerance
        if limit is not None and error > max(limit, ALWAYS) * largest:
            raise PassError(
                f"it may change the outputs by {limit:g} of the largest, {largest:.3g}, and "
                f"changes them by {error:.3g}"
            )
        self.last = now

    def noise(self, step: Step) -> float:
        """Return the largest error that rounding explains, in either graph."""
        return NOISE * max(rounding_noise(gm, self.example) for gm in (step.before, step.gm))


class PrintGraph(Watcher):
    """Prints the graph after (or before) the named passes, when they changed it."""

    def __init__(
        self, after: Collection[str], before: Collection[str], write: Callable[[str], None]
    ) -> None:
        self.names_after, self.names_before, self.write = set(after), set(before), write

    def before(self, step: Step) -> None:
        """Print if asked for this pass."""
        if {step.name, "all"} & self.names_before:
            self.write(f"# before {step.index} {step.action}\n{text(step.gm)}\n")

    def after(self, step: Step) -> None:
        """Print if asked for this pass and it changed something."""
        if {step.name, "all"} & self.names_after:
            shown = f"\n{text(step.gm)}" if step.record.changed else ": unchanged"
            self.write(f"# after {step.index} {step.action}{shown}\n")


class Snapshots(Watcher):
    """Writes the graph after every pass: `00-trace.txt`, `01-fold-bn.txt`, a `.yqc` beside each.

    A compile can go on from any of these `.yqc` files, which hold the float graph, too.

    Args:
        folder: where they are written.
        about: what is known about the model and the run, plain JSON values.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder, self.about = folder, dict(about or {})
        self.done = list[dict[str, Any]]()
        self.warned = 0
        """Warnings that are not of passes."""
        self.original: bytes | None = None

    def begin_behind(self, steps: Sequence[Step]) -> None:
        """Count steps that ran before the first one that is seen."""
        self.done = [pack_step(step) for step in steps]

    def start(self, gm: fx.GraphModule, ctx: Context) -> None:
        """Write the traced graph."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self.folder}: {error.strerror}") from error
        traced = gm if ctx.original is None else ctx.original
        steps, self.done = self.done, []
        self._write("00-trace", traced, Context())
        self.done = steps
        self.original = (self.folder / "00-trace.yqc").read_bytes()

    def after(self, step: Step) -> None:
        """Write the graph after a pass."""
        self.done.append(pack_step(step))
        self._write(f"{step.index:02}-{step.name}", step.gm, step.ctx)

    def _write(self, stem: str, gm: fx.GraphModule, ctx: Context) -> None:
        path = self.folder / f"{stem}.txt"
        try:
            path.write_text(text(gm) + "\n", encoding="utf-8", newline="\n")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        info = {"kind": "snapshot", **self.about, **pack_run(self.done, ctx, self.warned)}
        save_graph(gm, self.folder / f"{stem}.yqc", info, original=self.original)


class Reproducer(Watcher):
    """Writes what is needed to run a failing pass again: `yqc replay FILE`.

    Args:
        path: of the file.
        loaded: path and SHA-256 of the files that `--load` gave.
    """

    def __init__(self, path: Path, loaded: Sequence[tuple[str, str]] = ()) -> None:
        self.path, self.loaded = path, tuple(loaded)

    def failed(self, step: Step, error: Exception) -> str | None:
        """Write the graph before the pass, its text, the seed and the versions."""
        info = {
            "kind": "reproducer",
            "pass": str(step.action),
            "index": step.index,
            "seed": step.ctx.seed,
            "target": step.ctx.target,
            "error": f"{type(error).__name__}: {error}",
            "loaded": [list(one) for one in self.loaded],
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        }
        try:
            example = step.ctx.example_for(step.before)
            save_graph(step.before, self.path, info, example=example)
        except OutputError as problem:
            return f"no reproducer was written ({problem})"
        load = "".join(f" --load {name}" for name, _ in self.loaded)
        return f"run it again with: yqc replay {self.path}{load}"
