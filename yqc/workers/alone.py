"""Times of files on a machine of a cluster that runs nothing else."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from yqc.job.speed import Timed, time_compiled
from yqc.progress import Silent
from yqc.report.environment import cpu_name
from yqc.targets import Target
from yqc.workers.cluster import RayWorkers


def time_alone(
    workers: RayWorkers,
    original: Path,
    compiled: Path,
    target: Target,
    *,
    imgsz: tuple[int, int],
    threads: int,
) -> Timed:
    """Time two files of this machine on one of a cluster; the result names that machine.

    Raises:
        ClusterError: no machine is left.
    """
    contents = original.read_bytes(), compiled.read_bytes()
    machine, ((latency, why), cpu) = workers.run_alone(
        time_contents, *contents, target, imgsz, threads
    )
    return (latency and replace(latency, machine=f"{machine}, {cpu}")), why


def time_contents(
    original: bytes, compiled: bytes, target: Target, imgsz: tuple[int, int], threads: int
) -> tuple[Timed, str]:
    """Time two files by their contents here; return the processor's name, too."""
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "float.onnx"), Path(folder, "compiled.onnx")
        for path, content in zip(paths, (original, compiled), strict=True):
            path.write_bytes(content)
        how: dict[str, Any] = {"imgsz": imgsz, "threads": threads, "progress": Silent()}
        return time_compiled(*paths, target, **how), cpu_name()
