"""Jobs one after another in this process, or side by side in processes of their own.

A process ends with the one that started it, and leaves interruptions to it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from yqc.workers.jobs import Job, run_job
from yqc.workers.memory import MemoryWatch, peak_memory

T = TypeVar("T")
PATIENCE = 2.0
"""Seconds after which memory is looked at again while a job waits for some. Half of it looks twice
as often, double starts a job later."""
KILLED = "its process was killed, for want of memory?"


@dataclass
class LocalWorkers:
    """Runs jobs on this machine."""

    jobs: int
    """Side by side."""
    session: Any = None
    """That of this process, where `jobs` is 1; None: opened as the jobs ask."""
    memory: MemoryWatch = field(default_factory=MemoryWatch)
    pool: ProcessPoolExecutor | None = field(default=None, init=False)

    def run(
        self, groups: Sequence[Sequence[Job[T]]], deadline: Callable[[], float]
    ) -> Iterator[tuple[Job[T], T]]:
        """Yield the result of each job as it ends; see `Workers`."""
        if self.jobs > 1:
            yield from self._run_side_by_side([[*group] for group in groups if group], deadline)
            return
        for job in (job for group in groups for job in group):
            if deadline() <= 0:
                return
            if self.session is None:
                yield job, run_job(job, job.folder)
            else:
                yield job, job.run(self.session, job.folder)

    def stop(self) -> None:
        """End the processes, whatever they do."""
        if self.pool is None:
            return
        for process in [*(self.pool._processes or {}).values()]:  # noqa: SLF001  # 3.14 has kill_workers
            process.kill()
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.pool = None

    def _run_side_by_side(
        self, waiting: list[list[Job[T]]], deadline: Callable[[], float]
    ) -> Iterator[tuple[Job[T], T]]:
        running: dict[Future[tuple[T, int]], list[Job[T]]] = {}
        alone = set[int]()  # jobs beside which a process was killed, theirs or another one's
        while waiting or running:
            while waiting and len(running) < self.jobs and self._fits(len(running)):
                if running and alone & {id(one[0]) for one in (waiting[0], *running.values())}:
                    break
                group = waiting.pop(0)
                running[self._submit(group[0])] = group
            left = deadline()
            timeout = PATIENCE if waiting and len(running) < self.jobs else left
            done, _ = wait(running, max(0.0, min(left, timeout, 1e6)), FIRST_COMPLETED)
            if not done and deadline() <= 0:
                self.stop()
                return
            ended = [(running.pop(future), future) for future in done]
            for group, future in sorted(ended, key=lambda one: one[0][0].folder):
                job, *rest = group
                try:
                    result, peak = future.result()
                    self.memory.learn(peak)
                except (BrokenProcessPool, CancelledError):
                    self.stop()  # one process has ended, and all jobs with it
                    if id(job) not in alone:
                        alone.add(id(job))
                        waiting.insert(0, group)
                        continue
                    result = job.fail(KILLED)
                yield job, result
                waiting[:0] = [[one] for one in rest]  # what they share is in the store now

    def _fits(self, running: int) -> bool:
        processes = {} if self.pool is None else self.pool._processes or {}  # noqa: SLF001
        return self.memory.fits(running, [*processes])

    def _submit(self, job: Job[T]) -> "Future[tuple[T, int]]":
        if self.pool is None:
            self.pool = ProcessPoolExecutor(
                self.jobs,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_follow_parent,
            )
        try:
            return self.pool.submit(_run, job, job.folder)
        except BrokenProcessPool:  # a process ended just now: what ran in it says so itself
            self.stop()
            return self._submit(job)


def _follow_parent() -> None:
    """Prepare a process of the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _run(job: Job[T], folder: Path) -> tuple[T, int]:
    """Run a job in a process of the pool; return what came of it, and the peak of its memory."""
    return run_job(job, folder), peak_memory()
