"""Train a rewritten graph, without labels, to compute what the float original does (distillation).

1. Both graphs run on the same augmented images; their outputs are compared before the decoding
   (`heads`, `losses`). No annotation is read. Nodes that still compute the same are computed once
   and not trained (`untouched`).
2. The graph ends with a running average of its weights over the steps.
3. A loss or gradient that is not finite ends the training; the best state so far is restored, and
   the outcome says so. Of packed weights the state nearest to the original on held-out images is
   kept, and the training ends where no rate improves on it (`guard`). If the graph has not come
   closer to the original on plain images, the state before the first step is restored.
4. The result is determined by the graph, the images and the plan, for one device and one number of
   threads: the batch and the learning rate of a step follow from its number.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import fx

from yqc.errors import PassError
from yqc.graph.values import TensorSpec
from yqc.pipeline.base import Context
from yqc.progress import Progress
from yqc.training.guard import HeldOutGuard, guard_packed
from yqc.training.heads import Tap, feature_taps, head_taps, hint_taps
from yqc.training.images import ENOUGH, TrainingImages
from yqc.training.plan import RATE, SWAPPED, WARMUP, Plan, TrainingOutcome
from yqc.training.rate_check import RateCheck
from yqc.training.session import Session
from yqc.training.state import Checkpoints
from yqc.training.student import Student
from yqc.training.teacher import Teacher
from yqc.training.untouched import find_sources, find_untouched

TIMED = 60.0
"""Seconds of steps from which the time of a step is estimated, at most. Half of it estimates a slow
machine from two or three steps; double delays the plan by a minute."""
JUDGING_IMAGES = 16
"""Plain images on which the losses before and after are computed. Not measured: half of them
decides on few objects whether a training is undone; double takes twice as long."""
TRIAL_IMAGES = 8
"""Plain images on which trial steps are compared. Not measured: half of them gives a noisier rate;
double takes twice as long."""
HELD_OUT = 4
"""Judging images are held out of a checked training that has so many times as many, or more, and of
a guarded one of few images at most one in so many. With half as many a third of few images would be
held out; with twice as many small sets have none."""
NOTES = 20
"""A training reports its loss about this often."""
Check = RateCheck | HeldOutGuard | None
"""What looks at held-out images on the way."""


def distill(
    gm: fx.GraphModule,
    original: fx.GraphModule,
    images: Sequence[Path],
    plan: Plan,
    ctx: Context | None = None,
    *,
    progress: Progress | None = None,
    label: str = "recovering",
) -> TrainingOutcome:
    """Train `gm`, in place, to compute what `original` does.

    Args:
        gm: a float graph, or one with quantizers; batch norms may be folded or not.
        original: the float graph as it was traced; not changed.
        images: files to train on; annotations are not needed.
        plan: length and learning rate.
        ctx: gives the device, and the cache for checkpoints.
        progress: where the work is shown; by default the context's.
        label: name of the work there.

    Returns:
        The outcome. `gm` is as before if its `problem` says that the training was undone.

    Raises:
        DataError: fewer than 4 images can be read.
        PassError: the graphs cannot be compared, or cannot take images of the plan's size.
    """
    ctx = ctx or Context()
    progress = progress or ctx.progress
    workers = 1 if ctx.device == "cpu" else min(16, os.cpu_count() or 1)
    channels, *size = _input_shape(gm)
    imgsz = plan.imgsz or (size[0], size[1])
    plan, hints = _plan_swapped(plan, gm, original)
    plan = guard_packed(plan, gm)
    learned, held = _hold_out(images, plan)
    crop = ctx.form is not None and ctx.form.task == "classify"
    data = TrainingImages(learned, imgsz, plan.seed, channels, crop, workers=workers)
    judges = replace(data, paths=held)
    same = set() if plan.bn_l1 else find_untouched(gm, original)
    taps = _taps(gm, original, plan, hints)
    if all(tap.name in same for tap in taps):
        same = set()  # nothing was changed: all of it is trained
    taps = [tap for tap in taps if tap.kind != "feature" or tap.name not in same]
    checkpoints = Checkpoints.of(ctx.cache, gm, plan, images)
    begin = find_sources(gm, same, [tap.name for tap in taps])
    student = Student(gm, taps, ctx.device, begin)
    try:
        teacher = Teacher.of(original, taps, begin, ctx.device)
        session = Session(student, teacher, taps, plan)
        run = _Run(session, data, judges, checkpoints, progress, label)
        outcome = run.run()
    finally:
        student.close()
    if data.unreadable:
        path, why = next(iter(data.unreadable.items()))
        ctx.warn(f"{len(data.unreadable)} training images cannot be read: {path}: {why}")
    return outcome


@dataclass
class _Run:
    """A training from its first step, or from its last checkpoint, to its end."""

    session: Session
    data: TrainingImages
    judges: TrainingImages
    """Those that the losses before and after are computed on."""
    checkpoints: Checkpoints
    progress: Progress
    label: str
    began: float = field(default_factory=time.monotonic)
    earlier: float = 0.0
    """Seconds that were spent before a resumption."""

    def run(self) -> TrainingOutcome:
        """Train, choose the state to end with, and return the outcome."""
        session, plan, student = self.session, self.session.plan, self.session.student
        start = {k: v.clone() for k, v in student.state.items()}
        plain = self.judges.plain(min(JUDGING_IMAGES, len(self.judges.paths)))
        if (about := self.checkpoints.restore(session)) is not None:
            self.earlier, before = float(about["spent"]), self.checkpoints.before
            self.progress.note(f"{self.label}: going on after step {session.step}")
        else:
            before = self.checkpoints.before = self._first_loss(plain)
            session.adapt(before, plain[:TRIAL_IMAGES])
        check: Check = RateCheck(plain, start, before) if plan.checked else None
        guard = HeldOutGuard(plain, start, plan.lr or RATE, self.checkpoints)
        planned, problem = self._train(before, guard if plan.guarded else check)
        if plan.guarded and not problem:
            problem = guard.finish(session)
        student.load_state(session.average if not problem else self.checkpoints.best or start)
        after = session.evaluate_loss(plain)
        if not after <= before and not plan.bn_l1:
            problem = problem or "it did not come closer to the original and was undone"
            student.load_state(start)
            after = before
        return TrainingOutcome(
            steps=session.step,
            planned=planned,
            epochs=session.step * plan.batch / len(self.data.paths),
            seconds=self._seconds(),
            before=before,
            after=after,
            parameters=sum(p.numel() for p in session.parameters.values()),
            problem=problem,
        )

    def _seconds(self) -> float:
        return self.earlier + time.monotonic() - self.began

    def _first_loss(self, plain: NDArray[np.uint8]) -> float:
        """Return the loss before training.

        Raises:
            PassError: the graphs cannot take these images.
        """
        try:
            return self.session.evaluate_loss(plain)
        except RuntimeError as error:
            if self.session.plan.imgsz is None:
                raise
            height, width = plain.shape[2:]
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            raise PassError(
                f"the graph cannot be trained on images of {height} x {width} pixels ({reason}); "
                "leave imgsz out to train at the size it was traced for"
            ) from error

    def _train(self, before: float, check: Check) -> tuple[int, str]:
        """Take the steps; return the number that was planned, and what ended them early."""
        session, plan, images = self.session, self.session.plan, len(self.data.paths)
        planned = self.checkpoints.planned or plan.count_steps(images)
        with contextlib.closing(self.data.batches(plan.batch, session.step)) as batches:
            if planned is None:
                planned, problem = self._train_timed(batches, check)
                if problem:
                    return planned, problem
            epoch, losses = plan.steps_per_epoch(images), self.checkpoints.losses
            often = max(1, math.ceil(planned / epoch / NOTES)) * epoch
            left = max(0, planned - session.step)
            with self.progress.task(self.label, left) as advance:
                while session.step < planned and not (check is not None and check.stopped):
                    loss = session.train_step(next(batches), planned)
                    if not math.isfinite(loss):
                        return planned, self._describe_failure()
                    losses.append(loss)
                    advance(1)
                    self._check(check, planned)
                    if session.step % epoch == 0:
                        mean = sum(losses) / len(losses)
                        if not plan.guarded:
                            self.checkpoints.remember_best(session, mean)
                        losses.clear()
                        if session.step % often == 0:
                            self.progress.note(
                                f"{self.label}: epoch {session.step // epoch} of "
                                f"{planned / epoch:.3g}, loss {mean:.4g} (first {before:.4g})"
                            )
                    self.checkpoints.save(session, planned, spent=self._seconds())
        return planned, ""

    def _train_timed(self, batches: Iterator[NDArray[np.uint8]], check: Check) -> tuple[int, str]:
        """Take the first steps, or those of a minute; return how many fit into the time."""
        session, seconds = self.session, self.session.plan.seconds or 0.0
        began = first = time.monotonic()
        earlier = session.step  # not 0 if it was interrupted while it was timed
        with self.progress.task(f"{self.label}: timing", WARMUP) as advance:
            while session.step < WARMUP or session.step < earlier + 2:
                if not math.isfinite(session.train_step(next(batches), None)):
                    return session.step, self._describe_failure()
                advance(1)
                if self._check(check, None):
                    return session.step, ""
                now = time.monotonic()
                first = now if session.step == earlier + 1 else first
                self.checkpoints.save(session, None, spent=self._seconds())
                if session.step > earlier + 1 and now - began > min(TIMED, 0.5 * seconds):
                    break
        each = (time.monotonic() - first) / max(1, session.step - earlier - 1)
        left = seconds - self._seconds() - 2 * (began - self.began)
        planned = session.step + max(0, int(left / each))
        self.progress.note(f"{self.label}: {planned} steps of {each:.2g} s fit into the time")
        return planned, ""

    def _check(self, check: Check, planned: int | None) -> bool:
        """Check the training if it is time; return whether it is to end."""
        if check is not None and (said := check.check(self.session, planned)):
            self.progress.note(f"{self.label}: {said}")
        return check is not None and check.stopped

    def _describe_failure(self) -> str:
        what = (
            "the best state before" if self.checkpoints.best is not None else "the state before it"
        )
        return (
            f"the loss was not finite after step {self.session.step}: training stopped, and "
            f"{what} was restored; a lower lr may help"
        )


def _input_shape(gm: fx.GraphModule) -> tuple[int, int, int]:
    """Return channels, height and width of the images that a graph takes."""
    value = next(n for n in gm.graph.nodes if n.op == "placeholder").meta.get("yqc.value")
    match value.shape if isinstance(value, TensorSpec) else ():
        case (_, channels, height, width):
            return channels, height, width
    raise PassError("only a graph that takes images [N,C,H,W] can be trained on images")


def _plan_swapped(
    plan: Plan, gm: fx.GraphModule, original: fx.GraphModule
) -> tuple[Plan, list[Tap]]:
    """Return the plan for a graph, and the features that stand for others where it was swapped."""
    hints = hint_taps(gm, original)
    if not hints:
        return plan, []
    rate = SWAPPED if plan.lr is None and plan.optimizer == "adamw" else plan.lr
    frozen = True if plan.freeze_bn is None else plan.freeze_bn
    return replace(plan, lr=rate, freeze_bn=frozen, checked=plan.lr is None), hints


def _hold_out(images: Sequence[Path], plan: Plan) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Split images into those to train on and those to judge on: the same, unless it is checked."""
    images = tuple(images)
    count = JUDGING_IMAGES if plan.checked and len(images) >= HELD_OUT * JUDGING_IMAGES else 0
    if plan.guarded:
        count = min(JUDGING_IMAGES, len(images) // HELD_OUT)
    if count < ENOUGH:
        return images, images
    order = np.random.default_rng((plan.seed, 4)).permutation(len(images)).tolist()
    held = set(order[:count])
    chosen = tuple(image for i, image in enumerate(images) if i in held)
    return tuple(image for i, image in enumerate(images) if i not in held), chosen


def _taps(
    gm: fx.GraphModule, original: fx.GraphModule, plan: Plan, hints: Sequence[Tap]
) -> list[Tap]:
    """List the tensors to compare; the heads must be of one form."""
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
    features = [*hints] or feature_taps(gm, original)
    return taps + (features if plan.features else [])
