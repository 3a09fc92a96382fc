"""Latency of ONNX files under onnxruntime, in paired runs: each round runs every file once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from yqc.evaluate.detect import input_size
from yqc.evaluate.runner import OnnxModel
from yqc.progress import Progress, Silent

_WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """How long files take for one run, in milliseconds of wall time, and against the first file."""

    paths: tuple[Path, ...]
    ms: tuple[float, ...]
    """Median of each file over all rounds."""
    ratios: tuple[float, ...]
    """First file's time / this file's time, median over rounds; above 1 is faster."""
    runs: int
    """How many rounds were measured."""
    threads: int | None
    """Threads within an operator; None if onnxruntime chose."""


def latency(
    paths: Sequence[Path],
    *,
    imgsz: tuple[int, int] | None = None,
    threads: int | None = None,
    runs: int = 30,
    progress: Progress | None = None,
) -> Latency:
    """Time ONNX detectors against each other on one image of seeded noise.

    The files take turns within a round and the order turns from round to round, so that a machine
    that slows down slows all of them down; only the run itself is timed.

    Args:
        paths: the files; the first is the one the others are compared with.
        imgsz: height and width of the input; by default what each file fixes or records, else 640.
        threads: threads within an operator; None leaves it to onnxruntime.
        runs: how many rounds to measure, at least 1; a few more warm up.
        progress: shown a round at a time.

    Raises:
        CheckpointError: a file cannot be run.
    """
    models = [OnnxModel(path, threads=threads) for path in paths]
    noise = np.random.default_rng(0)
    inputs = [
        m.prepare(noise.random((1, 3, *input_size(m, imgsz)), dtype=np.float32)) for m in models
    ]
    seconds = np.zeros((_WARM_UP + runs, len(models)))
    with (progress or Silent()).task("measuring latency", total=len(seconds)) as advance:
        for turn in range(len(seconds)):
            for i in np.roll(np.arange(len(models)), turn):
                start = perf_counter()
                models[i].run_prepared(inputs[i])
                seconds[turn, i] = perf_counter() - start
            advance(1)
    measured = seconds[_WARM_UP:]
    return Latency(
        paths=tuple(paths),
        ms=tuple(1000 * median(column) for column in measured.T.tolist()),
        ratios=tuple(median(column) for column in (measured[:, :1] / measured).T.tolist()),
        runs=runs,
        threads=threads,
    )
