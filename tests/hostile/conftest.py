"""What hostile files are met with: bounds of time and memory, and no traceback."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from tests.command import Done, Run

SECONDS = 5
MEMORY = 1 << 30

Bounded = Callable[..., Done]


class TooLongError(BaseException):
    """A command hangs; no `except Exception` catches it."""


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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
