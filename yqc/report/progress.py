"""How far long work has come, on stderr: a bar on a terminal, a few plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Display
from rich.text import Text

from yqc.progress import Advance, Progress, Silent
from yqc.report.human import clean, clock
from yqc.report.layout import QUIET, make_console, say

_CALM_SECONDS = 2.0
"""Plain lines between the first and the last of a task are at least this far apart."""


def make_progress(*, quiet: bool = False) -> Progress:
    """Choose how progress is shown: bars on a terminal, lines in a log, nothing if `quiet`."""
    if quiet:
        return Silent()
    console = make_console(stderr=True)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        return Bars(console)
    return Lines(sys.stderr)


@dataclass
class Lines:
    """Progress as plain lines: at the start, at quarters if they take long, and at the end."""

    stream: TextIO
    now: Callable[[], float] = time.monotonic

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Advance]:
        """Start a task of `total` steps; the context's value advances it by n steps."""
        counter = _Counter(self, clean(label), max(0, total), self.now())
        self.note(f"{label}: 0 of {counter.total}")
        yield counter.advance

    def note(self, message: str) -> None:
        """Write one line."""
        self.stream.write(clean(message) + "\n")
        self.stream.flush()


@dataclass
class _Counter:
    """One task of `Lines`; may be advanced from several threads."""

    lines: Lines
    label: str
    total: int
    started: float
    done: int = 0
    quarter: int = 0
    shown: float = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.shown = self.started

    def advance(self, steps: int) -> None:
        """Count steps; write a line when a quarter is passed and the last line is old enough."""
        with self.lock:
            if self.done == self.total:
                return
            self.done = min(self.total, self.done + steps)
            quarter, now = 4 * self.done // self.total, self.lines.now()
            if self.done == self.total:
                self.write(f"{clock(now - self.started)} in all")
            elif quarter > self.quarter and now - self.shown >= _CALM_SECONDS:
                left = (now - self.started) * (self.total - self.done) / self.done
                self.quarter, self.shown = quarter, now
                self.write(f"{clock(now - self.started)} so far, {clock(left)} left")

    def write(self, times: str) -> None:
        """Write how far the task is."""
        percent = 100 * self.done // self.total
        self.lines.note(f"{self.label}: {self.done} of {self.total}, {percent} %, {times}")


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
    """Time that has passed, and time left once it can be told."""

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
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Times(),
        console=console,
        transient=True,
        redirect_stdout=False,
    )


def _short(label: str, most: int = 26) -> str:
    """A label that leaves room for the bar on a line of 80."""
    shown = clean(label)
    return shown if len(shown) <= most else shown[: most - 2] + ".."
