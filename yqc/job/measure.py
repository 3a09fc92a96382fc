"""What a compile measures of its result: accuracy next to the float model's, and latency."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yqc import evaluation as ev
from yqc.data import Data, Split, Unreadable
from yqc.errors import DataError
from yqc.progress import Progress
from yqc.report import Accuracy, Latency

TIMED_RUNS = 10


@dataclass(frozen=True)
class Evidence:
    """What both models found in the evaluation images, and how it was judged."""

    split: Split
    found: tuple[ev.Detections, ev.Detections]
    """By the float model, and by the compiled one."""
    judged: tuple[ev.Accuracy, ev.Accuracy] | None = None
    """None where the images have no labels."""


@dataclass(frozen=True)
class Measured:
    """The part of a report that needs both files to run."""

    accuracy: Accuracy
    latency: Latency | None
    warnings: tuple[str, ...] = ()
    evidence: Evidence | None = None
    """What the accuracy was told from; None without images."""


def measure(
    original: Path,
    compiled: Path,
    data: Data | None,
    *,
    imgsz: tuple[int, int],
    layout: ev.Layout,
    threads: int,
    progress: Progress,
) -> Measured:
    """Evaluate the float file and the compiled one on the same images, and time both.

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
    files = (original, compiled)
    timing = ev.latency(files, threads=threads, runs=TIMED_RUNS, imgsz=imgsz, progress=progress)
    latency = Latency(
        float_ms=timing.ms[0], compiled_ms=timing.ms[1], ratio=timing.ratios[1], threads=threads
    )
    if data is None:
        return Measured(Accuracy.unmeasured(), latency)
    split = data.val
    if not split.images:
        raise DataError(f"{data.source} has no images to evaluate on; use --no-eval to skip that")
    found = [
        ev.detect(path, split, imgsz=imgsz, layout=layout, threads=threads, progress=progress)
        for path in files
    ]
    warnings = unreadable("evaluation", found[1].skipped)
    truth, evidence = split.annotations, Evidence(split, (found[0], found[1]))
    if truth is None:
        agreed = ev.agreement(*found)
        accuracy = Accuracy.of_agreement(images=agreed.images, agreement=agreed)
    else:
        before, after = (ev.accuracy(one, truth) for one in found)
        accuracy = Accuracy.of_map(images=after.images, float_=before, compiled=after)
        evidence = replace(evidence, judged=(before, after))
    return Measured(accuracy, latency, warnings, evidence)


def unreadable(what: str, skipped: Sequence[Unreadable]) -> tuple[str, ...]:
    """Say which images were left out because they could not be read, in a sentence or none."""
    if not skipped:
        return ()
    return (f"{len(skipped)} {what} images could not be read, the first was {skipped[0]}",)
