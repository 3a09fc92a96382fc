"""Time ONNX files under one runtime in paired runs: each round runs every file once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from yqc.evaluation import openvino
from yqc.evaluation.detect import input_size
from yqc.evaluation.runner import OnnxModel
from yqc.progress import Progress, Silent

Runtime = Literal["onnxruntime", "openvino"]
_WARM_UP = 3
"""Rounds that are not counted: the first ones allocate memory and fill caches."""


@dataclass(frozen=True)
class Timing:
    """How long files take for one run, in milliseconds of wall time, and against the first file."""

    paths: tuple[Path, ...]
    ms: tuple[float, ...]
    """Median of each file over all rounds."""
    ratios: tuple[float, ...]
    """First file's time / this file's time, median over rounds; above 1 is faster."""
    runs: int
    """How many rounds were measured."""
    threads: int | None
    """Threads within an operator; None if the runtime chose."""


def latency(
    paths: Sequence[Path],
    *,
    imgsz: tuple[int, int] | None = None,
    threads: int | None = None,
    runs: int = 30,
    runtime: Runtime = "onnxruntime",
    progress: Progress | None = None,
) -> Timing:
    """Time ONNX detectors against each other on one image of seeded noise.

    The files take turns within a round and the order turns from round to round, so that a machine
    that slows down slows all of them down; only the run itself is timed.

    Args:
        paths: the files; the first is the one the others are compared with.
        imgsz: height and width of the input; by default what each file fixes or records, else 640.
        threads: threads within an operator; None leaves it to the runtime.
        runs: how many rounds to measure, at least 1; a few more warm up.
        runtime: what runs them, on the CPU.
        progress: shown a round at a time.

    Raises:
        CheckpointError: a file cannot be run.
        YqcError: the runtime is not installed.
    """
    noise = np.random.default_rng(0)
    calls = [_call(path, noise, imgsz, threads, runtime) for path in paths]
    measured = _paired(calls, runs, progress or Silent())
    return Timing(
        paths=tuple(paths),
        ms=tuple(1000 * median(column) for column in measured.T.tolist()),
        ratios=tuple(median(column) for column in (measured[:, :1] / measured).T.tolist()),
        runs=runs,
        threads=threads,
    )


def _call(
    path: Path,
    noise: np.random.Generator,
    imgsz: tuple[int, int] | None,
    threads: int | None,
    runtime: Runtime,
) -> Callable[[], object]:
    """Return a function that runs a file once on one prepared image."""
    model = OnnxModel(path, threads=threads)
    image = noise.random((1, model.channels, *input_size(model, imgsz)), dtype=np.float32)
    images = model.prepare(image)
    if runtime == "openvino":
        return openvino.runner(path, images, threads)
    return lambda: model.run_prepared(images)


def _paired(
    calls: Sequence[Callable[[], object]], runs: int, progress: Progress
) -> NDArray[np.float64]:
    """Time calls against each other: seconds [runs, calls]."""
    seconds = np.zeros((_WARM_UP + runs, len(calls)))
    with progress.task("measuring latency", total=len(seconds)) as advance:
        for turn in range(len(seconds)):
            for i in np.roll(np.arange(len(calls)), turn).tolist():
                start = perf_counter()
                calls[i]()
                seconds[turn, i] = perf_counter() - start
            advance(1)
    return seconds[_WARM_UP:]
