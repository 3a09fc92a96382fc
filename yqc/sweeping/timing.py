"""Times of a sweep's files, taken one at a time when no cell runs, and put into their reports."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from yqc.job.speed import Timed, time_compiled
from yqc.progress import Silent
from yqc.report import Report
from yqc.settings import Settings
from yqc.sweeping.folder import SweepFolder
from yqc.targets import find_target
from yqc.workers import RayWorkers, time_alone


@dataclass(frozen=True)
class Timing:
    """Two files to time in turn."""

    original: Path
    compiled: Path
    settings: Settings
    imgsz: tuple[int, int]

    def take(self) -> Timed:
        """Time them here."""
        target, threads = find_target(self.settings.target), self.settings.threads or 1
        how = {"imgsz": self.imgsz, "threads": threads, "progress": Silent()}
        return time_compiled(self.original, self.compiled, target, **how)  # type: ignore[arg-type]


def take_on(workers: RayWorkers, timing: Timing) -> Timed:
    """Time two files on one machine of a cluster, which runs nothing else."""
    target, threads = find_target(timing.settings.target), timing.settings.threads or 1
    files = timing.original, timing.compiled
    return time_alone(workers, *files, target, imgsz=timing.imgsz, threads=threads)


TakesTime = Callable[[Timing], Timed]
"""Times two files, here or elsewhere."""


def add_time(folder: SweepFolder, name: str, timed: Timed) -> None:
    """Put a time, or why there is none, into the report of a cell.

    Raises:
        OutputError: that is not possible.
    """
    path = folder.output / f"{name}.report.json"
    report = Report.from_json(path.read_text(encoding="utf-8"))
    latency, why = timed
    added = tuple(one for one in why if one not in report.warnings)
    report = replace(report, latency=latency, warnings=(*report.warnings, *added))
    folder.replace(path, report.to_json())
    folder.note({"name": name, "timed": " ".join(why)})
