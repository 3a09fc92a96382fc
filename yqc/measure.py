"""What a compile measures of its result: accuracy next to the float model's, and latency."""

from dataclasses import dataclass
from pathlib import Path

from yqc import evaluate as ev
from yqc.data import Data
from yqc.errors import DataError
from yqc.progress import Progress
from yqc.report import Accuracy, Latency

TIMED_RUNS = 10


@dataclass(frozen=True)
class Measured:
    """The part of a report that needs both files to run."""

    accuracy: Accuracy
    latency: Latency | None


def measure(  # noqa: D417  # the paths say it
    original: Path,
    compiled: Path,
    data: Data | None,
    *,
    imgsz: tuple[int, int],
    threads: int,
    progress: Progress,
) -> Measured:
    """Evaluate the float file and the compiled one on the same images, and time both.

    Args:
        data: labelled images give mAP, a folder gives the agreement of the two, None nothing.
        imgsz: height and width in pixels.
        threads: of onnxruntime.

    Raises:
        DataError: there is no image to evaluate on.
    """
    timing = ev.latency(
        [original, compiled], threads=threads, runs=TIMED_RUNS, imgsz=imgsz, progress=progress
    )
    latency = Latency.measured(
        float_ms=timing.ms[0],
        compiled_ms=timing.ms[1],
        threads=threads,
    )
    if data is None:
        return Measured(Accuracy.unmeasured(), latency)
    split = data.val
    if not split.images:
        raise DataError(f"{data.source} has no images to evaluate on; use --no-eval to skip that")
    found = [
        ev.detect(path, split, imgsz=imgsz, threads=threads, progress=progress)
        for path in (original, compiled)
    ]
    truth = split.annotations
    if truth is None:
        agreed = ev.agreement(*found)
        return Measured(Accuracy.of_agreement(images=agreed.images, agreement=agreed), latency)
    before, after = (ev.accuracy(one, truth) for one in found)
    accuracy = Accuracy.of_map(images=after.images, float_=before, compiled=after)
    return Measured(accuracy, latency)
