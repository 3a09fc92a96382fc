"""Time a compiled file beside the float model's, in the runtime that it was compiled for."""

from pathlib import Path

from yqc import evaluation as ev
from yqc.errors import YqcError
from yqc.evaluation import openvino
from yqc.progress import Progress
from yqc.report import Latency
from yqc.targets import Target

Timed = tuple[Latency | None, tuple[str, ...]]
"""The latency, or None and why there is none."""


def time_compiled(
    original: Path,
    compiled: Path,
    target: Target,
    *,
    imgsz: tuple[int, int],
    threads: int,
    progress: Progress,
) -> Timed:
    """Time both files in turn in the target's runtime, as that comes.

    Args:
        original: the float model's file.
        compiled: the compiled model's file.
        target: what it was compiled for.
        imgsz: height and width in pixels.
        threads: of the runtime.
        progress: shown a round at a time.

    Returns:
        The latency, or None where the runtime cannot run here or refuses a file; and warnings.
    """
    if target.runtime is None:
        why = f"latency is not measured: {target.name} does not run here; there, {target.engine}"
        return None, (why,)
    if target.runtime == "openvino" and not openvino.installed():
        return None, ("latency is not measured: OpenVINO is not installed; pip install openvino",)
    try:
        timing = ev.latency(
            (original, compiled),
            threads=threads,
            imgsz=imgsz,
            runtime=target.runtime,
            progress=progress,
        )
    except YqcError as error:
        return None, (f"latency is not measured: {error}",)
    return as_latency(timing), ()


def as_latency(timing: ev.Timing) -> Latency:
    """Return how long a float file and a compiled one take, as the report holds it."""

    def both(values: tuple[float, ...]) -> tuple[float, float]:
        return values[0], values[1]

    return Latency(
        runtime=timing.runtime,
        version=timing.version,
        float_ms=timing.ms[0],
        compiled_ms=timing.ms[1],
        p10=both(timing.p10),
        p90=both(timing.p90),
        ratio=timing.ratios[1],
        interval=timing.intervals[1],
        rounds=timing.rounds,
        threads=timing.threads or ev.count_cores(),
        load_ms=both(timing.load_ms),
    )
