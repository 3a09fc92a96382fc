"""How many jobs fit into the memory of this machine."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from yqc.evaluation import count_cores
from yqc.report import human
from yqc.settings import SettingError

NEEDED = 2 << 30
"""Bytes of memory that a job is taken to need until one has ended: a process with PyTorch, and a
nano model that is trained. Half of it fills small machines, double leaves cores idle on them."""
LEAST = 400 << 20
"""Bytes that a process with PyTorch takes at least: one that has compiled a net of ten thousand
parameters at 64 px had 440 MB. Half of it admits jobs that never fit, double refuses some that
do."""
CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux says what a container may take (cgroup v2)."""


def total_memory() -> int:
    """Return the bytes of memory that processes here may take together."""
    return min([int(psutil.virtual_memory().total), *_container("memory.max")])


def free_memory() -> int:
    """Return the bytes of memory that processes here may still take."""
    free = int(psutil.virtual_memory().available)
    limit, used = _container("memory.max"), _container("memory.current")
    return min(free, max(0, limit[0] - used[0])) if limit and used else free


def _container(name: str) -> list[int]:
    """Read a number of bytes of this container; nothing outside of one."""
    with contextlib.suppress(OSError, ValueError):
        return [int((CONTAINER / name).read_text("ascii"))]
    return []


def choose_jobs(wanted: int | None) -> int:
    """Return how many jobs run side by side: as asked, else as cores and memory allow.

    Raises:
        SettingError: so many never fit into the memory.
    """
    if wanted is None:
        return max(1, min(count_cores(), free_memory() // NEEDED))
    if wanted < 1:
        raise SettingError("--jobs", "must be 1 or more")
    most = max(1, total_memory() // LEAST)
    if wanted > most:
        least, total = human.byte_count(LEAST), human.byte_count(total_memory())
        raise SettingError(
            "--jobs", f"{wanted} do not fit: each takes {least} or more of {total}; {most} may"
        )
    return wanted


@dataclass
class MemoryWatch:
    """Says whether another job fits beside those that run.

    Each is taken to need what the largest so far needed.
    """

    needed: int = NEEDED
    known: bool = False
    """Whether a job has ended."""

    def learn(self, peak: int) -> None:
        """Take in the most bytes that a process had when its job ended."""
        self.needed = max(self.needed, peak) if self.known else peak
        self.known = True

    def fits(self, running: int, processes: Iterable[int]) -> bool:
        """Return whether one more job fits; the first always does.

        Args:
            running: jobs that run.
            processes: ids of the processes of all jobs, idle ones too, whose memory is theirs.
        """
        if not running:
            return True
        resident = 0
        for process in processes:
            with contextlib.suppress(psutil.Error):
                resident += psutil.Process(process).memory_info().rss
        return self.needed * (running + 1) - resident <= free_memory()


def peak_memory() -> int:
    """Return the most bytes of memory that this process had so far."""
    about = psutil.Process().memory_info()
    peak = getattr(about, "peak_wset", 0)  # Windows
    with contextlib.suppress(ImportError):
        import resource  # noqa: PLC0415  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if psutil.MACOS else 1024)
    return int(max(peak, about.rss))
