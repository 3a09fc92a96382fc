"""Show progress on stderr: bars on a terminal, a few plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Display
from rich.text import Text

from yqc.progress import Advance, Progress, Silent
from yqc.report.human import clean, clock
from yqc.report.layout import QUIET, make_console, say

_CALM_SECONDS = 2.0
"""Least time between two plain lines; the lines of a compile then fit a screen of a log.

Half of it doubles the lines of short tasks, double leaves tasks of a few seconds without any.
"""


def make_progress(*, quiet: bool = False) -> Progress:
    """Choose how progress is shown: bars on a terminal, lines in a log, nothing if `quiet`."""
    if quiet:
        return Silent()
    console = make_console(stderr=True)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return Bars(console)
    return Lines(sys.stderr)


class Lines:
    """Progress as plain lines: at the start, at quarters, and at the end.

    The start and the end of an outermost task are always written. Lines in between, those of inner
    tasks included, are left out where the last line is younger than two seconds.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._now = now
        self._lock = threading.Lock()
        self._open = 0
        self._written = -_CALM_SECONDS

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Start a task of `total` steps; the context's value advances it by n steps."""
        count = _Count(label, total, started=self._now(), outermost=self._open == 0)
        self._open += 1
        self._write(count, f"0 of {total}", always=count.outermost)
        try:
            yield lambda steps: self._advance(count, steps)
        finally:
            self._open -= 1

    def note(self, message: str) -> None:
        """Write one line."""
        self._stream.write(clean(message) + "\n")
        self._stream.flush()

    def _advance(self, count: "_Count", steps: int) -> None:
        """Count steps, from any thread, and write a line for each quarter."""
        with self._lock:
            before, count.done = count.done, min(count.total, count.done + steps)
            if 4 * count.done // max(1, count.total) == 4 * before // max(1, count.total):
                return
            passed = self._now() - count.started
            how = f"{count.done} of {count.total}, {100 * count.done // count.total} %"
            if count.done == count.total:
                self._write(count, f"{how}, {clock(passed)} in all", always=count.outermost)
            else:
                left = passed * (count.total - count.done) / count.done
                self._write(count, f"{how}, {clock(passed)} so far, {clock(left)} left")

    def _write(self, count: "_Count", how: str, *, always: bool = False) -> None:
        """Write how far a task is, unless a line was written just now."""
        if always or self._now() - self._written >= _CALM_SECONDS:
            self._written = self._now()
            self.note(f"{count.label}: {how}")


@dataclass
class _Count:
    """How far one task is."""

    label: str
    total: int
    started: float
    outermost: bool
    done: int = 0


class Bars:
    """Progress as bars that go when their task is done; notes stay."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._display: Display | None = None

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Start a task of `total` steps; the context's value advances it by n steps."""
        if self._display is None:
            self._display = _display(self._console)
            with self._display:
                try:
                    with self.task(label, total) as advance:
                        yield advance
                finally:
                    self._display = None
            return
        display = self._display
        task = display.add_task(_short(label), total=total)
        try:
            yield lambda steps: display.advance(task, steps)
        finally:
            display.remove_task(task)

    def note(self, message: str) -> None:
        """Write one line above the bars."""
        self._console.print(say(message, QUIET))


class _Times(ProgressColumn):
    """Time that has passed, and time left once it is known."""

    def render(self, task: Task) -> Text:
        """Print both as clocks."""
        passed = clock(task.elapsed or 0)
        if task.time_remaining is None:
            return Text(passed, style=QUIET)
        return Text(f"{passed}, {clock(task.time_remaining)} left", style=QUIET)


def _display(console: Console) -> Display:
    """Rich's live display; it leaves stdout alone, which may be a pipe that expects JSON."""
    return Display(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Times(),
        console=console,
        transient=True,
        redirect_stdout=False,
    )


def _short(label: str, most: int = 24) -> str:
    """A label that leaves room for the bar on a line of 80."""
    shown = clean(label)
    return shown if len(shown) <= most else shown[: most - 2].rstrip() + ".."
