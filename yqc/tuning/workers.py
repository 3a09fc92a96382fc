"""Trials side by side, each process with a session of its own; or one after another, in this one.

A process ends with the one that started it, and leaves interruptions to it.
"""

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yqc.evaluation import count_cores
from yqc.pipeline.registry import Registry
from yqc.settings import Drop
from yqc.tuning.trials import Compiles, Outcome, run_trial

NEEDED = 2 << 30
"""Bytes of memory that a trial is taken to need: a process with PyTorch, and a nano model that is
trained. Half of it fills small machines, double leaves cores idle on them."""
Task = tuple[int, str]
"""Number and pipeline of a trial."""


@dataclass(frozen=True)
class Opening:
    """How a process opens its session; plain values, so that they can be sent to it."""

    open: Callable[..., Compiles]
    """Takes `model`, `registry` and settings by name."""
    model: Any
    choices: dict[str, Any]
    load: tuple[Path, ...] = ()
    """Python files with passes."""

    def __call__(self) -> Compiles:
        """Open it.

        Raises:
            YqcError: the model or the data cannot be read.
        """
        registry = Registry.default()
        for path in self.load:
            registry.load_file(path)
        return self.open(self.model, registry=registry, **self.choices)


@dataclass
class Workers:
    """Runs trials; the first of a group before the others, which begin where it has been."""

    opening: Opening
    drop: Drop
    folder: Path
    """Where the files of trials are written, `NUMBER.onnx`."""
    jobs: int
    session: Compiles | None = None
    """That of this process, where `jobs` is 1."""
    pool: ProcessPoolExecutor | None = field(default=None, init=False)
    again: set[int] = field(default_factory=set, init=False)
    """Trials that are run a second time, their process or another one having been killed."""

    def run(
        self, groups: Sequence[Sequence[Task]], deadline: Callable[[], float]
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of each trial as it ends; none is begun or waited for once time is up.

        Args:
            groups: trials that share their first passes.
            deadline: returns the seconds that are left.
        """
        if self.jobs == 1 and self.session is not None:
            for number, passes in (task for group in groups for task in group):
                if deadline() <= 0:
                    return
                yield number, run_trial(self.session, passes, self.drop, self._file(number))
            return
        yield from self._run_side_by_side([[*group] for group in groups if group], deadline)

    def stop(self) -> None:
        """End the processes, whatever they do."""
        if self.pool is None:
            return
        for process in [*(self.pool._processes or {}).values()]:  # noqa: SLF001  # 3.14 has kill_workers
            process.kill()
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.pool = None

    def _run_side_by_side(
        self, groups: list[list[Task]], deadline: Callable[[], float]
    ) -> Iterator[tuple[int, Outcome]]:
        running: dict[Future[Outcome], tuple[Task, list[Task]]] = {}
        for group in groups:
            self._submit(group, running)
        while running:
            left = deadline()
            timeout = None if math.isinf(left) else max(0.0, left)
            done, _ = wait(running, timeout=timeout, return_when=FIRST_COMPLETED)
            if not done:
                self.stop()
                return
            for future in sorted(done, key=lambda one: running[one][0]):
                (number, passes), rest = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:  # one process has ended, and all trials with it
                    self.stop()
                    if number not in self.again:
                        self.again.add(number)
                        self._submit([(number, passes), *rest], running)
                        continue
                    outcome = Outcome(passes, failed="its process was killed, for want of memory?")
                yield number, outcome
                for task in rest:  # what they share is in the store now
                    self._submit([task], running)

    def _submit(self, group: list[Task], running: dict[Any, tuple[Task, list[Task]]]) -> None:
        """Begin the first trial of a group."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(
                self.jobs,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_open,
                initargs=(self.opening,),
            )
        number, passes = group[0]
        future = self.pool.submit(_run, passes, self.drop, self._file(number))
        running[future] = (group[0], group[1:])

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.onnx"


def choose_jobs(wanted: int | None) -> int:
    """Return how many trials run side by side: as asked, else as cores and memory allow."""
    if wanted is not None:
        return wanted
    cores, free = count_cores(), free_memory()
    return cores if free is None else max(1, min(cores, free // NEEDED))


def free_memory() -> int | None:
    """Return the bytes of memory that are free, None where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


_session: Compiles | None = None


def _open(opening: Opening) -> None:
    """Prepare a process of the pool."""
    global _session  # noqa: PLW0603  # one a process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    _session = opening()


def _run(passes: str, drop: Drop, output: Path) -> Outcome:
    """Run a trial in a process of the pool."""
    if _session is None:
        raise RuntimeError("the process has no session")
    return run_trial(_session, passes, drop, output)
