"""Show progress on stderr: one bar on a terminal, a few plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import Progress as Display
from rich.progress import ProgressColumn
from rich.progress import Task as Shown
from rich.progress_bar import ProgressBar
from rich.text import Text

from yqc.progress import Advance, Progress, Silent, Stage
from yqc.report.estimate import Estimate
from yqc.report.human import clean, clock
from yqc.report.layout import QUIET, make_console, say

_CALM_SECONDS = 2.0
"""Least time between two plain lines; the lines of a compile then fit a screen of a log.

Half of it doubles the lines of short tasks, double leaves tasks of a few seconds without any.
"""
_BEAT = 10.0
"""Seconds after which a log gets a line though nothing new has begun; half of it fills logs, and
double looks as if the work hung."""
_LINES = 60
"""Lines of a log in the whole time so far, at most: work of hours gets a line every few minutes."""


def make_progress(*, quiet: bool = False) -> Progress:
    """Choose how progress is shown: a bar on a terminal, lines in a log, nothing if `quiet`."""
    if quiet:
        return Silent()
    console = make_console(stderr=True)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return Bars(console)
    return Lines(sys.stderr)


class Lines:
    """Progress as plain lines: one for each task that begins, or every ten seconds.

    The start and the end of an outermost task are always written, but for the start of one without
    steps, whose tasks are. A line for a task within another
    one is left out where the last line is younger than two seconds.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now = stream, now
        self._estimate = Estimate(now)
        self._lock = threading.Lock()
        self._written = -_CALM_SECONDS
        self._open = 0

    def expect(self, stages: Sequence[Stage], past: float = 0.0) -> None:
        """Take the stages of what follows."""
        self._estimate.expect(stages, past)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Start a task of `total` steps; the context's value advances it by n steps."""
        outermost, began = self._open == 0, self._now()
        if outermost:
            self._estimate.began = began
        self._open += 1
        ended = threading.Event()
        try:
            with self._estimate.task(label, total) as advance:

                def counted(steps: int) -> None:
                    advance(steps)
                    self._write(_BEAT)

                if total or not outermost:  # else it names what is in it, and may yet be refused
                    self._write(0.0 if outermost else _CALM_SECONDS)
                if outermost:
                    threading.Thread(target=self._beat, args=(ended,), daemon=True).start()
                yield counted
            if outermost:
                self.note(f"{label}: done in {clock(self._now() - began)}")
        finally:
            ended.set()
            self._open -= 1

    def note(self, message: str) -> None:
        """Write one line."""
        self._stream.write(clean(message) + "\n")
        self._stream.flush()

    def _beat(self, ended: threading.Event) -> None:
        """Write lines while the work says nothing, until it has ended."""
        while not ended.wait(1.0):
            self._write(_BEAT)

    def _write(self, calm: float) -> None:
        """Write what runs and how long all will take, unless a line was written just now."""
        with self._lock:
            running, passed = self._estimate.running, self._estimate.elapsed
            calm = max(calm, passed / _LINES) if calm >= _BEAT else calm
            if running is None or self._now() - self._written < calm:
                return
            self._written = self._now()
            left = self._estimate.left()
            times = f"; {clock(passed)} so far" if passed >= 1 else ""
            times += f", {clock(left)} left" if times and left is not None else ""
            self.note(f"{running.describe()}{times}")


class Bars:
    """Progress as one bar, which goes when the work is done; notes stay."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._estimate = Estimate()
        self._open = 0

    def expect(self, stages: Sequence[Stage], past: float = 0.0) -> None:
        """Take the stages of what follows."""
        self._estimate.expect(stages, past)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Start a task of `total` steps; the context's value advances it by n steps."""
        if self._open:
            with self._estimate.task(label, total) as advance:
                yield advance
            return
        self._open += 1
        self._estimate.began = time.monotonic()
        try:
            with self._estimate.task(label, total) as advance, self._display() as display:
                display.add_task("")
                yield advance
        finally:
            self._open -= 1

    def note(self, message: str) -> None:
        """Write one line above the bar."""
        self._console.print(say(message, QUIET))

    def _display(self) -> Display:
        """Rich's live display; it leaves stdout alone, which may be a pipe that expects JSON."""
        return Display(
            *(_Doing(self._estimate), _Bar(self._estimate), _Times(self._estimate)),
            console=self._console,
            transient=True,
            redirect_stdout=False,
        )


class _Doing(ProgressColumn):
    """What runs now, and how far that is."""

    def __init__(self, estimate: Estimate) -> None:
        super().__init__()
        self._estimate = estimate

    def render(self, task: Shown) -> Text:
        running = self._estimate.running
        return Text(_short(running.describe()) if running else "", no_wrap=True)


class _Bar(ProgressColumn):
    """The whole, by time; it moves to and fro while that is not known."""

    def __init__(self, estimate: Estimate) -> None:
        super().__init__()
        self._estimate = estimate

    def render(self, task: Shown) -> ProgressBar:
        known = self._estimate.left() is not None
        return ProgressBar(
            total=1.0 if known else None,
            completed=self._estimate.share(),
            width=18,
            pulse=not known,
        )


class _Times(ProgressColumn):
    """Time that has passed, and time left of the whole once it is known."""

    def __init__(self, estimate: Estimate) -> None:
        super().__init__()
        self._estimate = estimate

    def render(self, task: Shown) -> Text:
        passed, left = clock(self._estimate.elapsed), self._estimate.left()
        return Text(passed if left is None else f"{passed}, {clock(left)} left", style=QUIET)


def _short(label: str, most: int = 34) -> str:
    """A label that leaves room for the bar on a line of 80; its end, the count, stays."""
    shown = clean(label)
    if len(shown) <= most:
        return shown
    words, _, count = shown.rpartition(" ")
    if not count[:1].isdecimal():
        return f"{shown[: most - 2].rstrip()}.."
    return f"{words[: most - len(count) - 3].rstrip()}.. {count}"
