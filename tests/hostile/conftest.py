"""What hostile files are met with: bounds of time and memory, and no traceback."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

import yqc.commands.views
import yqc.compiler
import yqc.job.files
import yqc.linting  # noqa: F401  # what commands import is no part of their time
from tests.command import Done, Run

SECONDS = 5
WAITING = 12
"""Times as long a command may wait, as it does on a machine that does other things."""
MEMORY = 1 << 30

Bounded = Callable[..., Done]


class TooLongError(BaseException):
    """A command hangs; no `except Exception` catches it."""


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Raise an error after some seconds of the processor, or many more that a command waits."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TooLongError

    timers = (signal.SIGPROF, signal.ITIMER_PROF, 1), (signal.SIGALRM, signal.ITIMER_REAL, WAITING)
    before = [signal.signal(number, ring) for number, _, _ in timers]
    for _, timer, times in timers:
        signal.setitimer(timer, times * seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def memory(peak: bool = False) -> int:
    """Return the bytes that this process holds, or has held since the peak was reset."""
    status = Path("/proc/self/status").read_text()
    key = "VmHWM" if peak else "VmRSS"
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(key)).split()[1])


@pytest.fixture
def bounded(run: Run) -> Bounded:
    """Runs `yqc` with some arguments that must fail or end within bounds of time and memory."""
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is measured by /proc")

    def call(*arguments: object, seconds: int = SECONDS) -> Done:
        Path("/proc/self/clear_refs").write_text("5")
        before = memory()
        with alarm(seconds):
            done = run(*arguments)
        assert memory(peak=True) - before < MEMORY
        assert "Traceback" not in done.err + done.out
        assert "a fault of yqc" not in done.err
        return done

    return call
