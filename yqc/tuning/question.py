"""The question: a budget, a time, a folder; checked before any work."""

import math
from dataclasses import dataclass
from pathlib import Path

from yqc.pipeline import Duration
from yqc.settings import Budget, Drop, SettingError
from yqc.store.folders import check_work_folder
from yqc.targets import find_target
from yqc.tuning.pareto import Prefer
from yqc.workers import choose_jobs

TIME = 1800.0
"""Seconds of a search by default."""
LOSS = "1%"
"""Loss that is allowed where no bound is given."""
SUFFIXES = (".onnx", ".report.json", ".recipe.toml")
"""Endings of the files of a point."""
SEARCH = ".search"
"""Folder of the journal in the output folder."""


@dataclass(frozen=True)
class Question:
    """What `yqc tune` is asked; see `tune`."""

    budget: Budget
    output: Path
    seconds: float | None
    trials: int | None
    prefer: Prefer
    jobs: int
    latency: bool
    measure: str | None
    resume: bool

    @property
    def drop(self) -> Drop:
        """The largest loss; where none is given, losses are counted relatively."""
        return self.budget.drop or Drop(math.inf, relative=True)


def make_question(
    budget: Budget | None = None,
    *,
    output: str | Path = "tuned",
    time: float | str | None = None,
    trials: int | None = None,
    prefer: Prefer | None = None,
    jobs: int | None = None,
    latency: bool = True,
    measure: str | None = None,
    resume: bool = False,
    target: str = "onnxruntime",
) -> Question:
    """Check what is asked, before any work.

    Raises:
        SettingError: parts of it contradict each other.
        OutputError: the output folder holds something else.
    """
    budget = budget or Budget()
    if budget == Budget():
        budget = Budget(max_drop=LOSS)
    runs = measure is not None or find_target(target).runtime is not None
    if not latency and (budget.ms is not None or measure is not None):
        raise SettingError("--no-latency", "contradicts --max-ms and --measure; leave it out")
    wants_speed = budget.ms is not None or prefer == "speed"
    if wants_speed and not (latency and runs):
        why = f"{target} does not run here; give --measure" if latency else "--no-latency is given"
        raise SettingError("--max-ms or --prefer speed", f"needs times, and {why}")
    seconds = read_time(time)
    if trials is not None and trials < 1:
        raise SettingError("--trials", "must be 1 or more")
    only_ms = budget.ms is not None and budget.size is None and budget.drop is None
    return Question(
        budget,
        check_work_folder(Path(output), SEARCH),
        TIME if seconds is None and trials is None else seconds,
        trials,
        prefer or ("speed" if only_ms else "size"),
        choose_jobs(jobs),
        latency and runs,
        measure,
        resume,
    )


def read_time(time: float | str | None) -> float | None:
    """Read the time of a search in seconds, or with a unit: 90, "90s", "20m".

    Raises:
        SettingError: it is none, or not above 0.
    """
    try:
        seconds = Duration.read(time) if isinstance(time, str) else time
    except ValueError as error:
        raise SettingError("--time", f"must be {error}, not {time!r}") from None
    if seconds is not None and seconds <= 0:
        raise SettingError("--time", "must be above 0, such as 30m")
    return seconds


def replace_files(folder: Path, stage: Path) -> None:
    """Move the files of a search in place of those of an earlier one."""
    written = {path.name for path in stage.iterdir()}
    for path in folder.iterdir():
        stem, _, rest = path.name.partition(".")
        if path.name not in written and f".{rest}" in SUFFIXES and stem.isdigit():
            path.unlink()
    for path in sorted(stage.iterdir()):
        path.replace(folder / path.name)
