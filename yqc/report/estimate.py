"""Estimate how long work will still take: from what its stages should take, and what they took."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from yqc.progress import Advance, Stage

TRUSTED = 0.2
"""Share of a stage from which on its own pace alone counts; before, the foresight counts, too.

First steps are slower or quicker than the mean: with half of it the estimate of rounding weights
swings by a factor of 2, with double a wrong foresight stands for longer.
"""
PRIOR = 1.0
"""Foreseen seconds that are taken to have passed at the foreseen pace before anything was measured.

With half of it the first second decides; with ten, a machine ten times slower is found out late.
"""
COUNTED = 9999
"""Steps above which a share is shown and no count: such steps are amounts of work, not things."""


@dataclass
class Task:
    """A task that has begun."""

    label: str
    total: int
    began: float
    path: str
    """Labels of the tasks that it is in, and its own."""
    done: int = 0

    @property
    def share(self) -> float:
        """Share of the steps that are done."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def describe(self) -> str:
        """Say what runs, and how far it is."""
        if not self.total:
            return self.label
        how = f"{self.done}/{self.total}" if self.total <= COUNTED else f"{self.share:.0%}"
        return f"{self.label} {how}"


class Estimate:
    """Follows tasks from any thread, and says which one runs and how long the whole still takes.

    Without announced stages the whole is the outermost task.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self.began = now, now()
        self._lock = threading.RLock()
        self._open: list[Task] = []
        self._stages: list[Stage] = []
        self._at, self._since = -1, 0.0
        """The stage that runs or ran last, and when it began."""
        self._task: Task | None = None
        """Its task, while that is open."""
        self._spent = self._foreseen = 0.0

    def expect(self, stages: Sequence[Stage], past: float = 0.0) -> None:
        """Take the stages of what follows; `past` were foreseen for what was done until now.

        Those of a work within a stage that was foreseen as a whole say nothing new.
        """
        with self._lock:
            if self._task is not None:
                return
            self._stages, self._at, self._task = list(stages), -1, None
            self._spent, self._foreseen = (self._now() - self.began, past) if past else (0.0, 0.0)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Follow a task of `total` steps."""
        with self._lock:
            path = "/".join([*(one.label for one in self._open), label])
            task = Task(label, total, self._now(), path)
            self._open.append(task)
            self._enter(task)

        def advance(steps: int) -> None:
            with self._lock:
                task.done = min(total, task.done + steps)

        try:
            yield advance
        finally:
            with self._lock:
                if task is self._task:
                    self._leave()
                self._open.remove(task)
                if not self._open:
                    self._stages = []

    def _enter(self, task: Task) -> None:
        """Begin the next stage of that path, if one is to come."""
        coming = range(self._at + 1, len(self._stages))
        path = f"/{task.path}"
        found = next((i for i in coming if path.endswith(f"/{self._stages[i].label}")), None)
        if found is not None:
            self._leave()
            self._at, self._since, self._task = found, self._now(), task

    def _leave(self) -> None:
        """End the stage that runs: what it took is compared with what it should have taken."""
        if self._task is not None and not self._stages[self._at].fixed:
            self._spent += self._now() - self._since
            self._foreseen += self._stages[self._at].seconds
        self._task = None

    @property
    def running(self) -> Task | None:
        """The innermost task."""
        with self._lock:
            return self._open[-1] if self._open else None

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning of the whole."""
        return self._now() - self.began

    def left(self) -> float | None:
        """Return the seconds that the whole will still take; None where that is not known."""
        with self._lock:
            if not self._open:
                return None
            if not self._stages:
                return self._left_of_task(self._open[0])
            pace = (self._spent + PRIOR) / (self._foreseen + PRIOR)
            left = 0.0
            if self._task is not None:
                left, pace = self._left_of_stage(self._stages[self._at], self._task, pace)
            coming = self._stages[self._at + 1 :]
            return left + sum(one.seconds * (1.0 if one.fixed else pace) for one in coming)

    def _left_of_task(self, task: Task) -> float | None:
        """Extrapolate a task that has steps and nothing within it."""
        if not task.done or len(self._open) > 1:
            return None
        return (self._now() - task.began) * (1 - task.share) / task.share

    def _left_of_stage(self, stage: Stage, task: Task, pace: float) -> tuple[float, float]:
        """Return the seconds left of the stage that runs, and the pace that it shows."""
        passed, share = self._now() - self._since, task.share
        whole = max(stage.seconds if stage.fixed else pace * stage.seconds, passed)
        if share:
            trust = min(1.0, share / TRUSTED)
            whole = trust * passed / share + (1 - trust) * whole
        if stage.fixed:
            return whole - passed, pace
        spent = self._spent + PRIOR + share * whole
        return whole - passed, spent / (self._foreseen + PRIOR + share * stage.seconds)

    def share(self) -> float:
        """Return the share of the whole that is done, by time."""
        left = self.left()
        if left is None:
            return 0.0
        return self.elapsed / max(1e-9, self.elapsed + left)
