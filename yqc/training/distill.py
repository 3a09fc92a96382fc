"""Label-free distillation: a rewritten graph learns to answer as the float original does.

1. Both graphs see the same augmented images; what they answer is compared before the decoding
   (`heads`, `losses`). No annotation is read. What they still have in common is computed once and
   left alone (`shared`).
2. The graph is left with a running average of its weights over the steps.
3. A loss or gradient that is not finite ends the training; the best state that was kept is
   restored, and the outcome says so. So is the state before the first step, if the graph has not
   come closer to the original on plain images.
4. Everything that happens is determined by the graph, the images and the plan, for one device and
   one number of threads: a step's batch and learning rate follow from its number.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import fx

from yqc.errors import PassError
from yqc.graph.values import TensorSpec
from yqc.pipeline.base import Context
from yqc.progress import Progress
from yqc.training.heads import Tap, feature_taps, head_taps
from yqc.training.pictures import Pictures
from yqc.training.plan import WARMUP, Outcome, Plan
from yqc.training.session import Session
from yqc.training.state import Keeper
from yqc.training.student import Student
from yqc.training.teacher import Teacher
from yqc.training.untouched import sources, untouched

MEASURED = 60.0
"""Seconds after which the time of a step is known well enough."""
JUDGED = 16
"""Plain images on which before and after are compared."""
TRIED = 8
"""Plain images on which a step is tried before the first."""
NOTES = 20
"""A training tells of its loss about so often."""


def distill(
    gm: fx.GraphModule,
    original: fx.GraphModule,
    images: Sequence[Path],
    plan: Plan,
    ctx: Context | None = None,
    *,
    progress: Progress | None = None,
    label: str = "recovering",
) -> Outcome:
    """Train `gm`, in place, to compute what `original` does.

    Args:
        gm: a float graph, or one with quantizers; batch norms may be folded or not.
        original: the float graph as it was traced; not changed.
        images: files to learn from; annotations are not needed.
        plan: how long, and how.
        ctx: gives the device, and the cache that keeps checkpoints.
        progress: where the work is shown; by default the context's.
        label: what it is called there.

    Returns:
        What was done. `gm` is as before if that says a problem undid it.

    Raises:
        DataError: fewer than 4 images can be read.
        PassError: the graphs cannot be compared, or cannot take images of the plan's size.
    """
    ctx = ctx or Context()
    progress = progress or ctx.progress
    workers = 1 if ctx.device == "cpu" else min(16, os.cpu_count() or 1)
    channels, *size = _input_shape(gm)
    imgsz = plan.imgsz or (size[0], size[1])
    pictures = Pictures(tuple(images), imgsz, plan.seed, channels, workers=workers)
    same = set() if plan.bn_l1 else untouched(gm, original)
    taps = _taps(gm, original, plan)
    if all(tap.name in same for tap in taps):
        same = set()  # nothing was changed: all there is learns, as asked
    taps = [tap for tap in taps if tap.kind != "feature" or tap.name not in same]
    keeper = Keeper.of(ctx.cache, gm, plan, images)
    begin = sources(gm, same, [tap.name for tap in taps])
    student = Student(gm, taps, ctx.device, begin)
    try:
        teacher = Teacher.of(original, taps, begin, ctx.device)
        run = _Run(Session(student, teacher, taps, plan), pictures, keeper, progress, label)
        outcome = run.all()
    finally:
        student.close()
    if pictures.unreadable:
        path, why = next(iter(pictures.unreadable.items()))
        ctx.warn(f"{len(pictures.unreadable)} training images cannot be read: {path}: {why}")
    return outcome


@dataclass
class _Run:
    """A distillation from its first step, or from its last checkpoint, to its end."""

    session: Session
    pictures: Pictures
    keeper: Keeper
    progress: Progress
    label: str
    began: float = field(default_factory=time.monotonic)
    earlier: float = 0.0
    """Seconds that were spent before a resumption."""

    def all(self) -> Outcome:
        """Train, choose the state to end with, and tell what was done."""
        session, plan, student = self.session, self.session.plan, self.session.student
        start = {k: v.clone() for k, v in student.state.items()}
        plain = self.pictures.plain(min(JUDGED, len(self.pictures.paths)))
        before = self._first_look(plain)
        session.fit(before, plain[:TRIED])
        if (about := self.keeper.restore(session)) is not None:
            self.earlier = float(about["spent"])
            self.progress.note(f"{self.label}: going on after step {session.step}")
        planned, problem = self._steps(before)
        student.load(session.average if not problem else self.keeper.best or start)
        after = session.judge(plain)
        if not after <= before and not plan.bn_l1:
            problem = problem or "it did not come closer to the original and was undone"
            student.load(start)
            after = before
        return Outcome(
            steps=session.step,
            planned=planned,
            epochs=session.step * plan.batch / len(self.pictures.paths),
            seconds=self._seconds(),
            before=before,
            after=after,
            parameters=sum(p.numel() for p in session.parameters.values()),
            problem=problem,
        )

    def _seconds(self) -> float:
        return self.earlier + time.monotonic() - self.began

    def _first_look(self, plain: NDArray[np.uint8]) -> float:
        """Return the loss before training.

        Raises:
            PassError: the graphs cannot take these images.
        """
        try:
            return self.session.judge(plain)
        except RuntimeError as error:
            if self.session.plan.imgsz is None:
                raise
            height, width = plain.shape[2:]
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            raise PassError(
                f"the graph cannot be trained on images of {height} x {width} pixels ({reason}); "
                "leave imgsz out to train at the size it was traced for"
            ) from error

    def _steps(self, before: float) -> tuple[int, str]:
        """Take the steps; returns how many were planned, and what ended them early."""
        session, plan, images = self.session, self.session.plan, len(self.pictures.paths)
        planned = self.keeper.planned or plan.count(images)
        with contextlib.closing(self.pictures.batches(plan.batch, session.step)) as batches:
            if planned is None:
                planned, problem = self._timed(batches)
                if problem:
                    return planned, problem
            epoch, losses = plan.epoch(images), list[float]()
            often = max(1, math.ceil(planned / epoch / NOTES)) * epoch
            left = max(0, planned - session.step)
            with self.progress.task(self.label, left) as advance:
                while session.step < planned:
                    loss = session.take(next(batches), planned)
                    if not math.isfinite(loss):
                        return planned, self._broken()
                    losses.append(loss)
                    advance(1)
                    if session.step % epoch:
                        continue
                    mean = sum(losses) / len(losses)
                    self.keeper.note(session, mean)
                    self.keeper.write(session, planned, spent=self._seconds())
                    if session.step % often == 0:
                        self.progress.note(
                            f"{self.label}: epoch {session.step // epoch} of "
                            f"{planned / epoch:.3g}, loss {mean:.4g} (first {before:.4g})"
                        )
                    losses.clear()
        return planned, ""

    def _timed(self, batches: Iterator[NDArray[np.uint8]]) -> tuple[int, str]:
        """Take the first steps, or those of a minute, and tell from them how many fit."""
        session, seconds = self.session, self.session.plan.seconds or 0.0
        began = first = time.monotonic()
        with self.progress.task(f"{self.label}: timing", WARMUP) as advance:
            while session.step < WARMUP:
                if not math.isfinite(session.take(next(batches), None)):
                    return session.step, self._broken()
                advance(1)
                now = time.monotonic()
                first = now if session.step == 1 else first
                if session.step > 1 and now - began > min(MEASURED, 0.5 * seconds):
                    break
        each = (time.monotonic() - first) / max(1, session.step - 1)
        left = seconds - self._seconds() - 2 * (began - self.began)
        planned = session.step + max(0, int(left / each))
        self.progress.note(f"{self.label}: {planned} steps of {each:.2g} s fit into the time")
        return planned, ""

    def _broken(self) -> str:
        what = "the best state before" if self.keeper.best is not None else "the state before it"
        return (
            f"the loss was not finite after step {self.session.step}: training stopped, and "
            f"{what} was restored; a lower lr may help"
        )


def _input_shape(gm: fx.GraphModule) -> tuple[int, int, int]:
    """Return channels, height and width of the images that a graph takes."""
    value = next(n for n in gm.graph.nodes if n.op == "placeholder").meta.get("yqc.value")
    if not isinstance(value, TensorSpec) or len(value.shape) != 4 or value.shape[1] not in (1, 3):  # noqa: PLR2004
        raise PassError("only a graph that takes images [N,3,H,W] can be trained on images")
    return value.shape[1], value.shape[2], value.shape[3]


def _taps(gm: fx.GraphModule, original: fx.GraphModule, plan: Plan) -> list[Tap]:
    """List what is compared; the heads must be of one form."""
    taps = head_taps(original)
    shapes = [
        {n.name: n.meta.get("yqc.value") for n in graph.graph.nodes} for graph in (gm, original)
    ]
    for tap in taps:
        if shapes[0].get(tap.name) != shapes[1][tap.name]:
            raise PassError(
                f"node {tap.name} of the original computes {shapes[1][tap.name]}, and the graph "
                f"{shapes[0].get(tap.name, 'has no such node')}: there is nothing to learn from"
            )
    return taps + (feature_taps(gm, original) if plan.features else [])
