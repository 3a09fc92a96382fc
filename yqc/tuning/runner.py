"""The trials of a search as jobs: side by side in processes, or one after another in this one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from yqc.settings import Drop
from yqc.tuning.trials import Compiles, Outcome, run_trial
from yqc.workers import Opening, Workers

Task = tuple[int, str]
"""Number and pipeline of a trial."""


@dataclass(frozen=True)
class TrialJob:
    """One trial, as plain values."""

    number: int
    passes: str
    drop: Drop
    opening: Opening
    folder: Path

    def run(self, session: Compiles, folder: Path) -> Outcome:
        """Run the trial; its file is `NUMBER.onnx`."""
        return run_trial(session, self.passes, self.drop, folder / f"{self.number}.onnx")

    def fail(self, why: str) -> Outcome:
        """Return the outcome of a trial that could not run."""
        return Outcome(self.passes, failed=why)


@dataclass
class TrialRunner:
    """Runs trials; the first of a group before the others, which begin where it has been."""

    workers: Workers
    opening: Opening
    drop: Drop
    folder: Path
    """Where the files of trials are written, `NUMBER.onnx`."""

    def run(
        self, groups: Sequence[Sequence[Task]], deadline: Callable[[], float]
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of each trial as it ends; none is begun or waited for once time is up.

        Args:
            groups: trials that share their first passes.
            deadline: returns the seconds that are left.
        """
        jobs = [
            [TrialJob(*task, self.drop, self.opening, self.folder) for task in group]
            for group in groups
        ]
        for job, outcome in self.workers.run(jobs, deadline):
            yield job.number, outcome  # type: ignore[attr-defined]  # it is one of these jobs
