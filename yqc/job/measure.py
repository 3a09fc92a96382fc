"""Measure accuracy and latency of the compiled file beside the float model's."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from yqc import evaluation as ev
from yqc.data import Data, Split, list_unreadable
from yqc.emit import emit, save
from yqc.errors import DataError
from yqc.job.speed import time_compiled
from yqc.models.source import Source
from yqc.progress import Progress
from yqc.report import Accuracy, Latency
from yqc.settings import Settings
from yqc.targets import find_target

ZERO = 0.001
"""An mAP below this counts as 0: boxes that fit nothing score about that much (EXIF-turned
photographs that were not turned: 0.001). Half of it misses these; double flags models that have
barely learned.
"""


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
    latency: bool = True,
) -> Measured:
    """Emit the float model beside the compiled file, measure both, and remove it again.

    Without `latency` nothing is timed.

    Raises:
        DataError: there is no image to evaluate on.
    """
    if source.layout is None:
        return Measured()
    plain = compiled.with_name("float.onnx")
    save(emit(source.gm, opset=settings.opset), plain)
    threads = settings.threads or ev.count_cores()
    how: dict[str, Any] = {"imgsz": source.imgsz, "threads": threads, "progress": progress}
    try:
        measured = measure_accuracy(plain, compiled, data, layout=source.layout, **how)
        if not latency:
            return measured
        timed, why = time_compiled(plain, compiled, find_target(settings.target), **how)
        return replace(measured, latency=timed, warnings=(*measured.warnings, *why))
    finally:
        plain.unlink()


def measure_accuracy(
    original: Path,
    compiled: Path,
    data: Data | None,
    *,
    imgsz: tuple[int, int],
    layout: ev.Layout,
    threads: int,
    progress: Progress,
) -> Measured:
    """Evaluate the float file and the compiled one on the same images.

    Args:
        original: the float model's file.
        compiled: the compiled model's file.
        data: labelled images give mAP, a folder gives the agreement of the two, None nothing.
        imgsz: height and width in pixels.
        layout: how the outputs of both are laid out.
        threads: of onnxruntime.
        progress: shown an image at a time.

    Raises:
        DataError: there is no image to evaluate on.
    """
    if data is None:
        return Measured()
    split = data.val
    if not split.images:
        raise DataError(f"{data.source} has no images to evaluate on; use --no-eval to skip that")
    found = [
        ev.detect(path, split, imgsz=imgsz, layout=layout, threads=threads, progress=progress)
        for path in (original, compiled)
    ]
    warnings = list_unreadable("evaluation", found[1].skipped)
    truth, evidence = split.annotations, Evidence(split, (found[0], found[1]))
    if truth is None:
        agreed = ev.agreement(*found)
        accuracy = Accuracy.of_agreement(images=agreed.images, agreement=agreed)
    else:
        before, after = (ev.accuracy(one, truth) for one in found)
        warnings += doubt_zero("float model", before.map)
        accuracy = Accuracy.of_map(images=after.images, float_=before, compiled=after)
        evidence = replace(evidence, judged=(before, after))
    return Measured(accuracy, warnings=warnings, evidence=evidence)


def doubt_zero(model: str, score: float | None) -> tuple[str, ...]:
    """Say in a sentence that an mAP of 0 (`score`) means that data and model do not fit."""
    if score is None or score >= ZERO:
        return ()
    said = (
        f"the {model} finds nothing that is labelled (mAP {score:.4f}): the data does not fit it; "
        "check --imgsz, the order of the classes, and that boxes and images belong together"
    )
    return (said,)
