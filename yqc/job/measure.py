"""Measure accuracy and latency of the compiled file beside the float model's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yqc import evaluation as ev
from yqc.data import Data, Split, Unreadable, list_unreadable, read_images, to_float
from yqc.emit.roundtrip import open_session, run_session
from yqc.errors import DataError
from yqc.job.baseline import detect_resumably, detect_with_float, write_float_file
from yqc.job.inputs import decode_of
from yqc.job.speed import time_compiled
from yqc.job.work import Work
from yqc.models.source import Source
from yqc.progress import Progress
from yqc.report import Accuracy, ClassScore, Latency
from yqc.settings import Settings
from yqc.targets import find_target

ZERO = 0.001
"""An mAP below this counts as 0: boxes that fit nothing score about that much (EXIF-turned
photographs that were not turned: 0.001). Half of it misses these; double flags models that have
barely learned.
"""
UNEQUAL_WORK = (
    "latency: the float file decodes its outputs itself, the compiled one leaves that to the host; "
    "yqc bench --end-to-end times both up to the objects"
)
"""What a report says of the times of a file without the decoding."""

FILE_LABEL = "evaluating the compiled file"
JUDGING_LABEL = "comparing accuracies"


@dataclass(frozen=True)
class Evidence:
    """What both models found in the evaluation images, and how it was judged."""

    split: Split
    found: tuple[ev.Detections, ev.Detections]
    """By the float model, and by the compiled one."""
    judged: tuple[ev.DetectorAccuracy, ev.DetectorAccuracy] | None = None
    """None where the images have no labels."""


@dataclass(frozen=True)
class Measured:
    """The part of a report that needs both files to run."""

    accuracy: Accuracy = field(default_factory=Accuracy.unmeasured)
    latency: Latency | None = None
    warnings: tuple[str, ...] = ()
    evidence: Evidence | None = None
    """What the accuracy was computed from; None without images."""


def measure_against(
    source: Source,
    compiled: Path,
    data: Data | None,
    settings: Settings,
    progress: Progress,
    *,
    work: Work,
    latency: bool = True,
) -> Measured:
    """Put the float model's file beside the compiled one, measure both, and remove it again.

    What a store keeps of the float model is not computed again. Without `latency` nothing is
    timed.

    Raises:
        DataError: there is no image to evaluate on.
    """
    if source.form is None and data is None:
        return Measured(Accuracy.unmeasured(source.task))
    plain = compiled.with_name("float.onnx")
    write_float_file(source, settings, work.user, plain)
    threads = settings.threads or ev.count_cores()
    how: dict[str, Any] = {"threads": threads, "progress": progress}
    try:
        measured = Measured(Accuracy.unmeasured(source.task))
        if source.form is None:
            return measure_outputs(plain, compiled, data, source) if data else measured
        if data is not None:
            measured = measure_accuracy(plain, compiled, data, source, settings, work, **how)
        if not latency:
            return measured
        target = find_target(settings.target)
        timed, why = time_compiled(plain, compiled, target, imgsz=source.imgsz, **how)
        if timed is not None and decode_of(settings) != "full":
            why += (UNEQUAL_WORK,)
        return replace(measured, latency=timed, warnings=(*measured.warnings, *why))
    finally:
        plain.unlink()


def measure_accuracy(
    original: Path,
    compiled: Path,
    data: Data,
    source: Source,
    settings: Settings,
    work: Work,
    *,
    threads: int,
    progress: Progress,
) -> Measured:
    """Evaluate the float file and the compiled one on the same images.

    Labelled images give mAP, a folder gives the agreement of the two.

    Raises:
        DataError: there is no image to evaluate on.
    """
    split = data.val
    if not split.images:
        raise DataError(f"{data.source} has no images to evaluate on; use --no-eval to skip that")
    how: dict[str, Any] = {"threads": threads, "progress": progress}
    first, origin = detect_with_float(original, data, source, settings, work, **how)
    second = detect_resumably(compiled, split, source, work, label=FILE_LABEL, **how)
    warnings = list_unreadable("evaluation", second.skipped)
    truth, evidence = split.annotations, Evidence(split, (first, second))
    if truth is None:
        agreed = ev.agreement(first, second)
        accuracy = Accuracy.of_agreement(
            images=agreed.images, agreement=agreed, baseline=origin, task=source.task
        )
    else:
        with progress.task(JUDGING_LABEL, 0):
            before, after = (ev.accuracy(one, truth) for one in (first, second))
            interval = ev.drop_interval(before.resampled, after.resampled, seed=settings.seed)
        warnings += doubt_zero("float model", before)
        accuracy = Accuracy.of_map(
            images=after.images,
            float_=before,
            compiled=after,
            baseline=origin,
            task=source.task,
            main=before.main,
            interval=interval,
            classes=score_classes(source.names, before, after),
        )
        evidence = replace(evidence, judged=(before, after))
    return Measured(accuracy, warnings=warnings, evidence=evidence)


def score_classes(
    names: Sequence[str], before: ev.DetectorAccuracy, after: ev.DetectorAccuracy
) -> list[ClassScore]:
    """Put the main figures of the classes by both models side by side."""
    rows = zip(names, before.by_class, after.by_class, strict=False)
    return [ClassScore(name=name, float_=old, compiled=new) for name, old, new in rows]


def measure_outputs(original: Path, compiled: Path, data: Data, source: Source) -> Measured:
    """Compare what two files of a net that is no detector compute for the evaluation images.

    Raises:
        DataError: there is no readable image to evaluate on.
    """
    split, skipped = data.val, []
    sessions = [open_session(path) for path in (original, compiled)]
    power: NDArray[np.float64] | float = 0.0
    noise: NDArray[np.float64] | float = 0.0
    worst, images = 0.0, 0
    for image in read_images(split.images, source.imgsz, channels=source.channels):
        if isinstance(image, Unreadable):
            skipped.append(image)
            continue
        given = [to_float(image.pixels)]
        pairs = list(zip(*(run_session(session, given) for session in sessions), strict=True))
        wide = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
        power = power + np.array([np.square(a).sum() for a, _ in wide])
        noise = noise + np.array([np.square(a - b).sum() for a, b in wide])
        worst = max(worst, *(float(np.abs(a - b).max(initial=0.0)) for a, b in wide))
        images += 1
    if not images:
        bad = f"; the first: {skipped[0]}" if skipped else ""
        raise DataError(split.absent or f"no image of the {split.name} split can be read{bad}")
    ratios = [p / n for p, n in np.stack([power, noise], 1) if n > 0]
    lowest = 10 * math.log10(min(ratios)) if ratios and min(ratios) > 0 else None
    accuracy = Accuracy.of_outputs(images=images, sqnr_db=lowest, max_abs_error=worst)
    return Measured(accuracy, warnings=list_unreadable("evaluation", skipped))


def doubt_zero(model: str, accuracy: ev.DetectorAccuracy) -> tuple[str, ...]:
    """Say in a sentence why there is no main figure, or that data do not fit if it is 0."""
    score = accuracy.main_figure
    if score is None:
        return ("nothing that this model finds is labelled in the images: it has no accuracy",)
    if score >= ZERO:
        return ()
    if accuracy.main == "top1":
        said = (
            f"the {model} finds the labelled class of no image: the data does not fit it; "
            "check --imgsz and the order of the classes"
        )
        return (said,)
    said = (
        f"the {model} finds nothing that is labelled (mAP {score:.4f}): the data does not fit it; "
        "check --imgsz, the order of the classes, and that boxes and images belong together"
    )
    return (said,)
